"""S000 §3.2: spectral independence as invariance of the output's power to translations of the frequency axis."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import FAILS, HOLDS, Sampled

SEEDS, IMAGES = 5, 64
GENERATORS = {"vae-faces": ("decoder.level2", "decoder.level3"), "dcgan-faces-small": ("main.5", "main.8")}
INVARIANT = 0.1  # of the generic power: what "approximately" may mean

Floats = npt.NDArray[np.float64]


def powers(spectra: Floats, kernels: Floats) -> Floats:
    """Output power for every translation of the maps' frequency axis, by circular correlation.

    Args:
        spectra: (maps, M, M) power spectra of maps, upsampled.
        kernels: (maps, filters, M, M) |f̂|² on the same grid.

    Returns:
        (maps, filters, M, M) ⟨S(ν + τ) |f̂(ν)|²⟩ for every τ; at τ = 0 the true power.
    """
    one, two = np.fft.fft2(spectra), np.fft.fft2(kernels)
    cells = spectra.shape[-1] * spectra.shape[-2]
    return np.asarray(np.fft.ifft2(one[:, None] * two.conj()).real / cells)


def spectra(gen: cp.GeneratorAdapter, layer: str, seed: int) -> tuple[Floats, Floats]:
    """Power spectra of a layer's maps, upsampled as the next convolution does it, and |f̂|² of its filters."""
    convolution = _next(gen, layer)
    kept: list[torch.Tensor] = []
    hook = gen.module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output.detach()))
    try:
        gen(gen.sample(IMAGES, seed=seed))
    finally:
        hook.remove()
    maps = torch.cat(kept).double().numpy()
    stride, kernel = convolution.stride[0], convolution.weight.detach().double().numpy()
    upsampled = np.zeros((*maps.shape[:2], stride * maps.shape[2], stride * maps.shape[3]))
    upsampled[:, :, ::stride, ::stride] = maps
    side = upsampled.shape[-1] + kernel.shape[-1]  # a linear transform needs one less
    power = (np.abs(np.fft.fft2(upsampled, (side, side))) ** 2).mean(0)
    return power, np.abs(np.fft.fft2(kernel, (side, side))) ** 2


def _next(gen: cp.GeneratorAdapter, layer: str) -> torch.nn.ConvTranspose2d:
    names = [name for name, part in gen.module.named_modules() if isinstance(part, torch.nn.ConvTranspose2d)]
    order = list(dict(gen.module.named_modules()))
    later = next(name for name in names if order.index(name) > order.index(layer) and not name.startswith(layer + "."))
    found = gen.module.get_submodule(later)
    assert isinstance(found, torch.nn.ConvTranspose2d)
    return found


def measure() -> Numbers:
    found: Numbers = {"images": IMAGES, "seeds": list(range(SEEDS)), "layers": []}
    for name, layers in GENERATORS.items():
        gen = cp.load(name)
        sd = cp.SpectralDependency(gen)
        for layer in layers:
            rows = []
            for seed in range(SEEDS):
                power, kernels = spectra(gen, layer, seed)
                alive = power.sum((1, 2)) > 0
                every = powers(power[alive], kernels[alive])
                true, generic = every[..., 0, 0], every.mean((2, 3))
                ratio = sd.measure_activations(layer, gen.sample(IMAGES, seed=seed)).ratio.numpy()[alive]
                rows.append({
                    "largest_difference": float(np.nanmax(np.abs(true / generic - ratio))),
                    "mean_ratio": float((true / generic).mean()),
                    "invariant": float((np.abs(true / generic - 1) <= INVARIANT).mean()),
                    "above_all": float((every <= true[..., None, None]).mean()),
                })  # fmt: skip
            found["layers"].append({"generator": name, "layer": layer, "seeds": rows})
    return found


def formula(numbers: Numbers) -> list[Line]:
    worst = max(row["largest_difference"] for layer in numbers["layers"] for row in layer["seeds"])
    text = (
        "the power over its mean over all translations is the ratio of eq. 6 and 8: largest difference "
        f"{worst:.0e} over all maps and filters of four layers"
    )
    return [Line("the formula", HOLDS if worst < 1e-6 else FAILS, text)]


def networks(numbers: Numbers) -> list[Line]:
    said, shares = [], []
    for layer in numbers["layers"]:
        share = Sampled.of(row["invariant"] for row in layer["seeds"])
        mean = Sampled.of(row["mean_ratio"] for row in layer["seeds"])
        shares.append(share.mean)
        said.append(f"`{layer['generator']}` `{layer['layer']}` {share:.3f} (mean ratio {mean:.3f})")
    text = f"share of (map, filter) pairs whose power is within a tenth of the generic one: {', '.join(said)}"
    repeats = f"{len(numbers['seeds'])} samples of {numbers['images']} images"
    return [
        Line(
            f"`vae-faces`, `dcgan-faces-small`, two layers each, {repeats}", HOLDS if min(shares) > 0.5 else FAILS, text
        )
    ]


STUDY = Study(
    "translation",
    measure,
    (
        Row(
            "§3.2, eq. 5: independence is invariance of the output's power to translations of the frequency axis",
            formula,
        ),
        Row("§3.2: maps and filters of a generator are so, approximately", networks),
    ),
    repeats=SEEDS,
)
