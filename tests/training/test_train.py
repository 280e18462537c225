"""Training: losses against literal twins, the loop against plain torch, and what comes out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.began import began_discriminator
from counterfactual_probe.adapters.began import recipe as began_recipe
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator, dcgan_discriminator
from counterfactual_probe.adapters.dcgan import recipe as dcgan_recipe
from counterfactual_probe.adapters.vae import recipe as vae_recipe
from PIL import Image
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.data import Images
from counterfactual_probe.data.order import epoch_order
from counterfactual_probe.distributed.ranks import Ranks
from counterfactual_probe.generator.state.randomness import seed_everything
from counterfactual_probe.registry.weights import load_weights
from counterfactual_probe.training import Networks, Recipe, Step
from counterfactual_probe.training.trainer import START, stream_seed
from support.toy_training import SMALL, Toy, assert_same, small, squares, train

NAMES = sorted(SMALL)


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    Toy.seen.clear()
    yield
    Toy.seen.clear()


# --- losses ---------------------------------------------------------------------------------------


def test_the_vaes_loss_is_that_of_its_formula() -> None:
    rng = torch.Generator().manual_seed(0)
    made, images, mean, log_variance = (
        torch.randn(*shape, generator=rng, dtype=torch.float64)
        for shape in [(3, 2, 4, 4), (3, 2, 4, 4), (3, 5), (3, 5)]
    )
    squares_, divergences = [], []
    for i in range(3):
        squares_ += [(made[i, c, y, x] - images[i, c, y, x]) ** 2 for c in range(2) for y in range(4) for x in range(4)]
        total = 0.0
        for d in range(5):
            mu, variance = float(mean[i, d]), math.exp(float(log_variance[i, d]))
            total += 0.5 * (mu**2 + variance - math.log(variance) - 1)
        divergences.append(total)
    error, divergence = vae_recipe.vae_losses(made, images, mean, log_variance)
    assert float(error) == pytest.approx(float(sum(squares_)) / 96, rel=1e-12)
    assert float(divergence) == pytest.approx(sum(divergences) / 3, rel=1e-12)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    known = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    assert float(divergence) == pytest.approx(float(known), rel=1e-12)
    assert float(vae_recipe.vae_losses(made, images, mean, log_variance / 2)[1]) != pytest.approx(
        float(known), rel=1e-3
    )
    zeros = torch.zeros_like(mean)
    assert [float(value) for value in vae_recipe.vae_losses(images, images, zeros, zeros)] == [0, 0]


def test_the_gans_losses_are_those_of_their_formulas() -> None:
    rng = torch.Generator().manual_seed(1)
    real, fake = (3 * torch.randn(7, generator=rng, dtype=torch.float64) for _ in range(2))

    def d(logit: Tensor) -> float:
        return 1 / (1 + math.exp(-float(logit)))

    judged = -sum(math.log(d(x)) for x in real) / 7 - sum(math.log(1 - d(x)) for x in fake) / 7
    made = -sum(math.log(d(x)) for x in fake) / 7
    assert float(dcgan_recipe.discriminator_loss(real, fake)) == pytest.approx(judged, rel=1e-12)
    assert float(dcgan_recipe.generator_loss(fake)) == pytest.approx(made, rel=1e-12)
    assert float(dcgan_recipe.discriminator_loss(fake, real)) != pytest.approx(judged, rel=1e-3)
    saturating = sum(math.log(1 - d(x)) for x in fake) / 7
    assert float(dcgan_recipe.generator_loss(fake)) != pytest.approx(saturating, rel=1e-3)


@pytest.mark.parametrize(("k", "real", "fake"), [(0.3, 0.5, 0.1), (0.3, 0.2, 0.9), (0.001, 0.1, 0.9), (0.99, 0.9, 0.0)])
def test_the_equilibrium_is_that_of_its_formulas(k: float, real: float, fake: float) -> None:
    tensors = [torch.tensor(value, dtype=torch.float64) for value in (k, real, fake)]
    gamma, rate = 0.5, 0.1
    wanted = min(max(k + rate * (gamma * real - fake), 0.0), 1.0)
    found = began_recipe.next_k(*tensors, gamma=gamma, rate=rate)
    assert float(found) == pytest.approx(wanted, rel=1e-12)
    measure = began_recipe.convergence(*tensors[1:], gamma=gamma)
    assert float(measure) == pytest.approx(real + abs(gamma * real - fake), rel=1e-12)
    assert float(began_recipe.next_k(tensors[0], tensors[2], tensors[1], gamma=gamma, rate=rate)) != float(found)


def test_an_autoencoders_loss() -> None:
    one, two = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert float(began_recipe.autoencoder_loss(one, two)) == (1 + 2 + 0 + 2) / 4


# --- the loop -------------------------------------------------------------------------------------


def literal(recipe: Recipe, steps: int, seed: int = 0) -> list[dict[str, float]]:
    """The textbook's loop in plain torch: a list of losses and no more."""
    with torch.random.fork_rng(devices=[]):
        seed_everything(stream_seed(seed, START, 0), torch.nn.Module())
        networks = recipe.networks((3, 16, 16))
    optimisers = recipe.optimisers(networks)
    rates = {name: [group["lr"] for group in each.param_groups] for name, each in optimisers.items()}
    pixels, found, k = squares().astype(np.float32) / 127.5 - 1, [], 0.0
    for number in range(steps):
        epoch, position = divmod(number, len(pixels) // recipe.batch)
        order = epoch_order(len(pixels), seed=seed, epoch=epoch)[position * recipe.batch :][: recipe.batch]
        images = torch.from_numpy(pixels[order.numpy()])
        draw = Step(number, Networks(networks, networks), images, seed=seed, ranks=Ranks())
        row: dict[str, float] = {}
        for name, each in optimisers.items():
            for group, rate in zip(each.param_groups, rates[name], strict=True):
                group["lr"] = rate * scheduled(recipe, number)
        if "encoder" in networks:
            mean, log_variance = networks["encoder"](images)
            made = networks["decoder"](mean + torch.exp(0.5 * log_variance) * draw.normal(4))
            kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1).mean()
            loss = torch.nn.functional.mse_loss(made, images) + 0.0005 * kl
            descend(optimisers["vae"], loss)
            found.append({"loss": loss.item(), "kl": kl.item()})
            continue
        generator, judge = networks["generator"], networks["discriminator"]
        if "k_rate" in recipe.settings():
            fakes = generator(draw.uniform(4)).detach()
            real = (images - judge(images)).abs().mean()
            descend(optimisers["discriminator"], real - k * (fakes - judge(fakes)).abs().mean())
            fakes = generator(draw.uniform(4))
            fake = (fakes - judge(fakes)).abs().mean()
            descend(optimisers["generator"], fake)
            row = {"data": real.item(), "generator": fake.item(), "k": k}
            k = min(max(k + 0.2 * (0.5 * real.item() - fake.item()), 0), 1)
        else:
            ones, zeros = torch.ones(len(images)), torch.zeros(len(images))
            bce = torch.nn.functional.binary_cross_entropy_with_logits
            fakes = generator(draw.normal(4, 1, 1))
            loss = bce(judge(images), ones) + bce(judge(fakes.detach()), zeros)
            descend(optimisers["discriminator"], loss)
            row["discriminator"] = loss.item()
            loss = bce(judge(fakes), ones)
            descend(optimisers["generator"], loss)
            row["generator"] = loss.item()
        found.append(row)
    return found


