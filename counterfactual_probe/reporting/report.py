"""The report of a study: its sections and those of other analyses, on one page."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..base.files import safe_name
from ..registry.regions import Regions, generic_regions, module_names
from .channels import describe_channels
from .modules import describe_modules
from .overview import describe_overview, describe_successive
from .page import Chapter, Page, Report, write_page
from .section import Section, require_distinct
from .study import Study


def write_report(
    study: Study,
    out: str | os.PathLike[str],
    *,
    regions: Regions | None = None,
    card: str | None = None,
    sections: Sequence[Section] = (),
) -> Report:
    """Write ``report.html``, the figures as PNG and every result as safetensors or JSON into ``out``.

    >>> write_report(study, "out/demo")  # doctest: +SKIP

    ``regions`` name parts of the image, by default centre, frame and sides; ``card`` says what the
    generator is and under what terms; ``sections`` of other analyses follow those of the study. The
    same study gives the same bytes. Files of an earlier report in ``out`` are replaced once the new one is complete;
    ``study.json`` lists those that belong to the report.
    """
    require_distinct(sections)
    regions = regions or generic_regions(*study.layers[0].maps[0].maps.shape[1:])
    settings = study.settings
    page = Page(
        title=f"The modules of {study.generator}",
        lead=(
            "A hybrid is an image for which channels of the generator are set to the values they take for another "
            "latent. A channel's influence map shows where the image then changes; channels with similar maps form a "
            f"module. Each map is a mean over {settings.n_pairs} pairs of latents, in two independent samples (seeds "
            f"{settings.seeds[0]} and {settings.seeds[1]})."
        ),
        chapters=_chapters(study, regions, sections),
        card=card,
        facts={"settings": vars(settings), "provenance": study.provenance},
    )
    about = {"provenance": study.provenance, "settings": vars(settings)}
    return write_page(page, out, "report.html", listing="study.json", about=about)


def _chapters(study: Study, regions: Regions, sections: Sequence[Section]) -> list[Chapter]:
    """The overview, a section for each layer, those over two layers, and those of other analyses."""
    chapters = []
    names = {layer.layer.name: module_names(layer.finder.templates_, regions) for layer in study.layers}
    for layer in study.layers:
        name = layer.layer.name
        parts = [describe_modules(study, layer, regions), describe_channels(study, layer, names[name])]
        chapters.append(Chapter(Section.joined(f"Layer {name}", parts), f"layer-{safe_name(name)}", name))
    in_short = [chapter.section.in_short for chapter in chapters] + [item.in_short for item in sections]
    overview = Chapter(describe_overview(study, [words for words in in_short if words], regions.note))
    if study.successive:
        chapters.append(Chapter(describe_successive(study, names), "successive", "successive layers"))
    others = [Chapter(section, section.anchor, section.title, f"{section.anchor}-") for section in sections]
    return [overview, *chapters, *others]
