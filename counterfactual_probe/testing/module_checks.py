"""Checks of the module itself: other precisions and devices, its hash, results on disk, and that it stays unchanged."""

from __future__ import annotations

import copy
import hashlib
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base.errors import ProbeError, first_line
from ..generator import latents as lt
from ..generator.state.randomness import random_state_kept
from ..influence.influence_map import InfluenceMap
from ..influence.maps import InfluenceMaps
from .bench import Bench, as_skipped, cast, gap
from .outcome import Failed, Skipped

_OTHER_FLOAT, _OTHER_HALF, _OTHER_DEVICE = 1e-3, 0.3, 1e-2  # relative to the images' scale


def other_float(bench: Bench) -> str:
    """A copy in double precision (in single, if the module is in double) gives the same images."""
    dtype = torch.float32 if bench.dtype == torch.float64 else torch.float64
    with as_skipped(
        f"a copy in {_dtype_name(dtype)} does not run, which matters only if you want one; create tensors inside the "
        "forward with the dtype of its input"
    ):
        other = bench.copy(dtype=dtype)
        images = other(cast(bench.z1, dtype), seed=bench.seed)
    allowed = _OTHER_HALF
    if bench.dtype in (torch.float32, torch.float64):
        coarser = torch.finfo(torch.float32).eps / torch.finfo(bench.dtype).eps
        allowed = max(_OTHER_FLOAT, min(4 * bench.sensitivity * coarser, 10 * _OTHER_FLOAT))
    if bench.adapter.draws_noise:
        raise Skipped("the forward draws noise, and other precisions draw other numbers")
    if not (difference := gap(bench.originals[0], images)) <= allowed:
        raise Failed(
            f"images in {_dtype_name(bench.dtype)} and {_dtype_name(dtype)} differ by {difference:.2g} (tolerance "
            f"{allowed:g}): the forward depends on the precision or magnifies rounding; look for casts, sines of large "
            "numbers and differences of large numbers"
        )
    return f"a copy in {_dtype_name(dtype)} gives the same images to {difference:.1g} (tolerance {allowed:g})"


def half(bench: Bench) -> str:
    """A copy in bfloat16 gives similar images, or says why it cannot."""
    if bench.dtype in (torch.bfloat16, torch.float16):
        return f"the generator is in {_dtype_name(bench.dtype)} already"
    try:
        other = bench.copy(dtype=torch.bfloat16)
        images = other(cast(bench.z1, torch.bfloat16), seed=bench.seed)
    except ProbeError as error:
        return f"a copy in bfloat16 does not run and says why: {error}"
    if bench.adapter.draws_noise:
        raise Skipped("the forward draws noise, and other precisions draw other numbers")
    difference = float((bench.originals[0] - images).abs().mean()) / max(float(bench.originals[0].std()), 1e-30)
    if not difference <= _OTHER_HALF:
        raise Failed(
            f"images of a copy in bfloat16 differ by {difference:.2g} standard deviations (tolerance {_OTHER_HALF}); "
            "raise an error in the forward where bfloat16 is too coarse, or compute that part in float32"
        )
    return f"a copy in bfloat16 gives images that differ by {difference:.1g} standard deviations"


def device(bench: Bench) -> str:
    """Images are on the module's device, and the module can be moved to another."""
    adapter = bench.adapter
    image = adapter(bench.z1, seed=bench.seed)
    if image.device != adapter.device:
        raise Failed(
            f"the module is on {adapter.device} and its images on {image.device}; return them on the module's device"
        )
    if torch.cuda.is_available() and adapter.device.type == "cpu":
        return _on_cuda(bench)
    return f"images are on {adapter.device}, as the module is; {_on_meta(bench)}"


def _on_cuda(bench: Bench) -> str:
    other = bench.copy(device="cuda")
    images = other(other.sample(lt.count(bench.z1), seed=bench.seed), seed=bench.seed).cpu()
    if bench.adapter.draws_noise:
        return "a copy runs on CUDA; images are not compared, because its noise differs from that on the CPU"
    if not (difference := gap(images.to(bench.originals[0].dtype), bench.originals[0])) <= _OTHER_DEVICE:
        raise Failed(
            f"images on CUDA and on the CPU differ by {difference:.2g} (tolerance {_OTHER_DEVICE:g}); generate no "
            "random numbers on the device, and store every constant in a buffer"
        )
    return f"a copy on CUDA gives the same images to {difference:.1g} (tolerance {_OTHER_DEVICE:g})"


