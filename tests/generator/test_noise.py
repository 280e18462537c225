"""Noise that a forward draws by itself: shared by base and source, or a part of the latents."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator.examination import LatentsIgnored
from counterfactual_probe.testing import check_adapter


class Sampler(nn.Module):
    """Draws its own starting noise, and some more on the way, as samplers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.out = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, c: Tensor) -> Tensor:
        x = torch.randn(len(c), 3, 8, 8, dtype=c.dtype)
        for _ in range(2):
            x = x + 0.1 * self.out(torch.relu(self.net(x))) + 0.1 * torch.randn_like(x) + 0 * c[:, :, None, None]
        return torch.tanh(x)


def conditions(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, 3, generator=rng)


def test_shared_noise_is_warned_of_and_noise_as_latent_is_not() -> None:
    module = Sampler().double()
    with pytest.warns(LatentsIgnored, match="noise='latent' makes what it draws the latents"):
        shared = cp.wrap(module, conditions, layers="net#1")
    assert float(cp.InfluenceMap(shared, "net#1").attribute(n_pairs=4).influence.max()) == 0
    generator = cp.wrap(module, conditions, layers="net#1", noise="latent")
    maps = cp.InfluenceMap(generator, "net#1").attribute(n_pairs=8, seed=0)
    assert float(maps.influence.min()) > 0
    assert maps.provenance["executor"] == "prepared"


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_hybrids_are_those_of_two_seeded_forwards(form: str) -> None:
    """The base's noise everywhere but in the channels that are set, which have seen the source's."""
    module = Sampler().double()

    class Formed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, c: Tensor) -> Tensor:
            out: Tensor = self.inner(c)
            return out

    def sample(n: int, rng: torch.Generator) -> Any:
        c = conditions(n, rng)
        return {"tensor": c, "tuple": (c,), "dict": {"c": c}}[form]

    generator = cp.wrap(Formed(), sample, layers="inner.net#1", noise="latent")
    z1, z2 = generator.sample(5, seed=0), generator.sample(5, seed=1)
    units = [[c] for c in range(6)]
    hybrids = cp.Hybridizer(generator, "inner.net#1").hybridize(z1, z2, units=units)
    few = cp.Hybridizer(generator, "inner.net#1").hybridize(
        generator.sample(1, seed=0), generator.sample(1, seed=1), units=units[:3]
    )
    assert hybrids.provenance["executor"] == "prepared"
    assert few.provenance["executor"] == "full forward (one sample at a time: the forward draws noise)"
    for i in range(5):
        (c1, seed1), (c2, seed2) = (parts(z, i) for z in (z1, z2))
        kept: list[Tensor] = []
        run(module, c2, seed2, partial(keep, kept))
        for channel in (0, 5):
            expected = run(module, c1, seed1, partial(put, kept[0], channel))
            assert torch.allclose(hybrids.images[channel, i], expected[0], rtol=0, atol=1e-10)
    assert torch.allclose(few.images[:, 0], hybrids.images[:3, 0], rtol=0, atol=1e-10)
    assert not torch.allclose(hybrids.base, hybrids.source, atol=0.1)
    assert torch.equal(generator(z1), generator(z1))
    assert check_adapter(generator, layers=["inner.net#1"], raise_on_failure=False).passed


def keep(kept: list[Tensor], output: Tensor) -> None:
    kept.append(output.clone())


def put(source: Tensor, channel: int, output: Tensor) -> None:
    output[:, channel] = source[:, channel]


def parts(latents: Any, i: int) -> tuple[Tensor, int]:
    c, seeds = (latents["c"], latents["noise"]) if isinstance(latents, dict) else latents
    return c[i : i + 1], int(seeds[i])


def run(module: nn.Module, c: Tensor, seed: int, first: Any) -> Tensor:
    """One forward with its own seed, and a function of the first call's output."""
    calls: list[int] = []

    def hook(_part: nn.Module, _given: Any, output: Tensor) -> None:
        calls.append(1)
        if len(calls) == 1:
            first(output)

    handle = module.get_submodule("net").register_forward_hook(hook)
    torch.manual_seed(seed)
    with torch.no_grad():
        image: Tensor = module.eval()(c)
    handle.remove()
    return image


def test_samples_do_not_depend_on_the_batch_and_seeds_differ() -> None:
    generator = cp.wrap(Sampler(), conditions, layers="net#1", noise="latent")
    z = generator.sample(4, seed=3)
    assert isinstance(z, tuple)
    assert torch.equal(z[1][2:3], generator.sample(1, seed=3, start=2)[1])
    assert len({*z[1].tolist(), *generator.sample(4, seed=4)[1].tolist()}) == 8
    torch.manual_seed(5)
    before = torch.get_rng_state()
    generator(z)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_noise_may_not_be() -> None:
    with pytest.raises(cp.ProbeError, match="noise is 'mine'; give 'latent', or None"):
        cp.wrap(Sampler(), conditions, noise="mine")  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="noise='latent' is given and the forward of Conv2d draws none; leave it"):
        cp.wrap(nn.Conv2d(3, 3, 1), lambda n, rng: torch.randn(n, 3, 4, 4, generator=rng), noise="latent")

    def named(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {"c": conditions(n, rng), "noise": conditions(n, rng)}

    with pytest.raises(cp.ProbeError, match="the latents hold 'noise' already; give it another name"):
        cp.wrap(Sampler(), named, noise="latent")
