"""Weight files, read as tensors only, and loaded into modules with nothing missing and nothing left over."""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..base.display.text import one_line
from ..base.errors import ProbeError, first_line
from ..base.files import read_bytes
from ..base.memory import require_room

M = TypeVar("M", bound=nn.Module)
# Of parallel modules before a name, and of compiled ones before any of its parts.
_PARALLEL, _COMPILED = re.compile(r"(?:module\.)+"), re.compile(r"(?<![^.])_orig_mod\.")
_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # of terminals
_LONGEST_NAME = 120  # characters
_NESTED = ("state_dict", "model", "model_state_dict")
# What stands in the place of weights, by its first bytes, and what to do.
_OTHERS = (
    (b"", "it is empty", "get the file again"),
    (b"version https://git-lfs", "it is a pointer of Git LFS and not the file", "fetch the file, with git lfs pull"),
    (b"<", "it is a web page or XML", "download the file itself"),
    (b"\x1f\x8b", "it is compressed by gzip", "unpack it"),
)


def load_weights(path: Path, sha256: str | None = None) -> Mapping[str, Any]:
    """What ``torch.save`` or safetensors wrote, read as tensors only (``weights_only=True``) onto the CPU.

    Of plain objects beside the tensors only ``argparse.Namespace`` is known, in which training scripts keep options.
    """
    content = read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ProbeError(
            f"{path.name} has SHA-256 {digest[:12]}… and {sha256[:12]}… is expected (truncated or altered file); "
            "reinstall the package that ships it"
        )
    try:
        loaded = safetensors.torch.load(content) if path.suffix == ".safetensors" else _unpickled(content)
    except Exception as error:  # on damaged bytes torch's reader may raise anything
        reason, cure = _other_content(content) or (_reason(error), _cure(error))
        raise ProbeError(f"{path.name} holds no readable weights ({reason}); {cure}") from error
    if not isinstance(loaded, Mapping):
        raise ProbeError(
            f"{path.name} holds a {type(loaded).__name__} and not a state dict; give one of tensors by name"
        )
    for name, value in loaded.items():
        inner = value.items() if isinstance(value, Mapping) and name in _NESTED else [(name, value)]
        for key, each in inner:
            if isinstance(each, Tensor):
                _require_dense(path.name, key, each, len(content))
    return loaded


def _unpickled(content: bytes) -> Any:
    """What torch's reader of tensors gives; the records of its archive are as long as the file has them."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("its records are compressed, as torch.save writes none")
        if sum(record.file_size for record in records) > len(content):
            raise ValueError("its records overlap")
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _other_content(content: bytes) -> tuple[str, str] | None:
    """What a file is that holds something else than weights, and the cure."""
    start = content[:64].lstrip()
    known = ((what, cure) for first, what, cure in _OTHERS if (start.startswith(first) if first else not content))
    return next(known, None)


def _reason(error: BaseException) -> str:
    if refused := _refused(error):
        return f"it asks for {refused}, which is no tensor and might run code"
    told = _CODES.sub("", str(error))
    # Below advice on how to run whatever it holds.
    inside = re.search(r"WeightsUnpickler error:\s*(.{1,200})", told)
    return inside[1] if inside else _CODES.sub("", first_line(error))


def _cure(error: BaseException) -> str:
    if _refused(error):
        return "get a complete, plain file, or save the state dict alone: torch.save(model.state_dict(), path)"
    return "get a complete, plain file"


def _refused(error: BaseException) -> str | None:
    """The global that torch's reader refused, from its message of many lines, some with terminal codes."""
    match = re.search(r"(?:Unsupported global: GLOBAL |Can only load classes from |GLOBAL )([\w.]+)", str(error))
    return match[1] if match else None


def _require_dense(file: str, name: Any, value: Tensor, size: int) -> None:
    """Raise a ProbeError where a tensor is not one number after the other, as many as the file has room for."""
    what = f"{str(name)[:80]!r} in {file}"
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        kinds = {"quantised": value.is_quantized, "meta": value.is_meta, "nested": value.is_nested}
        kind = next((name for name, holds in kinds.items() if holds), str(value.layout).removeprefix("torch."))
        raise ProbeError(f"{what} is a {kind} tensor; save it as a dense one, with .to_dense() or .dequantize()")
    dimensions = 1
    for side in value.shape:
        dimensions *= max(side, 1)
    if dimensions * value.element_size() > size:
        raise ProbeError(
            f"{what} is {tuple(value.shape)}, more than the {size:,} bytes of the file have room for; save it with "
            ".clone(), which writes every number"
        )


def tensors_only(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict's tensors, without what wrappers add to names: ``module.`` and ``_orig_mod.``."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if not isinstance(key, str):
            raise ProbeError(f"the state dict has the key {key!r:.60}, a {type(key).__name__}; give tensors by name")
        bare = _COMPILED.sub("", key)
        name = bare[found.end() :] if (found := _PARALLEL.match(bare)) else bare
        if name in tensors:
            raise ProbeError(f"the state dict holds {name!r} twice, once as {key!r}; give each tensor once")
        tensors[name] = value
    return tensors


def first_names(names: Iterable[str]) -> str:
    """The first of a file's names, which may be of any length and number, for errors."""
    return ", ".join(one_line(name, _LONGEST_NAME) for name in islice(names, 3)) or "none"


def nested_state(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict inside a training script's checkpoint."""
    for key in _NESTED:
        if isinstance(inner := content.get(key), Mapping):
            return inner
    return content


def built(make: Callable[[], M], state: Mapping[str, Tensor], what: str) -> M:
    """The module that ``make`` makes, with every tensor loaded.

    Its shapes are compared before it takes any memory: those in a file may be of any size. The global random state,
    from which its first weights are drawn, stays as it was.
    """
    with torch.device("meta"):
        shell = make()
    require_fit(shell, state, what)
    require_room(sum(value.nbytes for value in shell.state_dict().values()), f"the tensors of {what}")
    with torch.random.fork_rng(devices=[]):
        module = make()
    module.load_state_dict(dict(state), strict=False)
    return module


def require_image(side: int, channels: int, what: str) -> None:
    """Raise a ProbeError where a state dict's layers double maps so often that no memory could hold an image's."""
    require_room(4 * channels * side**2, f"the maps of {what}'s images, {channels} of {side}×{side},")


def load_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load every tensor, or say which are missing, unexpected or of another shape than ``what`` has."""
    require_fit(module, state, what)
    module.load_state_dict(dict(state), strict=False)


def require_fit(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Raise a ProbeError that lists the tensors which are missing, unexpected, of another shape or type."""
    expected = module.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    common = sorted(set(state) & set(expected))
    shaped = [
        f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
        for key in common
        if state[key].shape != expected[key].shape
    ]
    typed = [
        f"{key} {state[key].dtype} for {expected[key].dtype}"
        for key in common
        if state[key].is_complex() != expected[key].is_complex()
        or (expected[key].is_floating_point() and not state[key].is_floating_point())
    ]
    problems = {
        "missing": sorted(set(expected) - set(state) - counters),
        "unexpected": sorted(set(state) - set(expected)),
        "of another shape": shaped,
        "of another type": typed,
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {first_names(keys)}" for kind, keys in problems.items() if keys)
        raise ProbeError(f"the state dict is not that of {what} ({listed}); give a complete one")
