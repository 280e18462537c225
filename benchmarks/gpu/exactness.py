"""How far maps are off, by the type of numbers, the layout, or a recorded graph; and whether they come out the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peers
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.generator.state.arithmetic import tf32_allowed

from .generators import Case, cases
from .stage import Bench, Row, Skipped

UNITS, PAIRS = 16, 4  # more hybrids than the few that always run as whole forwards


def subject(bench: Bench) -> tuple[Case, cp.GeneratorAdapter, str, list[list[int]]]:
    """The first case, its generator, the layer and the channels that the table is made of."""
    case = cases(bench)[0]
    gen = case.make(bench)
    layer = case.layers[-1]
    channels = gen.layers[layer].channels
    return case, gen, layer, [[channel] for channel in range(0, channels, max(1, channels // UNITS))][:UNITS]


@torch.no_grad()
def hooked_maps(module: Any, layer: str, z1: Tensor, z2: Tensor, units: list[list[int]]) -> Tensor:
    map_of = peers.hooks(module, layer, z1, z2)
    return torch.stack([map_of(channel) for (channel,) in units]).cpu()


def off_by(maps: Tensor, reference: Tensor) -> dict[str, float]:
    """Of all maps together, and of the channel that is off most: ‖maps − reference‖₂ / ‖reference‖₂."""
    gap, size = (maps.double().cpu() - reference).flatten(1), reference.flatten(1).norm(dim=1)
    acts = size > 0
    worst = float((gap.norm(dim=1)[acts] / size[acts]).max()) if acts.any() else 0.0
    return {"error": float(gap.norm() / reference.norm()), "worst": worst, "largest": float(gap.abs().max())}


def exactness(bench: Bench) -> Iterator[Row]:
    """Errors against plain hooks in float64, on the same device, of the same pairs and channels."""
    _, gen, layer, units = subject(bench)
    z1, z2 = (gen.sample(PAIRS, seed=seed) for seed in (0, 1))
    assert isinstance(z1, Tensor)
    assert isinstance(z2, Tensor)
    reference = hooked_maps(copy.deepcopy(gen.module).double(), layer, z1.double(), z2.double(), units)
    for allowed in (False, True):
        name = f"hooks, float32, TF32 {'on' if allowed else 'off'}"
        if allowed and not bench.on_gpu:
            yield {"name": name, "skipped": "no TF32 here"}
            continue
        with tf32_allowed(allowed):
            yield {"name": name, **off_by(hooked_maps(gen.module, layer, z1, z2, units), reference)}
    last = copy.deepcopy(gen.module).to(memory_format=torch.channels_last)
    with tf32_allowed(False):
        yield {"name": "hooks, float32, channels-last", **off_by(hooked_maps(last, layer, z1, z2, units), reference)}
    for dtype in (torch.bfloat16, torch.float16):
        half = copy.deepcopy(gen.module).to(dtype)
        maps = hooked_maps(half, layer, z1.to(dtype), z2.to(dtype), units)
        yield {"name": f"hooks, {str(dtype)[6:]}", **off_by(maps, reference)}
    for precision in ("float32", "tf32", "bf16-diff"):
        found = cp.InfluenceMap(gen, layer).attribute(z1, z2, units=units, precision=precision)
        yield {"name": f"ours, {precision}", **off_by(found.maps, reference), **about(found)}
    for dtype in (torch.bfloat16, torch.float16):
        half_gen = in_type(gen, dtype)
        found = cp.InfluenceMap(half_gen, layer).attribute(z1.to(dtype), z2.to(dtype), units=units)
        yield {"name": f"ours, {str(dtype)[6:]}", **off_by(found.maps, reference), **about(found)}


def about(found: cp.InfluenceMaps) -> dict[str, str]:
    """What the library says that it did: it may compute exactly where something else was asked for."""
    return {"precision": found.provenance["precision"], "executor": found.provenance["executor"]}


def in_type(gen: cp.GeneratorAdapter, dtype: torch.dtype) -> cp.GeneratorAdapter:
    """The generator with weights of another type."""
    return cp.wrap(
        copy.deepcopy(gen.module).to(dtype),
        lambda n, rng: torch.randn(n, *gen.example.shape[1:], generator=rng),  # type: ignore[union-attr]
    )


def graphs(bench: Bench) -> Iterator[Row]:
    """A CUDA graph of the plain forward against the forward itself; the library records none of its own."""
    bench.require_gpu("CUDA graphs need a CUDA device")
    _, gen, _, _ = subject(bench)
    z = gen.sample(PAIRS, seed=0)
    assert isinstance(z, Tensor)
    with torch.no_grad(), tf32_allowed(False), _side_stream(bench):
        for _ in range(3):
            gen.module(z)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), tf32_allowed(False):
        with torch.cuda.graph(graph):
            image = gen.module(z)
        other = gen.sample(PAIRS, seed=1)
        assert isinstance(other, Tensor)
        z.copy_(other)
        expected = gen.module(z)
        graph.replay()
        eager, replayed = (bench.timed(lambda: gen.module(z)) for _ in range(2)), bench.timed(graph.replay)
        yield {
            "name": "images of a replayed graph against eager",
            "largest": float((image - expected).abs().max()),
            "eager_ms": 1e3 * min(eager),
            "replayed_ms": 1e3 * replayed,
        }


@contextmanager
def _side_stream(bench: Bench) -> Iterator[None]:
    """As torch asks for before a capture: a warm-up on a stream of its own."""
    stream: Any = torch.cuda.Stream(bench.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(bench.device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(bench.device).wait_stream(stream)


def determinism(bench: Bench) -> Iterator[Row]:
    """The same call twice gives the same bits; another batch size gives the same maps but for rounding."""
    _, gen, layer, units = subject(bench)
    probe = cp.InfluenceMap(gen, layer)

    def maps(batch: int | None = None, precision: Any = "float32") -> Tensor:
        found = probe.attribute(n_pairs=PAIRS, seed=0, units=units, hybrids_per_eval=batch, precision=precision)
        return found.maps

    for precision in ("float32", "tf32", "bf16-diff"):
        same = torch.equal(maps(precision=precision), maps(precision=precision))
        yield {"name": f"the same call twice, {precision}", "same bits": same}
        if not same:
            raise RuntimeError(f"the same call gave other bits in {precision}")
    first = maps()
    for batch in (3, 16, 61):
        yield {"name": f"batches of {batch} against the default", "largest": float((maps(batch) - first).abs().max())}


def sessions(bench: Bench) -> Iterator[Row]:
    """What a call leaves behind: the settings of torch, and the state of the random generators."""
    if not bench.on_gpu:
        raise Skipped(f"the settings and numbers of a GPU; this ran on {bench.device}")
    _, gen, layer, units = subject(bench)
    before = torch.cuda.get_rng_state(bench.device), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    cp.InfluenceMap(gen, layer).attribute(n_pairs=PAIRS, units=units)
    after = torch.cuda.get_rng_state(bench.device), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    yield {"name": "the GPU's random state is as before", "kept": torch.equal(before[0], after[0])}
    yield {"name": "TF32 and determinism are as before", "kept": before[1:] == after[1:]}
    if not (torch.equal(before[0], after[0]) and before[1:] == after[1:]):
        raise RuntimeError("a call changed the caller's settings")
