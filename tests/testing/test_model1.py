"""Model 1 of S003 and its Proposition 3: modules are found where its conditions hold, and not where they do not."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.modules.features import binary_features
from counterfactual_probe.testing import Model1, check_adapter, random_supports
from support.figures import SavedFigures, cells, column_names, row_names
from support.paths import EXAMPLES

EXAMPLE = str(EXAMPLES / "toy_model.py")
SEEDS = range(50)
united, scattered = (runpy.run_path(EXAMPLE)[name] for name in ("united", "scattered"))  # against (2), against (3)


def found(model: Model1, seed: int, n_modules: int = 3) -> bool:
    """Prop. 3 (2): bits are IM > 0, and NMF of these parts the units."""
    maps = cp.InfluenceMap(model.generator(), "hidden").attribute(n_pairs=1, seed=seed)
    return model.recovered_by(cp.ModuleFinder(n_modules, window=1, percentile=0).fit(maps).labels_)


def test_the_model_is_the_papers() -> None:
    model = Model1.drawn(3, units=4, side=8, seed=2)
    z = model.sample(5, torch.Generator().manual_seed(0))
    assert z.dtype == torch.float64
    for image, latent in zip(model(z), z, strict=True):
        y = torch.zeros(8, 8, dtype=torch.float64)
        for k in range(3):
            for unit in np.flatnonzero(model.truth == k):
                x = model.into[unit] * latent[k]
                y += model.out[unit] * (x if x > 0 else 0.25 * x)
        torch.testing.assert_close(image[0], y, rtol=0, atol=1e-12)
    for unit, k in enumerate(model.truth):
        assert torch.equal(model.out[unit] != 0, model.supports[k])
    assert sorted(model.truth.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert model.truth.tolist() != sorted(model.truth.tolist())  # the order of the units tells nothing
    assert not torch.equal(model.out, Model1.drawn(3, units=4, side=8, seed=3).out)
    low, high = z.min(), z.max()
    assert -1 <= low < 0 < high <= 1


def test_every_promise_of_an_adapter_is_kept() -> None:
    assert check_adapter(Model1.drawn(2, units=3, side=8).generator()).passed


@pytest.mark.parametrize("seed", range(5))
def test_influence_above_zero_is_the_support(seed: int) -> None:
    model = Model1.drawn(4, seed=seed)
    gen = model.generator()
    z1, z2 = gen.sample(1, seed=seed), gen.sample(1, seed=seed, stream=1)
    maps = cp.InfluenceMap(gen, "hidden").attribute(z1, z2)
    assert isinstance(z1, torch.Tensor)
    assert isinstance(z2, torch.Tensor)
    for unit, k in enumerate(model.truth):
        change = model.hidden(model.into[unit] * z2[0, k]) - model.hidden(model.into[unit] * z1[0, k])
        expected = (model.out[unit] * change).abs().float()
        torch.testing.assert_close(maps.maps[unit], expected.detach(), rtol=1e-5, atol=1e-7)
    assert torch.equal(maps.maps > 0, model.supports[model.order])
    bits = binary_features(maps.maps.double().numpy(), 1, 0)
    assert np.array_equal(bits, model.supports[model.order].flatten(1).double().numpy())


def test_modules_are_found_in_50_of_50_seeds() -> None:
    models = [Model1.drawn(3, seed=seed) for seed in SEEDS]
    assert all(model.identifiable for model in models)
    assert sum((model.supports.sum(0) > 1).any().item() for model in models) > 25  # modules overlap in most
    assert [found(model, seed) for seed, model in enumerate(models)] == [True] * len(SEEDS)


@pytest.mark.parametrize("k", [2, 4, 6])
def test_other_numbers_of_modules(k: int) -> None:
    assert all(found(Model1.drawn(k, seed=seed), seed, k) for seed in range(5))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_module_is_its_latent(seed: int) -> None:
    """Prop. 3 (1): hybrids of a module equal images of exchanged latents; those of half a module do not."""
    model = Model1.drawn(3, seed=seed)
    gen = model.generator()
    z1, z2 = gen.sample(4, seed=5), gen.sample(4, seed=6)
    assert isinstance(z1, torch.Tensor)
    assert isinstance(z2, torch.Tensor)
    for k in range(3):
        units = np.flatnonzero(model.truth == k).tolist()
        exchanged = z1.clone()
        exchanged[:, k] = z2[:, k]
        hybrids = cp.Hybridizer(gen, "hidden").hybridize(z1, z2, units=[units, units[:2]])
        assert torch.allclose(hybrids.images[0], gen(exchanged), atol=1e-12)
        assert not torch.allclose(hybrids.images[1], gen(exchanged), atol=1e-3)


def test_modules_without_a_pixel_of_their_own_are_not_always_found() -> None:
    models = [united(seed) for seed in range(20)]
    assert not any(model.identifiable for model in models)
    assert sum(found(model, seed) for seed, model in enumerate(models)) < 16


def test_units_without_a_common_support_are_no_modules() -> None:
    assert not any(found(scattered(seed), seed) for seed in range(10))


def test_recovery_asks_for_the_whole_partition() -> None:
    model = Model1.drawn(3, units=2)
    truth = model.truth
    assert model.recovered_by(truth)
    assert model.recovered_by(2 - truth)  # numbers do not matter
    wrong = truth.copy()
    wrong[0] = (truth[0] + 1) % 3
    assert not model.recovered_by(wrong)
    assert not model.recovered_by(np.minimum(truth, 1))  # two modules joined
    assert not model.recovered_by(np.arange(6))  # all apart
    dead = truth.copy()
    dead[truth == 1] = -1
    assert not model.recovered_by(dead)


def test_what_is_no_model_1_is_refused() -> None:
    discs = random_supports(3, side=8)
    with pytest.raises(cp.ProbeError, match=r"the supports are torch.float32 \(3, 8, 8\); give booleans \(K, H, W\)"):
        Model1(discs.float())
    with pytest.raises(cp.ProbeError, match="module 1 has no pixel to act on; give each at least one"):
        Model1(discs & torch.tensor([True, False, True])[:, None, None])
    with pytest.raises(cp.ProbeError, match="3 modules of 22 units do not fit on 64 pixels; Model 1 has more pixels"):
        Model1(discs, units=22)
    with pytest.raises(cp.ProbeError, match="units is 1; give an integer of at least 2"):
        Model1.drawn(3, units=1)
    with pytest.raises(
        cp.ProbeError, match="30 discs that each have a pixel of their own were not found on 4×4; give a larger"
    ):
        random_supports(30, side=4)


def test_the_example_draws_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.setattr(sys, "argv", [EXAMPLE, "--seeds", "2", "--out", str(tmp_path)])
    runpy.run_path(EXAMPLE, run_name="__main__")
    (ax,) = figure_of(tmp_path / "toy-model.png").axes
    cells(ax, 4, 3, differ=False)  # supports, two maps and the template of each module, which may be the support
    assert column_names(ax) == ["module 1", "module 2", "module 3"]
    assert row_names(ax)[0] == "where it acts"
    counts = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert counts[0] == "2 of 2"
    assert counts[3] == "0 of 2"
