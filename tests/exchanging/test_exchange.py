"""Cause, isolation and interaction: as the definitions give them in plain loops, and right where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.exchanging.controls import Pool
from counterfactual_probe.exchanging.pilot import PAIRS
from counterfactual_probe.exchanging.ratios import ratio, standard_error
from exchanging.planted import MODULES, SIZES, exchanged, parts
from support.state import fingerprint, global_random
from support.toy_modules import vectors
from support.toys import CONDITIONAL, DROPOUT, NOISY, PLAIN, SKIP_CROSSES, TOKENS, Toy

OTHERS = ~np.eye(3, dtype=bool)
TWO = {"a": {"main.2": [0, 3]}, "b": {"main.2": [1, 2]}}  # of the plain toy


# --- a literal twin -------------------------------------------------------------------------------


def hybrid(gen: cp.GeneratorAdapter, z1: Tensor, z2: Tensor, units: Sequence[int]) -> Tensor:
    """One image, by a hook that overwrites channels."""
    seen: list[Tensor] = []
    hidden = gen.module.hidden
    with torch.no_grad():
        handle = hidden.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
        gen.module(z2)
        handle.remove()

        def overwrite(_m: Any, _i: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, list(units)] = seen[0][:, list(units)]
            return changed

        handle = hidden.register_forward_hook(overwrite)
        image: Tensor = gen.module(z1)[0]
        handle.remove()
    return image.double()


def size_of(change: Tensor) -> Tensor:
    """(H, W) mean |.| over colours."""
    return sum(colour.abs() for colour in change) / len(change)  # type: ignore[return-value]


def cut_in_two(share: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Otsu's rule: of all cuts between two values, that with the largest variance between both parts."""
    best, found = -1.0, share > np.inf
    for level in sorted(set(share))[:-1]:
        above = share > level
        low, high = weight[~above].sum(), weight[above].sum()
        apart = (weight * share)[above].sum() / high - (weight * share)[~above].sum() / low
        if low * high * apart**2 > best:
            best, found = low * high * apart**2, above
    return found


def twin(gen: cp.GeneratorAdapter, sets: Sequence[Sequence[int]], n: int) -> dict[str, np.ndarray]:
    """The definitions in the docstring of ``cp.exchange``, pair by pair."""
    z1, z2 = (gen.sample(PAIRS + n, seed=0, stream=stream) for stream in (0, 1))
    everything, k = range(sum(SIZES)), len(sets)

    def change(pair: int, units: Sequence[int]) -> Tensor:
        base = hybrid(gen, z1[pair : pair + 1], z2[pair : pair + 1], [])
        return hybrid(gen, z1[pair : pair + 1], z2[pair : pair + 1], units) - base

    def mean_map(units: Sequence[int]) -> np.ndarray:
        return sum(size_of(change(pair, units)) for pair in range(PAIRS)).numpy() / PAIRS  # type: ignore[union-attr]

    of_all = mean_map(everything)
    regions = [cut_in_two((mean_map(units) / of_all).ravel(), of_all.ravel()).reshape(8, 8) for units in sets]
    cause, isolation = np.zeros(k), np.zeros(k)
    inside, outside, influence = np.zeros(k), np.zeros(k), np.zeros(k)
    depends, given, joint = np.zeros((3, k, k))
    for pair in range(PAIRS, PAIRS + n):
        w = change(pair, everything)
        for a in range(k):
            d = change(pair, sets[a])
            cause[a] += float(size_of(d - w)[regions[a]].sum())
            inside[a] += float(size_of(w)[regions[a]].sum())
            isolation[a] += float(size_of(d)[~regions[a]].sum())
            outside[a] += float(size_of(w)[~regions[a]].sum())
            influence[a] += float(size_of(d).sum())
        for a, b in combinations(range(k), 2):
            d_a, d_b, d_ab = change(pair, sets[a]), change(pair, sets[b]), change(pair, [*sets[a], *sets[b]])
            for one, other, of_one, of_other in ((a, b, d_a, d_b), (b, a, d_b, d_a)):
                depends[one, other] += float(size_of(d_ab - d_a - d_b).sum())
                given[one, other] += float((size_of(d_ab - of_other) + size_of(of_one)).sum())
                joint[one, other] += float(size_of(d_ab).sum())
    with np.errstate(invalid="ignore"):
        return {
            "cause": 1 - cause / inside,
            "isolation": 1 - isolation / outside,
            "influence": influence / n / 64,
            "interaction": depends / given,
            "joint": np.where(OTHERS, joint / (influence[:, None] + influence), np.nan),
            "regions": np.stack(regions),
        }


