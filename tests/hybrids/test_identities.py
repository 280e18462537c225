"""The identities of interventions (conventions 1–3, 6, 7), on every toy and on a real generator.

Beside each equality stands a negative control: what must differ if the equality is to mean anything.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import counterfactual_probe as cp
from support import twins
from support.devices.cases import on_devices
from support.toys import CONDITIONAL, FULL_CUTS, HIDDEN_PATH, NOISY, PLAIN, SHARED, SKIP_CROSSES, TOKENS, VECTOR, Toy
from support.twins import gap

N = 3
VISIBLE = 1e-3  # any real change of an image is far above this, any rounding far below


def latents(generator: cp.GeneratorAdapter, n: int = N) -> tuple[Any, Any]:
    return generator.sample(n, seed=0), generator.sample(n, seed=1)


def all_channels(generator: cp.GeneratorAdapter, layer: str) -> list[int]:
    return list(range(generator.layer(layer).channels))


# --- every toy -----------------------------------------------------------------------------------


def test_clean_images_are_those_of_the_module_itself(toy: Toy) -> None:
    generator = toy.generator()
    z1, z2 = latents(generator)
    assert gap(generator(z1), twins.images(toy, z1)) <= toy.tolerance
    assert gap(generator(z1), generator(z2)) > 2 * toy.tolerance  # another latent, another image


def test_no_channel_gives_the_base_exactly(toy: Toy) -> None:
    generator = toy.generator()
    z1, z2 = latents(generator)
    hybrids = cp.Hybridizer(generator, toy.layer).hybridize(z1, z2, units=[{toy.layer: []}, [0, 1]])
    assert torch.equal(hybrids.images[0], hybrids.base)
    assert gap(hybrids.images[1], hybrids.base) > VISIBLE
    maps = cp.InfluenceMap(generator, toy.layer).attribute(z1, z2, units={toy.layer: []})
    assert maps.maps.count_nonzero() == 0
    assert maps.influence.count_nonzero() == 0


def test_equal_latents_have_influence_exactly_zero(toy: Toy) -> None:
    generator = toy.generator()
    z1, z2 = latents(generator)
    attribute = cp.InfluenceMap(generator, toy.layer).attribute
    same = attribute(z1, z1)
    assert same.maps.count_nonzero() == 0
    assert same.standard_error.count_nonzero() == 0
    assert attribute(z1, z2).maps.count_nonzero() > 0
    hybrids = cp.Hybridizer(generator, toy.layer).hybridize(z1, z1)
    assert torch.equal(hybrids.images, hybrids.base.expand_as(hybrids.images))


def test_hybrids_equal_the_literal_twin(toy: Toy) -> None:
    generator = toy.generator()
    z1, z2 = latents(generator)
    sets = [{toy.layer: [0]}, {toy.layer: [2, 1]}, {toy.layer: all_channels(generator, toy.layer)}]
    hybrids = cp.Hybridizer(generator, toy.layer).hybridize(z1, z2, units=sets)
    expected = twins.hybrids(toy, z1, z2, sets)
    assert gap(hybrids.images, expected) <= toy.tolerance
    assert gap(hybrids.base, twins.images(toy, z1)) <= toy.tolerance
    assert hybrids.source is not None
    assert gap(hybrids.source, twins.images(toy, z2)) <= toy.tolerance
    assert gap(hybrids.images[0], expected[1]) > VISIBLE  # the sets are told apart
    assert gap(hybrids.images, twins.hybrids(toy, z2, z1, sets)) > VISIBLE  # and so are base and source


def test_unit_sets_over_two_layers_equal_the_literal_twin(toy: Toy) -> None:
    generator = toy.generator()
    z1, z2 = latents(generator)
    sets = [{toy.layer: [0, 2], toy.deeper: [1]}, {toy.deeper: [0, 1], toy.layer: [1]}, {toy.deeper: [2]}]
    hybrids = cp.Hybridizer(generator, [toy.layer, toy.deeper]).hybridize(z1, z2, units=sets)
    expected = twins.hybrids(toy, z1, z2, sets)
    assert gap(hybrids.images, expected) <= toy.tolerance
    assert gap(expected[0], twins.hybrids(toy, z1, z2, [{toy.layer: [0, 2]}])[0]) > VISIBLE
    assert gap(expected[0], twins.hybrids(toy, z1, z2, [{toy.deeper: [1]}])[0]) > VISIBLE


@pytest.mark.parametrize("toy", on_devices(FULL_CUTS))
def test_all_channels_of_a_full_cut_give_the_source(toy: Toy) -> None:
    generator = toy.generator()
    z1, other = latents(generator)
    z2 = toy.same_conditions(z1, other)
    hybrids = cp.Hybridizer(generator, toy.layer).hybridize(z1, z2, units=all_channels(generator, toy.layer))
    assert hybrids.source is not None
    assert gap(hybrids.images[0], hybrids.source) <= toy.tolerance
    assert gap(hybrids.base, hybrids.source) > 2 * toy.tolerance


@pytest.mark.parametrize("toy", on_devices(FULL_CUTS))
def test_complement_and_exchange_give_the_same_hybrid(toy: Toy) -> None:
    generator = toy.generator()
    z1, other = latents(generator)
    z2 = toy.same_conditions(z1, other)
    units = [0, 2]
    rest = [channel for channel in all_channels(generator, toy.layer) if channel not in units]
    hybridize = cp.Hybridizer(generator, toy.layer).hybridize
    one = hybridize(z1, z2, units=units).images
    assert gap(one, hybridize(z2, z1, units=rest).images) <= toy.tolerance
    assert gap(one, hybridize(z1, z2, units=rest).images) > VISIBLE


def test_a_skip_connection_keeps_the_base_in_the_image() -> None:
    """The negative control of full cuts: here all channels are not the whole state."""
    generator = SKIP_CROSSES.generator()
    z1, z2 = latents(generator)
    hybrids = cp.Hybridizer(generator, "middle").hybridize(z1, z2, units=range(6))
    assert hybrids.source is not None
    assert gap(hybrids.images[0], hybrids.source) > VISIBLE
    assert gap(hybrids.images[0], hybrids.base) > VISIBLE


# --- conventions 2: several layers in one unit set -----------------------------------------------


def two_wrong_variants(toy: Toy, z1: Any, z2: Any, units: dict[str, list[int]]) -> tuple[Tensor, Tensor]:
    """(a) unlisted deeper channels frozen at the base's clean values; (b) donors from the hybrid run."""
    module, (layer, deeper) = toy.plain(), units
    frozen, late = [], []
    for i in range(N):
        base, source = twins.one(z1, i), twins.one(z2, i)
        clean, donor, hybrid = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
        for latent, into in ((base, clean), (source, donor)):
            twins.forward(module, latent, {name: twins.record(into, name) for name in units})
        put = twins.put(donor[layer], units[layer])
        values = twins.put(donor[deeper], units[deeper])(clean[deeper])
        frozen.append(twins.image_of(toy, module, base, {layer: put, deeper: lambda _, v=values: v}))
        twins.forward(module, base, {layer: put, deeper: twins.record(hybrid, deeper)})
        late.append(twins.image_of(toy, module, base, {layer: put, deeper: twins.put(hybrid[deeper], units[deeper])}))
    return torch.stack(frozen), torch.stack(late)


