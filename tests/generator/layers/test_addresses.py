"""Layers by address: entries of outputs, inputs of submodules, calls, and names that look like addresses."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.testing import check_adapter


class Named(NamedTuple):
    text: Tensor
    image: Tensor


@dataclass
class Fields:
    image: Tensor


class Two(nn.Module):
    """Returns (text, image) in one of several forms."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.linear, self.conv, self.form = nn.Linear(8, 8), nn.Conv2d(4, 4, 3, padding=1), form

    def forward(self, text: Tensor, *, image: Tensor) -> Any:
        text, image = self.linear(text), self.conv(image)
        made = {"tuple": (text, image), "list": [text, image], "named": Named(text, image)}
        made |= {"none": (None, image), "dict": {"image": image}, "fields": Fields(image)}
        return made[self.form]


class Streams(nn.Module):
    """A text and an image stream, and an image stream that is read twice after the block."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.block, self.out = Two(form), nn.Conv2d(4, 3, 1)

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        made = self.block(text, image=image)
        image = made["image"] if isinstance(made, dict) else made.image if isinstance(made, Fields) else made[1]
        if isinstance(made, tuple | list) and made[0] is not None:
            image = torch.relu(image) + made[0].mean(1)[:, :4, None, None]
        return torch.tanh(self.out(image) + image[:, :3])


def sample(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5, 8, generator=rng).double(), torch.randn(n, 4, 8, 8, generator=rng).double()


def built(form: str = "tuple") -> cp.GeneratorAdapter:
    torch.manual_seed(0)
    return cp.wrap(Streams(form).double(), sample)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("tuple", ["block", "block[1]"]),
        ("list", ["block", "block[1]"]),
        ("named", ["block", "block[1]"]),
        ("none", ["block[1]"]),
        ("dict", ["block[image]"]),
        ("fields", ["block[image]"]),
    ],
)
def test_every_entry_is_a_layer(form: str, names: list[str]) -> None:
    generator = built(form)
    assert [name for name in generator.layers if name.startswith("block") and "." not in name] == names
    assert check_adapter(generator, layers=names, raise_on_failure=False).passed
    assert generator.layer(names[-1]) == cp.LayerInfo(names[-1], 4, (8, 8))


class Own(tuple[Tensor, ...]):
    """A tuple whose class wants its items one by one."""

    def __new__(cls, one: Tensor, two: Tensor) -> Own:
        return tuple.__new__(cls, (one, two))


class Levels(OrderedDict[str, Tensor]):
    """A dict whose class wants an argument."""

    def __init__(self, one: Tensor, **others: Tensor) -> None:
        super().__init__(**others)
        self["one"] = one


@dataclass(frozen=True)
class Doubled:
    """A field that is computed from another when one is made, not when the other is replaced."""

    one: Tensor
    two: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "two", self.one * 2)


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], tuple[str, str]]] = {
    "digits": (lambda a, b: {"0": a, "1": b}, ("0", "1")),
    "numbers": (lambda a, b: {0: a, 3: b}, ("0", "3")),
    "empty": (lambda a, b: {"": a, "b": b, ("c",): 1}, ("", "b")),
    "default": (lambda a, b: defaultdict(list, a=a, b=b), ("a", "b")),
    "read only": (lambda a, b: MappingProxyType({"a": a, "b": b}), ("a", "b")),
    "tuple of its own": (Own, ("0", "1")),
    "dict of its own": (lambda a, b: Levels(a, two=b), ("one", "two")),
    "computed": (lambda a, _: Doubled(a), ("one", "two")),
    "of C": (lambda a, b: torch.linalg.qr(a.mT + b), ("0", "1")),
}


class Forms(nn.Module):
    def __init__(self, made: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.net, self.made = nn.Conv2d(3, 4, 1), made

    def forward(self, x: Tensor) -> Any:
        return self.made(self.net(x), x.sum(1, keepdim=True) * torch.arange(1, 5, dtype=x.dtype)[:, None, None])


class Read(nn.Module):
    """Reads two entries of an output, by what is written in brackets."""

    def __init__(self, form: str) -> None:
        super().__init__()
        made, self.keys = FORMS[form]
        self.forms, self.out = Forms(made), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = entries_of(self.forms(x), self.keys)
        return torch.tanh(self.out(one) + self.out(3 * two).flip(3))


def entries_of(made: Any, keys: tuple[str, str]) -> list[Tensor]:
    if isinstance(made, tuple):
        return [made[int(key)] for key in keys]
    if not isinstance(made, Mapping):
        return [getattr(made, key) for key in keys]
    return [made[key] if key in made else made[int(key)] for key in keys]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("form", FORMS)
def test_an_entry_is_replaced_in_any_kind_of_output(form: str, place: int) -> None:
    torch.manual_seed(0)
    module = Read(form).double()
    generator = cp.wrap(module, lambda n, rng: torch.randn(n, 3, 4, 4, generator=rng))
    layer = f"forms[{module.keys[place]}]"
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    with torch.no_grad():
        base, source = (entries_of(module.forms(z), module.keys) for z in (z1, z2))
        base[place] = base[place].clone()
        base[place][:, 2] = source[place][:, 2]
        expected = torch.tanh(module.out(base[0]) + module.out(3 * base[1]).flip(3))
    units = [[2], *([c] for c in range(4)), *([c, (c + 1) % 4] for c in range(4))]
    many = cp.Hybridizer(generator, layer).hybridize(z1, z2, units=units)
    few = cp.Hybridizer(generator, layer).hybridize(z1[:1], z2[:1], units=units[:1])
    assert torch.allclose(many.images[0], expected, rtol=0, atol=1e-10)
    assert torch.allclose(few.images[0], expected[:1], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "layers",
    [
        ["block[1]"],
        ["block"],
        ["out<"],
        ["block[image]<"],
        ["block<"],
        ["out"],
        ["block", "block[1]"],
        ["out<", "block<"],
    ],
    ids="+".join,
)
def test_hybrids_equal_those_of_plain_hooks(layers: list[str]) -> None:
    """The kit's own hooks, of every unit set, for few and for many hybrids; and another layer gives other images."""
    generator = built()
    z1, z2 = generator.sample(4, seed=0), generator.sample(4, seed=1)
    units = [{layer: [0, 2] for layer in layers}, *({layer: [c] for layer in layers} for c in range(3))]
    many = cp.Hybridizer(generator, layers).hybridize(z1, z2, units=units)
    few = cp.Hybridizer(generator, layers).hybridize(*(tuple(v[:1] for v in z) for z in (z1, z2)), units=units[:1])
    assert many.provenance["executor"] == "prepared"
    assert few.provenance["executor"] == "full forward"
    assert torch.allclose(many.images[0, :1], few.images[0], rtol=0, atol=1e-10)
    kept: dict[str, Tensor] = {}
    expected = by_hand(generator.module, z1, by_hand(generator.module, z2, kept, layers) and kept, layers)
    assert torch.allclose(many.images[0], expected, rtol=0, atol=1e-10)
    assert not torch.allclose(many.images[1], expected, rtol=0, atol=1e-4)