def test_every_number_is_that_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    gen, random = parts("mixed"), [[[0, 9, 23], [1, 2, 3, 4], [5, 12]], [[20, 21], [3, 11, 19], [0, 1, 2]]]
    sets = [[{"hidden": units} for units in group] for group in random]
    dealt = [[cp.UnitSet({"hidden": tuple(units["hidden"])}) for units in group] for group in sets]
    monkeypatch.setattr(Pool, "deals", lambda _self, controls, *_: dealt[:controls])
    found = exchanged(gen, n_pairs=4, controls=2)
    expected = twin(gen, [units["hidden"] for units in MODULES.values()], 4)
    assert (found.regions == expected.pop("regions")).all()
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-9, err_msg=name)
    for control, group in enumerate(random):
        expected = twin(gen, group, 4)
        for name in ("cause", "isolation", "influence", "interaction", "joint"):
            for kind in range(2):
                np.testing.assert_allclose(
                    getattr(found, f"random_{name}")[kind, control], expected[name], rtol=1e-9, err_msg=name
                )


def test_standard_errors_are_the_spread_of_ratios() -> None:
    rng = np.random.default_rng(0)
    below = np.exp(rng.normal(0, 0.6, (4000, 64)))
    above = below * rng.uniform(0.2, 0.8, (4000, 64)) + 0.1 * np.exp(rng.normal(0, 0.6, (4000, 64)))
    values, errors = np.array([(one.value, one.standard_error) for one in map(ratio, above, below)]).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.05)
    truth = above.mean() / below.mean()
    assert 0.92 < (np.abs(values - truth) < 2 * errors).mean() < 0.97
    both = [
        standard_error(ratio(a, b).deviations - ratio(a, b).deviations) for a, b in zip(above[:5], below, strict=False)
    ]
    assert both == [0] * 5  # what moves together adds no error to a difference


# --- known truth ----------------------------------------------------------------------------------


