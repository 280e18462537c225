"""Pipelines in folders as diffusers writes them: model_index.json, and a folder for each component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from counterfactual_probe.base.errors import ProbeError, first_line, nearest
from counterfactual_probe.base.files import read_json
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.registry.folders import read_object

from .wrapping import wrap_pipeline

INDEX = "model_index.json"
# Where components may come from; diffusers itself would import any package that the file names.
_LIBRARIES = ("diffusers", "transformers")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
# They judge finished images, and are not loaded.
_JUDGES = ("safety_checker", "feature_extractor", "image_encoder")


def load_pipeline(folder: Path, *, device: torch.device | str | None = None, **options: Any) -> GeneratorAdapter:
    """The generator of a pipeline's folder; options as in :func:`wrap_pipeline`.

    Weights are read from safetensors only, and no code from the folder: a component of another library than diffusers
    and transformers, pickled weights and ``auto_map`` entries are refused before anything is loaded.
    """
    kind, components = _checked_index(folder)
    left_out = {name: None for name in _JUDGES if name in components}
    if "safety_checker" in left_out:
        left_out["requires_safety_checker"] = False  # type: ignore[assignment]
    for name in components.keys() - left_out.keys():
        _check_component(folder, name)
    try:
        pipeline = kind.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, trust_remote_code=False, **left_out
        )
    except Exception as error:  # of diffusers, transformers, tokenizers and safetensors
        raise ProbeError(
            f"the pipeline in {folder} cannot be loaded ({type(error).__name__}: {first_line(error)}); write it again "
            "with pipeline.save_pretrained(folder)"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return wrap_pipeline(pipeline, device=device, **{"name": folder.resolve().name} | options)


def _checked_index(folder: Path) -> tuple[Any, dict[str, str]]:
    """The class of the pipeline, and the components with the libraries that they come from."""
    try:
        import diffusers
    except ImportError:
        raise ProbeError(
            f"{folder} holds a pipeline of diffusers, which is not installed; run: pip install "
            "'counterfactual-probe[diffusion]'"
        ) from None

    path = folder / INDEX
    index = read_object(path)
    name = index.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        known = [item for item in dir(diffusers) if item.endswith("Pipeline")]
        raise ProbeError(
            f"{path} names the pipeline {name!r:.80}, which diffusers {diffusers.__version__} does not have (code of a "
            f"repository is not run); nearest: {nearest(str(name), known)}"
        )
    return kind, dict(_components(path, index))


def _components(path: Path, index: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        if not (len(value) == 2 and all(isinstance(item, str) for item in value)):
            raise ProbeError(f"{path} describes {name!r:.80} by {value!r:.80}; write the pipeline again")
        if name in _JUDGES:
            yield name, value[0]
            continue
        if value[0] not in _LIBRARIES or not value[1].isidentifier():
            raise ProbeError(
                f"the component {name!r:.80} of {path.parent} is {value[1]!r:.80} of {value[0]!r:.80}; only those of "
                f"{' and '.join(_LIBRARIES)} are loaded, because others run code of their own"
            )
        if Path(name).name != name:
            raise ProbeError(f"{path} names a component {name!r:.80}, which is no folder's name; write it again")
        yield name, value[0]


def _check_component(folder: Path, name: str) -> None:
    """A ProbeError if a component's weights are pickles, or its configuration points to code."""
    place = folder / name
    if not place.is_dir():
        raise ProbeError(f"{folder} has no folder {name!r}, which its {INDEX} names; fetch the whole repository")
    files = [path for path in place.iterdir() if path.is_file()]
    pickled = sorted(path.name for path in files if path.suffix in _PICKLED)
    if pickled and not any(path.suffix == ".safetensors" for path in files):
        raise ProbeError(
            f"the weights of {place} are {pickled[0]!r}, which can hold code, and no safetensors; convert them with "
            "pipeline.save_pretrained(folder, safe_serialization=True) where you trust them"
        )
    for path in files:
        if path.suffix != ".json" or path.name == "tokenizer.json":
            continue
        try:
            content = read_json(path)
        except ValueError as error:
            raise ProbeError(f"{path} is no JSON ({first_line(error)}); fetch it again") from error
        if isinstance(content, Mapping) and "auto_map" in content:
            raise ProbeError(f"{path} points to code (auto_map), which is not run; load another pipeline")
