"""Training of BigGAN-deep: losses, discriminator and stored statistics against literal twins; classes; resuming."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from counterfactual_probe.adapters.averaging import follow, settling
from counterfactual_probe.adapters.biggan_deep import BigGANDeep, biggan_deep, truncated_normal
from counterfactual_probe.adapters.biggan_deep import recipe as biggan_recipe
from counterfactual_probe.adapters.biggan_deep import training as biggan_training
from counterfactual_probe.adapters.biggan_deep.discriminator import BigGANDiscriminator, start
from counterfactual_probe.adapters.biggan_deep.recipe import BigGANRecipe, discriminator_loss
from counterfactual_probe.adapters.biggan_deep.training import TrainedBigGAN, settled, stored
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.data import Images
from counterfactual_probe.training import Trained, trainable
from support.adapters.biggans import SMALL as CONFIG
from support.toy_training import assert_same, squares

CLASSES = ("cat", "dog", "ship")
SMALL: dict[str, Any] = {"latent": 4, "width": 4, "d_width": 4, "batch": 6}


def generator(seed: int = 0) -> TrainedBigGAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TrainedBigGAN({**CONFIG, "num_classes": 3}).double()
        for name, value in module.named_parameters():
            if name.endswith(("gamma", "bn.bias")):
                nn.init.normal_(value, 0, 0.5)  # attention and bias are 0 at first
    return module


def drawn(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    z = truncated_normal(n, CONFIG["z_dim"], torch.Generator().manual_seed(seed)).double()
    return z, torch.arange(n) % 3


def pictures(n: int = 23) -> Images:
    labels = torch.arange(n) % 3
    return Images(torch.from_numpy(squares(n, 32)), "squares", labels=labels, classes=CLASSES)


def train(out: Path, steps: int = 8, **options: Any) -> Trained:
    recipe = BigGANRecipe(**SMALL, **options.pop("settings", {}))
    return cp.train(recipe, options.pop("data", pictures()), out=out, steps=steps, device="cpu", **options)


# --- losses and networks --------------------------------------------------------------------------


def test_the_losses_are_those_of_their_formulas() -> None:
    rng = torch.Generator().manual_seed(0)
    real, fake = (2 * torch.randn(9, generator=rng, dtype=torch.float64) for _ in range(2))
    wanted = sum(max(0, 1 - float(x)) for x in real) / 9 + sum(max(0, 1 + float(x)) for x in fake) / 9
    assert float(discriminator_loss(real, fake)) == pytest.approx(wanted, rel=1e-12)
    assert float(discriminator_loss(fake, real)) != pytest.approx(wanted, rel=1e-3)
    assert float(discriminator_loss(torch.ones(3), -torch.ones(3))) == 0


def spectral(weight: Tensor) -> Tensor:
    """A weight over its largest singular value."""
    return weight / torch.linalg.matrix_norm(weight.flatten(1), 2)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """By layer; spectral norms are worked out anew."""
    found = {}
    for name, value in module.named_parameters():
        layer = name.removesuffix(".parametrizations.weight.original")
        found[f"{layer}.weight" if layer != name else name] = spectral(value) if layer != name else value
    return found


def converged(module: nn.Module) -> nn.Module:
    """Its power iterations carried on for long."""
    module.train()
    for part in module.modules():
        if hasattr(part, "parametrizations"):
            for _ in range(300):
                _ = part.weight
    return module.eval()


def literal_discriminator(images: Tensor, labels: Tensor, state: dict[str, Tensor], halvings: int) -> Tensor:
    x, number = images, 0
    while f"blocks.{number}.conv_0.weight" in state:
        name = f"blocks.{number}"
        inner = x if number == 0 else x.clamp(min=0)
        inner = F.conv2d(inner, state[f"{name}.conv_0.weight"], state[f"{name}.conv_0.bias"], padding=1).clamp(min=0)
        inner = F.conv2d(inner, state[f"{name}.conv_1.weight"], state[f"{name}.conv_1.bias"], padding=1)
        short = x
        if f"{name}.shortcut.weight" in state:
            short = F.conv2d(short, state[f"{name}.shortcut.weight"], state[f"{name}.shortcut.bias"])
        x = inner + short
        if number < halvings:
            n, c, h, w = x.shape
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
        number += 1
    features = x.clamp(min=0).sum((2, 3))
    unconditional = features @ state["linear.weight"][0] + state["linear.bias"]
    return unconditional + torch.stack([features[i] @ state["embedding.weight"][k] for i, k in enumerate(labels)])


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_discriminator_is_the_literal_one(size: int) -> None:
    torch.manual_seed(0)
    module = BigGANDiscriminator(3, 4, image_size=size).double()
    for value in module.parameters():
        nn.init.normal_(value)
    converged(module)
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    labels = torch.tensor([2, 0, 3])
    state = {key: value.detach() for key, value in weights_of(module).items()}
    found = module(images, labels).detach()
    wanted = literal_discriminator(images, labels, state, (size // 8).bit_length() - 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, module(images, labels.roll(1)).detach(), rtol=1e-2)


def test_weights_start_orthogonal() -> None:
    module = BigGANDiscriminator(4, 3)
    start(module)
    made = generator(), module
    for each in made:
        for name, value in each.named_parameters():
            if value.dim() > 1:
                matrix = value.flatten(1).double()
                small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
                gain = CONFIG["z_dim"] if "embeddings" in name else 1
                torch.testing.assert_close(small, gain * torch.eye(len(small)).double(), rtol=0, atol=1e-5, msg=name)


def test_batch_norms_take_the_batchs_own_statistics() -> None:
    module = generator()
    norm = next(part for part in module.modules() if isinstance(part, biggan_training.BatchNorm) and part.conditional)
    x = 3 + 2 * torch.randn(5, norm.scale.out_features, 4, 4, dtype=torch.float64)  # type: ignore[union-attr, arg-type]
    condition = torch.randn(5, 2 * CONFIG["z_dim"], dtype=torch.float64)
    found = norm.eval()(x, 1.0, condition)
    for c in range(x.shape[1]):
        values = x[:, c].flatten()
        plain = (x[:, c] - values.mean()) / torch.sqrt(((values - values.mean()) ** 2).mean() + norm.eps)
        for i in range(5):
            scale, offset = 1 + norm.scale(condition)[i, c], norm.offset(condition)[i, c]  # type: ignore[operator]
            torch.testing.assert_close(found[i, c], scale * plain[i] + offset, rtol=1e-9, atol=1e-9)


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.long
def test_the_stored_form_makes_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the samples that the statistics are of, and at every truncation where these are not interpolated."""
    monkeypatch.setattr(biggan_training, "KNOT", 1)
    module, (z, labels) = generator(), drawn(40)
    state = stored(module, 40)
    config = {**CONFIG, "num_classes": 3}
    gen = biggan_deep(config, {key: value.double() for key, value in state.items()})
    gen.module.double()
    for number in (5, 20, 50):
        truncation = torch.full((40,), number / 50, dtype=torch.float64)
        wanted = settled(module, 300)(z * number / 50, labels).detach()
        found = gen.module(z * number / 50, labels, truncation).detach()
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-3)
        assert (found - gen.module(z * number / 50, labels.roll(1), truncation)).abs().max() > 0.1
    away = gen.module(z / 10, labels, torch.full((40,), 1.0, dtype=torch.float64)).detach()
    assert (away - settled(module, 300)(z / 10, labels)).abs().max() > 0.05, "another truncation's statistics differ"


