"""Time per hybrid beside plain hooks and nnsight, and what limits it: arithmetic, bandwidth, or a device that waits."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import peers
import samplers
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import counterfactual_probe as cp
from counterfactual_probe.generator.state.arithmetic import tf32_allowed

from .exactness import about, in_type
from .generators import Case, cases
from .kernels import Kernels, kernels_of
from .stage import Bench, Row, Skipped

ROUNDS, SLOW = 3, 20.0  # seconds of a round from which on one must do
_HOOKED = 24  # channels of each layer that hooks and nnsight are timed on; their time is scaled to all
_TYPES = {"float32": torch.float32, "tf32": torch.float32, "bf16-diff": torch.bfloat16}


class Limits:
    """The rates that this device reaches, measured once: products by type, and bytes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._rates: dict[str, float] = {}

    def flops(self, precision: str) -> float:
        """FLOP/s of the best convolution or matrix product in the arithmetic of a precision."""
        if precision not in self._rates:
            dtype = _TYPES.get(precision) or getattr(torch, precision)
            with torch.no_grad(), tf32_allowed(precision == "tf32"):
                self._rates[precision] = max(self._convolution(dtype), self._product(dtype))
        return self._rates[precision]

    def _convolution(self, dtype: torch.dtype) -> float:
        n, width, side = (2, 32, 16) if self.bench.small else (64, 256, 64)
        given: dict[str, Any] = {"device": self.bench.device, "dtype": dtype}
        x = torch.randn(n, width, side, side, **given).to(memory_format=torch.channels_last)
        weight = torch.randn(width, width, 3, 3, **given).to(memory_format=torch.channels_last)
        return 2 * n * side**2 * width**2 * 9 / self._best(lambda: F.conv2d(x, weight, padding=1))

    def _product(self, dtype: torch.dtype) -> float:
        side = 256 if self.bench.small else 8192
        one, two = (torch.randn(side, side, device=self.bench.device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / self._best(lambda: one @ two)

    @property
    def bytes(self) -> float:
        """Bytes/s read and written by a copy that fits no cache."""
        if "bytes" not in self._rates:
            x = torch.empty(2 ** (22 if self.bench.small else 30), dtype=torch.uint8, device=self.bench.device)
            y = torch.empty_like(x)
            self._rates["bytes"] = 2 * x.numel() / self._best(lambda: y.copy_(x))
        return self._rates["bytes"]

    def _best(self, work: Callable[[], Any]) -> float:
        work()
        return min(self.bench.timed(work) for _ in range(2 if self.bench.small else 10))


def limits(bench: Bench) -> Iterator[Row]:
    """The rates that shares are shares of."""
    rates = Limits(bench)
    for precision in ("float32", "tf32", "bfloat16", "float16"):
        if precision == "tf32" and not bench.on_gpu:
            yield {"name": "tf32", "skipped": "no TF32 here"}
            continue
        yield {"name": f"best product, {precision}", "TFLOP/s": rates.flops(precision) / 1e12}
    yield {"name": "copy", "GB/s": rates.bytes / 1e9}


class Work:
    """What hybrids of a layer must compute at least: everything after it, once for each."""

    def __init__(self, gen: cp.GeneratorAdapter, layer: str, z: Any) -> None:
        module, sizes = gen.module, dict[str, int]()
        order: list[str] = []
        handles = []
        for name, part in gen.submodules.items():
            if name and not any(True for _ in part.children()):

                def note(_part: Any, _given: Any, output: Any, name: str = name) -> None:
                    order.append(name)
                    sizes[name] = sizes.get(name, 0) + (output.numel() if isinstance(output, Tensor) else 0)

                handles.append(part.register_forward_hook(note))
        counter = FlopCounterMode(display=False)
        probed = gen.submodules[layer.partition("#")[0]]
        handles.append(probed.register_forward_hook(lambda *_: marks.append((len(order), counter.get_total_flops()))))
        marks: list[tuple[int, int]] = []
        try:
            with torch.inference_mode(), counter:
                module(**z) if isinstance(z, dict) else module(z)
        finally:
            for handle in handles:
                handle.remove()
        number = int(layer.partition("#")[2] or 1)
        after, before = marks[number - 1]
        self.flops = counter.get_total_flops() - before
        # Each value after the layer is written once and read once.
        numbers = sum(sizes[name] / order.count(name) for name in order[after:])
        self.bytes = 2 * 4 * numbers


@dataclass
class Job:
    """What everything that is timed computes: maps of the same channels and pairs.

    Attributes:
        chosen: channels by layer.
        hooks: seconds of hooks, scaled to all channels; None where they could not run.
        maps: those of hooks, of some channels.
    """

    bench: Bench
    gen: cp.GeneratorAdapter
    chosen: dict[str, list[int]]
    latents: Sequence[Any]
    hybrids: int
    hooks: float | None = None
    maps: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def timed(self, seconds: float) -> Row:
        row: Row = {"seconds": seconds, "µs a hybrid": 1e6 * seconds / self.hybrids}
        return row if self.hooks is None else row | {"× hooks": self.hooks / seconds}


def _spread(gen: cp.GeneratorAdapter, layer: str, units: int | None) -> list[int]:
    channels = gen.layers[layer].channels if layer in gen.layers else gen.layer(layer).channels
    most = channels if units is None else min(units, channels)
    return [place * channels // most for place in range(most)]


def of_case(bench: Bench, case: Case, rates: Limits) -> Iterator[Row]:
    """Rows of one generator: hooks, nnsight, and ours in every precision."""
    gen = case.make(bench)
    yield {
        "name": f"[{case.name}]",
        "generator": gen.name,
        "parameters": sum(p.numel() for p in gen.module.parameters()),
    }
    latents = [gen.sample(case.pairs, seed=seed, **dict(case.conditions)) for seed in (0, 1)]
    chosen = {layer: _spread(gen, layer, case.units) for layer in case.layers}
    one = gen.sample(1, **dict(case.conditions))
    works = {layer: Work(gen, layer, one) for layer in case.layers}
    flops = case.pairs * sum(works[layer].flops * len(units) for layer, units in chosen.items())
    moved = case.pairs * sum(works[layer].bytes * len(units) for layer, units in chosen.items())
    job = Job(bench, gen, chosen, latents, case.pairs * sum(map(len, chosen.values())))
    for peer in ("hooks", "nnsight"):
        yield _peer(job, peer)
    for precision in ("float32", "tf32", "bf16-diff", "bfloat16", "float16"):
        row = _ours(job, precision)
        if "skipped" not in row:
            arithmetic = row["precision"] if row["precision"] in _TYPES else precision
            row["share of arithmetic"] = flops / row["seconds"] / rates.flops(arithmetic)
            row["share of bandwidth"] = moved / row["seconds"] / rates.bytes
        yield row


def _peer(job: Job, peer: str) -> Row:
    """Hooks or nnsight on some of the channels, with torch's own settings; scaled to all of them."""
    gen = job.gen
    if peer == "nnsight" and importlib.util.find_spec("nnsight") is None:
        return {"name": peer, "skipped": "nnsight is not installed"}
    if peer == "nnsight" and not all(_is_plain(gen, layer) for layer in job.chosen):
        return {"name": peer, "skipped": "benchmarks/peers.py swaps channels of images in layers that run once"}
    seconds, maps = 0.0, {}
    with torch.no_grad():
        for layer, units in job.chosen.items():
            some = units[:: max(1, len(units) // _HOOKED)]
            try:
                map_of = _maker(gen, layer, peer)(gen.module, layer, *job.latents)
                map_of(some[0])
            except Exception as error:  # a peer may not take such a generator
                return {"name": peer, "skipped": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"}
            found: list[Tensor] = []
            took = job.bench.timed(lambda: found.extend(map_of(channel) for channel in some))  # noqa: B023  # run at once
            seconds += took * len(units) / len(some)
            maps[layer] = dict(zip(some, found, strict=True))
    if peer == "hooks":
        job.hooks, job.maps = seconds, maps
    return {"name": peer, **job.timed(seconds)}


def _is_plain(gen: cp.GeneratorAdapter, layer: str) -> bool:
    return "#" not in layer and gen.layer(layer).is_image


def _maker(gen: cp.GeneratorAdapter, layer: str, peer: str) -> peers.Maker:
    if _is_plain(gen, layer):
        return peers.hooks if peer == "hooks" else peers.nnsight
    return partial(_call_hooks, gen) if "#" in layer else _token_hooks


def _call_hooks(gen: cp.GeneratorAdapter, _: nn.Module, layer: str, z1: Any, z2: Any) -> peers.MapOf:
    """Hooks on one call of a layer that runs several times."""
    number = int(layer.partition("#")[2])
    hooks = samplers.Hooks(gen, range(number, number + 1))
    base = hooks.clean(z1, z2)
    return lambda channel: hooks.maps(z1, base, [channel])[0]


def _token_hooks(module: nn.Module, layer: str, z1: Any, z2: Any) -> peers.MapOf:
    """The same as ``peers.hooks``, for a layer whose channels are the last dimension."""
    part = module.get_submodule(layer)

    def run(z: Any, hook: Callable[..., Any]) -> Tensor:
        handle = part.register_forward_hook(hook)
        image: Tensor = module(z)
        handle.remove()
        return image

    source: list[Tensor] = []
    run(z2, lambda _part, _given, output: source.append(output.clone()))
    base = run(z1, lambda *_: None)

    def map_of(channel: int) -> Tensor:
        def swap(_part: nn.Module, _given: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[..., channel] = source[0][..., channel]
            return output

        return (run(z1, swap) - base).abs().mean((0, 1))

    return map_of


def _ours(job: Job, precision: str) -> Row:
    name, bench, gen, latents = f"ours, {precision}", job.bench, job.gen, job.latents
    if precision in ("bfloat16", "float16"):
        if not isinstance(latents[0], Tensor):
            return {"name": name, "skipped": "its latents are not one tensor, which is cast here"}
        dtype = getattr(torch, precision)
        try:
            gen = in_type(gen, dtype)
        except cp.ProbeError as error:
            return {"name": name, "skipped": str(error)[:100]}
        latents = [latent.to(dtype) for latent in latents]
        precision = "float32"
    elif precision == "tf32" and not bench.on_gpu:
        return {"name": name, "skipped": "no TF32 here"}
    units = [{layer: [channel]} for layer, some in job.chosen.items() for channel in some]
    probe = cp.InfluenceMap(gen, list(job.chosen))

    def run() -> cp.InfluenceMaps:
        return probe.attribute(*latents, units=units, precision=precision)  # type: ignore[arg-type]

    first = bench.timed(run)  # records, and fills caches of kernels
    taken = [bench.timed(run)]
    while len(taken) < (1 if bench.small or taken[0] > SLOW else ROUNDS):
        taken.append(bench.timed(run))
    found = run()
    row: Row = {"name": name, **job.timed(median(taken)), "first": first}
    if job.maps:
        row["off hooks"] = _gap(found, job)
    row |= {"batch": found.provenance["hybrids_per_eval"], **about(found)}
    return row | _shown(kernels_of(bench, run), job.hybrids)


def _shown(kernels: Kernels | None, hybrids: int) -> Row:
    if kernels is None:
        return {"busy": "skipped: no GPU", "kernels a hybrid": "skipped: no GPU"}
    return {"busy": kernels.busy, "kernels a hybrid": kernels.number / hybrids}


def _gap(found: cp.InfluenceMaps, job: Job) -> float:
    """‖ours − hooks‖₂ / ‖hooks‖₂ over the channels that hooks were run on; hooks have TF32 as torch sets it."""
    gap = size = 0.0
    row = 0
    for layer, units in job.chosen.items():
        for channel in units:
            if channel in job.maps[layer]:
                expected = job.maps[layer][channel].double().cpu()
                gap += float((found.maps[row].double() - expected).square().sum())
                size += float(expected.square().sum())
            row += 1
    return (gap / size) ** 0.5 if size else 0.0


def speed(bench: Bench) -> Iterator[Row]:
    """Every generator; one that cannot be made here is named, and so are those for which no time is left."""
    rates, failed = Limits(bench), []
    for case in cases(bench):
        if bench.left < 30 and not bench.small:
            yield {"name": f"[{case.name}]", "skipped": f"{max(0.0, bench.left):.0f} s are left"}
            continue
        try:
            yield from of_case(bench, case, rates)
        except Skipped as skipped:
            yield {"name": f"[{case.name}]", "skipped": str(skipped)}
        except Exception as error:  # of one generator; the others still run
            failed.append(case.name)
            yield {"name": f"[{case.name}]", "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        finally:
            if bench.on_gpu:
                torch.cuda.empty_cache()
    if failed:
        raise RuntimeError(f"{', '.join(failed)}: see the rows")
