"""Layers that run several times: one call, a range of calls, all of them, and the values of another call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toys import untrained


class Steps(nn.Module):
    """Four steps of one block, as a sampler takes them; ``shrink`` runs at two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(5, 6 * 16)
        self.block = nn.Sequential(nn.Conv2d(6, 7, 3, padding=1), nn.SiLU(), nn.Conv2d(7, 6, 3, padding=1))
        self.shrink = nn.AvgPool2d(2)
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.up(z).view(-1, 6, 4, 4)
        for step in range(4):
            x = x + (0.5 + 0.1 * step) * self.block(x)
        x = nn.functional.interpolate(x, scale_factor=2)
        return torch.tanh(self.out(x + nn.functional.interpolate(self.shrink(self.shrink(x)), scale_factor=4)))


@pytest.fixture(scope="module")
def gen() -> cp.GeneratorAdapter:
    return cp.wrap(untrained(Steps), lambda n, rng: torch.randn(n, 5, generator=rng))


@pytest.fixture(scope="module")
def pairs(gen: cp.GeneratorAdapter) -> tuple[Any, Any]:
    return gen.sample(3, seed=0), gen.sample(3, seed=1)


def by_hooks(gen: cp.GeneratorAdapter, z: Tensor, set_to: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Images by a plain hook that may replace the output of each call of the first convolution."""
    calls = iter(range(1, 5))
    handle = gen.module.block[0].register_forward_hook(lambda _m, _i, output: set_to(next(calls), output))
    try:
        with torch.no_grad():
            images: Tensor = gen.module(z.double())
    finally:
        handle.remove()
    return images


def clean(gen: cp.GeneratorAdapter, z: Tensor) -> dict[int, Tensor]:
    seen: dict[int, Tensor] = {}
    by_hooks(gen, z, seen.setdefault)
    return seen


def swapped(gen: cp.GeneratorAdapter, pairs: Any, channels: list[int], taken: dict[int, int]) -> Tensor:
    """By hand: these channels of call k take the source's values of call ``taken[k]``."""
    source = clean(gen, pairs[1])

    def set_to(call: int, output: Tensor) -> Tensor:
        output = output.clone()
        if call in taken:
            output[:, channels] = source[taken[call]][:, channels]
        return output

    return by_hooks(gen, pairs[0], set_to)


def test_layers_that_run_several_times_are_listed(gen: cp.GeneratorAdapter) -> None:
    assert gen.layers["block.0#*"].calls == 4
    assert gen.layers["block.0"] == gen.layers["block.0#*"]
    assert gen.layers["up"].calls == 1
    assert "shrink#*" not in gen.layers  # its calls differ
    assert gen.calls("block.0") == ["block.0#1", "block.0#2", "block.0#3", "block.0#4"]
    assert gen.calls("block.0#2-3") == ["block.0#2", "block.0#3"]
    assert gen.calls("up") == ["up"]
    assert gen.layer("block.0#2-3").calls == 2
    assert "calls" in str(gen.layers)
    with pytest.raises(KeyError):
        gen.layers["other"]


@pytest.mark.parametrize(
    ("layer", "calls"),
    [("block.0#3", [3]), ("block.0#2-3", [2, 3]), ("block.0#1-4", [1, 2, 3, 4]), ("block.0#*", [1, 2, 3, 4])],
)
def test_ranges_equal_plain_hooks(gen: cp.GeneratorAdapter, pairs: Any, layer: str, calls: list[int]) -> None:
    sets = [[c] for c in range(7)] + [[c, (c + 2) % 7] for c in range(7)]  # enough for the fast path
    hybrids = cp.Hybridizer(gen, layer).hybridize(*pairs, units=sets)
    assert str(hybrids.provenance["executor"]).startswith("prepared"), hybrids.provenance["executor"]
    for place, channels in enumerate(sets):
        expected = swapped(gen, pairs, channels, {call: call for call in calls})
        torch.testing.assert_close(hybrids.images[place], expected, rtol=0, atol=1e-10)
        if len(calls) < 4:  # negative control: it is not all of them
            other = swapped(gen, pairs, channels, {call: call for call in (1, 2, 3, 4)})
            assert (hybrids.images[place] - other).abs().max() > 1e-8
    assert [dict(units) for units in hybrids.units[:2]] == [{layer: (0,)}, {layer: (1,)}]


def test_identities_of_a_range(gen: cp.GeneratorAdapter, pairs: Any) -> None:
    z1, z2 = pairs
    hybridizer = cp.Hybridizer(gen, "block.0#*")
    none = hybridizer.hybridize(z1, z2, units={"block.0#*": []})
    assert torch.equal(none.images[0], none.base)
    assert torch.equal(hybridizer.hybridize(z1, z1, units=[0, 1]).images[0], none.base)
    one, by_name = hybridizer.hybridize(z1, z2, units=[4]), {call: [4] for call in gen.calls("block.0")}
    several = cp.Hybridizer(gen, gen.calls("block.0")).hybridize(z1, z2, units=by_name)
    assert torch.equal(one.images, several.images)


def test_overlapping_ranges_set_a_call_once(gen: cp.GeneratorAdapter, pairs: Any) -> None:
    both = cp.Hybridizer(gen, ["block.0#1-3", "block.0#3-4"]).hybridize(
        *pairs, units={"block.0#1-3": [1], "block.0#3-4": [1, 2]}
    )
    source = clean(gen, pairs[1])
    wanted = {1: [1], 2: [1], 3: [1, 2], 4: [1, 2]}

    def set_to(call: int, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, wanted[call]] = source[call][:, wanted[call]]
        return output

    torch.testing.assert_close(both.images[0], by_hooks(gen, pairs[0], set_to), rtol=0, atol=1e-10)


@pytest.mark.parametrize("value", [0.25, "mean"])
def test_assignments_in_ranges(gen: cp.GeneratorAdapter, pairs: Any, value: Any) -> None:
    z1, _ = pairs
    means = {call: output.mean((0, 2, 3)) for call, output in clean(gen, z1).items()}
    hybrids = cp.Hybridizer(gen, "block.0#2-3").intervene(z1, units=[[1], [5]], value=value)

    def set_to(call: int, output: Tensor) -> Tensor:
        output = output.clone()
        if call in (2, 3):
            output[:, 5] = means[call][5] if value == "mean" else value
        return output

    torch.testing.assert_close(hybrids.images[1], by_hooks(gen, z1, set_to), rtol=0, atol=1e-10)


def test_the_values_of_another_call(gen: cp.GeneratorAdapter, pairs: Any) -> None:
    sets = [[c] for c in range(7)] * 2
    hybrids = cp.Hybridizer(gen, "block.0#4").hybridize(*pairs, units=sets, source_call=2)
    torch.testing.assert_close(hybrids.images[3], swapped(gen, pairs, [3], {4: 2}), rtol=0, atol=1e-10)
    assert (hybrids.images[3] - swapped(gen, pairs, [3], {4: 4})).abs().max() > 1e-8  # negative control
    assert hybrids.provenance["intervention"]["source_call"] == 2
    every = cp.Hybridizer(gen, "block.0#*").hybridize(*pairs, units=[3], source_call=1)
    torch.testing.assert_close(
        every.images[0], swapped(gen, pairs, [3], dict.fromkeys((1, 2, 3, 4), 1)), rtol=0, atol=1e-10
    )


def test_maps_by_call(gen: cp.GeneratorAdapter, tmp_path: Any) -> None:
    maps = cp.InfluenceMap(gen, gen.calls("block.0")).attribute(n_pairs=4, seed=0)
    cut = maps.by_call()
    assert cut.shape == (4, 7, 8, 8)
    alone = cp.InfluenceMap(gen, "block.0#3").attribute(n_pairs=4, seed=0)
    torch.testing.assert_close(cut[2], alone.maps, rtol=0, atol=1e-6)
    maps.save(tmp_path / "maps.safetensors")
    assert torch.equal(cp.InfluenceMaps.load(tmp_path / "maps.safetensors").by_call(), cut)
    _, ax = maps.plot_calls()
    mean = ax.containers[-1][0].get_ydata()
    np.testing.assert_allclose(mean, maps.influence.view(4, 7).mean(1), rtol=1e-5)
    whole = cp.InfluenceMap(gen, "block.0#*").attribute(n_pairs=4, seed=0)
    assert whole.maps.shape == (7, 8, 8)
    assert not torch.allclose(whole.maps, cut.sum(0))  # negative control: effects of calls do not add up


@pytest.mark.parametrize(
    ("layers", "units"),
    [
        (["block.0#1", "block.0#2"], [{"block.0#1": [0, 1]}]),
        (["block.0#1", "up"], None),
        (["block.0#1", "block.1#1"], None),
        (["block.0#1", "block.0#2"], [{"block.0#1": [0]}, {"block.0#2": [1]}]),
        ("block.0#*", None),
    ],
)
def test_maps_that_are_not_of_calls(gen: cp.GeneratorAdapter, layers: Any, units: Any) -> None:
    maps = cp.InfluenceMap(gen, layers).attribute(n_pairs=2, seed=0, units=units)
    with pytest.raises(cp.ProbeError, match=r"attribute the units of InfluenceMap\(gen, gen\.calls\(layer\)\)"):
        maps.by_call()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("block.0#3-9", r"runs 4 times in one forward and 'block\.0#3-9' asks for calls 3-9; name #1-4"),
        ("block.0#3-2", "asks for calls 3-2"),
        ("block.0#0-2", "asks for calls 0-2"),
        ("block.0#9", "asks for call '9'; name one of #1 to #4"),
        ("block.0", r"runs 4 times in one forward; name one call as 'block\.0#2'"),
        ("up#1-2", "runs 1 time in one forward and 'up#1-2' asks for calls 1-2"),
        (
            "shrink#*",
            r"the calls of 'shrink#\*' differ: 'shrink#1' gives 6 channels of 4×4 and 'shrink#2' gives 6",
        ),
        ("nothing#*", r"layer 'nothing#\*' is not in this generator"),
    ],
)
def test_ranges_that_are_not_there(gen: cp.GeneratorAdapter, layer: str, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.Hybridizer(gen, layer)


@pytest.mark.parametrize(
    ("layer", "call", "message"),
    [
        ("up", 1, "source_call is 1 and layer 'up' runs once in a forward; leave it out"),
        ("block.0#2", 5, "source_call is 5 and layer 'block.0#2' runs 4 times; give 1 to 4"),
        ("block.0#2", 0, "source_call is 0"),
        ("shrink#1", 2, r"layer 'shrink#2' has 6 channels of \(2, 2\) and 'shrink#1' 6 of \(4, 4\)"),
    ],
)
def test_source_calls_that_do_not_fit(
    gen: cp.GeneratorAdapter, pairs: Any, layer: str, call: int, message: str
) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.Hybridizer(gen, layer).hybridize(*pairs, units=[0], source_call=call)


def test_calls_of_a_range_that_is_not_there(gen: cp.GeneratorAdapter) -> None:
    with pytest.raises(cp.ProbeError, match=r"asks for calls 3-9; name #1-4"):
        gen.calls("block.0#3-9")
