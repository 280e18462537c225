"""What hybrids change in its principal components, and modules of channels that do alike wherever in the image."""

from __future__ import annotations

import dataclasses
import math
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.influence.components import RESAMPLES
from exchanging.planted import parts
from support import twins
from support.toys import PLAIN

N, Q = 11, 5
SETS = [{PLAIN.layer: [0]}, {PLAIN.layer: [1, 3]}, {PLAIN.layer: [2]}]


def attribute(plain: cp.GeneratorAdapter, **options: Any) -> cp.InfluenceMaps:
    return cp.InfluenceMap(plain, PLAIN.layer).attribute(
        units=SETS, **{"seed": 5, "n_pairs": N, "components": Q, **options}
    )


def unit_changes(plain: cp.GeneratorAdapter, n: int = N) -> Tensor:
    """(sets, pairs, pixels and colours), one literal float64 hybrid at a time."""
    z1, z2 = plain.sample(n, seed=5), plain.sample(n, seed=5, stream=1)
    changes = (twins.hybrids(PLAIN, z1, z2, SETS) - twins.images(PLAIN, z1)).flatten(2)
    return changes / changes.norm(dim=2, keepdim=True)


def test_energy_is_the_share_of_a_change_in_each_component(plain: cp.GeneratorAdapter) -> None:
    found = attribute(plain, blocks=3)
    assert found.components is not None
    assert found.energy is not None
    assert found.energy_block_sums is not None
    basis = found.components.flatten(1).double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(Q, dtype=torch.float64), rtol=0, atol=1e-5)
    shares = (unit_changes(plain) @ basis.T).square()
    torch.testing.assert_close(found.energy.double(), shares.mean(1), rtol=1e-4, atol=1e-6)
    for block in range(3):
        expected = shares[:, block::3].sum(1)
        torch.testing.assert_close(found.energy_block_sums[:, block].double(), expected, rtol=1e-4, atol=1e-6)
    assert (found.energy.sum(1) <= 1).all()
    assert (found.energy.std(0) > 1e-3).any(), "sets must differ to mean anything"
    assert found.provenance["components"] == Q


def test_components_are_the_leading_ones(plain: cp.GeneratorAdapter) -> None:
    """The span of the first right singular vectors of all changes, which leaves less out than any other."""
    found = attribute(plain).components
    assert found is not None
    changes = unit_changes(plain).flatten(0, 1)
    exact = torch.linalg.svd(changes, full_matrices=False).Vh[:Q]
    cosines = torch.linalg.svdvals(found.flatten(1).double() @ exact.T)
    assert cosines.min() > 0.999
    other = torch.linalg.qr(torch.randn(changes.shape[1], Q, dtype=torch.float64)).Q.T
    assert torch.linalg.svdvals(other @ exact.T).min() < 0.9, "the measure must be able to fail"


def test_smaller_maps_have_components_of_their_size(plain: cp.GeneratorAdapter) -> None:
    found = attribute(plain, map_size=8)
    assert found.components is not None
    assert found.components.shape == (Q, 3, 8, 8)


def test_pairs_that_change_nothing_have_no_share(plain: cp.GeneratorAdapter) -> None:
    z1, z2 = plain.sample(6, seed=0), plain.sample(6, seed=1)
    given = attribute(plain).components
    alive = cp.InfluenceMap(plain, PLAIN.layer).attribute(z1[:4], z2[:4], units=SETS, components=given)
    z2[4:] = z1[4:]
    found = cp.InfluenceMap(plain, PLAIN.layer).attribute(z1, z2, units=SETS, components=given)
    assert found.zero_maps.tolist() == [2, 2, 2]
    torch.testing.assert_close(found.energy, alive.energy)


@pytest.mark.parametrize("hybrids_per_eval", [1, 4])
def test_batches_change_no_energy(plain: cp.GeneratorAdapter, hybrids_per_eval: int) -> None:
    one = attribute(plain)
    two = attribute(plain, components=one.components, hybrids_per_eval=hybrids_per_eval)
    torch.testing.assert_close(one.energy, two.energy, rtol=0, atol=1e-5)


