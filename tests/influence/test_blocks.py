"""Sums over blocks of pairs, smaller maps, and maps pooled from several runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import counterfactual_probe as cp
from counterfactual_probe.influence import request, run
from counterfactual_probe.influence.accumulator import MapAccumulator
from counterfactual_probe.influence.arrays import MapArrays
from support import twins
from support.toys import PLAIN

N, BLOCKS = 11, 4
SETS = [{PLAIN.layer: [0]}, {PLAIN.layer: [1, 3]}, {PLAIN.layer: [2]}]


def attribute(plain: cp.GeneratorAdapter, **options: Any) -> cp.InfluenceMaps:
    return cp.InfluenceMap(plain, PLAIN.layer).attribute(**{"units": SETS, "seed": 5} | options)


def pair_maps(plain: cp.GeneratorAdapter, n: int = N) -> Tensor:
    """(sets, pairs, H, W), one literal float64 hybrid at a time."""
    z1, z2 = plain.sample(n, seed=5), plain.sample(n, seed=5, stream=1)
    hybrids, base = twins.hybrids(PLAIN, z1, z2, SETS), twins.images(PLAIN, z1)
    return (hybrids - base).abs().mean(2)


def test_blocks_are_sums_over_every_so_many_th_pair(plain: cp.GeneratorAdapter) -> None:
    each = pair_maps(plain)
    found = attribute(plain, n_pairs=N, blocks=BLOCKS, normalise="pair")
    assert found.block_sums is not None
    assert found.normalised_block_sums is not None
    assert found.normalised is not None
    unit = each / each.flatten(2).norm(dim=2)[:, :, None, None]
    for block in range(BLOCKS):
        torch.testing.assert_close(
            found.block_sums[:, block].double(), each[:, block::BLOCKS].sum(1), rtol=1e-5, atol=1e-6
        )
        expected = unit[:, block::BLOCKS].sum(1)
        torch.testing.assert_close(found.normalised_block_sums[:, block].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.block_sums.sum(1) / N, found.maps)
    torch.testing.assert_close(found.normalised_block_sums.sum(1) / N, found.normalised)
    assert not torch.allclose(found.block_sums[:, 0], found.block_sums[:, 1]), "blocks must differ to mean anything"
    assert (found.provenance["blocks"], found.provenance["map_size"]) == (BLOCKS, [16, 16])
    plainly = attribute(plain, n_pairs=N)
    assert plainly.block_sums is None
    assert torch.equal(plainly.maps, found.maps), "the maps themselves must not change"


def test_sets_that_stop_early_have_blocks_of_the_pairs_they_saw(plain: cp.GeneratorAdapter) -> None:
    found = attribute(plain, n_pairs=200, blocks=16, tolerance=0.2)
    assert found.block_sums is not None
    assert found.n_pairs.min() >= 32, "two pairs a block"
    assert found.n_pairs.min() < 200
    torch.testing.assert_close(found.block_sums.sum(1) / found.n_pairs[:, None, None], found.maps)


@pytest.mark.parametrize("hybrids_per_eval", [1, 2, 7])
def test_batches_change_no_block(plain: cp.GeneratorAdapter, hybrids_per_eval: int) -> None:
    one, two = (attribute(plain, n_pairs=N, blocks=3, hybrids_per_eval=many) for many in (hybrids_per_eval, None))
    assert one.block_sums is not None
    torch.testing.assert_close(one.block_sums, two.block_sums, rtol=0, atol=1e-5)


def test_smaller_maps_are_averages_of_pixels(plain: cp.GeneratorAdapter) -> None:
    options = {"n_pairs": N, "blocks": BLOCKS, "normalise": "pair"}
    whole, small = attribute(plain, **options), attribute(plain, **options, map_size=8)
    assert small.maps.shape == (3, 8, 8)
    torch.testing.assert_close(small.maps, avg_pool2d(whole.maps, 2))
    torch.testing.assert_close(small.block_sums, avg_pool2d(whole.block_sums.flatten(0, 1), 2).view(3, BLOCKS, 8, 8))  # type: ignore[union-attr]
    torch.testing.assert_close(small.influence, whole.influence)
    unit = avg_pool2d(pair_maps(plain).flatten(0, 1), 2).view(3, N, 8, 8)
    expected = (unit / unit.flatten(2).norm(dim=2)[:, :, None, None]).mean(1)
    torch.testing.assert_close(small.normalised.double(), expected, rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
    assert small.provenance["map_size"] == [8, 8]
    assert attribute(plain, n_pairs=2, map_size=(2, 4)).maps.shape == (3, 2, 4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_pairs": 63, "blocks": 32}, r"63 pairs are given for 32 blocks; .* give n_pairs=64"),
        ({"n_pairs": 63, "blocks": 1}, "blocks"),
        ({"n_pairs": 4, "map_size": 3}, r"map_size is \(3, 3\) and images are 16×16; .* such as \(8, 8\)"),
        ({"n_pairs": 4, "map_size": 32}, r"map_size is \(32, 32\)"),
        ({"n_pairs": 4, "map_size": (0, 2)}, "map_size"),
    ],
)
def test_blocks_and_sizes_that_cannot_be(plain: cp.GeneratorAdapter, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        attribute(plain, **options)


def test_blocks_that_do_not_fit_are_refused_with_a_size_that_does(
    plain: cp.GeneratorAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * (2 + BLOCKS) * 16 * 16 * 4
    monkeypatch.setattr(request, "free_memory", lambda device: needed - 1)
    with pytest.raises(
        cp.ProbeError,
        match=rf"sums of {BLOCKS} blocks for 3 unit sets, of 16×16, take (.*), and \1 are free in the memory of device "
        r"'cpu'; map_size=\(8, 8\) fits",
    ):
        attribute(plain, n_pairs=N, blocks=BLOCKS)
    assert attribute(plain, n_pairs=N, blocks=BLOCKS - 1).block_sums is not None
    assert attribute(plain, n_pairs=N, blocks=BLOCKS, map_size=(8, 8)).block_sums is not None
    monkeypatch.setattr(request, "free_memory", lambda device: 1)
    with pytest.raises(cp.ProbeError, match="give fewer channels or blocks"):
        attribute(plain, n_pairs=N, blocks=BLOCKS)


def test_blocks_go_through_a_checkpoint_and_a_file(plain: cp.GeneratorAdapter, tmp_path: Path) -> None:
    options: dict[str, Any] = {"n_pairs": N, "blocks": BLOCKS, "normalise": "pair"}
    found = attribute(plain, **options, checkpoint=tmp_path / "progress")
    again = attribute(plain, **options, checkpoint=tmp_path / "progress")
    loaded = cp.InfluenceMaps.load(found.save(tmp_path / "maps.safetensors"))
    for other in (again, loaded):
        assert other.block_sums is not None
        assert found.block_sums is not None
        assert torch.equal(other.block_sums, found.block_sums)
        assert torch.equal(other.normalised_block_sums, found.normalised_block_sums)  # type: ignore[arg-type]
    assert found.without_blocks().block_sums is None
    with pytest.raises(cp.ProbeError, match="blocks"):
        attribute(plain, n_pairs=N, blocks=5, normalise="pair", checkpoint=tmp_path / "progress")


# --- pooled -----------------------------------------------------------------------------------------------------


def test_pooled_maps_are_those_of_all_pairs(plain: cp.GeneratorAdapter) -> None:
    options: dict[str, Any] = {"blocks": BLOCKS, "normalise": "pair"}
    first, rest = (
        cp.InfluenceMap(plain, PLAIN.layer).attribute(
            plain.sample(stop - start, seed=5, start=start), plain.sample(stop - start, seed=5, stream=1, start=start),
            units=SETS, **options,
        )
        for start, stop in ((0, 8), (8, 19))
    )  # fmt: skip
    found, whole = first.pooled(rest), attribute(plain, n_pairs=19, **options)
    for name in ("maps", "standard_error", "influence", "influence_standard_error", "n_pairs", "zero_maps",
                 "normalised", "block_sums", "normalised_block_sums"):  # fmt: skip
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-4, atol=1e-7)
    assert found.provenance["n_pairs"] == 19
    assert float((first.maps - whole.maps).abs().max()) > 1e-4, "the parts must differ to mean anything"


def test_one_pair_alone_pools_too(plain: cp.GeneratorAdapter) -> None:
    parts = [
        cp.InfluenceMap(plain, PLAIN.layer).attribute(
            plain.sample(1, seed=5, start=i), plain.sample(1, seed=5, stream=1, start=i), units=SETS
        )
        for i in range(3)
    ]
    found, whole = parts[0].pooled(parts[1]).pooled(parts[2]), attribute(plain, n_pairs=3)
    torch.testing.assert_close(found.standard_error, whole.standard_error, rtol=1e-4, atol=1e-7)


def test_maps_of_another_call_are_not_pooled(plain: cp.GeneratorAdapter) -> None:
    maps = attribute(plain, n_pairs=8, blocks=2)
    for other in (
        attribute(plain, n_pairs=8),
        attribute(plain, n_pairs=8, blocks=4),
        attribute(plain, n_pairs=8, blocks=2, map_size=8),
        attribute(plain, n_pairs=8, blocks=2, normalise="pair"),
        cp.InfluenceMap(plain, PLAIN.layer).attribute(n_pairs=8, blocks=2),
        attribute(plain, n_pairs=8, blocks=2, seed=6, strength=0.5),
    ):
        with pytest.raises(cp.ProbeError, match="pool maps of the same call on other latents"):
            maps.pooled(other)
    others = attribute(plain, n_pairs=8, blocks=2, seed=6)
    for name, value in (("image_range", [0.0, 1.0]), ("axis", "token"), ("default_dtype", "float64")):
        changed = dataclasses.replace(others, provenance=others.provenance | {name: value})
        with pytest.raises(cp.ProbeError, match=f"these maps and the others differ in their {name}"):
            maps.pooled(changed)
    earlier = {key: value for key, value in others.provenance.items() if key not in ("axis", "seed")}
    assert len(maps.pooled(dataclasses.replace(others, provenance=earlier | {"device": "cuda"}))) == len(maps)


def test_maps_of_the_same_pairs_are_not_pooled(plain: cp.GeneratorAdapter, tmp_path: Path) -> None:
    maps = attribute(plain, n_pairs=6)
    more = attribute(plain, n_pairs=9)
    loaded = cp.InfluenceMaps.load(maps.save(tmp_path / "maps"))
    other = attribute(plain, n_pairs=6, seed=7)
    for same in (maps, more, loaded, other.pooled(maps)):
        with pytest.raises(cp.ProbeError, match="both hold pairs of seed 5, so they are not independent; pool maps of"):
            maps.pooled(same)
    parts = [plain.sample(3, seed=seed, start=start) for start in (0, 3) for seed in (0, 1)]
    given = attribute(plain, z1=parts[0], z2=parts[1])
    others = attribute(plain, z1=parts[2], z2=parts[3])
    both = given.pooled(others)
    overlapping = attribute(plain, z1=torch.cat([parts[0][2:], parts[2]]), z2=torch.cat([parts[1][2:], parts[3]]))
    for same, pairs in ((given, 3), (overlapping, 1), (both, 3)):
        with pytest.raises(cp.ProbeError, match=f"both hold {pairs} of the given pairs of latents"):
            given.pooled(same)
    reloaded = cp.InfluenceMaps.load(both.save(tmp_path / "both"))
    with pytest.raises(cp.ProbeError, match="both hold 4 of the given pairs"):
        reloaded.pooled(overlapping)
    forgotten = [dataclasses.replace(given, provenance=given.provenance | {"pair_digests": None}) for _ in range(2)]
    with pytest.raises(cp.ProbeError, match="are equal to the last bit, so they are of the same pairs"):
        forgotten[0].pooled(forgotten[1])
    exchanged = attribute(plain, z1=parts[1], z2=parts[0])  # other pairs of the same latents
    assert given.pooled(exchanged).n_pairs.tolist() == [6] * len(given)
    assert maps.pooled(other).n_pairs.tolist() == [12] * len(maps)


def test_growing_maps_are_those_of_one_call(plain: cp.GeneratorAdapter) -> None:
    seen = list(cp.InfluenceMap(plain, PLAIN.layer).growing(27, seed=5, blocks=3, units=SETS, normalise="pair"))
    assert [maps.provenance["n_pairs"] for maps in seen] == [6, 12, 27]
    for maps in seen:
        whole = attribute(plain, n_pairs=maps.provenance["n_pairs"], blocks=3, normalise="pair")
        for name in ("maps", "standard_error", "normalised", "block_sums"):
            torch.testing.assert_close(getattr(maps, name), getattr(whole, name), rtol=1e-4, atol=1e-6)
        assert maps.provenance["seed"] == 5
    with pytest.raises(cp.ProbeError, match="max_pairs is 5 with 3 blocks"):
        next(cp.InfluenceMap(plain, PLAIN.layer).growing(5, blocks=3))


def test_a_pair_that_changes_nothing_counts_in_no_normalised_mean() -> None:
    accumulator = MapAccumulator(MapArrays.zeros(1, (1, 2), torch.device("cpu"), normalise=True, blocks=2))
    for pair, value in enumerate([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]):
        accumulator.add(pair, [0], torch.tensor([[value]]))
    arrays = accumulator.finish()
    assert arrays.zero_maps.tolist() == [1]
    assert np.allclose(arrays.normalised, [[[0.3, 0.9]]])
    assert np.allclose(arrays.normalised_block_sums, [[[[0.6, 1.8]], [[0.0, 0.0]]]])


def test_a_checkpoint_that_does_not_fit_onto_the_disk_is_refused(
    plain: cp.GeneratorAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * 3 * 2 * 16 * 16 * 4  # the file and its successor
    monkeypatch.setattr(request, "free_on_disk", lambda folder: needed - 1)
    with pytest.raises(cp.ProbeError, match=r"maps for 3 unit sets, .* in two versions, .* free in '.*' for a check"):
        attribute(plain, n_pairs=N, checkpoint=tmp_path / "progress")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(request, "free_on_disk", lambda folder: needed)
    attribute(plain, n_pairs=N, checkpoint=tmp_path / "new folder" / "progress")


class Megapixels(torch.nn.Module):
    """Images of 1024×1024 from a layer of 512 channels, which costs next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.colours = torch.nn.ReLU(), torch.nn.Conv2d(512, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(self.colours(self.layer(z[:, :, None, None])), scale_factor=1024)


def test_maps_of_a_megapixel_say_what_they_take_before_they_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """512 channels × 32 blocks × 1024×1024 are 64 GiB: refused where they do not fit, and 68 MiB with map_size=32."""
    gen = cp.wrap(Megapixels().eval(), lambda n, rng: torch.randn(n, 512, generator=rng), name="megapixels")
    call = cp.InfluenceMap(gen, "layer").attribute
    monkeypatch.setattr(request, "free_memory", lambda device: 20 * 2**30)
    with pytest.raises(
        cp.ProbeError,
        match=r"sums of 32 blocks for 512 unit sets, of 1024×1024, take 68\.0 GiB, and 20\.0 GiB are free .*"
        r"map_size=\(512, 512\) fits",
    ):
        call(n_pairs=64, blocks=32)
    small = call(n_pairs=4, blocks=2, units=[[3], [5]], map_size=32, show_progress=True)
    assert small.maps.shape == (2, 32, 32)
    assert "GiB" not in capsys.readouterr().err
    monkeypatch.setattr(run, "_LARGE", 2 * 4 * 32 * 32 * 4)
    call(n_pairs=4, blocks=2, units=[[3], [5]], map_size=32, show_progress=True)
    assert "influence maps (32.0 KiB)" in capsys.readouterr().err
