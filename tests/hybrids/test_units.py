"""Hybrids of tokens, heads and features, in regions and by strengths, are what hooks written by hand give."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from support.devices.cases import on_devices
from support.toys import PLAIN, TOKENS, Toy
from support.twins import gap
from support.unit_models import DIT, EVERY, OF_TOKENS, TEXT, VIT
from support.unit_twins import Asked, hybrids

N = 12  # enough hybrids that the fast executors run them
CONTROLS = 4  # pairs of a negative control
VISIBLE = 1e-3
_ROUNDINGS = 8  # another order of sums may round this many times as far


@dataclasses.dataclass
class Rotated:
    """A basis written by hand: features are rotated channels, of dimension ``dim``, some of them left out."""

    matrix: Tensor  # (features, channels)
    dim: int
    directions: Tensor | None = None

    def encode(self, activations: Tensor) -> Tensor:
        return (activations.movedim(self.dim, -1) @ self.matrix.T.to(activations)).movedim(-1, self.dim)

    def decode(self, codes: Tensor) -> Tensor:
        return (codes.movedim(self.dim, -1) @ self.matrix.to(codes)).movedim(-1, self.dim)


class Bent(Rotated):
    """The same with a bend, as of a sparse autoencoder: no linear path."""

    def encode(self, activations: Tensor) -> Tensor:
        return torch.relu(super().encode(activations))


def rotated(channels: int, dim: int, *, linear: bool) -> Rotated:
    matrix = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0][: max(2, channels - 2)]
    return Rotated(matrix, dim, matrix) if linear else Bent(matrix, dim)


@dataclasses.dataclass(frozen=True)
class Kind:
    axis: str
    linear: bool = True

    @property
    def name(self) -> str:
        return self.axis if self.axis != "feature" else f"{'' if self.linear else 'bent '}feature"


KINDS = [Kind("channel"), Kind("token"), Kind("head"), Kind("feature"), Kind("feature", linear=False)]
EXTENTS = ["all", "mask", "strength", "both"]


def fits(toy: Toy, kind: Kind, extent: str) -> bool:
    if kind.axis in ("token", "head"):
        return toy.name in OF_TOKENS
    return "vector" not in toy.name.lower() or extent in ("all", "strength")


def compared(
    toy: Toy, kind: Kind, extent: str, n: int = N, exact: list[Tensor] | None = None
) -> tuple[cp.Hybrids, Tensor, Tensor]:
    """What the library gives, what the twin gives, and the control of few pairs: another extent, or other units.

    ``exact`` gets what the twin gives in float64, of the same weights and latents.
    """
    torch.manual_seed(3)
    generator = toy.generator()
    info = generator.layer(toy.layer)
    z1, z2 = generator.sample(n, seed=0), generator.sample(n, seed=1)
    masks = torch.rand(n, *info.size, dtype=torch.float64) if extent in ("mask", "both") else None
    strengths = torch.linspace(-0.5, 1.5, n, dtype=torch.float64) if extent in ("strength", "both") else None
    basis = None
    arguments: dict[str, Any] = {"axis": kind.axis}
    if kind.axis == "feature":
        basis = rotated(info.channels, info.channel_dim, linear=kind.linear)
        arguments = {"features": basis}
    if kind.axis == "head":
        arguments["heads"] = 2
    asked = Asked(kind.axis, 2, masks, strengths, basis)
    sets = [[0], [1]] if kind.axis == "head" else [[0], [1], [1, 0]]
    given: dict[str, Any] = {"where": masks} | ({} if strengths is None else {"strength": strengths})
    found = cp.Hybridizer(generator, toy.layer, **arguments).hybridize(z1, z2, units=sets, **given)
    expected = hybrids(toy, toy.layer, z1, z2, sets, asked)
    other = dataclasses.replace(asked, masks=None, strengths=None) if extent != "all" else asked
    if exact is not None:
        same = dataclasses.replace(toy, build=toy.plain, trained=True, dtype=torch.float64)
        exact.append(hybrids(same, toy.layer, doubled(z1), doubled(z2), sets, asked))
    control = hybrids(toy, toy.layer, z1, z2, sets if extent != "all" else sets[::-1], other, pairs=min(n, CONTROLS))
    return found, expected, control


def doubled(latents: Any) -> Any:
    if isinstance(latents, dict):
        return {name: doubled(part) for name, part in latents.items()}
    if isinstance(latents, tuple):
        return tuple(map(doubled, latents))
    return latents.double() if latents.is_floating_point() else latents


CASES = [
    pytest.param(toy, kind, extent, id=f"{toy.name}-{kind.name}-{extent}")
    for number, toy in enumerate(EVERY)
    for place, kind in enumerate(KINDS)
    for step, extent in enumerate(EXTENTS)
    if fits(toy, kind, extent) and (step == (number + place) % 4 or toy in (PLAIN,))
]


@pytest.mark.parametrize(("toy", "kind", "extent"), CASES)
def test_hybrids_of_any_units_equal_hooks_by_hand(toy: Toy, kind: Kind, extent: str) -> None:
    found, expected, control = compared(toy, kind, extent)
    assert gap(found.images, expected) <= toy.tolerance
    assert gap(found.images[:, :CONTROLS], control) > VISIBLE  # units, masks and strengths are told apart
    assert found.provenance["executor"] == "prepared"
    assert found.provenance["axis"] == kind.axis


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("toy", on_devices(EVERY))
def test_every_combination_equals_hooks_by_hand(toy: Toy, kind: Kind, extent: str, dtype: torch.dtype) -> None:
    if not fits(toy, kind, extent):
        pytest.skip("the layer has no such units")
    toy = dataclasses.replace(toy, dtype=dtype)
    exact: list[Tensor] = []
    found, expected, control = compared(toy, kind, extent, exact=exact)
    assert found.images.dtype == dtype
    allowed = toy.tolerance * max(1.0, float(expected.abs().max()))
    if dtype == torch.float32:  # rounding grows in some modules: hooks by hand are as far from float64
        allowed = max(allowed, _ROUNDINGS * gap(expected, exact[0]))
    assert gap(found.images, exact[0]) <= allowed
    assert gap(found.images[:, :CONTROLS], control) > max(VISIBLE, 10 * allowed)


@pytest.mark.parametrize("toy", on_devices([PLAIN, TOKENS, VIT], short=False))
def test_replay_and_whole_forwards_give_the_same(toy: Toy, only_replay: None) -> None:
    for kind in KINDS:
        if fits(toy, kind, "both"):
            found, expected, _ = compared(toy, kind, "both")
            assert gap(found.images, expected) <= toy.tolerance
            assert found.provenance["executor"].startswith("replay")
            few, expected, _ = compared(toy, kind, "both", n=2)
            assert gap(few.images, expected) <= toy.tolerance
            assert few.provenance["executor"] == "full forward"


# --- identities (conventions 6) ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: kind.name)
def test_identities_hold_for_each_kind_of_unit(kind: Kind) -> None:
    toy = TOKENS
    generator = toy.generator()
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    arguments: dict[str, Any] = {"axis": kind.axis} | ({"heads": 3} if kind.axis == "head" else {})
    if kind.axis == "feature":
        whole = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
        arguments = {"features": Rotated(whole, 2, whole)}
    hybridizer = cp.Hybridizer(generator, toy.layer, **arguments)
    every = range(hybridizer.space.coordinates[toy.layer].count)
    some, rest = [0, 2], [unit for unit in every if unit not in (0, 2)]
    sets = [{toy.layer: []}, every, some, rest]
    one, back = hybridizer.hybridize(z1, z2, units=sets), hybridizer.hybridize(z2, z1, units=sets)
    assert one.source is not None
    assert torch.equal(one.images[0], one.base)  # no unit
    same = hybridizer.hybridize(z1, z1, units=sets)
    assert torch.equal(same.images, same.base.expand_as(same.images))
    assert gap(one.images[1], one.source) <= toy.tolerance  # a full cut
    assert gap(one.images[2], back.images[3]) <= toy.tolerance
    assert gap(one.images[2], one.images[3]) > VISIBLE
    nowhere = hybridizer.hybridize(z1, z2, units=sets, strength=0.0)
    assert torch.equal(nowhere.images, nowhere.base.expand_as(nowhere.images))
    mask = torch.zeros(16, dtype=torch.bool)
    mask[3:9] = True
    inside = hybridizer.hybridize(z1, z2, units=every, where=mask)
    outside = hybridizer.hybridize(z2, z1, units=every, where=~mask)
    assert gap(inside.images, outside.images) <= toy.tolerance
    assert gap(inside.images[0], one.source) > VISIBLE


def test_strength_one_is_the_swap_to_the_bit() -> None:
    generator = PLAIN.generator()
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    hybridize = cp.Hybridizer(generator, PLAIN.layer).hybridize
    plain = hybridize(z1, z2).images
    assert torch.equal(plain, hybridize(z1, z2, strength=1.0).images)
    assert torch.equal(plain, hybridize(z1, z2, strength=torch.ones(N)).images)
    assert not torch.equal(plain, hybridize(z1, z2, strength=[1.0] * (N - 1) + [1.5]).images)


def test_one_feature_of_the_identity_basis_is_that_channel() -> None:
    generator = PLAIN.generator()
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    eye = torch.eye(6, dtype=torch.float64)
    found = cp.Hybridizer(generator, PLAIN.layer, features=Rotated(eye, 1, eye)).hybridize(z1, z2)
    assert gap(found.images, cp.Hybridizer(generator, PLAIN.layer).hybridize(z1, z2).images) <= 1e-10


# --- interventions ------------------------------------------------------------------------------------------------


def test_a_region_is_ablated() -> None:
    """gandissect's: units set to zero inside a mask."""
    generator = PLAIN.generator()
    z1 = generator.sample(N, seed=0)
    mask = torch.rand(4, 4) > 0.5
    found = cp.Hybridizer(generator, PLAIN.layer).intervene(z1, units=[1, 3], value=0.0, where=mask)

    def by_hand(part: Any, inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        for channel in (1, 3):
            output[:, channel][:, mask] = 0.0
        return output

    module = PLAIN.plain().eval()
    handle = module.get_submodule(PLAIN.layer).register_forward_hook(by_hand)
    with torch.no_grad():
        expected = module(z1)
    handle.remove()
    assert gap(found.images[0], expected) <= 1e-10
    whole = cp.Hybridizer(generator, PLAIN.layer).intervene(z1, units=[1, 3], value=0.0)
    assert gap(found.images, whole.images) > VISIBLE


@pytest.mark.parametrize("axis", ["token", "head"])
def test_tokens_and_heads_take_their_means(axis: Any) -> None:
    generator = VIT.generator()
    z1 = generator.sample(N, seed=0)
    module, seen = VIT.plain(), []

    def of(output: Tensor, value: Tensor) -> Tensor:
        output = output.clone()
        if axis == "token":
            output[:, 2] = value[:, 2]
        else:
            output[:, :, 4:] = value.mean(1, keepdim=True)[:, :, 4:]
        return output

    part = module.eval().get_submodule(VIT.layer)
    handle = part.register_forward_hook(lambda _part, _given, output: seen.append(output))
    with torch.no_grad():
        module(z1)
        handle.remove()
        mean = seen[0].mean(0, keepdim=True)
        handle = part.register_forward_hook(lambda _part, _given, output: of(output, mean))
        expected = module(z1)
        handle.remove()
    unit = 2 if axis == "token" else 1
    found = cp.Hybridizer(generator, VIT.layer, axis=axis).intervene(z1, units=[unit], value="mean")
    assert gap(found.images[0], expected) <= 1e-10
    assert gap(found.images[0], found.base) > VISIBLE


def test_features_are_set_to_numbers() -> None:
    generator = PLAIN.generator()
    z1 = generator.sample(N, seed=0)
    eye = torch.eye(6, dtype=torch.float64)
    features = cp.Hybridizer(generator, PLAIN.layer, features=Rotated(eye, 1, eye))
    channels = cp.Hybridizer(generator, PLAIN.layer)
    arguments: dict[str, Any] = {"units": [[1], [2, 4]], "value": 0.3, "strength": 0.5, "where": torch.rand(16, 16)}
    found = features.intervene(z1, **arguments)
    assert gap(found.images, channels.intervene(z1, **arguments).images) <= 1e-10
    assert gap(found.images, channels.intervene(z1, **arguments | {"value": 0.0}).images) > VISIBLE


# --- maps -------------------------------------------------------------------------------------------------------


def test_words_and_heads_have_influence_maps_and_modules(tmp_path: Any) -> None:
    """A word is a token of the text's embedding: where in the image does it act?"""
    generator = TEXT.generator()
    maps = cp.InfluenceMap(generator, TEXT.layer, axis="token").attribute(n_pairs=16, blocks=4)
    z1, z2 = generator.sample(16, seed=0), generator.sample(16, seed=0, stream=1)
    hybrids = cp.Hybridizer(generator, TEXT.layer, axis="token").hybridize(z1, z2)
    expected = (hybrids.images - hybrids.base).abs().mean((1, 2))
    assert gap(maps.maps, expected) <= 1e-6
    assert maps.provenance["axis"] == "token"
    assert [record["tokens"] for record in maps.records()] == [1] * 5
    loaded = cp.InfluenceMaps.load(maps.save(tmp_path / "maps.safetensors"))
    assert loaded.units == maps.units
    assert loaded.units[0].kind == "token"
    assert "token 0" in str(loaded)
    finder = cp.ModuleFinder(2).fit(loaded)
    assert all(units.kind == "token" for units in finder.unit_sets())
    again = cp.ModuleFinder.load(finder.save(tmp_path / "modules.safetensors"))
    assert again.unit_sets() == finder.unit_sets()
    cp.Hybridizer(generator, TEXT.layer, axis="token").hybridize(z1, z2, units=again.modules_)
    with pytest.raises(cp.ProbeError, match="the unit set holds tokens and units are channels here; give axis='token'"):
        cp.Hybridizer(generator, TEXT.layer).hybridize(z1, z2, units=again.modules_)
    heads = cp.InfluenceMap(generator, "attn.proj<", axis="head").attribute(n_pairs=8)
    assert len(heads) == 2
    assert heads.provenance["heads"] == {"attn.proj<": 2}


def test_maps_of_a_region_and_of_half_a_swap() -> None:
    generator = DIT.generator()
    influence = cp.InfluenceMap(generator, DIT.layer)
    mask = torch.zeros(8, 8)
    mask[:4, :4] = 1
    z1, z2 = generator.sample(16, seed=0), generator.sample(16, seed=0, stream=1)
    maps = influence.attribute(n_pairs=16, where=mask, strength=0.5)
    found = cp.Hybridizer(generator, DIT.layer).hybridize(z1, z2, where=mask, strength=0.5)
    assert gap(maps.maps, (found.images - found.base).abs().mean((1, 2))) <= 1e-5
    assert gap(maps.maps, influence.attribute(n_pairs=16).maps) > VISIBLE
    assert maps.provenance["strength"] == 0.5
    assert len(maps.provenance["where"]["blocks.0"]) == 64