def _on_meta(bench: Bench) -> str:
    """Move a copy to torch's meta device, which stands in for absent devices: tensors that stay behind raise errors."""
    module = bench.copied_module().eval().to("meta")
    latents = lt.apply(bench.z1, lambda value: value.to("meta"))
    try:
        with torch.no_grad(), random_state_kept(bench.adapter.module):  # of the CPU, which its noise may be from
            if isinstance(latents, dict):
                module(**latents)
            else:
                module(*([latents] if isinstance(latents, Tensor) else latents))
    except Exception as error:
        # These phrases are in torch's own errors.
        if "expected device" in str(error) or "on the same device" in str(error):
            raise Failed(
                f"when the module moves to another device a tensor stays behind ({first_line(error)}); make it a "
                "buffer or a parameter, and create tensors in the forward with device=z.device"
            ) from error
        return "whether it can be moved to another could not be tested, because its forward depends on values"
    return "no tensor stays behind when it moves"


def hash_of_weights(bench: Bench) -> str:
    """The hash that results record is the same for the same weights, and differs for other weights."""
    adapter = bench.adapter
    before = adapter.weights_hash()
    if adapter.weights_hash() != before:
        raise Failed("weights_hash() changes although nothing ran; store no time or counter in a buffer")
    tensors = [*adapter.module.named_parameters(), *adapter.module.named_buffers()]
    if not tensors:
        raise Skipped("the module has no parameter and no buffer, so its hash cannot identify it")
    other = copy.copy(adapter)
    other.module = bench.copied_module()
    name, value = next(((n, v) for n, v in tensors if v.numel()), tensors[0])
    with torch.no_grad():
        changed = dict([*other.module.named_parameters(), *other.module.named_buffers()])[name]
        changed.copy_(value + 1 if value.dtype != torch.bool else ~value)
    if other.weights_hash() == before:
        raise Failed(
            f"weights_hash() stays {before[:8]}… when {name!r} changes; let it read all parameters and buffers, as "
            "GeneratorAdapter does"
        )
    return f"{before[:8]}…, and it changes with {name!r}"


def saved(bench: Bench) -> str:
    """An influence map is unchanged after saving and loading."""
    layer = bench.layers[0]
    units = bench.sets(layer)[:3]
    maps = InfluenceMap(bench.adapter, layer.name).attribute(bench.z1, bench.z2, units=units, seed=bench.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "maps.safetensors"
        try:
            maps.save(path)
        except (TypeError, ValueError) as error:
            raise Failed(
                f"influence maps cannot be saved ({first_line(error)}); give the adapter a name that is a string, and "
                "provenance of strings, numbers and lists"
            ) from error
        back = InfluenceMaps.load(path)
    if not torch.equal(back.maps, maps.maps) or back.units != maps.units or back.provenance != maps.provenance:
        raise Failed("influence maps change when saved and loaded; use only strings, numbers and lists in provenance")
    return f"maps of {len(units)} sets are unchanged after saving and loading"


class Fingerprint:
    """Everything that a run must not change: weights, buffers, modes, hooks, attributes, and random state."""

    def __init__(self, module: nn.Module) -> None:
        self.found: dict[str, Any] = {}
        for name, part in module.named_modules():
            where = f"of {name!r}" if name else "of the module"
            self.found[f"the mode (train or eval) {where}"] = part.training
            hooks = [list(value) for key, value in sorted(part.__dict__.items()) if key.endswith("_hooks")]
            self.found[f"the hooks {where}"] = hooks
            self.found[f"the attributes {where}"] = sorted(part.__dict__)
        for kind, named in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
            for name, value in named:
                self.found[f"{kind} {name!r}"] = lt.fingerprint(value), str(value.device), value.requires_grad
        state = np.random.get_state(legacy=False)["state"]
        self.found["torch's random state"] = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
        self.found["NumPy's random state"] = (state["key"].tobytes(), state["pos"])
        self.found["Python's random state"] = random.getstate()

    def require_same(self, module: nn.Module) -> str:
        after = Fingerprint(module).found
        changed = [what for what, value in self.found.items() if after.get(what) != value]
        if changed or after.keys() != self.found.keys():
            what = changed[0] if changed else sorted(after.keys() - self.found.keys())[0]
            raise Failed(
                f"{what} is not as it was before these checks; let the forward change nothing in place through .data "
                "or a list, and register nothing from outside during a run"
            )
        return "hooks, modes, parameters, buffers, attributes and random states are as they were"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