def by_hand(module: nn.Module, z: Any, kept: dict[str, Tensor], layers: list[str]) -> Any:
    """The forward of Streams written out: the first run keeps the values of the layers, another takes channels 0, 2."""
    is_source = not kept

    def at(layer: str, value: Tensor, dim: int) -> Tensor:
        if layer not in layers:
            return value
        if is_source:
            kept[layer] = value
            return value
        chosen = torch.zeros(value.shape[dim], dtype=torch.bool)
        chosen[[0, 2]] = True
        return torch.where(chosen.view([-1 if d == dim else 1 for d in range(value.dim())]), kept[layer], value)

    block, out = module.block, module.out
    with torch.no_grad():
        text = at("block", block.linear(at("block<", z[0], 2)), 2)
        image = at("block[1]", block.conv(at("block[image]<", z[1], 1)), 1)
        image = torch.relu(image) + text.mean(1)[:, :4, None, None]
        made = torch.tanh(at("out", out(at("out<", image, 1)), 1) + image[:, :3])
    return made if not is_source else True


def test_an_input_that_others_read_is_set_for_its_module_alone() -> None:
    generator = built()
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    hybrids = cp.Hybridizer(generator, "out<").hybridize(z1, z2, units=[[0], [1], [2], [3], [0, 1, 2, 3]])
    block = cp.Hybridizer(generator, "block[1]").hybridize(z1, z2, units=[[0, 1, 2, 3]])
    assert hybrids.provenance["executor"] == "prepared"
    assert not torch.allclose(hybrids.images[-1], hybrids.source, rtol=0, atol=1e-3)  # the sum still has the base's
    assert not torch.allclose(hybrids.images[-1], block.images[0], rtol=0, atol=1e-3)


