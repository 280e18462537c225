"""Layers: which are offered, how they are named, and what is said of those that cannot be set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import Attention, Deconv, Drawer, vectors
from support.toys import PLAIN, SHARED, TOKENS, TOYS, VECTOR

Z = vectors(5, torch.float32)


def test_layers_come_in_execution_order_and_exactly_once() -> None:
    generator = SHARED.generator()
    # relu runs three times, so it is not offered; its calls can be named.
    assert list(generator.layers) == ["first", "second", "third", "last"]
    assert generator.layer("relu#2") == cp.LayerInfo("relu#2", 4, (8, 8))

    class Backwards(Deconv):
        """Registered in another order than it runs, with one part that never does."""

        def __init__(self) -> None:
            super().__init__()
            self.zz, self.aa = nn.ConvTranspose2d(5, 4, 4), nn.Conv2d(4, 3, 1)
            del self.main

        def forward(self, z: Tensor) -> Tensor:
            image: Tensor = self.aa(self.zz(z[:, :, None, None]))
            return image

    assert list(cp.wrap(Backwards(), Z).layers) == ["zz", "aa"]


def test_channels_and_sizes() -> None:
    assert PLAIN.generator().layers["main.6"] == cp.LayerInfo("main.6", 5, (8, 8))
    assert TOKENS.generator().layers["attend1"] == cp.LayerInfo("attend1", 6, (16,))
    assert VECTOR.generator().layers["mapping.1"] == cp.LayerInfo("mapping.1", 7, ())
    assert [cp.LayerInfo("x", 2, size).channel_dim for size in ((3, 3), (3,), ())] == [1, 2, 1]


def test_chosen_layers_are_listed_as_given() -> None:
    generator = cp.wrap(SHARED.plain(), SHARED.sampler, layers=["relu#3", "first"])
    assert list(generator.layers) == ["relu#3", "first"]
    assert generator.layer("second").channels == 4  # others can still be named


def test_a_layer_shared_under_two_names_has_both() -> None:
    class Alias(Deconv):
        def __init__(self) -> None:
            super().__init__()
            self.same = self.main[4]

    generator = cp.wrap(Alias(), Z)
    assert generator.layer("same") == generator.layer("main.4")


def test_compiled_parts_are_named_as_if_they_were_not() -> None:
    toy = next(toy for toy in TOYS if toy.name == "compiled part")
    generator = toy.generator()
    assert list(generator.layers) == list(PLAIN.generator().layers)
    assert generator.layer("main._orig_mod.2") == generator.layer("main.2")


class Odd(nn.Module):
    """Has everything a layer can do wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.unused, self.relu = nn.ConvTranspose2d(5, 3, 4), nn.Conv2d(3, 3, 1), nn.ReLU()
        self.text, self.turned = Drawer(lambda x, z: "no tensor"), Drawer(lambda x, z: x.flatten())
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1))

    def forward(self, z: Tensor) -> Tensor:
        self.text(z)
        self.turned(z)
        x = self.relu(self.up(z[:, :, None, None]))
        image: Tensor = self.inner(self.relu(x) @ self.unused.weight.mean().expand(4, 4))
        return image


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uq", r"layer 'uq' is not in this generator; nearest: 'up'"),
        ("inner.00", r"layer 'inner\.00' is not in this generator; nearest: 'inner\.0'"),
        ("inner.0.conv", r"layer 'inner\.0\.conv' is not in this generator"),
        ("", "layer '' is not in this generator"),
        (
            "unused",
            r"layer 'unused' is in the module but never runs in its forward .* choose one that runs, such as '",
        ),
        ("relu", r"layer 'relu' runs 2 times in one forward; name one call as 'relu#2' \(the first is #1\)"),
        (
            "relu#3",
            r"layer 'relu' runs 2 times in one forward and 'relu#3' asks for call '3'; name one of #1 to #2",
        ),
        ("relu#0", "asks for call '0'"),
        ("relu#", "asks for call ''"),
        ("relu#two", "asks for call 'two'"),
        ("up#2", "layer 'up' runs 1 time in one forward"),
        ("text", "layer 'text' has no channels to set: its output is not a tensor"),
        ("turned", r"layer 'turned' has no channels to set: its output has shape \(144,\) for 3 samples"),
        (3, "a layer is named by a string and 3 is a int"),
    ],
)
def test_bad_layer_names(name: Any, message: str) -> None:
    generator = cp.wrap(Odd(), Z)
    with pytest.raises(cp.ProbeError, match=message):
        generator.layer(name)
    for analysis in (cp.Hybridizer, cp.InfluenceMap):
        with pytest.raises(cp.ProbeError, match=message):
            analysis(generator, [name])
    with pytest.raises(cp.ProbeError, match=message):
        cp.wrap(Odd(), Z, layers=[name])


def test_layer_lists() -> None:
    generator = cp.wrap(Odd(), Z)
    with pytest.raises(cp.ProbeError, match="no layer was named; name at least one"):
        cp.Hybridizer(generator, [])
    with pytest.raises(cp.ProbeError, match="a layer is named twice"):
        cp.Hybridizer(generator, ["up", "up#1"])


class Forked(Deconv):
    """How often its first part runs depends on the latent."""

    def forward(self, z: Tensor) -> Tensor:
        x = torch.zeros(len(z), 6, 4, 4)
        for _ in range(0 if float(z[0, 0]) < -100 else 2 if float(z[0, 0]) > 100 else 1):
            x = self.main[:4](z[:, :, None, None])
        image: Tensor = self.main[4:](x)
        return image


@pytest.mark.parametrize("role", ["base", "source"])
@pytest.mark.parametrize(("entry", "times"), [(1000.0, 2), (-1000.0, 0)])
def test_a_layer_that_an_input_skips_is_reported(entry: float, times: int, role: str) -> None:
    """The first forward ran it once; this one does not, so there is no one value to set."""
    generator = cp.wrap(Forked(), Z)
    z = generator.sample(1)
    assert isinstance(z, Tensor)
    other = z.clone()
    other[0, 0] = entry
    z1, z2 = (other, z) if role == "base" else (z, other)
    with pytest.raises(cp.ProbeError, match=f"layer 'main.2' ran {times} times in this forward, once in the first"):
        cp.Hybridizer(generator, "main.2").hybridize(z1, z2, units=[0])


def test_an_attention_module_returns_its_weights_unharmed() -> None:
    """Only the first entry of a layer's tuple carries channels; the rest passes as it is."""

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = Attention(5)

        def forward(self, z: Tensor) -> Tensor:
            x, weights = self.attend(z[:, None].expand(-1, 4, -1).clone())
            return (weights @ x)[:, None]

    generator = cp.wrap(Uses(), Z)
    z = generator.sample(2)
    hybrids = cp.Hybridizer(generator, "attend").intervene(z, units=[1], value=0.0)
    assert float(hybrids.images[0, :, 0, :, 1].abs().max()) == 0
    assert torch.equal(hybrids.images[0, ..., 0], hybrids.base[..., 0])