def test_energies_go_through_a_checkpoint_and_a_file(plain: cp.GeneratorAdapter, tmp_path: Path) -> None:
    found = attribute(plain, blocks=3, checkpoint=tmp_path / "progress")
    again = attribute(plain, blocks=3, checkpoint=tmp_path / "progress")
    loaded = cp.InfluenceMaps.load(found.save(tmp_path / "maps"))
    for other in (again, loaded):
        for name in ("components", "energy", "energy_block_sums", "resampled_energy_block_sums"):
            assert torch.equal(getattr(other, name), getattr(found, name))
    with pytest.raises(cp.ProbeError, match="components"):
        attribute(plain, blocks=3, components=4, checkpoint=tmp_path / "progress")


def test_maps_that_grow_keep_their_components(plain: cp.GeneratorAdapter) -> None:
    seen = list(cp.InfluenceMap(plain, PLAIN.layer).growing(12, seed=5, blocks=3, units=SETS, components=Q))
    assert torch.equal(seen[0].components, seen[1].components)  # type: ignore[arg-type]
    whole = attribute(plain, n_pairs=12, blocks=3, components=seen[0].all_components)
    for name in ("energy", "energy_block_sums", "resampled_energy_block_sums"):
        torch.testing.assert_close(getattr(seen[1], name), getattr(whole, name), rtol=1e-4, atol=1e-6)
    with pytest.raises(cp.ProbeError, match="differ in their components"):
        attribute(plain).pooled(attribute(plain, seed=6))