def test_statistics_between_knots_are_linear() -> None:
    known = torch.tensor([[0.0, 5.0], [10.0, 5.0], [16.0, 8.0]], dtype=torch.float64)
    found = biggan_training._between(known, torch.tensor([0, 5, 8]), 9)
    assert found[:, 0].tolist() == pytest.approx([0, 2, 4, 6, 8, 10, 12, 14, 16])
    assert found[:, 1].tolist() == pytest.approx([5, 5, 5, 5, 5, 5, 6, 7, 8])


def test_settled_norms_are_the_largest_singular_values() -> None:
    module = generator()
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith("weight_orig"):
                value.normal_()
    before = copy.deepcopy(module.state_dict())
    found = settled(module, 400)
    for part in found.modules():
        if hasattr(part, "weight_orig"):
            matrix = part.weight_orig.detach().flatten(1)
            sigma = part.weight_u @ matrix @ part.weight_v
            assert float(sigma) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items()), "a copy"


def test_the_average_follows() -> None:
    average, module = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    wanted = 1.0
    for number, value in enumerate((3.0, -2.0, 5.0)):
        nn.init.constant_(module.weight, value)
        module.running_mean.fill_(value)  # type: ignore[union-attr]
        decay = settling(0.9, number)
        follow(average, module, decay)
        wanted = decay * wanted + (1 - decay) * value
        assert decay == pytest.approx((1 + number) / (10 + number))
    assert average.weight.tolist() == pytest.approx([wanted] * 2)
    assert average.running_mean.tolist() == [5.0] * 2  # type: ignore[union-attr]
    assert settling(0.9, 10**6) == 0.9


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _few_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run stores at its end is of fewer samples, at fewer truncations."""
    monkeypatch.setattr(biggan_recipe, "STATISTICS", 24)
    monkeypatch.setattr(biggan_training, "KNOT", 25)


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "biggan"
    train(folder, 2)
    return folder


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """A folder of a short training, which a test may change."""
    return Path(shutil.copytree(_trained, tmp_path / "trained"))


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_can_be_made_longer_with_the_same_bits(tmp_path: Path, precision: Any) -> None:
    whole = train(tmp_path / "whole", 7, precision=precision)
    train(tmp_path / "part", 4, precision=precision)
    part = train(tmp_path / "part", 7, precision=precision, resume=True)
    assert part.resumed_at == 4
    assert_same(whole, part)
    for name in ("model.safetensors", "config.json", "samples-0003.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()
    assert len({*whole.losses["generator"]}) == 7


def test_the_folder_opens_with_its_classes(trained: Path) -> None:
    gen = cp.load(trained)
    assert isinstance(gen, BigGANDeep)
    assert (gen.image_size, gen.classes) == ((3, 32, 32), CLASSES)
    z: Any = gen.sample(3, classes=["dog", "cat", 2])
    assert z["label"].tolist() == [1, 0, 2]
    assert torch.isfinite(gen(z)).all()
    with pytest.raises(cp.ProbeError, match="class 'koala' is none of the 3 classes of bigganrecipe"):
        gen.sample(1, classes="koala")
    config = json.loads((trained / "config.json").read_text())
    for given, sentence in (
        (["a", "b"], "2 classes are named and bigganrecipe has 3; name all of them, or none"),
        ("cat", r"config\.json is not that of the architecture 'biggan-deep' \(classes is 'cat' and must be a list"),
    ):
        (trained / "config.json").write_text(json.dumps({**config, "classes": given}))
        with pytest.raises(cp.ProbeError, match=sentence):
            cp.load(trained)


def test_what_is_kept_is_the_average(tmp_path: Path) -> None:
    train(tmp_path / "a", 3)
    train(tmp_path / "b", 3, settings={"average": 0.0})
    files = [safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in "ab"]
    states = [safetensors.torch.load_file(tmp_path / name / "state.safetensors") for name in "ab"]
    key = "generator.conv_to_rgb.weight_orig"
    assert torch.equal(states[0][f"network/generator/model.{key}"], states[1][f"network/generator/model.{key}"])
    assert torch.equal(files[1][key], states[1][f"network/generator/model.{key}"])
    assert not torch.equal(files[0][key], files[1][key])


def test_images_need_classes(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match="has no classes and a BigGAN needs them; give a folder or zip with one"):
        train(tmp_path, data=squares(23, 32))
    with pytest.raises(cp.ProbeError, match="images of 3×16×16 are asked; give colour images of 32×32"):
        train(tmp_path, data=Images(torch.zeros(9, 3, 16, 16), labels=torch.arange(9) % 2, classes=("a", "b")))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"width": 2}, "width is 2"), ({"d_width": 0}, "d_width is 0"), ({"d_rate": -1}, "d_rate is -1"),
     ({"average": 1}, "average is 1; give a number from 0 to below 1")],
)  # fmt: skip
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        trainable("biggan").make(settings)


@pytest.mark.slow
def test_the_losses_fall_as_the_discriminator_learns(tmp_path: Path) -> None:
    trained = train(tmp_path, 40)
    losses = trained.losses["discriminator"]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_the_discriminator_is_the_partner(trained: Path) -> None:
    gen = cp.load(trained)
    partner = gen.partner
    assert isinstance(partner, BigGANDiscriminator)
    z: Any = gen.sample(4, classes="ship")
    judged = partner(gen(z), z["label"])
    assert torch.isfinite(judged).all()
    assert not torch.equal(judged, partner(gen(z), z["label"] - 1))
    (trained / "discriminator.safetensors").write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}))
    with pytest.raises(cp.ProbeError, match=r"holds no blocks\.0.*give that of a BigGAN's discriminator"):
        _ = cp.load(trained).partner
