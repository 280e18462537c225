"""Variational autoencoders: literal twins of images, codes and hybrids, sizes read off, images that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.dcgan import DCGANGenerator
from counterfactual_probe.adapters.vae import VAE, VAEAdapter, vae
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.registry import folders
from support.adapters.states import spoiled_state
from support.toys import seeded, untrained

# Two deconvolutions that double the size, one that keeps it.
SMALL: dict[str, Any] = {"latent": 5, "widths": (6, 4, 2), "colours": 3, "image_size": 16, "start": 4}


def small_vae(**changes: Any) -> VAE:
    return untrained(lambda: VAE(**{**SMALL, **changes}))


def adapter(module: VAE) -> VAEAdapter:
    """In float64, which a file of float32 would not give."""
    latent = module.encoder.posterior.out_features // 2
    return VAEAdapter(
        module,
        lambda n, rng: torch.randn(n, latent, generator=rng),
        layers=[f"decoder.{level}" for level in module.decoder.levels],
    )


def relu_of_norm(state: dict[str, Tensor], key: str, x: Tensor) -> Tensor:
    if f"{key}.weight" not in state:
        return x.clamp(min=0)
    mean, var, scale, shift = (
        state[f"{key}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)


def literal_decode(state: dict[str, Tensor], z: Tensor, put: tuple[str, list[int], Tensor] | None = None) -> Any:
    """From the tensors alone: every level, and the image. ``put`` overwrites channels of one level."""
    found = {}
    level, number = "level1", 1
    x = z.double() @ state["decoder.level1.0.0.weight"].T + state["decoder.level1.0.0.bias"]
    channels = state["decoder.level2.0.weight"].shape[0]
    side = round((x.shape[1] / channels) ** 0.5)
    x = relu_of_norm(state, "decoder.level1.1", x.reshape(len(z), channels, side, side))
    while True:
        if put is not None and put[0] == level:
            for channel in put[1]:
                x[:, channel] = put[2][:, channel]
        found[level] = x.clone()
        number += 1
        level = f"level{number}" if f"decoder.level{number}.0.weight" in state else "image"
        kernel, bias = state[f"decoder.{level}.0.weight"], state[f"decoder.{level}.0.bias"]
        x = F.conv_transpose2d(x, kernel, bias, stride=2 if kernel.shape[2] == 4 else 1, padding=1)
        if level == "image":
            found["image"] = torch.tanh(x)
            return found
        x = relu_of_norm(state, f"decoder.{level}.1", x)


def literal_encode(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Mean and log-variance beside each other."""
    x = images.double()
    numbers = sorted({int(key.split(".")[2]) for key in state if key.startswith("encoder.convolutions")})
    for number in numbers:
        kernel = state[f"encoder.convolutions.{number}.weight"]
        if kernel.dim() == 4:
            bias = state[f"encoder.convolutions.{number}.bias"]
            x = F.conv2d(x, kernel, bias, stride=2 if kernel.shape[2] == 4 else 1, padding=1)
            x = relu_of_norm(state, f"encoder.convolutions.{number + 1}", x)
    return x.flatten(1) @ state["encoder.posterior.weight"].T + state["encoder.posterior.bias"]


# --- images, codes, hybrids -----------------------------------------------------------------------


@pytest.mark.parametrize("norm", [True, False])
def test_images_and_codes_equal_the_literal_ones(norm: bool) -> None:
    module = small_vae(norm=norm)
    gen, state = adapter(module), dict(module.state_dict())
    z = gen.sample(3)
    assert isinstance(z, Tensor)
    images = gen(z)
    assert (images - literal_decode(state, z)["image"]).abs().max() < 1e-10
    assert images.std(0).max() > 0.01, "the images must differ to mean anything"
    expected = literal_encode(state, images)
    assert (gen.encode(images) - expected[:, :5]).abs().max() < 1e-10
    assert expected[:, :5].std(0).max() > 1e-3


