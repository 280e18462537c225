"""Influence maps against S003 eq. 2 written out, and what they promise about seeds, batches and memory."""

from __future__ import annotations

import gc
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.engine import Prepared
from support import twins
from support.devices.cases import on_devices
from support.live import live_numbers
from support.toy_modules import Deconv, labelled, twofold, vectors
from support.toys import BF16, CONDITIONAL, FLOAT32, NOISY, PLAIN, TOYS, Toy
from support.twins import gap, seed_of

SETS = [{"main.2": [0]}, {"main.2": [1, 4]}, {"main.2": [0, 1, 2, 3, 4, 5]}]
BASE, SOURCE = 0, 1


def close(found: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    scale = float(expected.abs().max())
    assert gap(found, expected) <= relative * scale


class Watched(nn.Module):
    """Counts the rows of each forward, and can refuse large ones as a full device does.

    The logs are a hook's, which is an observer, so that the library does not put them back.
    """

    logs: ClassVar[dict[int, tuple[list[int], list[int]]]] = {}

    def __init__(self, room: int = 10**9) -> None:
        super().__init__()
        self.inner, self.room, self.number = PLAIN.plain(), room, len(self.logs)
        self.logs[self.number] = ([], [])
        self.error: type[Exception] = torch.OutOfMemoryError
        self.count_live = False
        self.inner.register_forward_pre_hook(self.note)

    def note(self, _inner: nn.Module, given: tuple[Tensor]) -> None:
        self.rows.append(len(given[0]))
        if self.count_live:
            self.live.append(live_numbers())

    @property
    def rows(self) -> list[int]:
        return self.logs[self.number][0]

    @property
    def live(self) -> list[int]:
        return self.logs[self.number][1]

    def forward(self, z: Tensor) -> Tensor:
        if len(z) > self.room:
            raise self.error("CUDA out of memory. Tried to allocate more than there is")
        image: Tensor = self.inner(z)
        return image


# --- the formula ----------------------------------------------------------------------------------


def test_maps_and_standard_errors_equal_the_formula(toy: Toy) -> None:
    generator = toy.generator()
    z1, z2 = generator.sample(4, seed=0), generator.sample(4, seed=1)
    sets = [{toy.layer: [0]}, {toy.layer: [1, 2]}]
    found = cp.InfluenceMap(generator, toy.layer).attribute(z1, z2, units=sets)
    relative = 1e-6 if toy.dtype == torch.float64 else 1e-4 if toy.dtype == torch.float32 else 0.05
    for row, expected in enumerate(twins.maps(toy, z1, z2, sets)):
        close(found.maps[row], expected.mean(0), relative)
        close(found.standard_error[row], expected.std(0) / 4**0.5, relative)
        close(found.influence[row], expected.mean(), relative)
        close(found.influence_standard_error[row], expected.mean((1, 2)).std() / 4**0.5, relative)
    assert found.maps.dtype == torch.float32
    assert found.n_pairs.tolist() == [4, 4]
    assert float((found.maps[0] - found.maps[1]).abs().max()) > 1e-3


def test_influence_is_the_mean_of_the_map(plain: cp.GeneratorAdapter) -> None:
    found = cp.InfluenceMap(plain, "main.2").attribute(n_pairs=5, seed=3)
    assert torch.allclose(found.influence, found.maps.mean((1, 2)), rtol=1e-6)
    assert len(found) == 6


def test_colours_are_averaged_after_the_absolute_value() -> None:
    """|·| first (conventions 4): a red and a blue change must not cancel."""

    class Opposite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, z: Tensor) -> Tensor:
            x = self.layer(z)[:, :, None, None].expand(-1, -1, 4, 4)
            return torch.cat([x, -x], 1)

    generator = cp.wrap(Opposite(), vectors(1, torch.float32))
    found = cp.InfluenceMap(generator, "layer").attribute(torch.zeros(2, 1), torch.tensor([[1.0], [-3.0]]))
    assert torch.equal(found.maps, torch.full((1, 4, 4), 2.0))  # and pairs after it too: (1 + 3) / 2
    assert torch.allclose(found.standard_error, torch.full((1, 4, 4), 1.0))  # std of (1, 3) over √2


