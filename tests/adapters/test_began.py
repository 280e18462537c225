"""BEGAN generators: literal twins of images and hybrids, with skips across the cut; sizes read off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.began import BEGANDiscriminator, BEGANGenerator, began
from counterfactual_probe.adapters.dcgan import DCGANGenerator
from torch import Tensor
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.registry import folders
from support.adapters.states import spoiled_state
from support.toys import seeded, untrained

SMALL: dict[str, Any] = {"latent": 5, "width": 4, "colours": 3, "image_size": 16, "start": 4}


def small_began(**changes: Any) -> BEGANGenerator:
    return untrained(lambda: BEGANGenerator(**{**SMALL, **changes}))


def adapter(module: BEGANGenerator) -> cp.GeneratorAdapter:
    """In float64, which a file of float32 would not give."""
    return cp.wrap(module, lambda n, rng: torch.rand(n, 5, generator=rng, dtype=torch.float64) * 2 - 1)


def larger(x: Tensor, times: int) -> Tensor:
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


def literal(
    state: dict[str, Tensor], z: Tensor, put: dict[str, tuple[list[int], Tensor]] | None = None, *, skip: bool = True
) -> dict[str, Tensor]:
    """From the tensors alone: h0, each ELU by its name, and the image. ``put`` overwrites channels of layers."""
    found: dict[str, Tensor] = {}

    def seen(name: str, x: Tensor) -> Tensor:
        channels, values = (put or {}).get(name, ([], x))
        for channel in channels:
            x[:, channel] = values[:, channel]
        found[name] = x.clone()
        return x

    width = state["image.weight"].shape[1]
    flat = z @ state["h0.0.weight"].T + state["h0.0.bias"]
    side = round((flat.shape[1] / width) ** 0.5)
    h0 = seen("h0", flat.reshape(len(z), width, side, side))
    x, block = h0, 0
    while f"blocks.{block}.0.weight" in state:
        if block:
            x = larger(x, 2)
            if skip:
                x = torch.cat([x, larger(h0, 2**block)], 1)
        number = 0
        while f"blocks.{block}.{number}.weight" in state:
            name = f"blocks.{block}.{number}"
            x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            x = seen(f"blocks.{block}.{number + 1}", torch.where(x > 0, x, x.exp() - 1))
            number += 2
        block += 1
    found["image"] = F.conv2d(x, state["image.weight"], state["image.bias"], padding=1)
    return found


def drawn(gen: cp.GeneratorAdapter, seed: int) -> Tensor:
    z = gen.sample(3, seed=seed)
    assert isinstance(z, Tensor)
    return z


LAYERS = ["h0", "blocks.0.1", "blocks.0.3", "blocks.1.1", "blocks.1.3", "blocks.2.1", "blocks.2.3"]


@pytest.mark.parametrize("skip", [True, False])
def test_images_and_hybrids_equal_the_literal_ones(skip: bool) -> None:
    module = small_began(skip=skip)
    gen, state = adapter(module), dict(module.state_dict())
    z1, z2 = drawn(gen, 0), drawn(gen, 1)
    base, source = literal(state, z1, skip=skip), literal(state, z2, skip=skip)
    assert (gen(z1) - base["image"]).abs().max() < 1e-10
    for layer in LAYERS:
        expected = literal(state, z1, {layer: ([0, 2], source[layer])}, skip=skip)["image"]
        found = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=[[0, 2]] * 4)
        assert found.provenance["executor"] == "prepared"
        assert (found.images[0] - expected).abs().max() < 1e-10
        assert (expected - base["image"]).abs().max() > 1e-4


def test_hybrids_over_two_layers_equal_the_literal_ones() -> None:
    """As S003 does with this generator: channels of two successive layers (Fig. 4)."""
    module = small_began()
    gen, state = adapter(module), dict(module.state_dict())
    z1, z2 = drawn(gen, 0), drawn(gen, 1)
    source = literal(state, z2)
    units = {"h0": [1], "blocks.1.3": [0, 3]}
    expected = literal(state, z1, {layer: (channels, source[layer]) for layer, channels in units.items()})["image"]
    found = cp.Hybridizer(gen, list(units)).hybridize(z1, z2, units=units)
    assert (found.images[0] - expected).abs().max() < 1e-10
    alone = literal(state, z1, {"blocks.1.3": ([0, 3], source["blocks.1.3"])})["image"]
    assert (alone - expected).abs().max() > 1e-4


@pytest.mark.parametrize("skip", [True, False])
def test_only_h0_is_a_full_cut_where_skips_cross(skip: bool) -> None:
    gen = adapter(small_began(skip=skip))
    z1, z2 = drawn(gen, 0), drawn(gen, 1)
    for layer in LAYERS:
        hybrids = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=[[0, 1, 2, 3], {layer: []}])
        gap = float((hybrids.images[0] - gen(z2)).abs().max())
        # After the last concatenation nothing comes from elsewhere any more.
        if layer in ("h0", "blocks.2.1", "blocks.2.3") or not skip:
            assert gap < 1e-10, layer
        else:
            assert gap > 1e-3, layer
        assert torch.equal(hybrids.images[1], hybrids.base)


# --- sizes ----------------------------------------------------------------------------------------


def test_the_default_has_a_block_for_each_size_from_8_to_64() -> None:
    gen = began(BEGANGenerator().state_dict())
    assert gen.image_size == (3, 64, 64)
    assert {info.channels for info in gen.layers.values()} == {64}
    assert [info.size[0] for info in gen.layers.values()] == [8, 8, 8, 16, 16, 32, 32, 64, 64]
    z = gen.sample(500)
    assert isinstance(z, Tensor)
    assert z.shape == (500, 64)
    assert -1 <= z.min() < -0.99
    assert 0.99 < z.max() <= 1
    assert abs(float(z.std()) - 3**-0.5) < 0.01  # uniform


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"skip": False},
        {"image_size": 32, "start": 8, "repeats": 1},
        {"image_size": 128, "start": 8, "width": 2, "colours": 1},
        {"image_size": 6, "start": 3, "width": 3, "colours": 4, "latent": 1, "repeats": 3},
        {"image_size": 8, "start": 8},
    ],
)
def test_everything_is_read_off_the_tensors(sizes: dict[str, Any], tmp_path: Path) -> None:
    module, wanted = small_began(**sizes), {**SMALL, "repeats": 2, **sizes}
    state = {key: value.float() for key, value in module.state_dict().items()}
    gen = began({f"module.{key}": value for key, value in state.items()})
    assert gen.image_size == (wanted["colours"], wanted["image_size"], wanted["image_size"])
    blocks = (wanted["image_size"] // wanted["start"]).bit_length()
    assert len(gen.layers) == 1 + wanted["repeats"] * blocks
    z = gen.sample(2)
    assert isinstance(z, Tensor)
    with torch.no_grad():
        expected = module(z.double())
    assert (gen(z) - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))
    loaded = cp.load(folders.save_folder(tmp_path, "began", state, config={"name": "mine"}))
    assert loaded.name == "mine"
    assert torch.equal(loaded(z), gen(z))


def test_sizes_that_blocks_do_not_reach() -> None:
    for image_size, start in ((60, 8), (4, 8), (8, 0)):
        for kind in (BEGANGenerator, BEGANDiscriminator):
            with pytest.raises(
                cp.ProbeError, match=rf"images are {image_size}×{image_size} and the first maps {start}×"
            ):
                kind(image_size=image_size, start=start)


def spoiled(**changes: Any) -> dict[str, Any]:
    return spoiled_state(small_began(), **changes)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"holds no h0\.0\.weight, blocks\.0\.0\.weight and image\.weight of a BEGAN \(its first keys: none\)"),
        (DCGANGenerator(3, [4], 1).state_dict(), r"of a BEGAN \(its first keys: main\.0\.weight"),
        (BEGANDiscriminator(**SMALL).state_dict(), r"its first keys: encoder\..*give that of its generator"),
        (spoiled(blocks__1__2__bias=None), r"missing: blocks\.1\.2\.bias\)"),
        (spoiled(blocks__0__0__extra=torch.zeros(1)), r"unexpected: blocks\.0\.0\.extra\)"),
        (
            spoiled(blocks__2__0__weight=torch.zeros(4, 4, 3, 3)),  # no skip here, although there is one before
            r"of another shape: blocks\.2\.0\.weight \(4, 4, 3, 3\) for \(4, 8, 3, 3\)\)",
        ),
        (spoiled(h0__0__weight=torch.zeros(63, 5)), r"h0 maps 5 latents to 63 values .* made from 4 channels"),
        (spoiled(h0__0__bias=torch.zeros(3)), r"of another shape: h0\.0\.bias \(3,\) for \(64,\)\)"),
    ],
)
def test_wrong_tensors_are_named(state: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        began(state)


# --- the discriminator ----------------------------------------------------------------------------


def test_the_discriminator_is_an_autoencoder() -> None:
    with seeded(0):
        module = BEGANDiscriminator(**SMALL)
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert module.encoder(pictures).shape == (3, 5)
    (module(pictures) - pictures).abs().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_encoders_channels_grow_by_the_width() -> None:
    """Berthelot et al., Fig. 1: n, 2n, 3n, … from size to size."""
    encoder = BEGANDiscriminator(4, 6, 1, image_size=32, start=8).encoder
    kernels = [tuple(value.shape[:2]) for key, value in encoder.named_parameters() if value.dim() == 4]
    assert kernels == [(6, 1), (6, 6), (6, 6), (12, 6), (12, 12), (12, 12), (18, 12), (18, 18), (18, 18)]
    assert encoder.code.in_features == 18 * 64
