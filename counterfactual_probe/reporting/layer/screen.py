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
from ...registry.naming import RELATED_FROM
from ...registry.regions import Regions
from ..study import LayerStudy, Study, expected_ari
from ..words import kept_sentence, reproducible_words
from .thumbnails import thumbnails

if TYPE_CHECKING:
    from markupsafe import Markup

_EXAMPLES = 2  # pairs of latents for each module
_MOST = 4  # modules with pictures; all are in the layer's chapter
_SMOOTH = (32, 32)  # pixels that a template is averaged down to, and enlarged smoothly from
_DIMMED = 0.3  # how bright the source is where the module does not act

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
    yield html.paragraph(_what(layer, regions))
    yield html.verdict(badge, level, kept_sentence(layer.kept, layer.expected_ari))
    for k in layer.order(regions)[:_MOST]:
        yield html.exchange(names[k], counted(layer.modules[k].size, "channel"), _rows(layer, k))


def _what(layer: LayerStudy, regions: Regions) -> str:
    number = sum(units.size > 0 for units in layer.modules)
    count = dict(enumerate(("one", "two", "three", "four", "five", "six"), 1)).get(number, str(number))
    what = f"The {layer.layer.channels} channels of layer {layer.layer.name} form {count}"
    if number == 1:
        return f"{what} group. Here all of them are set to the values they have in a source image."
    named = any(one.region for one in layer.shown(regions))
    after = ", each named after the part of the image that it changes" if named else ""
    return f"{what} modules{after}. Here the channels of one module are set to the values they have in a source image."


def _rows(layer: LayerStudy, k: int) -> list[list[tuple[bytes, str]]]:
    hybrids = layer.hybrids
    low, high = hybrids.provenance["image_range"]
    stacks = (hybrids.base, cast(Tensor, hybrids.source), hybrids.images[k])
    base, source, hybrid = (displayable(thumbnails(images[:_EXAMPLES]), (low, high)) for images in stacks)
    light = _spotlight(layer.finder.templates_[k], source.shape[1:3])
    return [
        [
            (webp(base[i]), "base"),
            (webp(source[i] * light[..., None]), "+ from the source"),
            (webp(hybrid[i]), "= hybrid"),
        ]
        for i in range(len(base))
    ]


def _spotlight(template: Pixels, size: tuple[int, ...]) -> Pixels:
    """(H, W) from ``_DIMMED`` to 1: bright where the template is largest, dim where it is small."""
    small = adaptive_avg_pool2d(torch.from_numpy(template)[None, None].double(), _SMOOTH)
    smooth = interpolate(small, size=size[:2], mode="bilinear", align_corners=False)[0, 0].numpy()
    low, high = np.quantile(smooth, 0.5), np.quantile(smooth, 0.85)
    scaled = np.clip((smooth - low) / (high - low), 0, 1) if high > low else smooth > low
    return np.asarray(_DIMMED + (1 - _DIMMED) * scaled, np.float64)


def _layers(study: Study, regions: Regions) -> Iterator[Markup]:
    """The table of layers, whatever was left out, and what the columns mean."""
    rows = []
    for place, layer in enumerate(study.layers, 1):
        ari, papers = layer.expected_ari, _papers_ari(layer)
        rows.append(
            (
                html.link(layer.layer.name, f"#layer-{place}"),
                ", ".join(name for name, units in zip(layer.names(regions), layer.modules, strict=True) if units.size),
                reproducible_words(ari)[0],
                "–" if np.isnan(ari) else f"{ari:.2f}",
                "–" if np.isnan(papers) else f"{papers:.2f}",
                str(layer.layer.channels),
                "×".join(map(str, layer.layer.size)) or "–",
                str(int(layer.maps.n_pairs.max())),
            )
        )
    head = ("layer", "modules", "how sure", "expected ARI", "papers' ARI", "channels", "size", "pairs")
    note = (
        "Expected ARI: agreement of these modules with those of other random images (adjusted Rand index). Papers' "
        f"ARI: the same for the pipeline of the papers, whose modules are shown where both are equal. {regions.note}"
    )
    if rows:
        yield html.table(head, rows, note=note.strip(), text_columns=2, sortable=True)
    for name, why in study.left_out:
        yield html.paragraph(f"Layer {name} has no modules: {why}.")


def _papers_ari(layer: LayerStudy) -> float:
    finder = layer.finder if layer.finder.features == "bits" else layer.other
    return float("nan") if finder is None else expected_ari(finder)
