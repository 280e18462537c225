"""Generators of other libraries, each wrapped in at most ten lines. Copy the one that is most similar to yours.

    python examples/your_own_generator.py --out out/your-own

The libraries are not changed, and nothing is downloaded: the modules are small and have random weights, since
the point is how each is wrapped, and that its hybrids are exact. Replace the random module by your trained
one. Libraries that are not installed are left out, and the pip command that installs them is printed.

For each generator the script runs the test kit, computes influence maps of every channel of a layer, finds
modules, and saves a picture of their hybrids. The table says how hybrids were computed ("prepared" is the
fastest executor) and by how much they differ from those of plain forwards with hooks.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.testing import check_adapter


def gaussian(*size: int) -> Callable[[int, torch.Generator], Tensor]:
    """Standard normal latents. All randomness comes from the rng, so that runs are reproducible."""
    return lambda n, rng: torch.randn(n, *size, generator=rng)


def stylegan2() -> cp.GeneratorAdapter:
    """StyleGAN2 takes a list of latents: a subclass passes a list of one, and uses the stored noise."""
    from spandrel.architectures.GFPGAN.__arch.stylegan2_clean_arch import StyleGAN2GeneratorClean

    class StyleGAN2(StyleGAN2GeneratorClean):
        def forward(self, z: Tensor) -> Tensor:
            images: Tensor = super().forward([z], randomize_noise=False)[0]
            return images

    module = StyleGAN2(out_size=32, num_style_feat=32, num_mlp=4, narrow=1 / 16)
    return cp.wrap(module, gaussian(32), image_range=(-10, 10))  # a trained one makes images in −1…1


def autoencoder_kl() -> cp.GeneratorAdapter:
    """The decoder of a latent diffusion model; its latents are maps. All decoders of diffusers work like this."""
    from diffusers import AutoencoderKL

    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    vae = AutoencoderKL(down_block_types=down, up_block_types=up, block_out_channels=(32, 64))
    return cp.wrap(vae.decoder, gaussian(4, 8, 8), image_range=(-2, 2))


def unet_2d() -> cp.GeneratorAdapter:
    """One denoising step: the latents are the noisy image and the time step, the image is the U-Net's output."""
    from diffusers import UNet2DModel

    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    unet = UNet2DModel(sample_size=16, down_block_types=down, up_block_types=up, block_out_channels=(32, 64))

    def sample(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {"sample": torch.randn(n, 3, 16, 16, generator=rng), "timestep": torch.full((n,), 500)}

    return cp.wrap(unet, sample, image_range=(-2, 2))


def diffusion_chain() -> cp.GeneratorAdapter:
    """A whole chain of three denoising steps: every layer runs three times, and '#2' names its second call."""
    from diffusers import DDIMScheduler

    class Chain(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for t in scheduler.timesteps:
                x = scheduler.step(self[0](x, t).sample, t, x).prev_sample
            return x

    scheduler = DDIMScheduler()
    scheduler.set_timesteps(3)
    return cp.wrap(Chain(unet_2d().module), gaussian(3, 16, 16), layers=["0.mid_block#2", "0.up_blocks.0#3"])


def vae() -> cp.GeneratorAdapter:
    """The decoder of a VAE, which returns an object with the image as a field, in 0…1."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_ResNet_AE_MNIST

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=16)
    model = VAE(config, decoder=Decoder_ResNet_AE_MNIST(config))
    return cp.wrap(model.decoder, gaussian(16), image_range=(0, 1))


def resnet_gan() -> cp.GeneratorAdapter:
    """A class-conditional ResNet GAN, as in SNGAN and WGAN-GP: the one-hot label is appended to the latent."""
    from gan_lab.resnetgan.architectures import Generator32PixResnet

    def sample(n: int, rng: torch.Generator, classes: int | Tensor | None = None) -> Tensor:
        labels = torch.randint(10, (n,), generator=rng) if classes is None else torch.as_tensor(classes).expand(n)
        return torch.cat([torch.randn(n, 16, generator=rng), nn.functional.one_hot(labels, 10)], 1)

    return cp.wrap(Generator32PixResnet(len_latent=16, fmap=32, num_classes=10), sample)


def u_net() -> cp.GeneratorAdapter:
    """Image to image: the latents are input images. Here they are noise; yours may come from a folder."""
    import segmentation_models_pytorch as smp

    module = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(32, 16, 8), classes=3)
    return cp.wrap(module, gaussian(3, 32, 32), image_range=(-5, 5))


def vit_decoder() -> cp.GeneratorAdapter:
    """A transformer on tokens: channels are the last dimension, and image= assembles the patches."""
    from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder

    sizes = {"decoder_hidden_size": 32, "decoder_num_attention_heads": 4, "decoder_num_hidden_layers": 2}
    decoder = RAEDecoder(16, **sizes, decoder_intermediate_size=64, num_patches=16, patch_size=4, image_size=16)
    return cp.wrap(
        decoder, gaussian(16, 16), image=lambda output: decoder.unpatchify(output.logits), image_range=(-3, 3)
    )


# What each needs, and the layer whose channels are probed.
EXAMPLES: dict[Callable[[], cp.GeneratorAdapter], tuple[str, str, str]] = {
    stylegan2: ("spandrel", "spandrel", "style_convs.1"),
    autoencoder_kl: ("diffusers", "diffusers", "up_blocks.0.resnets.0"),
    unet_2d: ("diffusers", "diffusers", "up_blocks.0.resnets.1"),
    diffusion_chain: ("diffusers", "diffusers", "0.mid_block#2"),
    vae: ("pythae", "--no-deps pythae pydantic==2.14.3 pydantic-core annotated-types typing-inspection", "layers.2"),
    resnet_gan: ("gan_lab", "--no-deps gan-lab indexed", "generator_model.4"),
    u_net: ("segmentation_models_pytorch", "segmentation-models-pytorch", "decoder.blocks.0"),
    vit_decoder: ("diffusers", "diffusers", "decoder_layers.0.intermediate"),
}


def hooked(gen: cp.GeneratorAdapter, layer: str, z1: Any, z2: Any, channels: list[int]) -> Tensor:
    """Hybrids by their definition, with torch's hooks, as the reference for the library."""
    name, _, number = layer.partition("#")

    def run(latents: Any, action: Callable[[Tensor], Tensor | None]) -> Tensor:
        calls = itertools.count(1)

        def hook(_part: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            return action(output) if next(calls) == int(number or 1) else None

        handle = gen.module.get_submodule(name).register_forward_hook(hook)
        try:
            return gen(latents)
        finally:
            handle.remove()

    def put(output: Tensor) -> Tensor:
        where = (..., channels) if output.dim() == 3 else (slice(None), channels)  # tokens have their channels last
        new = output.clone()
        new[where] = seen[0][where]
        return new

    seen: list[Tensor] = []
    run(z2, lambda output: seen.append(output.clone()))
    return run(z1, put)


def probe(gen: cp.GeneratorAdapter, layer: str, picture: Path) -> tuple[str, float, float]:
    """The executor, the largest error of hybrids, and seconds for the maps of all channels."""
    check_adapter(gen)
    start = time.perf_counter()
    maps = cp.InfluenceMap(gen, layer).attribute(n_pairs=8)
    seconds = time.perf_counter() - start
    units = cp.ModuleFinder(n_modules=3).fit(maps).modules_
    z1, z2 = gen.sample(8, seed=0), gen.sample(8, seed=1)
    hybrids = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=units)
    expected = torch.stack([hooked(gen, layer, z1, z2, list(item[layer])) for item in hybrids.units])
    low, high = float(hybrids.images.min()), float(hybrids.images.max())
    # Random weights use a small part of the image range: the pictures are scaled to it.
    seen = dataclasses.replace(hybrids, provenance=hybrids.provenance | {"image_range": [low, high]})
    figure, _ = seen.plot(labels=[f"module {k}" for k in range(len(units))])
    figure.savefig(picture, dpi=120, bbox_inches="tight")
    return hybrids.provenance["executor"], float((hybrids.images - expected).abs().max()), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/your-own"))
    parser.add_argument("--only", choices=[make.__name__ for make in EXAMPLES], nargs="*")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{'generator':16} {'layers':>6}  {'probed':29} {'run by':12} {'error':>7} {'seconds':>7}")
    for make, (library, install, layer) in EXAMPLES.items():
        if options.only and make.__name__ not in options.only:
            continue
        if find_spec(library) is None:
            print(f"{make.__name__:16} missing; install it with: pip install {install}")
            continue
        torch.manual_seed(0)  # of the random weights
        gen = make()
        executor, error, seconds = probe(gen, layer, options.out / f"{make.__name__}.png")
        print(f"{make.__name__:16} {len(gen.layers):6}  {layer:29} {executor:12} {error:7.0e} {seconds:7.2f}")


if __name__ == "__main__":
    main()