@pytest.mark.parametrize("toy", on_devices([PLAIN, CONDITIONAL, SHARED, TOKENS, VECTOR]))
def test_donors_come_from_the_clean_source_and_the_rest_is_recomputed(toy: Toy) -> None:
    generator = toy.generator()
    z1, z2 = latents(generator)
    units = {toy.layer: [0, 1], toy.deeper: [1]}
    right = cp.Hybridizer(generator, [toy.layer, toy.deeper]).hybridize(z1, z2, units=units).images[0]
    frozen, late = two_wrong_variants(toy, z1, z2, units)
    assert gap(right, frozen) > VISIBLE
    assert gap(right, late) > VISIBLE
    alone = twins.hybrids(toy, z1, z2, [{toy.layer: [0, 1]}, {toy.deeper: [1]}])
    assert gap(late, alone[0]) <= toy.tolerance  # the controls are what conventions 2 says they are
    if toy.name != TOKENS.name:  # whose deeper layer is no full cut: its residual carries what is above
        assert gap(frozen, alone[1]) <= toy.tolerance


# --- conventions 3: conditions -------------------------------------------------------------------


def test_the_hybrid_keeps_the_class_of_the_base() -> None:
    generator = CONDITIONAL.generator()
    z1, z2 = latents(generator, 4)
    z1["y"], z2["y"] = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 0])
    hybrid = cp.Hybridizer(generator, "first").hybridize(z1, z2, units=[0, 1, 2]).images
    module, wrong = CONDITIONAL.plain(), []
    for i in range(4):
        donor: dict[str, Tensor] = {}
        twins.forward(module, twins.one(z2, i), {"first": twins.record(donor, "first")})
        crossed = twins.one(z1, i) | {"y": z2["y"][i : i + 1]}
        wrong.append(twins.image_of(CONDITIONAL, module, crossed, {"first": twins.put(donor["first"], [0, 1, 2])}))
    assert gap(hybrid, twins.hybrids(CONDITIONAL, z1, z2, [{"first": [0, 1, 2]}])) <= 1e-10
    assert gap(hybrid[0], torch.stack(wrong)) > VISIBLE


def test_another_class_downstream_keeps_all_channels_from_being_the_source() -> None:
    generator = CONDITIONAL.generator()
    z1, z2 = latents(generator, 4)
    z1["y"], z2["y"] = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 0])
    hybrids = cp.Hybridizer(generator, "first").hybridize(z1, z2, units=range(6))
    assert hybrids.source is not None
    assert gap(hybrids.images[0], hybrids.source) > VISIBLE


# --- noise, modes ---------------------------------------------------------------------------------