@pytest.mark.parametrize("norm", [True, False])
def test_hybrids_equal_the_literal_ones(norm: bool) -> None:
    module = small_vae(norm=norm)
    gen, state = adapter(module), dict(module.state_dict())
    z1, z2 = gen.sample(3, seed=0), gen.sample(3, seed=1)
    assert isinstance(z1, Tensor)
    assert isinstance(z2, Tensor)
    for layer in gen.layers:
        level = layer.removeprefix("decoder.")
        clean = literal_decode(state, z2)[level]
        found = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=[[1]] * 4)
        assert found.provenance["executor"] == "prepared"
        expected = literal_decode(state, z1, (level, [1], clean))["image"]
        assert (found.images[0] - expected).abs().max() < 1e-10
        other = literal_decode(state, z1, (level, [0], clean))["image"]
        assert (other - expected).abs().max() > 1e-4
        every = list(range(gen.layers[layer].channels))
        all_of_it = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=[every, {layer: []}])
        assert (all_of_it.images[0] - gen(z2)).abs().max() < 1e-10  # a full cut
        assert torch.equal(all_of_it.images[1], all_of_it.base)


def test_hybrids_start_from_given_pictures() -> None:
    gen = adapter(small_vae())
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = gen.encode(pictures)
    hybrids = cp.Hybridizer(gen, "decoder.level2").hybridize(codes[:1], codes[1:], units=[0])
    assert torch.allclose(hybrids.base, gen(codes[:1]))
    assert hybrids.images.shape == (1, 1, 3, 16, 16)


# --- encode ---------------------------------------------------------------------------------------


def test_a_seed_draws_from_the_posterior() -> None:
    module = small_vae()
    with torch.no_grad():
        module.encoder.posterior.bias[5:] += 2  # a deviation of 1 would hide what it is made of
    gen = adapter(module)
    images = torch.full((400, 3, 16, 16), 0.25)
    mean, log_variance = literal_encode(dict(module.state_dict()), images[:1]).chunk(2, 1)
    drawn = gen.encode(images, seed=0)
    deviation = (log_variance / 2).exp()[0]
    assert torch.allclose(drawn.mean(0), mean[0], atol=4 * float(deviation.max()) / 20)
    assert torch.allclose(drawn.std(0), deviation, rtol=0.2)
    # Image i gets the same noise, whatever the batch; kernels round differently for other batch sizes.
    torch.testing.assert_close(gen.encode(images[:3], seed=0), drawn[:3], rtol=0, atol=1e-14)
    assert not torch.equal(gen.encode(images, seed=1), drawn)
    assert torch.equal(gen.encode(images), gen.encode(images))


def test_encode_leaves_the_module_as_it_was() -> None:
    module = small_vae()
    gen = adapter(module)
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    global_state = torch.random.get_rng_state()
    codes = gen.encode(torch.zeros(3, 3, 16, 16), seed=3)
    assert module.training
    assert module.encoder.convolutions.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), global_state)
    assert not codes.requires_grad
    (codes * torch.ones(5, requires_grad=True)).sum().backward()  # an ordinary tensor