def scheduled(recipe: Recipe, number: int) -> float:
    share = (number + 1) / recipe.warmup if number < recipe.warmup else 1.0
    if recipe.decay:
        share *= 0.5 * (1 + math.cos(math.pi * number / recipe.decay)) if number < recipe.decay else 0
    return share


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


@pytest.mark.parametrize("name", NAMES)
def test_the_losses_are_those_of_a_plain_loop(tmp_path: Path, name: str) -> None:
    trained = train(small(name), tmp_path)
    rows = literal(small(name), 12)
    for key in rows[0]:
        wanted = np.array([row[key] for row in rows])
        np.testing.assert_allclose(trained.losses[key], wanted, rtol=2e-4, atol=1e-6, err_msg=key)
        assert len(set(wanted)) > 6
    other = literal(small(name), 12, seed=1)
    assert not np.allclose(trained.losses[key], [row[key] for row in other], rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param({"warmup": 7}, marks=pytest.mark.slow),
        pytest.param({"decay": 10}, marks=pytest.mark.slow),
        {"warmup": 3, "decay": 10},
    ],
)
def test_the_learning_rate_follows_its_schedule(tmp_path: Path, name: str, schedule: dict[str, int]) -> None:
    """Stopped within it and resumed, too."""
    recipe = small(name, **schedule)
    train(recipe, tmp_path, steps=4)
    trained = train(small(name, **schedule), tmp_path, resume=True)
    rows, without = literal(recipe, 12), literal(small(name), 12)
    for key in rows[0]:
        wanted = np.array([row[key] for row in rows])
        np.testing.assert_allclose(trained.losses[key], wanted, rtol=2e-4, atol=1e-6, err_msg=key)
    assert not np.allclose(wanted, [row[key] for row in without], rtol=1e-3, atol=0)


def test_every_image_is_seen_once_an_epoch(tmp_path: Path) -> None:
    pixels = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1) * np.ones((1, 3, 8, 8), np.uint8)
    cp.train(Toy(), pixels, out=tmp_path, steps=8, device="cpu")
    seen = [torch.round((images[:, 0, 0, 0] + 1) * 127.5).int().tolist() for images in Toy.seen]
    first, second = list(chain(*seen[:4])), list(chain(*seen[4:]))
    assert Counter(first) == Counter(second) == Counter(range(20))
    assert first != second


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_same_arguments_give_the_same_bits(tmp_path: Path, name: str) -> None:
    state = torch.random.get_rng_state()
    first = train(small(name), tmp_path / "a", steps=7)
    torch.rand(3)  # another global state makes no difference
    again = train(small(name), tmp_path / "b", steps=7)
    other = train(small(name), tmp_path / "c", steps=7, seed=1)
    assert_same(first, again)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert not any(np.array_equal(values, other.losses[key]) for key, values in first.losses.items() if key != "k")
    torch.random.set_rng_state(state)
    train(small(name), tmp_path / "d", steps=2)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is as it was"


