"""Axes of activations: how they are written, read, and found from the forward."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.generator.layers import ChannelsGuessed
from counterfactual_probe.generator.layers.dimensions.axes import parse
from counterfactual_probe.generator.layers.dimensions.channels import FollowedChannels
from counterfactual_probe.testing import check_adapter

# --- written and read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape", "channels", "size", "einsum"),
    [
        ("n c h w", (3, 4, 5, 6), 4, (5, 6), None),
        ("n h w c", (3, 5, 6, 4), 4, (5, 6), lambda x: x.permute(0, 3, 1, 2)),
        ("t n c", (5, 3, 4), 4, (5,), lambda x: x.permute(1, 2, 0)),
        ("n ... c", (3, 5, 6, 7, 4), 4, (5, 6, 7), lambda x: x.permute(0, 4, 1, 2, 3)),
        ("(2 n) c h w", (6, 4, 5, 7), 4, (2, 5, 7), lambda x: torch.stack([x[:3], x[3:]], 2)),
        ("(n f) c", (6, 4), 4, (2,), lambda x: torch.stack([x[0::2], x[1::2]], 2)),
        ("n (g c) t", (3, 8, 5), None, None, None),
        ("n (2 c) t", (3, 8, 5), 4, (2, 5), lambda x: torch.stack([x[:, :4], x[:, 4:]], 2)),
    ],
)
def test_channels_first(text: str, shape: Any, channels: Any, size: Any, einsum: Any) -> None:
    axes = parse(text)
    if channels is None:
        with pytest.raises(ValueError, match=r"8 is no \(g c\) of axes"):
            axes.bound(shape, 3)
        return
    axes = axes.bound(shape, 3)
    assert axes.channels_and_size == (channels, size)
    x = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    view = axes.channels_first(x)
    assert torch.equal(view, x if einsum is None else einsum(x))
    assert torch.equal(axes.as_before(view), x)
    view[:, 1] = -1.0  # it is a view
    assert int((x == -1).sum()) == x.numel() // channels
    # Of another number of samples, too.
    more = torch.cat([x, x]) if axes.dims[0] == ("n",) else None
    if more is not None:
        assert axes.channels_first(more).shape[0] == 6


@given(st.permutations(["n", "c", "h", "w"]), st.integers(1, 4), st.booleans())
def test_any_order_and_any_fold(order: list[str], samples: int, first: bool) -> None:
    text = " ".join({"n": "(2 n)" if first else "(n 2)"}.get(word, word) for word in order)
    sizes = {"n": 2 * samples, "c": 3, "h": 4, "w": 5}
    x = torch.randn([sizes[word] for word in order])
    axes = parse(text).bound(x.shape, samples)
    view = axes.channels_first(x)
    assert view.shape[:2] == (samples, 3)
    assert view.numel() == x.numel()
    assert torch.equal(axes.as_before(view), x)
    assert str(axes) == text


@pytest.mark.parametrize(
    "text", ["", "n", "c", "n c c", "n n c", "n c (", "n c )", "n () c", "n 0 c", "n c -1", "n c (... 2)", 3, None]
)
def test_what_axes_may_not_be(text: Any) -> None:
    with pytest.raises(cp.ProbeError, match=r"axes are .*; name every dimension once, with n for the samples"):
        parse(text)


# --- found from the forward -------------------------------------------------------------------------------


class Block(nn.Module):
    """As in Swin and ConvNeXt: channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fc(self.norm(x))
        return out