@pytest.mark.parametrize(
    ("components", "sentence"),
    [
        (0, "components is 0; give an integer of at least 1"),
        (34, r"34 components asked of 33 changes, of 11 pairs and 3 unit sets; ask for at most 33"),
        (torch.zeros(2, 3, 8, 8), r"shape \(2, 3, 8, 8\) and changes are \(3, 16, 16\)"),
        (torch.zeros(2, 3), r"shape \(2, 3\)"),
    ],
)
def test_components_that_cannot_be(plain: cp.GeneratorAdapter, components: Any, sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        attribute(plain, components=components)


# --- modules of them --------------------------------------------------------------------------------------------


class Waves(nn.Module):
    """Channels make waves along x or along y, at a phase of the latent's own: alike in kind, and nowhere at home."""

    def __init__(self, each: int = 6, side: int = 16) -> None:
        super().__init__()
        self.act = nn.LeakyReLU(0.5)
        self.each = each
        self.register_buffer("angle", 2 * math.pi * torch.arange(side) / side)

    def forward(self, z: Tensor) -> Tensor:
        strength, phase = self.act(z[:, :-1]), 2 * math.pi * z[:, -1:]
        wave = torch.cos(2 * self.angle[None] + phase)[:, None]  # (n, 1, side)
        along_x, along_y = (part.sum(1)[:, None, None, None] for part in strength.split(self.each, 1))
        return along_x * wave[:, :, None, :] + along_y * wave[:, :, :, None]


TRUTH = np.repeat([0, 1], 6)


@pytest.fixture
def waves() -> cp.GeneratorAdapter:
    def sample(n: int, rng: torch.Generator) -> Tensor:
        return torch.cat([torch.randn(n, 12, generator=rng), torch.rand(n, 1, generator=rng)], 1)

    return cp.wrap(Waves().eval(), sample, image_range=(-10, 10))


def test_channels_that_do_alike_are_found_where_maps_say_nothing(waves: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(waves, "act").attribute(n_pairs=200, blocks=20, normalise="pair", components=4, seed=5)
    finder = cp.ModuleFinder(2, features="pca").fit(maps)
    assert adjusted_rand_score(TRUTH, finder.labels_) == 1
    assert finder.expected_ari_ > 0.6  # halves of the pairs have other components; no other sample of these does worse
    assert (finder.confidence_ > 0.8).all()
    by_place = cp.ModuleFinder(2).fit(maps)
    assert adjusted_rand_score(TRUTH, by_place.labels_) < 0.5, "the maps must not tell, for this to mean anything"


def test_templates_of_components_are_images(waves: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(waves, "act").attribute(n_pairs=40, components=4)
    finder = cp.ModuleFinder(2, features="pca").fit(maps)
    assert finder.templates_.shape == (2, 16, 16)
    np.testing.assert_allclose(np.linalg.norm(finder.templates_, axis=(1, 2)), 1, atol=1e-6)
    assert finder.provenance_["features"] == "pca"


def test_samples_are_compared_in_the_same_components_and_in_their_own(waves: cp.GeneratorAdapter) -> None:
    influence = cp.InfluenceMap(waves, "act")
    one, own = (influence.attribute(n_pairs=40, seed=seed, components=4) for seed in (0, 1))
    finder = cp.ModuleFinder(2, features="pca").fit(one)
    same = influence.attribute(n_pairs=40, seed=1, components=one.components)
    for other in (same, own):
        found = finder.stability(one, other=other, n_modules=2, repetitions=0)
        assert found.ari is not None
        assert found.draw_cosine is not None
        assert found.ari[0] == 1
        # Energies in components of their own are of other things.
        assert (found.draw_cosine[0] > 0.9) if other is same else np.isnan(found.draw_cosine[0])


def test_components_of_resampled_pairs(plain: cp.GeneratorAdapter) -> None:
    found = attribute(plain, blocks=3)
    assert found.resampled_components is not None
    assert found.resampled_energy_block_sums is not None
    assert found.resampled_energy_block_sums.shape == (3, 3, RESAMPLES, Q)
    changes = unit_changes(plain)
    for resample, components in enumerate(found.resampled_components):
        basis = components.flatten(1).double()
        torch.testing.assert_close(basis @ basis.T, torch.eye(Q, dtype=torch.float64), rtol=0, atol=1e-5)
        shares = (changes @ basis.T).square()
        for block in range(3):
            sums = found.resampled_energy_block_sums[:, block, resample].double()
            torch.testing.assert_close(sums, shares[:, block::3].sum(1), rtol=1e-4, atol=1e-6)
        other = found.components if not resample else found.resampled_components[resample - 1]
        assert other is not None
        assert torch.linalg.svdvals(basis @ other.flatten(1).double().T).min() < 0.99  # of other pairs
    assert attribute(plain).resampled_components is None
    given = attribute(plain, blocks=3, components=found.components)
    assert given.resampled_energy_block_sums is None
    assert found.without_blocks().resampled_energy_block_sums is None


def test_modules_of_components_need_them(waves: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(waves, "act").attribute(n_pairs=8)
    for given in (maps, maps.maps.numpy()):
        with pytest.raises(cp.ProbeError, match=r"features='pca' .* attribute\(\.\.\., components=64\)"):
            cp.ModuleFinder(2, features="pca").fit(given)


def test_fit_until_makes_components_and_keeps_them(waves: cp.GeneratorAdapter) -> None:
    finder = cp.ModuleFinder(2, features="pca").fit_until(
        cp.InfluenceMap(waves, "act"), expected_ari=0.9, max_pairs=256, blocks=8, components=4
    )
    assert adjusted_rand_score(TRUTH, finder.labels_) == 1
    assert "pairs were enough" in finder.stopped_


def test_the_expected_agreement_is_that_of_samples_with_components_of_their_own() -> None:
    """A simulation: six samples of a generator in which twelve pairs say little about its components."""
    gen, influence_of = parts("mixed", own=False, dtype=torch.float32), {"n_pairs": 12, "blocks": 6, "components": 8}
    samples = [cp.InfluenceMap(gen, "hidden").attribute(seed=seed, **influence_of) for seed in range(6)]
    given = [dataclasses.replace(maps, resampled_energy_block_sums=None) for maps in samples]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they do not agree is the point
        finders, naive = ([cp.ModuleFinder(3, features="pca").fit(maps) for maps in some] for some in (samples, given))
        truth = np.mean([adjusted_rand_score(one.labels_, two.labels_) for one, two in combinations(finders, 2)])
        assert np.mean([finder.expected_ari_ for finder in finders]) == pytest.approx(truth, abs=0.12)
        assert np.mean([finder.expected_ari_ for finder in naive]) > truth + 0.3, "the same components every time"
