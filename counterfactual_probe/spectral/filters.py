"""Which filters are removed, and the runs without them: what :class:`FilterRemoval` is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base.errors import ProbeError, number, share, whole
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from ..generator.state.randomness import fitting
from .removal import FilterRemoval
from .tracing.network import Network
from .tracing.pathways import Pathways
from .tracing.tracer import PLANE, ConvolutionMode

KEPT = 4260 / 8192  # of the filters, by energy, as in the paper
DRAWS = 8  # random controls beside each removal
# Groups of filters of similar energy, within which controls are drawn.
_STRATA = 20


@dataclass(frozen=True)
class RemovalPlan:
    """Masks (in, mid) of the filters that are removed in each row, and in each draw of its control."""

    names: tuple[str, ...]
    removed: Tensor  # (rows, in, mid)
    controls: Tensor  # (rows − 2, draws, in, mid)
    energy: Tensor  # (in, mid)

    def left(self, removed: Tensor) -> Tensor:
        """The share of energy that masks (…, in, mid) leave."""
        return ((~removed) * self.energy).sum((-2, -1)) / self.energy.sum()


def remove_filters(
    network: Network,
    pathways: Pathways,
    latents: Latents,
    *,
    kept: float,
    below: float,
    above: float,
    draws: int,
    seed: int,
) -> FilterRemoval:
    """See :meth:`SpectralDependency.remove_filters`."""
    generator = network.generator
    if generator is None:
        raise ProbeError(f"{network.name} is a plain module and makes no images; wrap it, cp.wrap(module, …)")
    kept, below, above = share(kept, "kept"), number(below, "below"), number(above, "above")
    if not below <= above:
        raise ProbeError(f"below is {below} and above {above}; give two ratios in order")
    energy, ratio = per_filter(pathways)
    plan = removal_plan(energy, ratio, kept=kept, below=below, above=above, draws=whole(draws, "draws", 1), seed=seed)
    runs = _Runs(generator, pathways, latents, seed)
    images_of_rows = [runs.without(mask) for mask in plan.removed]
    controls = [[runs.without(mask) for mask in masks] for masks in plan.controls]

    def measured(measure: Any) -> tuple[Tensor, Tensor]:
        of_controls = [torch.stack([measure(images) for images in row]) for row in controls]
        return torch.stack([measure(images) for images in images_of_rows]), torch.stack(of_controls)

    low, high = generator.image_range
    saturation, control_saturation = measured(lambda images: mean_saturation((images - low) / (high - low)))
    fine, control_fine = measured(lambda images: finest_energy((images - low) / (high - low)))
    return FilterRemoval(
        names=plan.names,
        filters=(~plan.removed).sum((1, 2)),
        energy=plan.left(plan.removed),
        images=torch.stack(images_of_rows),
        saturation=saturation,
        fine=fine,
        control_energy=plan.left(plan.controls),
        control_images=torch.stack([row[0] for row in controls]),
        control_saturation=control_saturation,
        control_fine=control_fine,
        provenance=generator.provenance()
        | {"layers": [pathways.earlier.name, pathways.later.name], "kept": kept, "below": below, "above": above}
        | {"draws": draws, "seed": seed},
    )


def per_filter(pathways: Pathways) -> tuple[Tensor, Tensor]:
    """(in, mid) energy of each of the earlier layer's kernels, and its ratio: the mean over the later one's outputs."""
    if pathways.earlier.groups != 1 or len(pathways.mids) != pathways.earlier.out_channels:
        raise ProbeError(
            f"{pathways.earlier.name!r} has groups, or only some of its channels reach {pathways.later.name!r}; "
            "filters are removed from convolutions of which every output is read once"
        )
    shape = pathways.earlier.in_channels, pathways.earlier.out_channels
    energy, ratio = torch.zeros(shape, dtype=torch.float64), torch.full(shape, float("nan"), dtype=torch.float64)
    for index, rows, block in pathways.blocks():
        sources = [source for source, _ in pathways.mids[index]]
        energy[rows, sources] = pathways.earlier.incoming(sources)[:, rows].square().sum((-2, -1)).mT
        ratio[rows, sources] = block.nanmean(2).mT
    return energy, ratio


def removal_plan(
    energy: Tensor, ratio: Tensor, *, kept: float, below: float, above: float, draws: int, seed: int
) -> RemovalPlan:
    """The filters to remove (conventions 21), the thresholds and numbers of S002 scaled to the layer."""
    least = energy.numel() - round(kept * energy.numel())
    weak = torch.zeros(energy.numel(), dtype=torch.bool)
    weak[energy.reshape(-1).argsort(stable=True)[:least]] = True
    weak = weak.view_as(energy)
    rest = ~weak & ~torch.isnan(ratio)
    low, high = rest & (ratio < below), rest & (ratio > above)
    equal = min(int(low.sum()), int(high.sum()))
    ordered = ratio.masked_fill(~rest, float("nan")).reshape(-1).argsort(stable=True)[: int(rest.sum())]
    lowest, highest = (torch.zeros(energy.numel(), dtype=torch.bool) for _ in range(2))
    lowest[ordered[:equal]] = True
    highest[ordered[len(ordered) - equal :]] = True
    extra = [low, high, lowest.view_as(energy), highest.view_as(energy)]
    names = ["nothing", "low energy", f"ratio < {below:g}", f"ratio > {above:g}"]
    names += [f"the {equal} lowest", f"the {equal} highest"]
    rng = torch.Generator().manual_seed(fitting(whole(seed, "the seed", 0), 64))
    strata = stratified(energy, ~weak)
    controls = [torch.stack([weak | stratified_sample(item, strata, rng) for _ in range(draws)]) for item in extra]
    removed = torch.stack([torch.zeros_like(weak), weak, *(weak | item for item in extra)])
    return RemovalPlan(tuple(names), removed, torch.stack(controls), energy)


def stratified(energy: Tensor, among: Tensor) -> list[Tensor]:
    """Flat indices of the filters among which to draw, in groups of similar energy."""
    indices = among.reshape(-1).nonzero()[:, 0]
    ordered = indices[energy.reshape(-1)[indices].argsort(stable=True)]
    return [part for part in ordered.tensor_split(min(_STRATA, max(1, len(ordered)))) if len(part)]


def stratified_sample(removed: Tensor, strata: list[Tensor], rng: torch.Generator) -> Tensor:
    """As many filters at random, from every stratum as many as are removed of it.

    They may be the removed ones themselves: the question is whether a ratio says more than an energy does.
    """
    flat, drawn = removed.reshape(-1), torch.zeros(removed.numel(), dtype=torch.bool)
    for stratum in strata:
        count = int(flat[stratum].sum())
        drawn[stratum[torch.randperm(len(stratum), generator=rng)[:count]]] = True
    return drawn.view_as(removed)


class _Masked(ConvolutionMode):
    """Runs one convolution with some of its kernels zero; the module's weights are not touched."""

    def __init__(self, name: str, gain: Tensor) -> None:
        super().__init__()
        self._name, self._gain = name, gain

    def seen(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if getattr(func, "__name__", "") in PLANE:
            label = self.numbered()
            if self._name in (label, label.removesuffix("#1")):
                weight = kwargs["weight"] if "weight" in kwargs else args[1]
                weight = weight * self._gain.to(weight)
                if "weight" in kwargs:
                    kwargs = kwargs | {"weight": weight}
                else:
                    args = (args[0], weight, *args[2:])
        return func(*args, **kwargs)


class _Runs:
    """Images of the same latents without filters."""

    def __init__(self, generator: GeneratorAdapter, pathways: Pathways, latents: Latents, seed: int) -> None:
        self._generator, self._pathways, self._latents, self._seed = generator, pathways, latents, seed

    def without(self, removed: Tensor) -> Tensor:
        """(n, C, H, W), on the CPU."""
        earlier = self._pathways.earlier
        left = (~removed).float()
        gain = (left if earlier.transposed else left.T)[:, :, None, None]
        generator = self._generator
        n = generator.check(self._latents)

        def run(index: slice) -> Tensor:
            with _Masked(earlier.name, gain).watching(generator.submodules):
                return generator.forward(lt.take(self._latents, index), noise=range(n)[index], seed=self._seed).cpu()

        with generator.session():
            parts = list(generator.batches(n, run))
        with torch.inference_mode(False):
            images = torch.cat(parts)
        generator.require_finite(images, lambda i: f"of latent {i}")
        return images


def mean_saturation(images: Tensor) -> Tensor:
    """(n,) mean over pixels of HSV saturation, (max − min) / max, of images in 0…1; black has none."""
    colours = images[:, :3].double().clamp(0, 1)
    most, least = colours.amax(1), colours.amin(1)
    return torch.where(most > 0, (most - least) / most.clamp_min(1e-12), 0.0).mean((1, 2))


def finest_energy(images: Tensor) -> Tensor:
    """(n,) mean square of the finest Haar scale: what is left of an image without the means of its 2×2 blocks.

    The last of the energies of :class:`Scales` of one level, for each image; PyWavelets takes half as long again, and
    rounds otherwise (4e-16) what removals have saved.
    """
    height, width = (side // 2 * 2 for side in images.shape[2:])
    pixels = images[:, :, :height, :width].double()
    means = F.avg_pool2d(pixels, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return (pixels - means).square().mean((1, 2, 3))
