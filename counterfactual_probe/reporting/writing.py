"""A study as a page: the first screen, a chapter for each layer, and those of other analyses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from ..registry.pretrained import available, pretrained
from ..registry.regions import Regions, generic_regions
from .layer.chapter import describe_layer
from .layer.screen import first_screen
from .page import Chapter, Page, Report, write_page
from .section import Section, require_distinct
from .study import Study

PAGE, LISTING = "report.html", "study.json"


def layer_chapter(study: Study, name: str, regions: Regions) -> Chapter:
    """The chapter of the layer of this name."""
    layer = next(one for one in study.layers if one.layer.name == name)
    return Chapter(describe_layer(study, layer, regions), folded=True)


def write_report(
    study: Study,
    out: str | os.PathLike[str],
    *,
    regions: Regions | None = None,
    card: str | None = None,
    sections: Sequence[Section] = (),
    layers: Sequence[Chapter] | None = None,
    further: Sequence[Chapter] = (),
    status: str = "",
    growing: bool = False,
    again: bool = False,
) -> Report:
    """Write ``report.html`` of a study, with figures and results beside it: the files of an earlier report make way.

    >>> write_report(study, "report", regions=regions_of(gen))  # doctest: +SKIP

    ``regions`` name parts of the image, by default centre, border and sides; ``card`` says what the generator is, by
    default what the registry does; ``layers`` are the chapters of its layers, if they are drawn already, and
    ``further`` and ``sections`` follow them. ``status`` says how far it has come. ``study.json`` lists the files that
    belong to the report. The same study gives the same bytes.
    """
    require_distinct(sections)
    if regions is None:
        regions = _generic(study)
    if layers is None:
        layers = [layer_chapter(study, layer.layer.name, regions) for layer in study.layers]
    layers = [replace(chapter, anchor=f"layer-{place}") for place, chapter in enumerate(layers, 1)]
    settings = {"settings": vars(study.settings), "provenance": study.provenance}
    others = [Chapter(section, section.anchor, f"{section.anchor}-", folded=True) for section in sections]
    page = Page(
        f"The modules of {study.generator}",
        [*layers, *further, *others],
        settings,
        tuple(first_screen(study, regions)),
        card or card_of(study.generator),
        status,
        growing,
    )
    return write_page(page, out, PAGE, listing=LISTING, about=settings, again=again)


def card_of(name: str) -> str | None:
    """What the registry says of a generator of this name."""
    return pretrained(name).card() if name in available() else None


def _generic(study: Study) -> Regions:
    size = study.layers[0].hybrids.base.shape[-2:] if study.layers else (1, 1)
    return generic_regions(*size)
