"""Samplers of other libraries, unmodified, around tiny networks: hybrids equal plain hooks at one call and at all.

The five lines that wrap each are those of ``docs/samplers.md``; what is not installed is skipped.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from support.adapters.pipelines import seeded
from support.adapters.samplers import SIZE, Net, Sampler, noise, nothing, plain

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit at import

# Generators by name, the layer that is intervened on, and how often it runs.
Made = tuple[cp.GeneratorAdapter, str, int]


def of_azula(kind: str, layer: str = "networks.backbone.middle", calls: int = 4) -> Made:
    pytest.importorskip("azula", reason="needs azula==0.11.1, which 'make' installs")
    from azula import denoise, sample
    from azula.noise import VPSchedule

    denoiser = denoise.KarrasDenoiser(Net(), VPSchedule())
    # Near 0 a step of Heun's divides by the level of noise, and rounding with it.
    sampler = getattr(sample, kind)(denoiser, steps=4, stop=0.1, silent=True)
    return cp.wrap(Sampler(denoiser, sampler), noise, layers=[f"{layer}#*"]), layer, calls


def of_denoising_diffusion(sampling: int) -> Made:
    """With the library's own U-Net. It draws its noise by itself, and it makes a progress bar."""
    reason = "needs denoising-diffusion-pytorch==2.3.4, which 'make' installs"
    library = pytest.importorskip("denoising_diffusion_pytorch", reason=reason)
    unet = library.Unet(8, dim_mults=(1,), attn_heads=1, attn_dim_head=4, flash_attn=False)
    diffusion = library.GaussianDiffusion(unet, image_size=SIZE[1], timesteps=3, sampling_timesteps=sampling)

    def loop(z: Tensor) -> Tensor:
        with contextlib.redirect_stderr(io.StringIO()):
            images: Tensor = diffusion.sample(len(z))
        return images

    layer = "networks.model.mid_block1"
    gen = cp.wrap(Sampler(diffusion, loop), nothing, layers=[f"{layer}#*"], noise="latent", image_range=(0.0, 1.0))
    return gen, layer, sampling


def of_rectified_flow(kind: str) -> Made:
    reason = "needs rectified-flow-pytorch==0.14.0, which 'make' installs"
    library = pytest.importorskip("rectified_flow_pytorch", reason=reason)
    if kind == "NanoFlow":
        flow = library.NanoFlow(Net(), "t", data_shape=SIZE)
        loop: Callable[[Tensor], Any] = lambda z: flow.sample(4, len(z), noise=z)  # noqa: E731
    else:
        flow = library.RectifiedFlow(Net(), time_cond_kwarg="t", data_shape=SIZE, odeint_kwargs={"method": "midpoint"})
        loop = lambda z: flow.sample(len(z), steps=3, noise=z)  # noqa: E731
    layer = "networks.model.middle"
    return cp.wrap(Sampler(flow, loop), noise, layers=[f"{layer}#*"]), layer, 4


CASES = {
    "azula-euler": lambda: of_azula("EulerSampler"),
    "azula-ddpm": lambda: of_azula("DDPMSampler"),
    "azula-heun": lambda: of_azula("HeunSampler", calls=8),
    "denoising-diffusion": lambda: of_denoising_diffusion(2),
    "rectified-flow-midpoint": lambda: of_rectified_flow("RectifiedFlow"),
    "rectified-flow-nano": lambda: of_rectified_flow("NanoFlow"),
}


@pytest.mark.parametrize("case", CASES)
def test_hybrids_equal_plain_hooks(case: str) -> None:
    gen, layer, calls = seeded(CASES[case])()
    assert gen.layers[f"{layer}#*"].calls == calls == len(gen.calls(layer))
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    sets = [[0], [5], [1, 6], [2, 3, 7], [4], [7]]
    middle = calls // 2 + 1
    images = {}
    for address, chosen in ((f"{layer}#*", range(1, calls + 1)), (f"{layer}#{middle}", [middle])):
        hybrids = cp.Hybridizer(gen, address).hybridize(z1, z2, units=sets)
        assert hybrids.provenance["executor"] == "prepared"
        sources, of_source = plain(gen, z2, layer, chosen)
        clean, of_base = plain(gen, z1, layer, chosen)
        torch.testing.assert_close(hybrids.source, of_source, rtol=0, atol=2e-5)
        torch.testing.assert_close(hybrids.base, of_base, rtol=0, atol=2e-5)
        for k in (1, 3):
            _, expected = plain(gen, z1, layer, chosen, sources, sets[k])
            torch.testing.assert_close(hybrids.images[k], expected, rtol=0, atol=2e-5)
            assert (expected - of_base).abs().max() > 1e-4  # negative control: the swap does something
        assert (clean[middle] - sources[middle]).abs().max() > 1e-3
        images[address] = hybrids.images[3]
    one, two = images.values()
    assert (one - two).abs().max() > 1e-4  # and all calls do something else than one


def test_what_is_not_a_sampling_module() -> None:
    """A sampler that is no module, a module whose forward gives a loss, and one whose networks are hidden."""

    class EulerSampler:
        def __call__(self, z: Tensor) -> Tensor:
            return z

    class Trained(Net):
        def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
            return super().forward(x, torch.zeros(())).square().mean()

    cure = "give a torch.nn.Module whose forward calls it to make images from latents, with its networks as submodules"
    with pytest.raises(cp.ProbeError, match=f"the generator is an EulerSampler; {cure}"):
        cp.wrap(EulerSampler(), noise)
    with pytest.raises(cp.ProbeError, match="Trained gives one number for 3 latents, as a training step gives a loss"):
        cp.wrap(Trained(), noise)
    hidden = Sampler(torch.nn.Identity(), lambda z: Net()(z, torch.zeros(())))
    with pytest.raises(cp.ProbeError, match=r"no submodule that gives a tensor with channels.* put the parts"):
        cp.wrap(hidden, noise)