def test_one_pair_has_no_standard_error(plain: cp.GeneratorAdapter) -> None:
    found = cp.InfluenceMap(plain, "main.2").attribute(n_pairs=1)
    assert found.standard_error.isnan().all()
    assert found.influence_standard_error.isnan().all()
    assert found.maps.isfinite().all()


def test_each_channel_alone_by_default_over_several_layers(plain: cp.GeneratorAdapter) -> None:
    found = cp.InfluenceMap(plain, ["main.2", "main.6"]).attribute(n_pairs=2)
    alone = [{"main.2": (c,)} for c in range(6)] + [{"main.6": (c,)} for c in range(5)]
    assert [dict(units) for units in found.units] == alone
    second = cp.InfluenceMap(plain, "main.6").attribute(n_pairs=2)
    close(found.maps[6:], second.maps)


def test_pair_normalised_maps_equal_the_formula() -> None:
    """Each pair's map at unit L2 norm, then the mean; pairs that change nothing are left out, and counted."""
    generator = PLAIN.generator()
    z1, z2 = generator.sample(5, seed=0), generator.sample(5, seed=1)
    z2[1], z2[3] = z1[1], z1[3]
    found = cp.InfluenceMap(generator, "main.2").attribute(z1, z2, units=SETS, normalise="pair")
    assert found.zero_maps.tolist() == [2, 2, 2]
    assert found.normalised is not None
    for row, maps in enumerate(twins.maps(PLAIN, z1, z2, SETS)):
        unit = [pair / pair.norm() for i, pair in enumerate(maps) if i not in (1, 3)]
        close(found.normalised[row], torch.stack(unit).mean(0))
        close(found.maps[row], maps.mean(0))  # the plain mean counts them
    assert found.n_pairs.tolist() == [5, 5, 5]


def test_unchanging_pairs_alone_give_zero_and_not_nan(plain: cp.GeneratorAdapter) -> None:
    z = plain.sample(3)
    found = cp.InfluenceMap(plain, "main.2").attribute(z, z, units=SETS, normalise="pair")
    assert found.normalised is not None
    assert found.normalised.count_nonzero() == 0
    assert found.zero_maps.tolist() == [3, 3, 3]
    assert cp.InfluenceMap(plain, "main.2").attribute(z, z).normalised is None


# --- batches, bits, seeds -------------------------------------------------------------------------


@pytest.mark.parametrize("toy", on_devices([PLAIN, CONDITIONAL, NOISY, FLOAT32]))
def test_batch_size_changes_at_most_rounding(toy: Toy) -> None:
    """1e-6 and not 0: kernels order their sums by batch size. Fixed settings do give fixed bits."""
    generator = toy.generator()
    attribute = cp.InfluenceMap(generator, toy.layer).attribute
    runs = [attribute(n_pairs=5, seed=2, hybrids_per_eval=size, normalise="pair") for size in (None, 1, 2, 7)]
    again = attribute(n_pairs=5, seed=2, hybrids_per_eval=7, normalise="pair")
    other = attribute(n_pairs=5, seed=3, hybrids_per_eval=7, normalise="pair")
    for name in ("maps", "standard_error", "influence", "normalised"):
        for run in runs[1:]:
            assert float((getattr(run, name) - getattr(runs[0], name)).abs().max()) <= 1e-6
        assert torch.equal(getattr(runs[-1], name), getattr(again, name))
        assert float((getattr(again, name) - getattr(other, name)).abs().max()) > 1e-4


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sets=st.lists(st.lists(st.integers(0, 5), min_size=1, unique=True), min_size=1, max_size=5),
    batch=st.integers(1, 12),
    equal=st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_any_batches_and_unchanged_pairs_equal_the_formula(
    plain: cp.GeneratorAdapter, sets: list[list[int]], batch: int, equal: list[bool]
) -> None:
    n = len(equal)
    z1, z2 = plain.sample(n, seed=0), plain.sample(n, seed=1)
    z2[torch.tensor(equal)] = z1[torch.tensor(equal)]
    found = cp.InfluenceMap(plain, "main.2").attribute(z1, z2, units=sets, hybrids_per_eval=batch)
    for row, maps in enumerate(twins.maps(PLAIN, z1, z2, [{"main.2": item} for item in sets])):
        assert float((found.maps[row] - maps.mean(0)).abs().max()) <= 1e-6
    assert found.zero_maps.tolist() == [sum(equal)] * len(sets)


