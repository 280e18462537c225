"""The first screen of a report: what the most reproducible layer is made of, by pictures, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from ...base import html
from ...base.display.encode import webp
from ...base.display.text import counted
from ...base.drawing import displayable
from ...modules.confidence import ENOUGH
from ...registry.naming import RELATED_FROM, SHOWS_FROM, Shown
from ...registry.regions import Regions
from ..study import LayerStudy, Study, expected_ari
from ..words import apart_sentence, kept_sentence, reproducible_words
from .thumbnails import thumbnails

if TYPE_CHECKING:
    from markupsafe import Markup

_EXAMPLES = 2  # pairs of latents for each module
_MOST = 4  # modules with pictures; all are in the layer's chapter
_SMOOTH = (32, 32)  # pixels that a template is averaged down to, and enlarged smoothly from
_SHOWN = 128  # pixels of a side that pictures are enlarged to, so that outlines are thin
_INNER, _OUTER = (1.0, 0.85, 0.0), (0.0, 0.0, 0.0)  # the outline: yellow within black, to be seen on any picture

Pixels = npt.NDArray[np.floating[Any]]


def first_screen(study: Study, regions: Regions) -> Iterator[Markup]:
    """What the layer of the most reproducible modules is made of, and a table of all layers."""
    if not study.layers:
        yield html.warning("No layer has modules; why is said below.")
    else:
        yield from _best_layer(study.layers[0], regions)
    yield html.section("All layers", _layers(study, regions))


def _best_layer(layer: LayerStudy, regions: Regions) -> Iterator[Markup]:
    names = layer.names(regions)
    badge, level = reproducible_words(layer.expected_ari)
    if np.isnan(layer.expected_ari):
        yield html.warning("No layer has modules: in each, all channels act on the same part of the image.")
    elif layer.expected_ari < RELATED_FROM:
        yield html.warning(
            "No reproducible modules were found in any layer: other random images would group the channels "
            "differently. Take the groups below for noise."
        )
    yield html.paragraph(_what(layer))
    sizes = [units.size for units in layer.modules]
    kept = kept_sentence(layer.kept, layer.expected_ari, sizes)
    yield html.verdict(badge, level, f"{kept} {apart_sentence(layer.finder.evidence_)}".strip())
    found = layer.shown(regions)
    for k in layer.order(regions)[:_MOST]:
        title, part = _called(names[k], k, found[k])
        yield html.exchange(title, f"{counted(layer.modules[k].size, 'channel')}, {part}", _rows(layer, k))


def _called(name: str, k: int, found: Shown) -> tuple[str, str]:
    """A module's title, which names a part only where the module clearly shows it, and what speaks for that."""
    if found.region is None:
        return f"module {k + 1}", "on no part that has a name"
    if found.correlation < SHOWS_FROM:
        return f"module {k + 1}", f"on no part that has a name; nearest: {found.region} ({found.correlation:.2f})"
    return name, f"whose map matches this part: correlation {found.correlation:.2f}"


def _what(layer: LayerStudy) -> str:
    number = sum(units.size > 0 for units in layer.modules)
    count = dict(enumerate(("one", "two", "three", "four", "five", "six"), 1)).get(number, str(number))
    what = f"The {layer.layer.channels} channels of layer {layer.layer.name} form {count}"
    if number == 1:
        return f"{what} group. Here all of them are set to the values they have in a source image."
    return (
        f"{what} modules, by the part of the image that they change. Each row takes one module's channels from the "
        "source (outlined: where the module acts most), and all others from the base."
    )


def _rows(layer: LayerStudy, k: int) -> list[list[tuple[bytes, str]]]:
    hybrids = layer.hybrids
    low, high = hybrids.provenance["image_range"]
    stacks = (hybrids.base, cast(Tensor, hybrids.source), hybrids.images[k])
    base, source, hybrid = (displayable(_enlarged(thumbnails(images[:_EXAMPLES])), (low, high)) for images in stacks)
    area = _area(layer.finder.templates_[k], source.shape[1:3])
    return [
        [(webp(base[i]), "base"), (webp(_outlined(source[i], area)), "+ source"), (webp(hybrid[i]), "= hybrid")]
        for i in range(len(base))
    ]


def _enlarged(images: Pixels) -> Pixels:
    """Images (n, C, H, W) of at least ``_SHOWN`` pixels, smoothly."""
    factor = -(-_SHOWN // max(images.shape[-2:]))
    return (
        images if factor == 1 else interpolate(torch.from_numpy(images), scale_factor=factor, mode="bilinear").numpy()
    )


def _area(template: Pixels, size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(H, W) where the template, smoothed, is more than half way from its median to its 85th percentile."""
    small = adaptive_avg_pool2d(torch.from_numpy(template)[None, None].double(), _SMOOTH)
    smooth = interpolate(small, size=size[:2], mode="bilinear", align_corners=False)[0, 0].numpy()
    return np.asarray(smooth > (np.quantile(smooth, 0.5) + np.quantile(smooth, 0.85)) / 2)


def _outlined(image: Pixels, area: npt.NDArray[np.bool_]) -> Pixels:
    """The picture with a line along the edge of the area, and another outside."""
    lined = np.broadcast_to(image, (*image.shape[:2], len(_INNER))).copy()
    lined[area & ~_all_around(area)] = _INNER
    lined[~area & ~_all_around(~area)] = _OUTER
    return lined


def _all_around(area: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels whose four neighbours, as far as there are, are all in the area."""
    padded = np.pad(area, 1, mode="edge")
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _layers(study: Study, regions: Regions) -> Iterator[Markup]:
    """The table of layers, whatever was left out, and what the columns mean."""
    rows = []
    for place, layer in enumerate(study.layers, 1):
        ari, papers = layer.expected_ari, _papers_ari(layer)
        rows.append(
            (
                html.link(layer.layer.name, f"#layer-{place}"),
                reproducible_words(ari)[0],
                ", ".join(name for name, units in zip(layer.names(regions), layer.modules, strict=True) if units.size),
                "–" if np.isnan(ari) else f"{ari:.2f}",
                "–" if np.isnan(papers) else f"{papers:.2f}",
                str(layer.layer.channels),
                "×".join(map(str, layer.layer.size)) or "–",
                str(int(layer.maps.n_pairs.max())),
            )
        )
    head = ("layer", "how sure", "modules", "expected ARI", "papers' ARI", "channels", "size", "pairs")
    which = (
        "of the two methods, the more reproducible one is shown."
        if study.settings.features is None
        else "shown is the method that was asked for."
    )
    note = (
        "Expected ARI: how far these modules agree with those of other random images, from 0 (by chance) to 1 (the "
        f"same); reproducible from {ENOUGH:g} on, partly from {RELATED_FROM:g} on. Papers' ARI: the same for the "
        f"method of the papers; {which} Pairs of images were added until modules were reproducible, or a limit was "
        "reached."
    )
    if rows:
        yield html.table(head, rows, note=note, text_columns=3, sortable=True)
    if regions.note:
        yield html.paragraph(regions.note)
    for name, why in study.left_out:
        yield html.paragraph(f"Layer {name} has no modules: {why}.")


def _papers_ari(layer: LayerStudy) -> float:
    finder = layer.finder if layer.finder.features == "bits" else layer.other
    return float("nan") if finder is None else expected_ari(finder)