def test_influence_maps_of_entries_and_inputs() -> None:
    generator = built()
    maps = cp.InfluenceMap(generator, ["block[1]", "out<"]).attribute(n_pairs=8, seed=0)
    assert [list(units) for units in maps.units[::4]] == [["block[1]"], ["out<"]]
    assert float(maps.influence.min()) > 0
    assert maps.provenance["executor"] == "prepared"


class Repeated(nn.Module):
    """A block that runs twice, and a submodule whose own name looks like an address."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.block, self.out = nn.ConvTranspose2d(5, 4, 4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)
        self.add_module("block#1", nn.Conv2d(4, 4, 1))
        self.add_module("in[0]<", nn.Conv2d(4, 4, 1))

    def forward(self, z: Tensor) -> Tensor:
        x = self.block(torch.relu(self.block(self.up(z[:, :, None, None]))))
        return torch.tanh(self.out(self.get_submodule("in[0]<")(self.get_submodule("block#1")(x))))


def test_calls_of_inputs_and_names_with_signs() -> None:
    module = Repeated().double()
    generator = cp.wrap(module, lambda n, rng: torch.randn(n, 5, generator=rng))
    assert list(generator.layers) == ["up", "block#*", "block#1", "in[0]<", "out"]
    assert generator.layer("block#2<").name == "block#2<"
    assert generator.layer("block#1#1").name == "block#1"  # the first call of the submodule of that name
    assert generator.layer("block#2[0]").name == "block#2"
    z1, z2 = generator.sample(6, seed=0), generator.sample(6, seed=1)
    second = cp.Hybridizer(generator, "block#2<").hybridize(z1, z2, units=[[0], [1]])
    before = torch.relu(module.block(module.up(z1[:, :, None, None]))).detach()
    before[:, 0] = torch.relu(module.block(module.up(z2[:, :, None, None])))[:, 0].detach()
    with torch.no_grad():
        expected = module.get_submodule("in[0]<")(module.get_submodule("block#1")(module.block(before)))
        expected = torch.tanh(module.out(expected))
    assert torch.allclose(second.images[0], expected, rtol=0, atol=1e-10)
    with pytest.raises(cp.ProbeError, match="layer 'block<' runs 2 times in one forward; name one call as 'block#2<'"):
        generator.layer("block<")


@pytest.mark.parametrize(
    ("form", "name", "message"),
    [
        ("tuple", "block[2]", r"its output has no tensor \[2\]; name one of 'block', 'block\[1\]'"),
        ("tuple", "block[image]", r"its output has no tensor \[image\]"),
        ("tuple", "block[1]<", r"its input has no tensor \[1\]; name one of 'block<', 'block\[image\]<'"),
        ("none", "block", r"its output is not a tensor but several; name one, such as 'block\[1\]'"),
        ("none", "block[0]", "its output is not a tensor but several"),
        ("dict", "block", r"its output is not a tensor but several; name one, such as 'block\[image\]'"),
        ("tuple", "block[1", r"layer 'block\[1' is not in this generator"),
        ("tuple", "block<<", "layer 'block<<' is not in this generator"),
    ],
)
def test_addresses_of_nothing(form: str, name: str, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        built(form).layer(name)
