"""Agreement between the places where modules act and the known parts of a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..base.formats.elsewhere import plain_array
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..generator.latents import Latents
from ..generator.units import UnitSet
from ..hybrids.hybridizer import Hybridizer
from ..modules.clustering import NO_MODULE, Floats, Labels, unit_rows
from ..modules.features import MapFeatures, Maps
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
    """How well the modules' templates match the parts: a pixel belongs to the module with the largest template there.

    >>> import torch
    >>> truth = torch.eye(3).bool()[:, None].expand(3, 8, 3)  # three stripes
    >>> cp.parts_agreement(truth.roll(1, 0).float(), truth)  # the same in another order
    PartsAgreement(mean IoU 1.000 (majority 1.000), ARI 1.000 (majority 1.000); 3 modules, 3 parts, 1 image)
      part      module   IoU
      part 1  module 2  1.00
      part 2  module 3  1.00
      part 3  module 1  1.00

    Args:
        modules: a fitted finder, or templates (K, H, W).
        masks: (P, H, W), or (n, P, H, W) of n images whose parts move: booleans, or, averaged over several images,
            shares from 0 to 1, of which the largest counts. A pixel may belong to no part.
        maps: those that the finder was fitted on. They give the chance level: templates (means of features) of random
            groups with as many channels each.
        names: of the parts.
        controls: how many times channels are grouped at random.
        seed: of these groups.

    Raises:
        ProbeError: masks of another size than the templates, a part that no image shows, two parts in one pixel.
    """
    templates = _templates(modules)
    k, *size = templates.shape
    truth = Truth(masks, (size[0], size[1]), names)
    regions = strongest(templates.reshape(1, k, -1))
    chance: list[tuple[float, float]] = []
    if maps is not None:
        if not isinstance(modules, ModuleFinder):
            raise ProbeError("maps are given with templates, which have no units; give the fitted finder, or no maps")
        group_templates = _group_templates(modules, maps)
        rng = np.random.default_rng(whole(seed, "the seed", 0))
        for _ in range(whole(controls, "controls", 1)):
            of_groups = group_templates(shuffled_labels(modules.labels_, rng))
            chance.append(truth.means(strongest(of_groups.reshape(1, k, -1)), k))
    about = modules.provenance_ if isinstance(modules, ModuleFinder) else {}
    return truth.result(regions, templates, chance, {"regions": "templates", "seed": seed, "modules": about})


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
    """Per-image variant: a pixel belongs to the module whose swap changes it most, so modules may track moving parts.

    >>> z = gen.encode(images)  # of a scene whose masks are known  # doctest: +SKIP
    >>> cp.parts_by_image(finder, masks, generator=gen, latents=z)  # doctest: +SKIP

    Each image is the base of hybrids with the next ``sources`` images, one for each module. |hybrid − base| is averaged
    over these and over colours, and scaled to unit L2 norm, as templates are; the largest gets the pixel. Modules whose
    agreement exceeds ``majority_iou`` track the parts.

    Args:
        masks: (n, P, H, W) of the images.
        latents: n, of the same images.
        sources: how many hybrids of each image and module.
        controls: how many times channels are grouped at random; each costs as much as the modules.

    Raises:
        ProbeError: as :func:`parts_agreement`; more or fewer latents than masks.
    """
    finder.unit_sets()
    n = generator.check(latents, "the latents")
    sources, controls = whole(sources, "sources", 1), whole(controls, "controls", 0)
    if sources >= n:
        raise ProbeError(
            f"{sources} sources are asked for and each image has {n - 1} others; give more latents or ask for fewer"
        )
    _, height, width = require_pictures(generator.image_size, "the agreement with parts")
    truth = Truth(masks, (height, width), names)
    if len(truth.labels) != n:
        raise ProbeError(f"there are masks of {len(truth.labels)} images and {n} latents; give both for every image")
    rng = np.random.default_rng(whole(seed, "the seed", 0))
    groupings = [finder.labels_, *(shuffled_labels(finder.labels_, rng) for _ in range(controls))]
    units = [module for labels in groupings for module in finder.grouped(labels)]
    k, changes = finder.n_modules, _total_changes(finder, generator, latents, units, sources)
    maps = unit_rows(np.asarray(changes.reshape(len(units) * n, -1))).reshape(len(groupings), k, n, -1)
    of_modules, *of_groups = [strongest(of_grouping.swapaxes(0, 1)) for of_grouping in maps]
    share = np.stack([(of_modules == module).mean(0) for module in range(k)]).reshape(k, *truth.size)
    about = {"regions": "image by image", "sources": sources, "seed": seed, "modules": finder.provenance_}
    return truth.result(of_modules, share, [truth.means(regions, k) for regions in of_groups], about)


def _total_changes(
    finder: ModuleFinder,
    generator: GeneratorAdapter,
    latents: Latents,
    units: Sequence[UnitSet | tuple[int, ...]],
    sources: int,
) -> Floats:
    """(units, n, pixels) |hybrid − base| of n images, averaged over colours and summed over as many sources each."""
    n = lt.count(latents)
    layers = list(dict.fromkeys(layer for module in finder.unit_sets() for layer in module))
    hybridizer = Hybridizer(generator, layers)
    total: Floats = np.zeros((len(units), n, generator.image_size[1] * generator.image_size[2]))
    for shift in range(1, sources + 1):
        others = lt.take(latents, torch.arange(n).roll(-shift))
        hybrids = hybridizer.hybridize(latents, others, units=units)
        total += (hybrids.images - hybrids.base).abs().double().mean(2).flatten(2).cpu().numpy()
    return total


def _templates(modules: ModuleFinder | npt.ArrayLike) -> Floats:
    if isinstance(modules, ModuleFinder):
        modules.require_fit()
        return modules.templates_
    given = plain_array(modules, "the templates", "a fitted finder, or numbers (K, H, W)")
    if given.ndim != 3 or 0 in given.shape:
        raise ProbeError(f"the templates are {given.dtype} {given.shape}; give a fitted finder, or numbers (K, H, W)")
    values = given.astype(np.float64)
    if not np.isfinite(values).all():
        raise ProbeError("the templates hold NaN or infinite values; give finite ones")
    return values


def _group_templates(finder: ModuleFinder, maps: Maps) -> Callable[[Labels], Floats]:
    """A function from labels of the channels to the groups' templates: means of features, of unit L2 norm."""
    features = MapFeatures(finder.features, finder.window, finder.percentile)
    rows = features.rows(features.values(maps))
    if len(rows) != len(finder.labels_):
        raise ProbeError(f"there are {len(rows)} maps and the finder was fitted on {len(finder.labels_)}; give these")

    def templates_of(labels: Labels) -> Floats:
        groups = (rows[labels == k] for k in range(finder.n_modules))
        means = np.stack([group.mean(0) if len(group) else np.zeros(rows.shape[1]) for group in groups])
        return features.images(unit_rows(means), maps)

    return templates_of


def shuffled_labels(labels: Labels, rng: np.random.Generator) -> Labels:
    """Random groups with as many channels each; channels of no module stay out."""
    placed = labels != NO_MODULE
    shuffled = labels.copy()
    shuffled[placed] = rng.permutation(labels[placed])
    return shuffled
