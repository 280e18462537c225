"""Structural autoencoders and their relatives: literal twins, published sizes, hybrid codes, folders."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.autoencoder import AutoencoderAdapter, autoencoder
from counterfactual_probe.adapters.dcgan import DCGANGenerator
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe import autoencoders as ae
from counterfactual_probe.autoencoders.backbone import Backbone
from counterfactual_probe.registry import folders
from support.adapters.states import spoiled_state
from support.toys import untrained

CLASSES: dict[str, Any] = {
    "ae": ae.Autoencoder,
    "vae": ae.VariationalAutoencoder,
    "sae": ae.StructuralAutoencoder,
    "adaae": ae.AdaptiveAutoencoder,
    "vlae": ae.LadderAutoencoder,
}
# S004's twelve convolutions at 64×64, with few channels.
SMALL: dict[str, Any] = {"latent": 4, "width": 8}


def model_of(kind: str, **changes: Any) -> Any:
    sizes = {**SMALL, **({} if kind in ("ae", "vae") else {"variables": 4}), **changes}
    if kind == "vlae":
        sizes["width"] = 32
    return untrained(lambda: CLASSES[kind](**sizes))


def codes(n: int, latent: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, latent, generator=torch.Generator().manual_seed(seed)).double()


def pictures(n: int, size: int = 64) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)).double()


# --- literal twins --------------------------------------------------------------------------------

POOLED_AFTER, DOUBLED_BEFORE = (1, 4, 7, 10, 12), (2, 4, 7, 10, 12)


def mish(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.log(1 + torch.exp(x)))


GROUPS = {8: 1, 24: 4, 32: 4}  # of a norm over so many channels, in the models of these tests; a ladder keeps 24 of 32


def normed(state: dict[str, Tensor], key: str, x: Tensor) -> Tensor:
    grouped = x.reshape(len(x), GROUPS[x.shape[1]], -1)
    grouped = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    return grouped.reshape(x.shape) * state[f"{key}.weight"][:, None, None] + state[f"{key}.bias"][:, None, None]


def literal_mlp(state: dict[str, Tensor], key: str, x: Tensor, numbers: list[int]) -> Tensor:
    for i, number in enumerate(numbers):
        x = x @ state[f"{key}.{number}.weight"].T + state[f"{key}.{number}.bias"]
        x = mish(x) if i < len(numbers) - 1 else x
    return x


def literal_decode(state: dict[str, Tensor], u: Tensor, kind: str, before: tuple[int, ...]) -> Tensor:
    """S004 §2.2 from the tensors alone: what comes in before convolutions ``before``, doublings where they are."""
    if kind in ("ae", "vae"):
        x = literal_mlp(state, "decoder.dense", u, [0, 2, 4]).reshape(len(u), -1, 2, 2)
    else:
        x = state["decoder.root"].expand(len(u), -1, -1, -1)
    for number in range(1, 13):
        if number in before:
            i = before.index(number)
            size = u.shape[1] // len(before)
            part = u if kind == "adaae" else u[:, size * i : size * (i + 1)]
            name = "rung" if kind == "vlae" else "transform"
            made = literal_mlp(state, f"decoder.{name}{i + 1}.mlp", part, [0, 2, 4])[:, :, None, None]
            if kind == "vlae":
                x = torch.cat([x, made.expand(-1, -1, *x.shape[2:])], 1)
            else:
                half = made.shape[1] // 2  # bias first, then the logarithm of the scale
                x = x * made[:, half:].exp() + made[:, :half]
        if number in DOUBLED_BEFORE:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        name, layer = ("image" if number == 12 else f"block{number}"), int(number in DOUBLED_BEFORE)
        x = F.conv2d(x, state[f"decoder.{name}.{layer}.weight"], state[f"decoder.{name}.{layer}.bias"], padding=1)
        if number < 12:
            x = mish(normed(state, f"decoder.{name}.{layer + 1}", x))
    return 1 / (1 + torch.exp(-x))


def literal_encode(state: dict[str, Tensor], images: Tensor, kind: str) -> Tensor:
    x, found = images, {}
    for number in range(1, 13):
        kernel = state[f"encoder.block{number}.0.weight"]
        x = F.conv2d(x, kernel, state[f"encoder.block{number}.0.bias"], padding=kernel.shape[2] // 2)
        if number in POOLED_AFTER:
            x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))
        x = mish(normed(state, f"encoder.block{number}.{1 + (number in POOLED_AFTER)}", x))
        if kind == "vlae" and number in (12, 9, 6, 3):
            rung = [12, 9, 6, 3].index(number) + 1
            found[rung] = literal_mlp(state, f"encoder.rung{rung}", x.flatten(2).max(2).values, [0, 2, 4])
    if kind == "vlae":
        return torch.cat([found[rung][:, :1] for rung in (1, 2, 3, 4)], 1)
    return literal_mlp(state, "encoder.dense", x.flatten(1), [1, 3, 5])[:, :4]


@pytest.mark.parametrize("kind", CLASSES)
def test_images_and_codes_equal_the_literal_ones(kind: str) -> None:
    model = model_of(kind)
    state, u, before = dict(model.state_dict()), codes(3), () if kind in ("ae", "vae") else (1, 4, 7, 10)
    with torch.no_grad():
        images, found = model.decode(u), model.encode(pictures(2))
    assert images.shape == (3, 3, 64, 64)
    assert (images - literal_decode(state, u, kind, before)).abs().max() < 1e-10
    assert (found - literal_encode(state, pictures(2), kind)).abs().max() < 1e-9
    assert found.shape == (2, 4)
    assert images.std(0).max() > 1e-3, "the images must differ to mean anything"
    assert found.std(0).max() > 1e-3
    if kind not in ("ae", "vae", "vlae"):  # where things come in matters
        assert (images - literal_decode(state, u, kind, (1, 4, 7, 11))).abs().max() > 1e-6


def test_the_scale_is_an_exponential() -> None:
    transform = ae.decoders.StructuralTransform(1, 2).double()
    with torch.no_grad():
        for layer in transform.mlp[::2]:
            layer.weight.zero_()
            layer.bias.zero_()
        transform.mlp[4].bias.copy_(torch.tensor([0.25, -0.5, 0.0, np.log(3)]))
        x = torch.full((1, 2, 1, 1), 2.0).double()
        assert transform(x, torch.zeros(1, 1).double()).flatten().tolist() == pytest.approx([2.25, 5.5])


def test_each_variable_enters_at_its_depth_and_nowhere_else() -> None:
    model = model_of("sae")
    found: dict[str, Tensor] = {}
    for name, part in model.decoder.named_children():
        part.register_forward_hook(lambda _m, _i, output, name=name: found.__setitem__(name, output))
    u = codes(1)
    for i, place in enumerate((1, 4, 7, 10)):
        other = u.clone()
        other[:, i] += 1
        with torch.no_grad():
            model(u)
            before = dict(found)
            model(other)
        same = [bool(torch.equal(before[f"block{n}"], found[f"block{n}"])) for n in range(1, 12)]
        assert same == [n < place for n in range(1, 12)]
    with torch.no_grad():
        adaptive = model_of("adaae")
        whole = adaptive.decoder.transform1(pictures(1)[:, :1].expand(-1, 8, -1, -1), u)
        assert not torch.equal(
            whole, adaptive.decoder.transform1(pictures(1)[:, :1].expand(-1, 8, -1, -1), u + torch.eye(4)[3])
        )


# --- sizes ----------------------------------------------------------------------------------------


def linear(*sizes: int) -> int:
    return sum(before * after + after for before, after in pairwise(sizes))


CONVOLUTIONS = 11 * (9 * 64 * 64 + 64)
ENCODER = 25 * 3 * 64 + 64 + CONVOLUTIONS + 12 * 128
DECODER = CONVOLUTIONS + 9 * 64 * 3 + 3 + 11 * 128
TRANSFORMED = ENCODER + linear(256, 256, 128, 12) + 256 + DECODER


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (ae.StructuralAutoencoder, 1_221_967),
        (ae.Autoencoder, 1_022_671),
        (ae.VariationalAutoencoder, 1_022_671 + 128 * 12 + 12),
        *[
            (lambda k=k: ae.StructuralAutoencoder(variables=k), TRANSFORMED + k * linear(12 // k, 64, 128, 128))
            for k in (2, 3, 4, 6, 12)
        ],
        (ae.AdaptiveAutoencoder, TRANSFORMED + 12 * linear(12, 64, 128, 128)),
        (
            ae.LadderAutoencoder,
            # 48 outputs, and norms of these, in front of every rung but the first.
            ENCODER
            + DECODER
            - 11 * (16 * 9 * 64 + 16 + 32)
            + 192
            + 12 * (linear(64, 128, 64, 2) + linear(1, 64, 128, 16)),
        ),
    ],
)
def test_parameters_are_counted_as_published(model: Any, count: int) -> None:
    assert sum(parameter.numel() for parameter in model().parameters()) == count


def test_places_are_those_of_the_published_configurations() -> None:
    twelve = Backbone()
    assert twelve.pools() == POOLED_AFTER
    assert twelve.doublings() == DOUBLED_BEFORE
    assert twelve.placed(12) == tuple(range(1, 13))
    assert twelve.placed(6) == (1, 3, 5, 7, 9, 11)
    assert twelve.placed(4) == (1, 4, 7, 10)
    assert twelve.placed(3) == (1, 5, 9)
    assert twelve.placed(2) == (1, 7)
    sixteen = Backbone(32, 128, 128, 16)
    assert sixteen.pools() == (1, 4, 7, 10, 13, 16)
    assert sixteen.doublings() == (2, 4, 7, 10, 13, 16)
    assert sixteen.placed(16) == tuple(range(1, 17))


def test_smaller_images_are_halved_and_doubled_as_evenly() -> None:
    small = Backbone(image_size=16, width=16)
    assert small.pools() == (1, 7, 12)
    assert small.doublings() == (2, 7, 12)
    assert Backbone(image_size=32).pools() == (1, 5, 9, 12)
    assert Backbone(image_size=64, convolutions=6).pools() == (1, 2, 3, 4, 5)
    assert (small.groups, Backbone(width=24).groups, Backbone().groups, Backbone(width=128).groups) == (2, 3, 8, 8)


@pytest.mark.parametrize("size", [4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("convolutions", [2, 3, 5, 6, 7, 12, 16])
def test_any_size_comes_out(size: int, convolutions: int) -> None:
    if convolutions < Backbone(image_size=size, convolutions=16).halvings:
        with pytest.raises(
            cp.ProbeError, match=rf"convolutions is {convolutions} and images of {size}×{size} need at least"
        ):
            ae.Autoencoder(image_size=size, convolutions=convolutions)
        return
    model = ae.StructuralAutoencoder(4, 2, image_size=size, width=8, convolutions=convolutions, colours=1)
    with torch.no_grad():
        images = model.decode(codes(1).float())
        assert images.shape == (1, 1, size, size)
        assert model.encode(images).shape == (1, 4)
    assert len(set(model.backbone.pools())) == len(set(model.backbone.doublings())) == model.backbone.halvings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ae.StructuralAutoencoder(12, 5), r"a latent of 12 dimensions .* into 5 variables; .* of 10 or 15$"),
        (lambda: ae.LadderAutoencoder(3, 4), r"a latent of 3 dimensions .* 4 variables; .* give a latent of 4$"),
        (lambda: ae.StructuralAutoencoder(13, 13), r"13 variables are more than the decoder's 12 convolutions"),
        (lambda: ae.Autoencoder(width=12), r"width is 12; give a multiple of the 8 channels of a norm's group"),
        (lambda: ae.Autoencoder(image_size=60), r"images are 60×60; give a size of 4, 8, 16, 32"),
        (lambda: ae.Autoencoder(0), r"latent is 0; give an integer of at least 1"),
        (
            lambda: model_of("sae").encode(pictures(2, 32)),
            r"the images are \(2, 3, 32, 32\) and this model takes \(n, 3",
        ),
        (lambda: model_of("sae").encode(pictures(2, 16).byte()), r"the images are torch\.uint8; give .*bytes / 255"),
        (lambda: model_of("sae").encode(pictures(2, 16).numpy()), r"the images are a ndarray; give a tensor of floats"),
        (lambda: model_of("sae").decode([[0.0] * 4]), r"the codes are a list; give a tensor of floats \(n, latent\)"),
        (lambda: model_of("sae").decode(codes(2, 5)), r"the codes are \(2, 5\) and this model takes \(n, 4\)"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit(make: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        make()


def test_an_adaptive_latent_needs_no_split() -> None:
    model = ae.AdaptiveAutoencoder(5, 2, width=8, image_size=8, convolutions=3)
    assert model(codes(1, 5).float()).shape == (1, 3, 8, 8)


# --- as generators --------------------------------------------------------------------------------

TINY: dict[str, Any] = {"latent": 4, "image_size": 16, "width": 16, "convolutions": 4}


def tiny(kind: str, n: int = 9) -> Any:
    model = model_of(kind, **TINY).float()
    model.codes = codes(n).float()
    return model


@pytest.mark.parametrize("kind", CLASSES)
def test_a_folder_gives_it_back(kind: str, tmp_path: Path) -> None:
    model = tiny(kind)
    gen = cp.load(folders.save_folder(tmp_path, "autoencoder", model.state_dict(), config={"name": "mine"}))
    assert isinstance(gen, AutoencoderAdapter)
    assert type(gen.module) is CLASSES[kind]
    assert (gen.name, gen.image_range, gen.image_size) == ("mine", (0, 1), (3, 16, 16))
    assert list(gen.layers) == ["decoder.block1", "decoder.block2", "decoder.block3"]
    z = gen.sample(3)
    with torch.no_grad():
        assert torch.allclose(gen(z), model(z), atol=1e-6)
        assert torch.allclose(gen.encode(gen(z)), model.encode(model(z)), atol=1e-5)
    maps = cp.InfluenceMap(gen, "decoder.block2").attribute(n_pairs=3)
    assert maps.provenance["executor"] == "prepared"
    assert (maps.influence > 0).all()


@pytest.mark.parametrize("kind", ["sae", "vlae", "ae"])
def test_hybrids_equal_the_literal_ones(kind: str) -> None:
    model = tiny(kind).double()
    gen = cp.wrap(model, lambda n, rng: torch.randn(n, 4, generator=rng), image_range=(0, 1))
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    found: dict[str, Tensor] = {}
    layer = model.decoder.block2
    with torch.no_grad():
        handle = layer.register_forward_hook(lambda _m, _i, output: found.__setitem__("source", output.clone()))
        model(z2)
        handle.remove()

        def put(_m: nn.Module, _i: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, [0, 5]] = found["source"][:, [0, 5]]
            return changed

        handle = layer.register_forward_hook(put)
        expected = model(z1)
        handle.remove()
    hybrids = cp.Hybridizer(gen, "decoder.block2").hybridize(z1, z2, units=[[0, 5]] * 5)
    assert hybrids.provenance["executor"] == "prepared"
    assert (hybrids.images[0] - expected).abs().max() < 1e-10
    assert (hybrids.images[0] - hybrids.base).abs().max() > 1e-4


def test_latents_are_hybrids_of_the_codes_or_from_the_prior() -> None:
    model = tiny("sae", 5)
    gen = autoencoder(model.state_dict())
    drawn = gen.sample(200)
    assert isinstance(drawn, Tensor)
    for column, own in zip(drawn.T, model.codes.T, strict=True):
        assert set(column.tolist()) == set(own.tolist())
    assert not any((row == model.codes).all(1).any() for row in drawn[:20])  # hybrids, not the codes
    whole = gen.sample(50, groups=1)
    assert all((row == model.codes).all(1).any() for row in whole)
    prior = gen.sample(50, way="prior")
    assert len(prior.unique()) == 200  # type: ignore[union-attr]
    assert len(autoencoder(tiny("vae").state_dict()).sample(50).unique()) == 200  # type: ignore[union-attr]
    new = autoencoder(tiny("sae", 0).state_dict(), name="new")
    assert len(new.sample(50).unique()) == 200  # type: ignore[union-attr]
    for call, message in (
        (lambda: new.sample(1, way="hybrid"), r"new holds no codes of training images to make hybrids of; give"),
        (lambda: gen.sample(1, way="best"), r"way is 'best'; give 'hybrid' or 'prior'"),
        (lambda: gen.sample(1, way="prior", groups=2), r"groups have no effect with way='prior'; leave them out"),
        (lambda: gen.encode(pictures(2).float()), r"the images are \(2, 3, 64, 64\) and this generator's are \(n, 3"),
        (lambda: gen.encode(pictures(2, 16).float() - 0.5), r"range from -0\.5 to 0\.\d+ and this generator's"),
    ):  # fmt: skip
        with pytest.raises(cp.ProbeError, match=message):
            call()


def test_other_floats_are_taken_as_the_weights_are() -> None:
    model = model_of("sae")
    images = pictures(2).float()
    found = model.encode(images)
    assert found.dtype == torch.float64
    assert torch.equal(found, model.encode(images.double()))
    assert torch.equal(model.decode(found.float()), model.decode(found.float().double()))


def test_sheets_are_drawn() -> None:
    model = tiny("sae", 5)
    gen = autoencoder(model.state_dict())
    sheet = ae.chunk_codes(model.codes[0], model.codes, n=3, chunks=2)
    figure, ax = ae.plot_codes(gen, sheet, labels=["shape", "colour"])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["shape", "colour"]
    assert ae.plot_codes(gen, sheet, ax=ax)[0] is figure
    shown = np.asarray(ax.images[0].get_array())
    expected = gen(sheet[1, 2:3])[0].permute(1, 2, 0).numpy()
    assert np.allclose(shown[18:34, 36:52], expected, atol=1e-4)
    with pytest.raises(cp.ProbeError, match="1 labels are given for 2 rows"):
        ae.plot_codes(gen, sheet, labels=["shape"])
    with pytest.raises(cp.ProbeError, match=r"the codes are \(3, 4\); give a tensor \(rows, n, d\)"):
        ae.plot_codes(gen, sheet[0])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"holds no encoder\.block1\.0\.weight, codes and encoder\.image_size .* \(its first keys: none\)"),
        (DCGANGenerator(3, [4], 1).state_dict(), r"its first keys: main\.0\.weight"),
        (spoiled_state(tiny("sae"), decoder__root=None), r"not that of an autoencoder of .* \(missing: decoder\.root"),
        (spoiled_state(tiny("ae"), codes=torch.zeros(2, 5)), r"of another shape: "),
        (spoiled_state(tiny("vlae"), decoder__more=torch.zeros(2)), r"unexpected: decoder\.more"),
    ],
)
def test_wrong_tensors_are_named(state: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        autoencoder(state)
