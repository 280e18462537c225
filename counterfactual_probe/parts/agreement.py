"""Whether the places where modules act are the known parts of a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from ..hybrids.hybridizer import Hybridizer
from ..modules.clustering import NO_MODULE, Floats, Labels
from ..modules.features import Features, Maps, unit_rows
from ..modules.finder import ModuleFinder
from .partitions import strongest
from .result import PartsAgreement
from .truth import Truth

Masks: TypeAlias = "Tensor | npt.ArrayLike"


def parts_agreement(
    modules: ModuleFinder | npt.ArrayLike,
    masks: Masks,
    *,
    maps: Maps | None = None,
    names: Sequence[str] | None = None,
    controls: int = 100,
    seed: int = 0,
) -> PartsAgreement:
    """How far the modules' templates are the parts: each pixel is of the module whose template is largest there.

    >>> import torch
    >>> truth = torch.eye(3).bool()[:, None].expand(3, 8, 3)  # three stripes
    >>> cp.parts_agreement(truth.roll(1, 0).float(), truth)  # the same, numbered otherwise
    PartsAgreement(mean IoU 1.000 (majority 1.000), ARI 1.000 (majority 1.000); 3 modules, 3 parts, 1 images)

    Args:
        modules: a fitted finder, or templates (K, H, W).
        masks: (P, H, W), or (n, P, H, W) of n images whose parts are not in one place: booleans, or, of several images
            averaged, shares from 0 to 1, of which the largest decides. A pixel may belong to no part.
        maps: those that the finder was fitted on. They give the chance level: templates of random groups of as many
            channels, that is the mean of their features.
        names: of the parts.
        controls: how many times channels are grouped at random.
        seed: of these groups.

    Raises:
        ProbeError: masks of another size than the templates, a part that no image shows, two parts in one pixel.
    """
    templates = _templates(modules)
    k, *size = templates.shape
    truth = Truth(masks, (size[0], size[1]), names)
    found = strongest(templates.reshape(1, k, -1))
    chance: list[tuple[float, float]] = []
    if maps is not None:
        if not isinstance(modules, ModuleFinder):
            raise ProbeError(
                "maps are given with templates, which tell no channels; give the fitted finder, or no maps"
            )
        grouped = _group_templates(modules, maps)
        rng = np.random.default_rng(whole(seed, "the seed", 0))
        for _ in range(whole(controls, "controls", 1)):
            group = grouped(shuffled(modules.labels_, rng))
            chance.append(truth.means(strongest(group.reshape(1, k, -1)), k))
    about = modules.provenance_ if isinstance(modules, ModuleFinder) else {}
    return truth.result(found, templates, chance, {"regions": "templates", "seed": seed, "modules": about})


def parts_by_image(
    finder: ModuleFinder,
    masks: Masks,
    *,
    generator: GeneratorAdapter,
    latents: Latents,
    sources: int = 8,
    names: Sequence[str] | None = None,
    controls: int = 4,
    seed: int = 0,
) -> PartsAgreement:
    """The same image by image: which module's exchange changes a pixel most, so that modules may follow the parts.

    >>> z = gen.encode(images)  # of a scene whose masks are known  # doctest: +SKIP
    >>> cp.parts_by_image(finder, masks, generator=gen, latents=z)  # doctest: +SKIP

    Each image is the base of hybrids with the ``sources`` next ones, one for each module. |hybrid − base| is averaged
    over these and over colours, and scaled to unit L2 norm, as templates are; the pixel is of the largest. Modules that
    agree with the parts more than ``majority_iou`` does follow them.

    Args:
        masks: (n, P, H, W) of the images.
        latents: n, of the same images.
        sources: how many hybrids of each image and module.
        controls: how many times channels are grouped at random, each as costly as the modules.

    Raises:
        ProbeError: as :func:`parts_agreement`; latents of another number than the masks.
    """
    finder.unit_sets()
    n = generator.check(latents, "the latents")
    sources, controls = whole(sources, "sources", 1), whole(controls, "controls", 0)
    if sources >= n:
        raise ProbeError(
            f"{sources} sources are asked and each image has {n - 1} others; give more latents or ask fewer"
        )
    truth = Truth(masks, (generator.image_size[1], generator.image_size[2]), names)
    if len(truth.labels) != n:
        raise ProbeError(f"there are masks of {len(truth.labels)} images and {n} latents; give both for every image")
    rng = np.random.default_rng(whole(seed, "the seed", 0))
    groups = [finder.labels_, *(shuffled(finder.labels_, rng) for _ in range(controls))]
    units = [module for labels in groups for module in finder.grouped(labels)]
    layers = list(dict.fromkeys(layer for module in finder.unit_sets() for layer in module))
    hybridizer = Hybridizer(generator, layers)
    total = np.zeros((len(units), n, truth.labels.shape[1]))
    for shift in range(1, sources + 1):
        others = lt.take(latents, torch.arange(n).roll(-shift))
        made = hybridizer.hybridize(latents, others, units=units)
        total += (made.images - made.base).abs().double().mean(2).flatten(2).cpu().numpy()
    k = finder.n_modules
    maps = unit_rows(total.reshape(len(units) * n, -1)).reshape(len(groups), k, n, -1)
    regions = [strongest(part.swapaxes(0, 1)) for part in maps]
    share = np.stack([(regions[0] == module).mean(0) for module in range(k)]).reshape(k, *truth.size)
    about = {"regions": "image by image", "sources": sources, "seed": seed, "modules": finder.provenance_}
    return truth.result(regions[0], share, [truth.means(found, k) for found in regions[1:]], about)


def _templates(modules: ModuleFinder | npt.ArrayLike) -> Floats:
    if isinstance(modules, ModuleFinder):
        modules.require_fit()
        return modules.templates_
    given = modules.detach().cpu().numpy() if isinstance(modules, Tensor) else np.asarray(modules)
    if given.ndim != 3 or 0 in given.shape or given.dtype.kind not in "biuf":
        raise ProbeError(f"the templates are {given.dtype} {given.shape}; give a fitted finder, or numbers (K, H, W)")
    values = given.astype(np.float64)
    if not np.isfinite(values).all():
        raise ProbeError("the templates hold NaN or infinite values; give finite ones")
    return values


def _group_templates(finder: ModuleFinder, maps: Maps) -> Callable[[Labels], Floats]:
    """What labels of the channels give as templates: the mean of each group's features, of unit L2 norm."""
    features = Features(finder.features, finder.window, finder.percentile)
    rows = features.rows(features.values(maps))
    if len(rows) != len(finder.labels_):
        raise ProbeError(f"there are {len(rows)} maps and the finder was fitted on {len(finder.labels_)}; give these")

    def grouped(labels: Labels) -> Floats:
        own = (rows[labels == k] for k in range(finder.n_modules))
        means = np.stack([some.mean(0) if len(some) else np.zeros(rows.shape[1]) for some in own])
        return features.images(unit_rows(means), maps)

    return grouped


def shuffled(labels: Labels, rng: np.random.Generator) -> Labels:
    """Random groups of as many channels; those of no module stay out."""
    placed = labels != NO_MODULE
    found = labels.copy()
    found[placed] = rng.permutation(labels[placed])
    return found