def test_parts_of_the_image_are_found_perfect() -> None:
    found = exchanged(parts(), controls=39, n_pairs=16)
    for name in ("cause", "isolation", "separation"):
        np.testing.assert_allclose(getattr(found, name), 1, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(getattr(found.standard_error, name), 0, atol=1e-12)
    assert (found.p_values.separation == 1 / 40).all()
    assert (found.p_values.cause == 1 / 40).all()
    np.testing.assert_allclose(found.interaction[OTHERS], 0, atol=1e-12)
    np.testing.assert_allclose(found.joint[OTHERS], 1, atol=1e-12)
    assert [region.mean() for region in found.regions] == [2 / 8, 3 / 8, 3 / 8]
    assert (found.random_separation < 0.9).all()
    assert found.warning() == ""
    assert found.provenance["reach"] == pytest.approx(1)


def test_random_groups_of_the_same_channels_are_no_parts() -> None:
    order = np.random.default_rng(1).permutation(24)
    groups = {name: {"hidden": some.tolist()} for name, some in zip("abc", np.split(order, [10, 18]), strict=True)}
    found = exchanged(parts(), groups, controls=39, n_pairs=16)
    assert (found.separation < 0.5).all()
    assert (found.p_values.separation > 0.05).any()
    assert "no more separate than random channels" in found.warning()
    np.testing.assert_allclose(found.interaction[OTHERS], 0, atol=1e-12)  # a linear image adds everything up


def test_what_depends_on_everything_is_entangled() -> None:
    found = exchanged(parts("mixed"), controls=39, n_pairs=16)
    assert (found.separation < 0.2).all()
    assert (found.interaction[OTHERS] > 0.2).all()
    assert (found.joint[OTHERS] < 0.9).all()
    assert (found.p_values.separation > 0.05).sum() >= 2


def test_a_product_interacts() -> None:
    found = exchanged(parts("product"))
    assert (found.interaction[OTHERS] > 0.2).all()
    assert (found.separation < 0.3).all()


def test_all_units_are_the_source_and_have_no_separation() -> None:
    found = exchanged(parts("mixed"), {"all": {"hidden": list(range(24))}})
    assert found.regions.shape == (1, 8, 8)
    assert not found.regions.any()  # nowhere is its share larger than elsewhere
    assert np.isnan(found.cause[0])
    assert found.isolation[0] == pytest.approx(0)


# --- any generator, any batch ----------------------------------------------------------------------


@pytest.mark.parametrize("toy", [PLAIN, CONDITIONAL, NOISY, DROPOUT, SKIP_CROSSES], ids=lambda toy: toy.name)
def test_every_kind_of_generator(toy: Toy) -> None:
    gen = toy.generator()
    modules = {"a": {toy.layer: [0, 3]}, "b": {toy.layer: [1, 2]}}
    before = fingerprint(gen.module), global_random()
    found = exchanged(gen, modules, n_pairs=5, controls=3, images=2, steps=2)
    assert (fingerprint(gen.module), global_random()) == before
    assert np.isfinite(found.isolation).all()
    assert found.faithfulness is not None
    assert ((found.faithfulness >= 0) & (found.faithfulness <= 1)).all()
    again = exchanged(gen, modules, n_pairs=5, controls=3, images=2, steps=2, hybrids_per_eval=2)
    np.testing.assert_allclose(again.cause, found.cause, atol=1e-9)
    np.testing.assert_allclose(again.interaction, found.interaction, atol=1e-9)
    np.testing.assert_allclose(again.random_isolation, found.random_isolation, atol=1e-9)


def test_fast_and_whole_forwards_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = PLAIN.generator()
    fast = exchanged(gen, TWO, controls=4)
    from counterfactual_probe.engine import executors

    def whole(generator: Any, *_: Any, **__: Any) -> Any:
        return executors.FullForward(generator)

    monkeypatch.setattr("counterfactual_probe.engine.stream.executor_for", whole)
    plain = exchanged(gen, TWO, controls=4)
    for name in ("cause", "isolation", "interaction", "joint", "random_cause", "random_interaction"):
        np.testing.assert_allclose(getattr(fast, name), getattr(plain, name), atol=1e-9, err_msg=name)


def test_modules_over_several_layers() -> None:
    gen = PLAIN.generator()
    one, two = list(gen.layers)[:2]
    modules = {"early": {one: [0, 1]}, "late": {two: [0]}, "both": {one: [2], two: [1, 2]}}
    found = exchanged(gen, modules, n_pairs=4, controls=3)
    assert found.provenance["layers"] == sorted([one, two])
    z1, z2 = (gen.sample(4, seed=0, stream=stream, start=PAIRS) for stream in (0, 1))
    hybrids = cp.Hybridizer(gen, [one, two]).hybridize(z1, z2, units=list(modules.values()))
    changes = (hybrids.images - hybrids.base).abs().mean((1, 2, 3, 4))
    np.testing.assert_allclose(found.influence, changes, rtol=1e-9)


def test_tokens_are_units_too() -> None:
    gen = TOKENS.generator()
    modules = [cp.UnitSet({TOKENS.layer: (0,)}, "one", "token"), cp.UnitSet({TOKENS.layer: (1, 2)}, "two", "token")]
    found = exchanged(gen, modules, n_pairs=3)
    assert found.provenance["axis"] == "token"
    assert [item.kind for item in found.units] == ["token", "token"]


def test_a_finder_is_taken_and_the_seed_decides() -> None:
    gen = PLAIN.generator()
    finder = cp.ModuleFinder(2).fit(cp.InfluenceMap(gen, "main.2").attribute(n_pairs=8))
    found = exchanged(gen, finder)
    assert found.names == ["module 1", "module 2"]
    assert str(exchanged(gen, finder)) == str(found)
    assert (exchanged(gen, finder, seed=1).cause != found.cause).all()


# --- bad input -------------------------------------------------------------------------------------


class Dead(torch.nn.Module):
    """Six channels, of which the image shows two."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(4, 6)
        self.weight = weight

    def forward(self, z: Tensor) -> Tensor:
        shown = self.weight * self.hidden(z)[:, :2] + (1 - self.weight) * z[:, :2]
        return shown.repeat(1, 24).view(-1, 3, 4, 4)


def dead(weight: float = 1.0) -> cp.GeneratorAdapter:
    sampler = vectors(4, torch.float32)
    return cp.wrap(Dead(weight), sampler, layers="hidden", image_range=(-9, 9), name="dead")


@pytest.mark.parametrize(
    ("modules", "options", "sentence"),
    [
        (MODULES, {"n_pairs": 1}, "n_pairs is 1, and one pair has no standard error; give at least 2"),
        ({"a": {"hidden": []}}, {}, "module 'a' has no units; leave it out"),
        ({"a": {"hidden": [0]}, "b": {"hidden": [1, 0]}}, {}, "'a' and 'b' share channel 0 of layer 'hidden'"),
        ([{"a": {"hidden": [0]}}, {"a": {"hidden": [1]}}], {}, "two modules are called 'a'"),
        ({"a": {"hidden": [99]}}, {}, "channel 99 asked of layer 'hidden', which has 24"),
        ({"a": {"hidden": list(range(24))}}, {"controls": 3}, r"of 24 channels .* only 0 others"),
        ({"a": {"hidden": [0]}}, {"controls": 24}, r"only 23 others .*; give controls=23 or fewer"),
        (MODULES, {"controls": -1}, "controls is -1"),
        (MODULES, {"encoder": 3}, "encoder is 3; give a function from images to latents"),
        ([], {}, "modules is empty"),
    ],
)
def test_bad_arguments(modules: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        exchanged(parts(), modules, **options)


def test_units_that_change_nothing() -> None:
    with pytest.raises(cp.ProbeError, match="no unit of layer hidden changes the image; choose another layer"):
        exchanged(dead(0.0), {"a": {"hidden": [0]}})
    with pytest.raises(cp.ProbeError, match="module 'b' changes nothing, in 32 pairs; leave it out"):
        exchanged(dead(), {"a": {"hidden": [0]}, "b": {"hidden": [3, 4]}})
    with pytest.raises(cp.ProbeError, match=r"of 2 channels that change anything only 1 others"):
        exchanged(dead(), {"a": {"hidden": [0]}, "b": {"hidden": [1]}}, controls=5)


def test_modules_of_different_kinds() -> None:
    modules = [cp.UnitSet({"main.2": (0,)}, "a"), cp.UnitSet({"main.2": (1,)}, "b", "token")]
    with pytest.raises(cp.ProbeError, match="module 'a' is of channels and 'b' of tokens"):
        exchanged(PLAIN.generator(), modules)