def flat(latents: Any) -> Tensor:
    if isinstance(latents, dict):
        latents = tuple(latents.values())
    parts = latents if isinstance(latents, tuple) else (latents,)
    return torch.cat([part.double().flatten(1) if part.dim() > 1 else part.double()[:, None] for part in parts], 1)


@pytest.mark.parametrize("sampler", [vectors(5), labelled, twofold], ids=["tensor", "dict", "tuple"])
@pytest.mark.parametrize("stream", [BASE, SOURCE])
def test_sample_i_depends_on_seed_stream_and_i_alone(sampler: Any, stream: int) -> None:
    toy = next(toy for toy in TOYS if type(toy.sampler(1, torch.Generator())) is type(sampler(1, torch.Generator())))
    generator = cp.wrap(toy.plain(), sampler)
    drawn = flat(generator.sample(6, seed=4, stream=stream))
    for i in range(6):
        rng = torch.Generator().manual_seed(seed_of(4, stream, i))
        assert torch.equal(drawn[i : i + 1], flat(sampler(1, rng)))
    assert torch.equal(drawn[2:5], flat(generator.sample(3, seed=4, stream=stream, start=2)))
    assert torch.equal(drawn[:2], flat(generator.sample(2, seed=4, stream=stream)))


def test_no_two_seeds_or_streams_share_a_sample(plain: cp.GeneratorAdapter) -> None:
    """seed + i would: then seed 1 is seed 0 moved by one."""
    draws = [plain.sample(20, seed=seed, stream=stream) for seed in range(5) for stream in (0, 1, 2)]
    rows = torch.cat(draws).numpy()
    assert len(np.unique(rows, axis=0)) == len(rows) == 300


@pytest.mark.parametrize("toy", on_devices([PLAIN, CONDITIONAL]))
def test_drawn_pairs_are_the_samples_of_streams_0_and_1(toy: Toy) -> None:
    generator = toy.generator()
    attribute = cp.InfluenceMap(generator, toy.layer).attribute
    drawn = attribute(n_pairs=5, seed=9, hybrids_per_eval=2)
    z1, z2 = generator.sample(5, seed=9, stream=BASE), generator.sample(5, seed=9, stream=SOURCE)
    assert torch.equal(drawn.maps, attribute(z1, z2, hybrids_per_eval=2).maps)
    assert not torch.equal(drawn.maps, attribute(z2, z1, hybrids_per_eval=2).maps)
    assert (drawn.provenance["pairs"], drawn.provenance["seed"]) == ("drawn", 9)


def test_default_is_256_pairs() -> None:
    generator = cp.wrap(Deconv(), vectors(5, torch.float32))
    found = cp.InfluenceMap(generator, "main.2").attribute(units=[0])
    assert found.n_pairs.tolist() == [256]


# --- memory ---------------------------------------------------------------------------------------


def largest(n_pairs: int, units: Any, batch: int | None = 4) -> tuple[int, int]:
    """The most rows of a forward, and the most bytes alive in one, beyond those of the result."""
    module = Watched()
    generator = cp.wrap(module, vectors(5))
    module.rows.clear()
    module.count_live = True
    gc.collect()
    gc.freeze()  # so that only what comes now is looked through
    attribute = cp.InfluenceMap(generator, "inner.main.2").attribute
    found = attribute(n_pairs=n_pairs, units=units, hybrids_per_eval=batch)
    returned = sum(getattr(found, name).nbytes for name in ("maps", "standard_error"))
    # The rest of the result: three numbers of 8 bytes per set.
    return max(module.rows), max(module.live) - returned - 24 * len(found)