def test_base_source_and_hybrid_share_their_noise() -> None:
    """Otherwise no identity could hold; and the seed must reach the noise."""
    generator = NOISY.generator()
    z1, z2 = latents(generator)
    hybridize = cp.Hybridizer(generator, "main.2").hybridize
    five = hybridize(z1, z2, units=[1, 3], seed=5)
    assert gap(five.images, twins.hybrids(NOISY, z1, z2, [{"main.2": [1, 3]}], seed=5)) <= 1e-10
    assert torch.equal(five.base, generator(z1, seed=5))
    assert gap(five.base, hybridize(z1, z2, units=[1, 3], seed=6).base) > VISIBLE
    assert gap(generator(torch.cat([z1, z1]))[:N], generator(torch.cat([z1, z1]))[N:]) > VISIBLE


def test_train_mode_would_change_every_number() -> None:
    """Why the mode matters (conventions 7): the toys' twins run in eval mode."""
    z = PLAIN.sampler(4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        trained = PLAIN.plain()(z)
    assert gap(PLAIN.generator()(z), trained) > VISIBLE


def test_a_hidden_path_is_right_in_every_batch() -> None:
    """One batch that agrees with a full forward says nothing of the next, which finds other leftovers."""
    generator = HIDDEN_PATH.generator()
    z1, z2 = latents(generator, 4)
    sets = [{"second": [channel]} for channel in range(6)]
    expected = twins.hybrids(HIDDEN_PATH, z1, z2, sets)
    for size in (None, 1, 2, 3, 4, 5, 7):
        found = cp.Hybridizer(generator, "second").hybridize(z1, z2, units=sets, hybrids_per_eval=size)
        assert gap(found.images, expected) <= 1e-10


# --- random unit sets ----------------------------------------------------------------------------

UNITS = st.fixed_dictionaries(
    {},
    optional={
        PLAIN.layer: st.lists(st.integers(0, 5), unique=True),
        PLAIN.deeper: st.lists(st.integers(0, 4), unique=True),
    },
).filter(bool)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=st.lists(UNITS, min_size=1, max_size=4), batch=st.integers(1, 9), n=st.integers(1, 4))
def test_any_unit_sets_in_any_batches_equal_the_twin(
    plain: cp.GeneratorAdapter, sets: list[dict[str, list[int]]], batch: int, n: int
) -> None:
    z1, z2 = latents(plain, n)
    hybridizer = cp.Hybridizer(plain, [PLAIN.layer, PLAIN.deeper])
    found = hybridizer.hybridize(z1, z2, units=sets, hybrids_per_eval=batch)
    assert gap(found.images, twins.hybrids(PLAIN, z1, z2, sets)) <= 1e-10


# --- the real generator ---------------------------------------------------------------------------

FACE_LAYERS = {"main.2": 512, "main.5": 256, "main.8": 128, "main.11": 64}


def as_toy(generator: cp.GeneratorAdapter, layer: str, dtype: torch.dtype) -> Toy:
    """The faces as a case of the twins, with the very same weights."""
    return Toy("faces", lambda: copy.deepcopy(generator.module), layer, dtype=dtype, trained=True)


@pytest.mark.parametrize("layer", FACE_LAYERS)
def test_identities_on_faces(faces: cp.GeneratorAdapter, layer: str) -> None:
    assert faces.layers[layer].channels == FACE_LAYERS[layer]
    z1, z2 = faces.sample(2, seed=0), faces.sample(2, seed=1)
    everything = range(FACE_LAYERS[layer])
    sets = [{layer: []}, everything, range(10, 40), [c for c in everything if not 10 <= c < 40]]
    hybridize = cp.Hybridizer(faces, layer).hybridize
    one, exchanged = hybridize(z1, z2, units=sets), hybridize(z2, z1, units=sets)
    assert one.source is not None
    assert torch.equal(one.images[0], one.base)
    assert gap(one.images[1], one.source) <= 1e-5
    assert gap(one.images[2], exchanged.images[3]) <= 1e-5
    assert gap(one.images[2], one.base) > 0.01
    assert gap(one.base, one.source) > 0.5
    same = hybridize(z1, z1, units=sets)
    assert torch.equal(same.images, same.base.expand_as(same.images))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_faces_equal_the_literal_twin(faces: cp.GeneratorAdapter, dtype: torch.dtype, tolerance: float) -> None:
    toy = as_toy(faces, "main.8", dtype)
    generator = cp.wrap(toy.plain(), lambda n, rng: torch.randn(n, 100, 1, 1, generator=rng))
    z1, z2 = latents(generator, 2)
    assert z1.dtype == dtype
    sets = [{"main.8": [3, 17, 40]}, {"main.5": list(range(60)), "main.8": [5], "main.11": list(range(9))}]
    hybrids = cp.Hybridizer(generator, ["main.5", "main.8", "main.11"]).hybridize(z1, z2, units=sets)
    assert hybrids.images.dtype == dtype
    assert gap(hybrids.images, twins.hybrids(toy, z1, z2, sets)) <= tolerance
    assert gap(hybrids.images[0], hybrids.base) > VISIBLE