def test_batches_change_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = adapter(small_vae())
    images = torch.rand(7, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    at_once = gen.encode(images)
    monkeypatch.setattr(gen, "batch_limit", lambda: 2)
    assert (gen.encode(images) - at_once).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"the images are \(2, 3, 8, 8\) and this generator's are \(n, 3, 16, 16\); resize"),
        (torch.zeros(2, 1, 16, 16), "the images have 1 colour and"),
        (torch.zeros(3, 16, 16), r"the images are \(3, 16, 16\) .* add a first dimension to a single one"),
        (torch.zeros(0, 3, 16, 16), r"the images hold 0 samples"),
        (torch.full((1, 3, 16, 16), 255.0), r"range from 255 to 255 and this generator's from -1 to 1; scale them"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), r"the images are torch\.uint8; give a tensor of floats from -1"),
        (torch.full((1, 3, 16, 16), torch.nan), r"the images hold NaN or infinite values"),
        ([[1.0]], r"the images are list; give a tensor"),
        (torch.zeros(1, 3, 16, 16, device="meta"), "the images are a meta tensor, which holds no numbers"),
    ],
)
def test_images_that_do_not_fit(images: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        adapter(small_vae()).encode(images)


# --- sizes ----------------------------------------------------------------------------------------


def test_the_default_is_the_papers() -> None:
    """S001, Table 1: four deconvolutions; 64, 64, 32, 16 and 3 channels; maps of 8, 16, 32 and 64; latent 128."""
    gen = vae(VAE().state_dict())
    assert [(info.channels, *info.size) for info in gen.layers.values()] == [
        (64, 8, 8),
        (64, 16, 16),
        (32, 32, 32),
        (16, 64, 64),
    ]
    assert gen.image_size == (3, 64, 64)
    assert sum(isinstance(part, nn.ConvTranspose2d) for part in gen.module.modules()) == 4
    assert gen.sample(1).shape == (1, 128)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"norm": False},
        {"widths": (4, 3), "image_size": 32, "start": 8},
        {"widths": (3, 2, 2, 2), "image_size": 128, "start": 8, "colours": 1},
        {"widths": (7,), "image_size": 6, "start": 3, "latent": 1, "colours": 4},
        {"widths": (4, 4), "image_size": 4, "start": 4},
    ],
)
def test_everything_is_read_off_the_tensors(sizes: dict[str, Any], tmp_path: Path) -> None:
    module = small_vae(**sizes)
    wanted = {**SMALL, "norm": True, **sizes}
    state = {key: value.float() for key, value in module.state_dict().items()}
    gen = vae({f"module.{key}": value for key, value in state.items()})
    assert gen.image_size == (wanted["colours"], wanted["image_size"], wanted["image_size"])
    assert [info.channels for info in gen.layers.values()] == list(wanted["widths"])
    z = gen.sample(2)
    assert isinstance(z, Tensor)
    assert z.shape == (2, wanted["latent"])
    with torch.no_grad():
        assert (gen(z) - module(z.double())).abs().max() < 1e-4
        assert gen.encode(gen(z)).shape == z.shape
    loaded = cp.load(folders.save_folder(tmp_path, "vae", state, config={"name": "mine"}))
    assert isinstance(loaded, VAEAdapter)
    assert loaded.name == "mine"
    assert torch.equal(loaded(z), gen(z))


def test_sizes_that_no_deconvolutions_reach() -> None:
    for image_size, start in ((60, 8), (4, 8), (128, 8), (8, 0)):
        with pytest.raises(
            cp.ProbeError, match=rf"images are {image_size}×{image_size}, and 3 deconvolutions start from"
        ):
            VAE(widths=(4, 4, 4), image_size=image_size, start=start)


def spoiled(**changes: Any) -> dict[str, Any]:
    return spoiled_state(small_vae(), **changes)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"holds no decoder\.level1\.0\.0\.weight and decoder\.image\.0\.weight .* \(its first keys: none\)"),
        (DCGANGenerator(3, [4], 1).state_dict(), r"of a VAE \(its first keys: main\.0\.weight"),
        (
            {key: value for key, value in small_vae().state_dict().items() if key.startswith("decoder")},
            r"not that of a VAE of its kernels' sizes \(missing: encoder\.convolutions\.0\.bias",
        ),
        (spoiled(decoder__level3__1__bias=None), r"missing: decoder\.level3\.1\.bias\)"),
        (spoiled(decoder__level9__0__weight=torch.zeros(2, 2, 4, 4)), r"unexpected: decoder\.level9\.0\.weight\)"),
        (spoiled(encoder__posterior__bias=torch.zeros(3)), r"of another shape: encoder\.posterior\.bias \(3,\) for"),
        (
            spoiled(decoder__level1__0__0__weight=torch.zeros(95, 5)),
            r"maps 5 latents to 95 values, and its kernels have shapes",
        ),
        (spoiled(decoder__level2__0__weight=torch.zeros(6, 4, 5, 5)), r"4×4 kernels come before 3×3 ones"),
    ],
)
def test_wrong_tensors_are_named(state: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        vae(state)


def test_it_can_be_trained() -> None:
    """The loss reaches encoder and decoder."""
    with seeded(0):
        module = VAE(**SMALL).train()
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, log_variance = module.encode(pictures)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    (F.mse_loss(module(mean), pictures) + 0.0005 * divergence).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_partner_is_the_encoder() -> None:
    gen = vae(small_vae().float().state_dict())
    images = gen(gen.sample(3))
    assert gen.partner is not None
    assert torch.equal(gen.partner(images)[0], gen.encode(images))