def test_working_memory_does_not_grow_with_pairs_or_sets() -> None:
    few = [[0], [1]]
    many = [[c] for c in range(6)] * 4
    rows, memory = largest(8, many)
    assert rows <= 2 * 4  # a batch holds, beside its hybrids, at most one original for each
    for pairs, sets in ((24, many), (24, few), (8, few)):
        rows_here, memory_here = largest(pairs, sets)
        assert rows_here <= 2 * 4
        assert memory_here <= memory * 1.05 + 256
    assert largest(8, many, batch=16)[1] > 1.5 * memory  # the measure does see what a larger batch takes


@pytest.mark.parametrize("units", [[[0]], [[0], [1], [2]]])
def test_clean_runs_happen_once_per_pair(units: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[int] = []
    original = Prepared.clean

    def counted(self: Any, latents: Any, layers: Any, numbers: Any, *args: Any, **kwargs: Any) -> Any:
        samples.extend(numbers)
        return original(self, latents, layers, numbers, *args, **kwargs)

    monkeypatch.setattr(Prepared, "clean", counted)
    generator = cp.wrap(Watched(), vectors(5))
    found = cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=10, units=units, hybrids_per_eval=5)
    assert found.provenance["executor"] == "prepared"
    # Each pair's base and source once, however many unit sets there are.
    assert sorted(samples) == sorted([*range(10), *range(10)])


@pytest.mark.parametrize("room", [2, 3, 4, 7])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_out_of_memory_halves_the_batch_and_gives_the_same_maps(
    room: int, error: type[Exception], only_replay: None
) -> None:
    free, tight = Watched(), Watched(room)
    tight.error = error
    expected = cp.InfluenceMap(cp.wrap(free, vectors(5)), "inner.main.2").attribute(n_pairs=9, hybrids_per_eval=16)
    generator = cp.wrap(tight, vectors(5))
    found = cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=9, hybrids_per_eval=16)
    assert float((found.maps - expected.maps).abs().max()) <= 1e-6
    assert float((found.standard_error - expected.standard_error).abs().max()) <= 1e-6
    assert expected.provenance["hybrids_per_eval"] == 16
    assert found.provenance["hybrids_per_eval"] < 16
    assert max(tight.rows) <= room
    assert max(free.rows) > 7


def test_images_and_hybrids_also_shrink_their_batches() -> None:
    tight = cp.wrap(Watched(3), vectors(5))
    z1, z2 = tight.sample(9, seed=0), tight.sample(9, seed=1)
    close(tight(z1), twins.images(PLAIN, z1), 1e-10)
    found = cp.Hybridizer(tight, "inner.main.2").hybridize(z1, z2, units=[[0, 1]])
    close(found.images, twins.hybrids(PLAIN, z1, z2, [{"main.2": [0, 1]}]), 1e-10)


def test_a_device_with_room_for_one_sample_suffices() -> None:
    module = Watched()
    generator = cp.wrap(module, vectors(5))
    module.room = 1
    maps = cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=2, units=[0])
    assert maps.provenance["hybrids_per_eval"] == 1
    assert maps.influence[0] > 0


class Late(Watched):
    """Runs out of memory only when its layers have run."""

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.inner(z)
        if len(z) > self.room:
            raise self.error("CUDA out of memory. Tried to allocate more than there is")
        return image


def test_the_mean_also_shrinks_its_batches() -> None:
    free, tight = (cp.wrap(Late(room), vectors(5)) for room in (100, 3))
    z = free.sample(9)
    one, two = (cp.Hybridizer(g, "inner.main.2").intervene(z, units=[0], value="mean") for g in (free, tight))
    close(one.images, two.images, 1e-10)  # what a batch left before memory ran out is not counted twice