class Mixed(nn.Module):
    """N×C×H×W, N×H×W×C, N×C×T and N×T×C, in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.block, self.out = nn.ConvTranspose2d(5, 8, 8), Block(), nn.Conv2d(8, 3, 1)
        self.flat, self.wave, self.mixer, self.gelu = (
            nn.GroupNorm(2, 8),
            nn.Conv1d(8, 8, 1),
            nn.Linear(64, 64),
            nn.GELU(),
        )

    def forward(self, z: Tensor) -> Tensor:
        x = self.up(z[:, :, None, None])
        x = self.block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        t = self.wave(self.flat(x.flatten(2)))
        t = self.gelu(self.mixer(t) + t)
        return torch.tanh(self.out(t.view_as(x)))


def vectors(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, 5, generator=rng)


def test_axes_are_found_where_the_forward_tells_them() -> None:
    generator = cp.wrap(Mixed().double(), vectors)
    found = {name: (info.axes, info.channels, info.size) for name, info in generator.layers.items()}
    last, first, flat = ("n h w c", 8, (8, 8)), ("n c h w", 8, (8, 8)), ("n c t", 8, (64,))
    assert found == {
        "up": first,
        "block.norm": last,
        "block.fc": last,
        "block": last,
        "flat": flat,
        "wave": flat,
        "mixer": flat,  # a linear map of positions
        "gelu": flat,
        "out": ("n c h w", 3, (8, 8)),
    }
    assert "axes" in str(generator.layers)


@pytest.mark.parametrize("layer", ["block", "block.fc", "flat", "mixer", "block<", "wave<"])
def test_a_channel_is_a_feature_whatever_the_axes(layer: str) -> None:
    """One channel of a hooked forward, written out; fewer than nine hybrids and more are run by other executors."""
    module = Mixed().double()
    generator = cp.wrap(module, vectors)
    z1, z2 = generator.sample(4, seed=0), generator.sample(4, seed=1)
    place = {"n h w c": 3, "n c t": 1}[generator.layer(layer).axes]
    part = module.get_submodule(layer.rstrip("<"))
    kept: list[Tensor] = []

    def read(value: Tensor) -> None:
        kept.append(value.clone())

    def write(value: Tensor) -> Tensor:
        return torch.where(
            torch.arange(8).view([-1 if d == place else 1 for d in range(value.dim())]) == 3, kept[0], value
        )

    def run(z: Any, action: Callable[[Tensor], Any]) -> Tensor:
        if layer.endswith("<"):
            handle = part.register_forward_pre_hook(lambda _, given: action(given[0]))
        else:
            handle = part.register_forward_hook(lambda _part, _given, output: action(output))
        with torch.no_grad():
            image: Tensor = module.eval()(z)
        handle.remove()
        return image

    run(z2, read)
    expected = run(z1, write)
    many = cp.Hybridizer(generator, layer).hybridize(z1, z2, units=[[3], *([c] for c in range(8))])
    few = cp.Hybridizer(generator, layer).hybridize(z1[:2], z2[:2], units=[[3]])
    assert many.provenance["executor"].startswith("prepared")
    assert torch.allclose(many.images[0], expected, rtol=0, atol=1e-10)
    assert torch.allclose(few.images[0], expected[:2], rtol=0, atol=1e-10)
    assert not torch.allclose(many.images[1], expected, rtol=0, atol=1e-4)
    assert check_adapter(generator, layers=[layer], raise_on_failure=False).passed


def conv(x: Tensor) -> Tensor:
    return F.conv2d(x, torch.ones(6, 4, 1, 1))


FOLLOWED: dict[str, tuple[Callable[[Tensor], Tensor], int | None]] = {
    "convolution": (conv, 1),
    "permuted": (lambda x: conv(x).permute(0, 2, 3, 1), 3),
    "moved": (lambda x: conv(x).movedim(1, 2), 2),
    "flattened": (lambda x: conv(x).flatten(2), 1),
    "tokens": (lambda x: conv(x).flatten(2).mT, 2),
    "mean": (lambda x: conv(x).mean((2, 3)), None),
    "upsampled in place": (lambda x: F.interpolate(conv(x), scale_factor=2).relu_(), 1),
    "joined": (lambda x: torch.cat([conv(x), x], 1), 1),
    "half": (lambda x: conv(x).chunk(2, 1)[1] + 1, 1),
    "norm of all": (lambda x: F.layer_norm(x, [4, 5, 7]), None),
    "norm": (lambda x: F.layer_norm(x, [7]), 3),
    "linear": (lambda x: F.linear(x, torch.ones(3, 7)), 3),
    "linear of positions": (lambda x: F.linear(F.relu(conv(x)), torch.ones(3, 7)), 1),
    "einsum": (lambda x: torch.einsum("nchw->nhwc", conv(x)), None),
    "nothing told": (lambda x: x * 2, None),
    "split": (lambda x: F.linear(x.flatten(1), torch.ones(48, 140)).view(2, 3, 4, 4), None),
    "unflattened": (lambda x: F.linear(x.flatten(1), torch.ones(48, 140)).unflatten(1, (3, 4, 4)), None),
    "with positions": (lambda x: F.linear(x.flatten(1), torch.ones(6, 140)).view(2, 6, 1, 1), 1),
    "heads": (lambda x: F.linear(x, torch.ones(6, 7)).view(2, 4, 5, 3, 2), None),
    "one, sliced": (lambda x: F.conv2d(x, torch.ones(1, 4, 1, 1))[:], 1),
    "one, of a view": (lambda x: F.conv2d(x, torch.ones(1, 4, 1, 1)).view(2, 1, 5, 7), 1),
    "one, permuted": (lambda x: F.conv2d(x, torch.ones(1, 4, 1, 1)).permute(0, 2, 3, 1), 3),
    "one, as many": (lambda x: F.conv2d(x, torch.ones(1, 4, 1, 1)).expand(-1, 6, -1, -1), 1),
    "one, recurrent": (lambda x: nn.LSTM(7, 1)(x[0])[0], 2),
    "recurrent": (lambda x: nn.LSTM(7, 3, batch_first=True)(conv(x)[:, :, 0])[1][0], 2),
    "attention": (lambda x: torch.ones(2, 5, 5) @ F.linear(x[:, 0], torch.ones(3, 7)), 2),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed_through_operations(name: str) -> None:
    function, place = FOLLOWED[name]
    with torch.no_grad(), FollowedChannels() as channels:
        made = function(torch.randn(2, 4, 5, 7))
    assert channels.of(made).number == place


@pytest.mark.parametrize("between", [[], [nn.ReLU()], [nn.BatchNorm2d(8), nn.ReLU()]])
def test_the_channels_of_a_linear_map_that_is_split_are_those_a_convolution_reads(between: list[nn.Module]) -> None:
    """The first layers of most GANs: channels and positions from one linear map."""
    module = nn.Sequential(nn.Linear(5, 128), nn.Unflatten(1, (8, 4, 4)), *between, nn.ConvTranspose2d(8, 3, 4, 2, 1))
    generator = cp.wrap(module, vectors)
    assert all(info.axes == "n c h w" for info in generator.layers.values() if info.size)
    assert generator.layer("1") == cp.LayerInfo("1", 8, (4, 4))
    assert generator.layer(f"{len(between) + 2}<") == cp.LayerInfo(f"{len(between) + 2}<", 8, (4, 4))


class Raw(nn.Module):
    """Nothing tells where the channels of its first layer are."""

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.out = nn.Identity(), nn.Conv2d(3, 3, 1)
        self.weight = nn.Parameter(torch.randn(5, 4, 3, 6))

    def forward(self, z: Tensor) -> Tensor:
        x = self.raw(torch.einsum("nz,zabc->nabc", z, self.weight))
        return torch.tanh(self.out(torch.einsum("nabc->nbac", x)))


def test_a_guess_is_said_and_axes_settle_it() -> None:
    module = Raw()
    generator = cp.wrap(module, vectors)
    with pytest.warns(ChannelsGuessed, match=r"layer 'raw' holds its channels; they are taken from 'n c h w'"):
        cp.InfluenceMap(generator, "raw")
    settled = cp.wrap(module, vectors, axes={"ra*": "n h c w"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cp.InfluenceMap(settled, "raw")
    assert settled.layer("raw") == cp.LayerInfo("raw", 3, (4, 6), "n h c w")
    assert settled.layer("raw").channel_dim == 2


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"rew": "n c h w"}, "no layer is named 'rew', as axes say; nearest: 'raw'"),
        ({"raw": "n c"}, r"axes 'n c' of 'raw' fit no layer: layer 'raw' has shape \(3, 4, 3, 6\) for 3 samples, axes"),
        ({"raw": "(3 n) c h w"}, "3 is no \\(3 n\\) of axes"),
        ({"raw": "n c h q q"}, "axes are 'n c h q q'; name every dimension once"),
        ("n c h w", "axes are a str; give"),
    ],
)
def test_axes_that_fit_nothing(axes: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.wrap(Raw(), vectors, axes=axes)


# --- folded batches ---------------------------------------------------------------------------------------


class Guided(nn.Module):
    """Classifier-free guidance: the network runs on twice the batch, or on every sample's two halves in turn."""

    def __init__(self, halves: str) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))
        self.halves = halves

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        pairs = torch.stack([torch.cat([x, torch.zeros_like(c)], 1), torch.cat([x, c], 1)], int(self.halves == "inner"))
        out = self.net(pairs.flatten(0, 1))
        free, bound = out.unflatten(0, pairs.shape[:2]).unbind(int(self.halves == "inner"))
        return x - (free + 5 * (bound - free)) / 9


