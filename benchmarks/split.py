"""Generic replay against a split by hand of the same model, for each layer of ``dcgan-faces``.

The split is what a careful user would write for this one model: the ``Sequential`` is cut after the layer, the
head runs once on all bases and once on all sources, and the tail runs on batches of the activation with a channel
swapped. It has the same advantages as replay: channels-last activations, batches of the same size with the original
as a row, channels that do not differ left out, and the session with eval mode, inference mode and memory settings.

Replay runs twice: a first call, in which it plans and compares its first batch with full forwards, and another with
the same plan. The set-up is needed once for any number of pairs, so both times are shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from statistics import median
from typing import Any

import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.engine import Checked, Pairs, Replay, Strategy, Stream, Swap
from counterfactual_probe.generator.units import UnitSet

CHANNELS, PAIRS, ROUNDS = 64, 2, 5
TOLERANCE = 1e-5


def stream_of(gen: cp.GeneratorAdapter, replay: Checked, layer: str, chosen: Sequence[int], z: Any) -> Stream:
    base, source = z
    pairs = Pairs(len(base), lambda start, stop: base[start:stop], lambda start, stop: source[start:stop])
    return Stream(gen, Swap([UnitSet({layer: (channel,)}) for channel in chosen]), pairs, executor=replay)


def replay_maps(stream: Stream) -> Tensor:
    total = torch.zeros(len(stream.intervention.sets), *stream.generator.image_size[1:])
    for effect in stream.run():
        total[effect.sets] += effect.maps()
    return total / stream.pairs.n


def split_maps(gen: cp.GeneratorAdapter, layer: str, chosen: Sequence[int], z: Any, most: int) -> Tensor:
    """Maps by the split, with at most ``most`` hybrids per batch."""
    main: Any = gen.module.get_submodule("main")
    cut = int(layer.rpartition(".")[2]) + 1
    head, tail = main[:cut], main[cut:]
    total = torch.zeros(len(chosen), *gen.image_size[1:])
    for base, source in zip(head(z[0]), head(z[1]), strict=True):
        differs = (source != base).flatten(1).any(1).tolist()
        moved = [place for place, channel in enumerate(chosen) if differs[channel]]
        if not moved:
            continue
        size = ceil(len(moved) / ceil(len(moved) / most))
        for start in range(0, len(moved), size):
            places = moved[start : start + size]
            rows, channels = torch.arange(len(places)) + 1, torch.tensor([chosen[place] for place in places])
            batch = base.expand(len(places) + 1, *base.shape).contiguous(memory_format=torch.channels_last)
            batch[rows, channels] = source[channels]
            images = tail(batch)
            total[places] += (images[1:] - images[0]).abs_().mean(1)
    return total / len(z[0])


def layer_row(gen: cp.GeneratorAdapter, layer: str, pairs: int, rounds: int, channels: int) -> dict[str, Any]:
    """Seconds of each round; replay and split take turns at being first."""
    count = gen.layers[layer].channels
    chosen = range(0, count, max(1, ceil(count / channels)))
    z = gen.sample(pairs, seed=0), gen.sample(pairs, seed=1)
    seconds: dict[str, list[float]] = {"plan": [], "first": [], "replay": [], "split": []}
    maps: dict[str, Tensor] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name].append(time.perf_counter() - start)
        return result

    with gen.session():
        for number in range(rounds + 1):
            replay = timed("plan", lambda: Checked(gen, {Strategy.REPLAY: lambda: Replay(gen, [layer])}))
            stream = stream_of(gen, replay, layer, chosen, z)
            timed("first", partial(replay_maps, stream))
            works = {
                "replay": partial(replay_maps, stream),
                "split": partial(split_maps, gen, layer, chosen, z, stream.hybrids_per_eval),
            }
            for name in sorted(works, reverse=bool(number % 2)):
                maps[name] = timed(name, works[name])
            if replay.choice.strategy is not Strategy.REPLAY:
                raise SystemExit(f"replay was not used at {layer}: {replay.choice}")
            gap = float((maps["replay"] - maps["split"]).abs().max())
            if not gap <= TOLERANCE:
                raise SystemExit(f"maps of replay and of the split differ by {gap:.1e} at {layer}")
    kept = {name: values[1:] for name, values in seconds.items()}  # the first round is a warm-up
    about = {"channels": len(chosen), "hybrids_per_eval": stream.hybrids_per_eval, "seconds": kept, "max_abs": gap}
    return about | ratios([kept])


def split_rows(
    gen: cp.GeneratorAdapter, *, pairs: int = PAIRS, rounds: int = ROUNDS, channels: int = CHANNELS
) -> dict[str, Any]:
    """Ratios replay / split, per layer and in total: medians over rounds."""
    layers = {layer: layer_row(gen, layer, pairs, rounds, channels) for layer in gen.layers}
    return {"pairs": pairs, "rounds": rounds, "layers": layers} | ratios([row["seconds"] for row in layers.values()])


def ratios(parts: Sequence[dict[str, list[float]]]) -> dict[str, float]:
    """Ratios of the sums: for hybrids alone, and for the first call including its set-up."""
    plan, first, again, split = (
        [sum(times) for times in zip(*(part[name] for part in parts), strict=True)]
        for name in ("plan", "first", "replay", "split")
    )
    together = [a + b for a, b in zip(plan, first, strict=True)]
    return {
        "ratio": median(a / b for a, b in zip(again, split, strict=True)),
        "first_call_ratio": median(a / b for a, b in zip(together, split, strict=True)),
        "plan_seconds": median(plan),
        "setup_seconds": median(a - b for a, b in zip(together, again, strict=True)),
    }


def line(result: dict[str, Any]) -> str:
    each = ", ".join(f"{layer} {row['ratio']:.2f}" for layer, row in result["layers"].items())
    return (
        "replay against a split by hand: {ratio:.2f} × its time ({each}); setting up once takes {setup_seconds:.2f} s "
        "more, {plan_seconds:.2f} s of it plans"
    ).format(each=each, **result)


if __name__ == "__main__":
    print(line(split_rows(cp.load("dcgan-faces"))))