def test_no_gradient_is_kept(plain: cp.GeneratorAdapter) -> None:
    z = plain.sample(2).requires_grad_()
    assert not plain(z).requires_grad
    found = cp.InfluenceMap(plain, "main.2").attribute(z, plain.sample(2, seed=1))
    assert not found.maps.requires_grad
    assert not cp.Hybridizer(plain, "main.2").hybridize(z, z).images.requires_grad
    assert all(parameter.grad is None for parameter in plain.module.parameters())


def test_results_are_ordinary_tensors(plain: cp.GeneratorAdapter) -> None:
    """A classifier trained on images, or images scaled in place, must not fail far from here."""
    z = plain.sample(2)
    found = cp.InfluenceMap(plain, "main.2").attribute(z, plain.sample(2, seed=1))
    hybrids = cp.Hybridizer(plain, "main.2").hybridize(z, z, units=[0])
    tensors = [plain(z), hybrids.images, hybrids.base, found.maps, found.influence]
    assert not any(value.is_inference() for value in tensors)


# --- provenance, errors ---------------------------------------------------------------------------


def test_provenance_says_how_to_repeat_it() -> None:
    toy = Toy("half", Deconv, dtype=BF16, wrap={"image_range": (0, 255), "name": "half a toy"})
    generator = toy.generator()
    about = cp.InfluenceMap(generator, ["main.2", "main.6"]).attribute(n_pairs=2, seed=7).provenance
    assert about["generator"] == "half a toy"
    assert about["layers"] == ["main.2", "main.6"]
    assert (about["seed"], about["n_pairs"], about["image_range"]) == (7, 2, [0.0, 255.0])
    assert (about["dtype"], about["precision"]) == ("bfloat16", "float32")
    assert about["versions"]["torch"] == torch.__version__
    assert len(about["weights_sha256"]) == 64
    with torch.no_grad():
        next(generator.module.parameters()).add_(1)
    changed = cp.InfluenceMap(generator, "main.2").attribute(n_pairs=2, seed=7).provenance
    assert changed["weights_sha256"] != about["weights_sha256"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_pairs": 0}, "n_pairs is 0; give an integer of at least 1"),
        ({"n_pairs": 2.5}, r"n_pairs is 2\.5"),
        ({"n_pairs": 2, "seed": -1}, "the seed is -1; give an integer of at least 0"),
        ({"n_pairs": 2, "seed": 0.5}, r"the seed is 0\.5"),
        ({"n_pairs": 2, "hybrids_per_eval": 0}, "hybrids_per_eval is 0; give an integer of at least 1"),
        ({"n_pairs": 2, "normalise": "l2"}, "normalise is 'l2'; give 'pair' or None"),
        ({"z1": 3}, "only one of base and source latents is given"),
        ({"z1": 3, "z2": 2}, "z1 holds 3 latents and z2 holds 2; pairs are zipped"),
        ({"z1": 3, "z2": 3, "n_pairs": 3}, "latents are given and n_pairs=3 too"),
        ({"n_pairs": 2, "units": [6]}, "channel 6 asked of layer 'main.2', which has 6"),
    ],
)
def test_bad_arguments(plain: cp.GeneratorAdapter, arguments: dict[str, Any], message: str) -> None:
    drawn = {name: plain.sample(arguments[name]) for name in ("z1", "z2") if name in arguments}
    with pytest.raises(cp.ProbeError, match=message):
        cp.InfluenceMap(plain, "main.2").attribute(**{**arguments, **drawn})


@pytest.mark.parametrize("name", ["n_pairs", "hybrids_per_eval"])
def test_numpy_integers_are_integers(plain: cp.GeneratorAdapter, name: str) -> None:
    arguments: dict[str, Any] = {"n_pairs": 2, "hybrids_per_eval": 2}
    expected = cp.InfluenceMap(plain, "main.2").attribute(**arguments)
    found = cp.InfluenceMap(plain, "main.2").attribute(**{**arguments, name: np.int64(2)})
    assert torch.equal(found.maps, expected.maps)
    assert found.provenance == expected.provenance
