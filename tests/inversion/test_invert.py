"""Inversion: exact where the answer is known, never silent where it is not found, and the module left as it was."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator import latents as lt
from counterfactual_probe.inversion.descent import descend, polish
from counterfactual_probe.inversion.invert import NotReached
from counterfactual_probe.inversion.objective import Objective
from support.devices.cases import on_devices
from support.state import fingerprint, global_random
from support.toy_modules import vectors
from support.toys import CONDITIONAL, NOISY, PLAIN, TOYS, Toy

QUICK: dict[str, Any] = {"starts": 2, "steps": 5}


class Linear(nn.Module):
    """Images that are a linear function of the latents: the answer is that of least squares."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(5, 48).to(dtype)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.image(z)
        return image.view(-1, 3, 4, 4)


def linear(dtype: torch.dtype = torch.float64) -> cp.GeneratorAdapter:
    return cp.wrap(Linear(dtype), vectors(5, dtype), layers="image", image_range=(-9, 9), name="linear")


def noise(gen: cp.GeneratorAdapter, n: int = 1) -> Tensor:
    rng, (low, high) = torch.Generator().manual_seed(3), gen.image_range
    return (torch.rand(n, *gen.image_size, generator=rng) * (high - low) + low).to(gen.dtype)


def silently(*given: Any, **options: Any) -> cp.Inversion:
    """For what is not reached."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotReached)
        return cp.invert(*given, **options)


@cache
def small() -> cp.GeneratorAdapter:
    return cp.load("dcgan-faces-small")


# --- the answer -----------------------------------------------------------------------------------


def test_a_linear_generator_is_inverted_exactly() -> None:
    gen = linear()
    z = gen.sample(3, seed=7)
    found = cp.invert(gen, gen(z), starts=2, steps=50)
    torch.testing.assert_close(found.latents, z, rtol=0, atol=1e-8)
    assert float(found.error.max()) < 1e-18
    assert bool(found.reached.all())


def test_where_no_latent_fits_the_answer_is_that_of_least_squares() -> None:
    gen = linear()
    pictures = noise(gen, 2)
    with pytest.warns(NotReached, match=r"2 of 2 pictures not reached: .* image 0 \(\d+\.\d\d\), 1 \(\d"):
        found = cp.invert(gen, pictures, starts=1, steps=50)
    layer = gen.module.image
    expected = torch.linalg.lstsq(layer.weight.detach(), (pictures.flatten(1) - layer.bias.detach()).T).solution.T
    torch.testing.assert_close(found.latents, expected, rtol=0, atol=1e-6)
    residual = (gen(expected) - pictures).square().mean((1, 2, 3))
    torch.testing.assert_close(found.error, residual, rtol=1e-9, atol=0)


def test_images_of_a_face_generator_are_reached_and_noise_is_not() -> None:
    gen = small()
    images = gen(gen.sample(2, seed=11))
    found = cp.invert(gen, images, starts=2, steps=100)
    assert float(found.relative_error.max()) < 0.01, found
    with pytest.warns(NotReached, match="1 of 1 picture not reached"):
        other = cp.invert(gen, noise(gen), starts=2, steps=100)
    assert float(other.relative_error) > 0.5
    upside_down = silently(gen, images.flip(2), starts=2, steps=100)
    assert not upside_down.reached.all(), "faces that the generator does not make"
    assert not other.reached.any()


def test_the_errors_are_those_of_the_images() -> None:
    gen = PLAIN.generator()
    found = silently(gen, noise(gen, 3), **QUICK)
    torch.testing.assert_close(found.images, gen(found.latents), rtol=0, atol=0)
    errors = torch.stack([((image - one) ** 2).mean() for image, one in zip(found.images, found.pictures, strict=True)])
    torch.testing.assert_close(found.error, errors, rtol=0, atol=1e-12)
    own = gen(gen.sample(64, stream=5)).double()
    torch.testing.assert_close(found.relative_error, errors / ((own - own.mean(0)) ** 2).mean(), rtol=1e-9, atol=0)
    assert bool((found.error <= found.start_errors.min(1).values + 1e-12).all()), "refining makes nothing worse"


def test_more_starts_and_steps_are_no_worse() -> None:
    gen = PLAIN.generator()
    picture = gen(gen.sample(1, seed=4))
    few, many = (silently(gen, picture, starts=starts, steps=30) for starts in (1, 3))
    assert torch.equal(many.start_errors[:, :1], few.start_errors)
    assert bool(many.start_errors.min() <= few.start_errors.min())
    longer = silently(gen, picture, starts=1, steps=120)
    assert bool((longer.start_errors < few.start_errors).all())


def test_adam_is_that_of_the_paper() -> None:
    """Kingma and Ba 2015, algorithm 1, step by step, with the rate falling as a cosine."""
    gen = linear()
    z, picture, steps = gen.sample(1, seed=1), noise(gen), 4
    objective = Objective(gen, z, ["latents"], picture, [0], 0)
    with gen.session():
        values, least = descend(objective, {"latents": 2.0}, steps, lambda: None)
    twin, m, v, best = z.clone(), torch.zeros(1, 5).double(), torch.zeros(1, 5).double(), []
    for t in range(1, steps + 1):
        leaf = twin.clone().requires_grad_()
        error = ((gen.module(leaf) - picture) ** 2).mean()
        best.append((float(error.detach()), twin.clone()))
        (g,) = torch.autograd.grad(error, leaf)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = 0.1 * 2.0 * (1 + torch.cos(torch.tensor(torch.pi * (t - 1) / steps, dtype=torch.float64))) / 2
        twin = twin - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-12)
    best.append((float(((gen.module(twin) - picture) ** 2).mean().detach()), twin))
    torch.testing.assert_close(values["latents"], min(best, key=lambda one: one[0])[1].detach(), rtol=0, atol=1e-12)
    assert float(least.detach()) == pytest.approx(min(error for error, _ in best), rel=1e-12)


def test_polish_keeps_the_best_on_its_way() -> None:
    gen = linear()
    z = gen.sample(1, seed=1)
    objective = Objective(gen, z, ["latents"], gen(z), [0], 0)
    with gen.session():
        values, error = polish(objective, {"latents": z}, 5, 1.0)
    assert float(error) == 0
    assert torch.equal(values["latents"], z)


# --- any latents, any generator -------------------------------------------------------------------


@pytest.mark.parametrize("toy", on_devices(TOYS))
def test_every_toy_is_inverted_and_left_as_it_was(toy: Toy) -> None:
    module = toy.module()
    gen = cp.wrap(module, toy.sampler, **{"image_range": (-99, 99), **toy.wrap})
    images, before, drawn = gen(gen.sample(1, seed=3)), fingerprint(module), global_random()
    found = silently(gen, images, **QUICK)
    assert fingerprint(module) == before
    assert global_random() == drawn
    form = lt.LatentsForm.of(gen.example)
    assert lt.LatentsForm.of(found.latents) == form
    assert all(torch.isfinite(value.double()).all() for _, value in lt.named_tensors(found.latents))
    assert not any(value.requires_grad or value.is_inference() for _, value in lt.named_tensors(found.latents))
    start = gen.sample(2, seed=0, stream=4)
    errors = (gen(start).double() - images.double()).square().flatten(1).mean(1)
    assert float(found.error) < float(errors.min()), "no better than where it started"


def test_classes_stay_as_they_were_given() -> None:
    gen = CONDITIONAL.generator()
    given = {"z": gen.sample(3, seed=2)["z"], "y": torch.tensor([2, 0, 3])}
    found = silently(gen, gen(given), starts=3, steps=60)
    assert set(found.latents["y"].tolist()) <= set(gen.sample(3, stream=4)["y"].tolist())

    def of_class(n: int, rng: torch.Generator, y: int | None = None, scale: float = 1.0) -> dict[str, Tensor]:
        z = torch.randn(n, 5, generator=rng, dtype=torch.float64) * scale
        return {"z": z, "y": torch.full((n,), 0 if y is None else y)}

    told = cp.wrap(CONDITIONAL.module(), of_class)
    found = silently(told, gen(given), starts=3, steps=60, y=[2, 0, 3], scale=0.5)
    assert found.latents["y"].tolist() == [2, 0, 3]
    with pytest.raises(cp.ProbeError, match="y holds 2 values for 3 images; give one each, or one for all"):
        cp.invert(told, gen(given), y=[2, 0])


def test_what_sampling_does_not_vary_stays() -> None:
    def truncated(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 5, generator=rng, dtype=torch.float64), torch.full((n, 1), 0.5, dtype=torch.float64)

    class Scaled(Linear):
        def forward(self, z: Tensor, truncation: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(z * truncation)

    gen = cp.wrap(Scaled(), truncated, layers="image", image_range=(-9, 9))
    z = gen.sample(2, seed=3)
    found = cp.invert(gen, gen(z), starts=1, steps=50)
    assert found.latents[1].unique().tolist() == [0.5]
    torch.testing.assert_close(found.latents[0], z[0], rtol=0, atol=1e-8)


def test_an_image_depends_on_no_other() -> None:
    gen = linear()
    images = gen(gen.sample(5, seed=2))
    together = cp.invert(gen, images, **QUICK)
    for number in range(5):
        alone = cp.invert(gen, images[number : number + 1], **QUICK)
        torch.testing.assert_close(alone.latents[0], together.latents[number], rtol=0, atol=1e-9)


def test_the_seed_decides() -> None:
    gen = NOISY.generator()
    images = gen(gen.sample(1, seed=2))
    one, same, other = (silently(gen, images, **QUICK, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.latents, same.latents)
    assert not torch.equal(one.latents, other.latents)
    torch.rand(1)
    assert torch.equal(silently(gen, images, **QUICK).latents, one.latents), (
        "the global random state makes a difference"
    )


# --- what could be disturbed ----------------------------------------------------------------------


def test_gradients_flags_and_buffers_are_as_before() -> None:
    module = PLAIN.module()
    module.main[0].weight.requires_grad_(False)
    for weight in module.parameters():
        weight.grad = torch.ones_like(weight)
    gen = cp.wrap(module, PLAIN.sampler)
    before, grads = fingerprint(module), [id(weight.grad) for weight in module.parameters()]
    silently(gen, gen(gen.sample(1)), **QUICK)
    assert fingerprint(module) == before
    assert [id(weight.grad) for weight in module.parameters()] == grads
    assert all(bool((weight.grad == 1).all()) for weight in module.parameters() if weight.grad is not None)
    images = module.eval()(torch.randn(2, 5).double())
    images.sum().backward()  # the module trains on


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_whatever_mode_the_caller_is_in(around: Any) -> None:
    gen = PLAIN.generator()
    images = gen(gen.sample(1, seed=1))
    expected = silently(gen, images, **QUICK)
    with around():
        found = silently(gen, gen(gen.sample(1, seed=1)), **QUICK)
    assert torch.equal(found.latents, expected.latents)
    assert not found.latents.is_inference()


def test_a_module_of_inference_tensors() -> None:
    with torch.inference_mode():
        module = PLAIN.module()
    gen = cp.wrap(module, PLAIN.sampler)
    before, tensors = fingerprint(module), [id(value) for value in module.state_dict(keep_vars=True).values()]
    found = silently(gen, gen(gen.sample(1)), **QUICK)
    assert fingerprint(module) == before
    assert [id(value) for value in module.state_dict(keep_vars=True).values()] == tensors
    assert all(value.is_inference() for value in module.parameters())
    assert torch.equal(found.latents, silently(PLAIN.generator(), gen(gen.sample(1)), **QUICK).latents)


def test_it_is_put_back_when_it_fails() -> None:
    class Failing(Linear):
        calls = 0

        def forward(self, z: Tensor) -> Tensor:
            if torch.is_grad_enabled() and len(z) == 1:
                Failing.calls += 1
                if Failing.calls == 5:
                    raise RuntimeError("for a test")
            return super().forward(z)

    gen = cp.wrap(Failing(), vectors(5), layers="image", image_range=(-9, 9))
    images, before = gen(gen.sample(1)), fingerprint(gen.module)
    with pytest.raises(cp.ProbeError, match="the forward of Failing raised RuntimeError: for a test"):
        cp.invert(gen, images, starts=1, steps=50)
    assert fingerprint(gen.module) == before


# --- what is refused ------------------------------------------------------------------------------


class Rounded(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).round()


class Detached(Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).detach()


class Closed(Linear):
    def forward(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(z)


class Overwritten(Linear):
    """What the gradient of the exponential needs is overwritten."""

    def forward(self, z: Tensor) -> Tensor:
        x = super().forward(z).exp()
        x.add_(1)
        return x


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Rounded, "all gradients are 0, as behind rounding"),
        (Detached, "they are cut off from each other"),
        (Closed, "they are cut off from each other"),
        (Overwritten, "modified by an inplace operation"),
    ],
)
def test_a_generator_without_gradients_is_refused(kind: type[Linear], reason: str) -> None:
    gen = cp.wrap(kind(), vectors(5), layers="image", image_range=(-99, 99), name="mine")
    images, before = gen(gen.sample(1)), fingerprint(gen.module)
    with pytest.raises(cp.ProbeError, match=f"no gradient reaches the latents of mine from its images .*{reason}"):
        cp.invert(gen, images)
    assert fingerprint(gen.module) == before


def test_a_quantised_module_is_refused() -> None:
    class Quantised(nn.Module):
        """Weights of whole numbers, and whole numbers in between."""

        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Linear(5, 48)
            self.register_buffer("weights", torch.randint(-8, 8, (48, 5), dtype=torch.int32))

        def forward(self, z: Tensor) -> Tensor:
            codes = (z * 16).round().to(torch.int32)
            return (self.image(z) * 0 + (codes[:, None] * self.weights).sum(2)).detach().view(-1, 3, 4, 4) / 99

    gen = cp.wrap(Quantised(), vectors(5, torch.float32), layers="image", image_range=(-99, 99))
    with pytest.raises(cp.ProbeError, match="no gradient reaches the latents of Quantised"):
        cp.invert(gen, gen(gen.sample(1)))


def test_a_generator_of_classes_alone_is_refused() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 48)

        def forward(self, y: Tensor) -> Tensor:
            image: Tensor = self.table(y)
            return image.view(-1, 3, 4, 4)

    gen = cp.wrap(Table(), lambda n, rng: torch.randint(4, (n,), generator=rng), layers="table", image_range=(-9, 9))
    with pytest.raises(cp.ProbeError, match="sampling varies no latent of Table that holds floating-point numbers"):
        cp.invert(gen, gen(gen.sample(1)))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(1, 3, 8, 8).double(), r"the images are \(1, 3, 8, 8\) and this generator's are \(n, 3, 16, 16\)"),
        (torch.zeros(1, 1, 16, 16).double(), r"the images have 1 colour.* and this generator's 3"),
        (torch.zeros(3, 16, 16).double(), "add a first dimension to a single one"),
        (torch.full((1, 3, 16, 16), 3.0).double(), "the images range from 3 to 3"),
        (torch.full((1, 3, 16, 16), torch.nan).double(), "the images hold NaN or infinite values"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "the images are torch.uint8; give a tensor of floats"),
        (torch.zeros(0, 3, 16, 16).double(), "the images hold 0 samples"),
        ("photo.png", "the images are str; give a tensor"),
        (None, "the images are NoneType; give a tensor"),
    ],
)
def test_images_that_do_not_fit(images: Any, said: str) -> None:
    with pytest.raises(cp.ProbeError, match=said):
        cp.invert(PLAIN.generator(), images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"starts": 0}, "starts is 0; give an integer of at least 1"),
        ({"steps": 2.5}, r"steps is 2\.5; give an integer"),
        ({"seed": -1}, "the seed is -1"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    gen = PLAIN.generator()
    with pytest.raises(cp.ProbeError, match=said):
        cp.invert(gen, gen(gen.sample(1)), **options)


def test_a_warning_blames_the_line_that_called() -> None:
    gen = linear()
    with pytest.warns(NotReached) as caught:
        cp.invert(gen, noise(gen), **QUICK)
    assert caught[0].filename == __file__
