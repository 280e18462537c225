"""The section of the report on equivariance: what happens to the image when a layer is stretched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...base.display.description import Table
from ...base.display.records import csv_text
from ...base.display.text import counted
from ...base.files import safe_name
from ...generator.adapter import GeneratorAdapter
from ...generator.images import require_pictures
from ...invariance.result import Invariance
from ...invariance.scales import DEFAULT_LEVELS, halvings
from ...invariance.stretch import StretchTest
from ..section import Section, SectionMaker, shown
from ..study import Study

KEPT = 8  # images in a file and a figure


def as_csv(results: Sequence[Invariance]) -> str:
    """One line per layer and scale; scale 0 is the whole image."""
    return csv_text(record for result in results for record in result.records())


def _section(generator: GeneratorAdapter, study: Study, say: Callable[[str], None]) -> Section:
    """Stretch each of the study's layers."""
    infos = [layer.layer for layer in study.layers if len(layer.layer.size) == 2]
    if not infos:
        return Section(
            "Invariance", ("None of these layers has maps with a height and a width, which could be stretched.",)
        )
    results = []
    _, height, width = require_pictures(generator.image_size, "the stretch test")
    levels = min(DEFAULT_LEVELS, halvings((height, width)))
    for info in infos:
        say(f"stretching layer {info.name}")
        test = StretchTest(generator, info.name, levels=levels)
        results.append(test.measure(seed=study.settings.seed, keep=KEPT))
    first, *others = results
    images = counted(len(first), "image")
    about = f"{study.generator}, {first.provenance['transformation']}, {images}, seed {study.settings.seed}"
    figures = (
        shown(
            "images",
            first.plot_images(against=others).figure,
            "Images, the images generated when all maps of a layer are stretched, and the stretched images.",
            about,
            photographs=True,
        ),
        shown(
            "mse",
            first.plot(against=others, relative=True).figure,
            "Mean squared error in each scale of the images ± one standard error, relative to a layer that ignores the "
            "stretch.",
            about,
            narrow=True,
        ),
        shown(
            "scales",
            first.plot_scales(against=others).figure,
            "One image split into scales, and its difference from the stretched image in each; details are shown on "
            "grey, with the contrast adjusted for each scale.",
            about,
            photographs=True,
            narrow=True,
        ),
    )
    files = {f"{safe_name(result.layer)}.safetensors": result for result in results}
    sentences = (_said(results),)
    return Section("Invariance", sentences, (_table(results),), figures, files | {"mse.csv": as_csv(results)})


def _said(results: Sequence[Invariance]) -> str:
    finest = sum(bool(result.relative_mse_per_scale[-1] > result.relative_mse_per_scale[0]) for result in results)
    return (
        "All maps of a layer are stretched horizontally by a factor of 1.5, and the image that is then generated is "
        "compared with the stretched image. Where later layers add details at a fixed scale, these are not stretched. "
        "Relative to a layer that ignores the stretch, the error is larger in the finest scale than in the coarsest "
        f"for {finest} of {counted(len(results), 'layer')}."
    )


def _table(results: Sequence[Invariance]) -> Table:
    names = [f"{pixels} px" for pixels in results[0].scales.pixels]
    head = ("layer", "MSE", "± standard error", "relative", f"{names[0]} means", *names[1:])
    rows = []
    for result in results:
        values = [f"{float(value):.2f}" for value in result.relative_mse_per_scale]
        cells = [f"{float(result.mse):.3g}", f"{float(result.standard_error):.2g}", f"{float(result.relative_mse):.2f}"]
        rows.append((result.layer, *cells, *values))
    return Table(head, tuple(rows), "From “relative” on: relative to the error of a layer that ignores the stretch.")


SECTION = SectionMaker("invariance", "what happens to the image when a layer is stretched", _section)