@pytest.mark.parametrize(("halves", "axes"), [("outer", "(2 n) c h w"), ("inner", "(n 2) c h w")])
def test_a_folded_batch_is_found(halves: str, axes: str) -> None:
    module = Guided(halves).double()

    def sample(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 3, 4, 4, generator=rng), torch.randn(n, 3, 4, 4, generator=rng)

    generator = cp.wrap(module, sample, image_range=(-9, 9))
    assert generator.layers["net.0"] == cp.LayerInfo("net.0", 8, (2, 4, 4), axes)
    z1, z2 = generator.sample(5, seed=0), generator.sample(5, seed=1)
    units = [[channel] for channel in range(8)]
    hybrids = cp.Hybridizer(generator, "net.0").hybridize(z1, z2, units=units)
    few = cp.Hybridizer(generator, "net.0").hybridize(*((z[0][:1], z[1][:1]) for z in (z1, z2)), units=units)
    assert not hybrids.provenance["executor"].startswith("full")
    assert few.provenance["executor"].startswith("full")

    def literal(channel: int) -> Tensor:
        """Each half takes the channel from the same half of the source."""
        kept: list[Tensor] = []
        handle = module.net[0].register_forward_hook(lambda _part, _given, output: kept.append(output.clone()))
        with torch.no_grad():
            module(*z2)
        handle.remove()

        def put(_part: nn.Module, _given: Any, output: Tensor) -> Tensor:
            output[:, channel] = kept[0][:, channel]
            return output

        handle = module.net[0].register_forward_hook(put)
        with torch.no_grad():
            image: Tensor = module(*z1)
        handle.remove()
        return image

    for channel in (0, 7):
        assert torch.allclose(hybrids.images[channel], literal(channel), rtol=0, atol=1e-10)
        assert torch.allclose(few.images[channel], literal(channel)[:1], rtol=0, atol=1e-10)
    assert check_adapter(generator, layers=["net.0"], raise_on_failure=False).passed


def test_an_even_batch_alone_is_no_folded_one() -> None:
    """Four rows for two samples that are no rows of either sample alone: nothing is guessed."""

    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([x, x.mean(0, keepdim=True).expand_as(x)])
            return self.out(self.net(both)[: len(x)])

    generator = cp.wrap(Crossed(), lambda n, rng: torch.randn(n, 3, 4, 4, generator=rng))
    with pytest.raises(cp.ProbeError, match=r"its output has shape \(6, 4, 4, 4\) for 3 samples; say what its dim"):
        generator.layer("net")
