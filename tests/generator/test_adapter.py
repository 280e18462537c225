"""What wrap takes, what it refuses, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.devices.cases import on_devices
from support.toy_modules import Deconv, Drawer, Outputs, twofold, vectors
from support.toys import CONDITIONAL, NOISY, PLAIN, TOYS, Toy

Z = vectors(5, torch.float32)


# --- what wrap refuses ----------------------------------------------------------------------------


def raising_sampler(n: int, rng: torch.Generator) -> Tensor:
    raise KeyError("no such file")


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.ConvTranspose2d(5, 3, 4)))


class Repeated(nn.Module):
    """All of it runs twice, as the network of a chain of denoising steps does."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.part(z) + self.part(-z)
        return image


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("make", "sampler", "options", "message"),
    [
        (lambda: torch.relu, Z, {}, "the generator is a builtin_function_or_method; give a torch.nn.Module"),
        (Deconv, Z, {"image_range": (1, -1)}, r"image_range is \(1, -1\); give two numbers, the smaller first"),
        (scripted, Z, {}, "the generator is TorchScript .* give the nn.Module that it was scripted from"),
        (lambda: nn.LazyConvTranspose2d(3, 4), Z, {}, "lazy layers without weights yet; run it once"),
        (Deconv, Z, {"device": "nowhere"}, "device 'nowhere' cannot be used here"),
        (Deconv, Z, {"device": "cuda:99"}, "device 'cuda:99' cannot be used here .* try 'cpu'"),
        (
            Deconv,
            Z,
            {"layers": ["main.77"]},
            r"layer 'main\.77' is not in this generator; nearest: 'main\.7'",
        ),
        (
            lambda: Drawer(lambda x, z: "text"),
            Z,
            {},
            "no 4-D image tensor was found in the module's output, a str",
        ),
        (
            lambda: Drawer(lambda x, z: {"x": z}),
            Z,
            {},
            "no 4-D image tensor was found in the module's output, a dict",
        ),
        (
            lambda: Drawer(lambda x, z: x.to(torch.complex64)),
            Z,
            {},
            r"gives complex images; pass image=\.\.\., a function from the module's output to real ones",
        ),
        (
            lambda: Drawer(lambda x, z: x[:, 0]),
            Z,
            {},
            r"gives \(3, 4, 4\) for 3 latents where images \(n, C, H, W\)",
        ),
        (lambda: Drawer(lambda x, z: x[:1]), Z, {}, r"gives \(1, 3, 4, 4\) for 3 latents"),
        (Deconv, Z, {"image": lambda x: "text"}, "gives str for 3 latents where images .* pass image="),
        (
            nn.Identity,
            lambda n, rng: torch.zeros(n, 3, 4, 4),
            {},
            "has no submodule that gives a tensor with channels",
        ),
        (Deconv, lambda n, rng: torch.zeros(3, 5), {}, r"sample_latents\(1, rng\) returned 3 samples"),
        (Deconv, raising_sampler, {}, r"sample_latents\(1, rng\) raised KeyError: 'no such file'"),
        (Deconv, lambda n: torch.zeros(n, 5), {}, r"sample_latents\(1, rng\) raised TypeError"),
        (
            Deconv,
            lambda n, rng: "latents",
            {},
            "latents are a str; give a tensor, a tuple of tensors or a dict",
        ),
        (Deconv, lambda n, rng: (torch.zeros(1, 5), 0.5), {}, "is a float; make it a tensor .* torch.full"),
        (
            Deconv,
            vectors(6, torch.float32),
            {},
            r"the forward of Deconv raised RuntimeError.*latents \(3, 6\)",
        ),
        (
            Deconv,
            twofold,
            {},
            r"the forward of Deconv raised TypeError.*latents\[0\] \(3, 5\), latents\[1\] \(3, 3\)",
        ),
    ],
)
def test_wrap_refuses(make: Any, sampler: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.wrap(make(), sampler, **options)


def test_an_exception_of_the_image_function_is_a_sentence() -> None:
    with pytest.raises(cp.ProbeError, match=r"image=\.\.\. raised AttributeError: .*pixels.*; give a function"):
        cp.wrap(Deconv(), Z, image=lambda output: output.pixels)


def test_one_layer_may_be_a_string_in_wrap_as_elsewhere() -> None:
    assert list(cp.wrap(Deconv(), Z, layers="main.2").layers) == ["main.2"]


def test_a_meta_device_is_refused_in_a_sentence() -> None:
    message = "'meta' holds no values; load the weights onto a real device"
    with pytest.raises(cp.ProbeError, match=message):
        cp.wrap(Deconv(), Z, device="meta")
    for device in (None, "cpu"):
        with pytest.raises(cp.ProbeError, match=message):
            cp.wrap(Deconv().to("meta"), Z, device=device)


def test_a_sampler_that_draws_from_elsewhere_is_refused() -> None:
    """Pairs could not be drawn again, and batches would not agree."""
    message = r"sample_latents\(1, rng\) gives other latents when sample 0 is drawn again; draw everything from the rng"
    with pytest.raises(cp.ProbeError, match=message):
        cp.wrap(Deconv(), lambda n, rng: torch.randn(n, 5))
    conditional = CONDITIONAL.plain()

    def half(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {"z": torch.randn(n, 5, generator=rng, dtype=torch.float64), "y": torch.randint(1 << 30, (n,))}

    with pytest.raises(cp.ProbeError, match=r"gives other latents\['y'\] when sample 0 is drawn again"):
        cp.wrap(conditional, half)


def test_lightning_like_output_keys_are_understood() -> None:
    z = Z(2, torch.Generator().manual_seed(0))
    for form in (
        lambda x: {"logits": x[:, :1], "sample": x},
        lambda x: {"mask": x.mean(1), "anything": x},
        lambda x: [x.mean(1), x],
        lambda x: type("Output", (), {"images": x})(),
    ):
        generator = cp.wrap(Outputs(form), Z)
        assert generator.image_size == (3, 16, 16)
        assert torch.allclose(generator(z), generator.module.eval().main(z[:, :, None, None]), atol=1e-6)


# --- noise and determinism --------------------------------------------------------------------------


def test_a_forward_that_changes_with_nothing_is_refused() -> None:
    private = torch.Generator().manual_seed(1)
    message = "gives two images for one latent although the random state is the same .*largest difference"
    with pytest.raises(cp.ProbeError, match=message):
        cp.wrap(Drawer(lambda x, z: x + torch.rand(1, generator=private)), Z)
    calls = [0]

    def counted(x: Tensor, z: Tensor) -> Tensor:
        calls[0] += 1
        return x + calls[0]

    with pytest.raises(cp.ProbeError, match="make its forward a function of latents, weights and torch's global"):
        cp.wrap(Drawer(counted), Z)


def test_a_counter_on_the_module_is_seen_too() -> None:
    """Attributes are put back after a session, but not between its forwards."""

    class Counts(Deconv):
        calls = 0

        def forward(self, z: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(z) + self.calls

    with pytest.raises(cp.ProbeError, match="gives two images for one latent"):
        cp.wrap(Counts(), Z)


class First(Deconv):
    """Its first forward is another function than the next."""

    def __init__(self) -> None:
        super().__init__()
        self.ran = False

    def forward(self, z: Tensor) -> Tensor:
        factor, self.ran = (1.0 if self.ran else 0.5), True
        return super().forward(z) * factor


def test_a_first_forward_that_differs_is_refused() -> None:
    """It is the first of every session, so that one sample of a batch would be of another function than the rest."""
    with pytest.raises(cp.ProbeError, match=r"gives two images .*if its first forward alone differs, run it once"):
        cp.wrap(First(), Z)
    module = First().eval()
    module(torch.zeros(2, 5))
    generator = cp.wrap(module, Z)
    z = generator.sample(3)
    assert torch.allclose(generator(z), module(z), atol=1e-6)


@pytest.mark.parametrize("toy", on_devices(TOYS))
def test_batchable_unless_noisy_or_coupled(toy: Toy) -> None:
    assert toy.generator().batchable == toy.batchable


def test_image_i_has_the_noise_of_seed_and_i() -> None:
    generator = NOISY.generator()
    z = generator.sample(4)
    assert torch.equal(generator(z, seed=3)[:2], generator(z[:2], seed=3))
    assert not torch.equal(generator(z, seed=3), generator(z, seed=4))
    torch.manual_seed(1)
    first = generator(z, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, generator(z, seed=3))  # the global state plays no part


# --- images that are not finite ---------------------------------------------------------------------


def broken(value: float) -> cp.GeneratorAdapter:
    """NaN or infinite where a latent's first entry is above 50, or where a hybrid's layer is above 50."""

    def finish(x: Tensor, z: Tensor) -> Tensor:
        bad = (z[:, 0] > 50) | (x.amax((1, 2, 3)) > 1e4)
        return torch.where(bad[:, None, None, None], value, x)

    return cp.wrap(Drawer(finish), Z)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_images_that_are_not_finite_name_latent_and_unit_set(value: float) -> None:
    generator = broken(value)
    z1, z2 = generator.sample(4, seed=0), generator.sample(4, seed=1)
    assert isinstance(z1, Tensor)
    assert isinstance(z2, Tensor)
    bad = z1.clone()
    bad[2, 0] = 99
    hybridizer, influence = cp.Hybridizer(generator, "layer"), cp.InfluenceMap(generator, "layer")
    with pytest.raises(cp.ProbeError, match="the image of latent 2 holds NaN or infinite values; check the latents"):
        generator(bad)
    for size in (1, 3, None):
        with pytest.raises(cp.ProbeError, match="the image of base latent 2 holds NaN or infinite"):
            influence.attribute(bad, z2, hybrids_per_eval=size)
        with pytest.raises(cp.ProbeError, match="the image of source latent 2 holds NaN or infinite"):
            influence.attribute(z1, bad, hybrids_per_eval=size)
        hybridizer.intervene(z1, units=[[0], [1]], value=lambda x: x, hybrids_per_eval=size)
        with pytest.raises(cp.ProbeError, match=r"of base latent 0 with unit set \{layer: 1\} holds NaN or inf"):
            hybridizer.intervene(z1, units=[[1]], value=1e6, hybrids_per_eval=size)
    assert hybridizer.hybridize(z1, z2).images.isfinite().all()


def test_half_precision_gets_its_own_cure() -> None:
    generator = cp.wrap(Drawer(lambda x, z: x * (z[:, :1, None, None] > 50) / 0).half(), vectors(5, torch.float16))
    with pytest.raises(cp.ProbeError, match="run the generator in float32"):
        generator(generator.sample(1))


# --- latents and devices ------------------------------------------------------------------------------


def test_latents_on_another_device() -> None:
    """A generator that is said to be elsewhere stands for the GPU that is not here."""
    generator = PLAIN.generator()
    z = generator.sample(2)
    assert isinstance(z, Tensor)
    generator.device = torch.device("cuda", 0)
    uses: list[tuple[str, Callable[[], Any]]] = [
        ("the latents", lambda: generator(z)),
        ("the base latents z1", lambda: cp.Hybridizer(generator, "main.2").hybridize(z, z, units=[0])),
        ("the base latents z1", lambda: cp.Hybridizer(generator, "main.2").intervene(z, units=[0])),
    ]
    for what, use in uses:
        message = rf"latents of {what} are on cpu and the generator on cuda:0; move them with \.to\('cuda:0'\)"
        with pytest.raises(cp.ProbeError, match=message):
            use()


def test_latents_without_values() -> None:
    generator = PLAIN.generator()
    z = generator.sample(2)
    assert isinstance(z, Tensor)
    for use in (
        lambda: generator(z.to("meta")),
        lambda: cp.Hybridizer(generator, "main.2").hybridize(z.to("meta"), z, units=[0]),
        lambda: cp.Hybridizer(generator, "main.2").intervene(z.to("meta"), units=[0]),
    ):
        with pytest.raises(
            cp.ProbeError, match=r"latents( z1)? are a meta tensor, which holds no numbers; give dense, real"
        ):
            use()
    with pytest.raises(cp.ProbeError, match="latents of the source latents z2 are a meta tensor"):
        cp.InfluenceMap(generator, "main.2").attribute(z, z.to("meta"))
    conditional = CONDITIONAL.generator()
    drawn = conditional.sample(2)
    assert isinstance(drawn, dict)
    with pytest.raises(cp.ProbeError, match=r"latents\['y'\] of the latents are a meta tensor"):
        conditional({"z": drawn["z"], "y": drawn["y"].to("meta")})


def test_latents_of_another_form_or_length() -> None:
    generator = CONDITIONAL.generator()
    z = generator.sample(3)
    assert isinstance(z, dict)
    with pytest.raises(cp.ProbeError, match=r"are latents \(3, 5\) and this generator takes latents\['z'\] \(2, 5\)"):
        generator(z["z"])
    with pytest.raises(cp.ProbeError, match=r"latents\['z'\] of the latents holds 3 samples and latents\['y'\] 2"):
        generator({"z": z["z"], "y": z["y"][:2]})
    with pytest.raises(cp.ProbeError, match=r"takes latents\['z'\] \(2, 5\), latents\['y'\] \(2,\)"):
        generator({"z": z["z"]})
    with pytest.raises(cp.ProbeError, match="hold 0 samples; give at least one"):
        generator({key: value[:0] for key, value in z.items()})
    with pytest.raises(cp.ProbeError, match="n is 0; give an integer of at least 1"):
        generator.sample(0)


def test_the_order_of_keys_does_not_matter() -> None:
    generator = CONDITIONAL.generator()
    z = generator.sample(3)
    assert isinstance(z, dict)
    assert torch.equal(generator({"y": z["y"], "z": z["z"]}), generator(z))


def test_a_negative_start_is_a_sentence() -> None:
    with pytest.raises(cp.ProbeError, match="start is -1; give an integer of at least 0"):
        PLAIN.generator().sample(1, start=-1)


def test_conditions_reach_the_sampler() -> None:
    def sampler(n: int, rng: torch.Generator, *, truncation: float = 1.0) -> Tensor:
        return truncation * torch.randn(n, 5, generator=rng)

    generator = cp.wrap(Deconv(), sampler)
    assert torch.allclose(generator.sample(3, truncation=0.5), 0.5 * generator.sample(3))


def test_floating_latents_get_the_modules_dtype_and_others_keep_theirs() -> None:
    generator = cp.wrap(CONDITIONAL.plain().float(), CONDITIONAL.sampler)
    z = generator.sample(2)
    assert isinstance(z, dict)
    assert (z["z"].dtype, z["y"].dtype) == (torch.float32, torch.int64)


def test_repr_and_name() -> None:
    first, *table = repr(PLAIN.generator()).splitlines()
    assert first == "GeneratorAdapter('Deconv', image 3×16×16, 10 layers, cpu)"
    names = list(PLAIN.generator().layers)
    assert [line.split()[0] for line in table] == ["layer", *names[:7], "…"]
    assert table[-1].split() == ["…", "3", "more;", "print", "it", "for", "all"]
    assert cp.wrap(Deconv(), Z, name="mine").name == "mine"
    assert cp.wrap(nn.DataParallel(Deconv()), Z).name == "Deconv"