def test_epochs_and_grids(tmp_path: Path) -> None:
    trained = cp.train(small("vae"), squares(), out=tmp_path, epochs=3, device="cpu")
    assert trained.steps == 3 * (23 // 5)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == [f"{kind}-000{i}.png" for kind in ("reconstructions", "samples") for i in (1, 2, 3)]
    with Image.open(tmp_path / "samples-0003.png") as image:
        assert image.size == (8 * 64 + 7 * 2, 8 * 64 + 7 * 2)
    grids = [(tmp_path / f"samples-000{i}.png").read_bytes() for i in (1, 3)]
    assert grids[0] != grids[1]
    with Image.open(tmp_path / "reconstructions-0003.png") as image:
        top = np.asarray(image)[:64:4, :64:4]
    first = epoch_order(23, seed=0, epoch=0)[0]
    assert np.abs(np.moveaxis(top, -1, 0).astype(int) - squares()[first]).max() <= 1, "above: the training images"


def test_many_short_epochs_make_few_grids(tmp_path: Path) -> None:
    cp.train(Toy(), squares(5, 8), out=tmp_path, steps=120, device="cpu")
    assert len(list(tmp_path.glob("samples-*.png"))) == 40


def test_dropout_is_repeatable_and_a_recipe_is_one_class(tmp_path: Path) -> None:
    assert_same(train(Toy(), tmp_path / "a"), train(Toy(), tmp_path / "b"))
    gen = cp.load(tmp_path / "a")
    assert gen.image_size == (3, 8, 8)


# --- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_opens(tmp_path: Path, name: str) -> None:
    trained = train(small(name), tmp_path / "a", steps=5)
    gen = cp.load(tmp_path / "a")
    assert gen.image_size == (3, 16, 16)
    assert gen.name == f"{name}recipe"
    images = gen(gen.sample(3))
    torch.testing.assert_close(images, trained.load()(gen.sample(3)))
    assert (tmp_path / "a/discriminator.safetensors").exists() == (name != "vae")
    fresh = small(name).networks((3, 16, 16))
    weights = load_weights(tmp_path / "a/model.safetensors")
    names = {key for network in fresh.values() for key in network.state_dict()}
    assert all(any(key.endswith(name) for name in names) for key in weights)


def test_discriminators_open_too(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    for name, build in (("dcgan", dcgan_discriminator), ("began", began_discriminator)):
        train(small(name), tmp_path / name, steps=3)
        state = load_weights(tmp_path / name / "discriminator.safetensors")
        judge = build(state)
        twin = small(name).networks((3, 16, 16))["discriminator"]
        twin.load_state_dict(state)
        torch.testing.assert_close(judge(images), twin.eval()(images))
        assert not torch.equal(judge(images), judge(-images))


def test_a_discriminators_state_dict_of_something_else() -> None:
    with pytest.raises(cp.ProbeError, match=r"holds no kernels main\.0\.weight, main\.2\.weight"):
        dcgan_discriminator({"a.weight": torch.zeros(2, 2)})
    state = DCGANDiscriminator([4, 6], 3).state_dict()
    with pytest.raises(cp.ProbeError, match="is not that of a DCGAN's discriminator of its kernels' sizes"):
        dcgan_discriminator({key: value for key, value in state.items() if "running" not in key})
    with pytest.raises(cp.ProbeError, match=r"holds no h0\.0\.weight"):
        began_discriminator(state)


def test_the_card(tmp_path: Path) -> None:
    images = Images(squares(), "23 squares", "CC0", generated=True, notes=("resized",), unreadable=("a.png (torn)",))
    trained = cp.train(small("dcgan"), images, out=tmp_path, steps=4, seed=7, device="cpu")
    text = (tmp_path / "README.md").read_text()
    for words in (
        "Training images: 23 squares, 3×16×16.",
        "none of them is real",
        "Terms: CC0.",
        "- Resized.",
        "Left out: a.png (torn).",
        f"`{images.fingerprint()}`",
        "cp.train(DCGANRecipe(batch=5, lr=0.0002, warmup=0, decay=0, latent=4, width=6, d_rate=1.0), data, seed=7, "
        "steps=4)",
        "4 of 4 steps (1.0 epochs) in ",
        "float32, seed 7.",
        "latent 4",
        f"torch {torch.__version__}",
        f"| generator | {trained.losses['generator'][0]:.4g} | {trained.losses['generator'].mean():.4g} |",
        "![samples](samples-0001.png)",
    ):
        assert words in text, words
    assert text.count("real") == 1, "only to say that none is"
    header, *rows = (tmp_path / "losses.csv").read_text().splitlines()
    assert header.split(",") == ["step", *trained.losses]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4"]
    assert np.float32(rows[-1].split(",")[1]) == trained.losses["discriminator"][-1]
    assert repr(trained).startswith(f"Trained('{tmp_path}', 4 steps, discriminator ")
