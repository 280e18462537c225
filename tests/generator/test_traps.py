"""What modules and samplers do behind one's back, and what it must not do to the rest of the program."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support import toys
from support.toys import vectors


def test_no_generator_of_another_device_is_reseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed reseeds every device's; only what is put back afterwards may be touched."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a global seed was set")

    module = toys.NOISY.plain()
    monkeypatch.setattr(torch, "manual_seed", refuse)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    generator = cp.wrap(module, vectors(5))
    maps = cp.InfluenceMap(generator, "main.2").attribute(n_pairs=2)
    assert maps.provenance["noise_in_forward"], "noise was drawn, from seeded generators"


def test_a_sampler_that_seeds_globally_leaves_no_trace() -> None:
    def sample(n: int, rng: torch.Generator) -> Tensor:
        torch.manual_seed(rng.initial_seed() % 2**31)
        np.random.seed(rng.initial_seed() % 2**31)
        return torch.randn(n, 5, dtype=torch.float64)

    module = toys.PLAIN.plain()
    before = torch.get_rng_state(), np.random.get_state()[1]
    generator = cp.wrap(module, sample)
    generator.sample(3, seed=4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_scripted_submodule_is_named() -> None:
    module = nn.Sequential(nn.ConvTranspose2d(5, 4, 4), torch.jit.script(nn.Conv2d(4, 3, 1)))
    with pytest.raises(cp.ProbeError, match="submodule '1' of the generator is TorchScript"):
        cp.wrap(module, lambda n, rng: torch.randn(n, 5, 1, 1, generator=rng))


@pytest.mark.parametrize("kept", [True, False])
def test_a_forward_that_copies_a_layer_copies_no_hooks_of_ours(kept: bool) -> None:
    """As for an average of weights that is made when it is first needed: the edit is of the layer, not of its copy."""

    class Copies(toys.Deconv):
        def forward(self, z: Tensor) -> Tensor:
            x = self.main[0](z[:, :, None, None])
            copied = self.__dict__.get("copied") or deepcopy(self.main[0])
            if kept:
                self.__dict__["copied"] = copied
            image: Tensor = self.main[1:](x + 0.5 * copied(z[:, :, None, None]))
            return image

    module = Copies().double().eval()
    generator = cp.wrap(module, vectors(5))
    z1, z2 = generator.sample(3, seed=1), generator.sample(3, seed=2)
    hybrids = cp.Hybridizer(generator, "main.0").hybridize(z1, z2)
    with torch.no_grad():
        x1, x2 = (module.main[0](z[:, :, None, None]) for z in (z1, z2))
        for channel in range(6):
            edited = x1.clone()
            edited[:, channel] = x2[:, channel]
            expected = module.main[1:](edited + 0.5 * x1)
            assert torch.allclose(hybrids.images[channel], expected, atol=1e-12)
    assert "copied" not in module.__dict__


def test_a_forward_that_changes_a_parameter_is_refused() -> None:
    class Counts(toys.Deconv):
        def __init__(self) -> None:
            super().__init__()
            self.count = nn.Parameter(torch.zeros(()), requires_grad=False)

        def forward(self, z: Tensor) -> Tensor:
            self.count.add_(1)
            return super().forward(z)

    with pytest.raises(cp.ProbeError, match="the forward of Counts changes its parameter 'count'"):
        cp.wrap(Counts().double(), vectors(5))


def test_the_weights_hash_sees_buffers_that_are_not_saved_and_no_wrappers() -> None:
    def made(shift: float) -> nn.Module:
        module = toys.PLAIN.plain()
        module.register_buffer("shift", torch.tensor(shift), persistent=False)
        return module

    def hashed(module: nn.Module) -> str:
        return cp.wrap(module, vectors(5)).weights_hash()

    assert hashed(made(0.0)) == hashed(made(0.0))
    assert hashed(made(0.0)) != hashed(made(1.0))
    assert hashed(toys.compiled_part(toys.PLAIN.plain())) == hashed(toys.PLAIN.plain())


def sample_classes(n: int, rng: torch.Generator, classes: int = 0) -> dict[str, Tensor]:
    drawn = toys.labelled(n, rng)
    return {**drawn, "y": torch.full((n,), int(classes))}


@pytest.mark.parametrize("classes", [[1, 2, 3], (1, 2, 3), np.array([1, 2, 3]), torch.tensor([1, 2, 3])], ids=type)
def test_conditions_are_one_each_or_one_for_all(classes: Any) -> None:
    generator = cp.wrap(toys.CONDITIONAL.plain(), sample_classes)
    drawn = generator.sample(3, classes=classes)
    assert isinstance(drawn, dict)
    assert drawn["y"].tolist() == [1, 2, 3]
    same = generator.sample(3, classes=2)
    assert isinstance(same, dict)
    assert same["y"].tolist() == [2, 2, 2]
    assert torch.equal(same["z"], drawn["z"]), "a condition changes nothing else"
    with pytest.raises(cp.ProbeError, match="classes holds 3 values for 4 samples"):
        generator.sample(4, classes=classes)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n": 2.5}, "n is 2.5; give an integer of at least 1"),
        ({"n": "a"}, "n is 'a'"),
        ({"n": 1, "stream": -1}, "stream is -1"),
    ],
)
def test_bad_numbers_of_samples(plain: cp.GeneratorAdapter, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        plain.sample(**arguments)


@pytest.mark.parametrize("image_range", [None, (1.0,), (1.0, 0.0), ("a", "b")])
def test_bad_image_ranges(image_range: Any) -> None:
    with pytest.raises(cp.ProbeError, match="give two numbers, the smaller first"):
        cp.wrap(toys.PLAIN.plain(), vectors(5), image_range=image_range)


@pytest.mark.parametrize("n", [1, 6])  # whole forwards, and the fast path
def test_a_forward_that_works_in_place_on_its_latents(n: int) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = toys.PLAIN.plain()

        def forward(self, z: Tensor) -> Tensor:
            return self.main(z.mul_(2))  # type: ignore[no-any-return]

    module = InPlace()
    generator = cp.wrap(module, vectors(5))
    plain = cp.wrap(module.main, lambda n, rng: 2 * vectors(5)(n, rng))
    z1, z2 = generator.sample(n, seed=0), generator.sample(n, seed=1)
    kept = z1.clone()
    found = cp.Hybridizer(generator, "main.main.2").hybridize(z1, z2, units=[[0], [1], [2], [0, 1]])
    assert torch.equal(z1, kept)
    expected = cp.Hybridizer(plain, "main.2").hybridize(2 * z1, 2 * z2, units=[[0], [1], [2], [0, 1]])
    assert torch.equal(found.images, expected.images)
