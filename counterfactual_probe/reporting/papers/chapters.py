"""The papers' study as chapters of a report: all layers together, each layer, and successive layers."""

from __future__ import annotations

from dataclasses import replace

from ...registry.naming import module_names
from ...registry.regions import Regions
from ..page import Chapter
from ..section import Section
from .channels import describe_channels
from .modules import describe_modules
from .overview import describe_overview, describe_successive
from .study import PapersStudy

PREFIX = "papers-"  # before the names of files and figures, since a report has its own of the same layers
_HOW = "the papers' pipeline: binarised mean maps, NMF and k-means, two samples of latents"


def papers_chapters(study: PapersStudy, regions: Regions) -> list[Chapter]:
    """What the papers compute and show, folded, in the order of the papers."""
    names = {layer.layer.name: module_names(layer.finder.templates_, regions) for layer in study.layers}
    sections, in_short = [], []
    for place, layer in enumerate(study.layers, 1):
        name = layer.layer.name
        parts = [describe_modules(study, layer, regions), describe_channels(study, layer, names[name])]
        section = Section.joined(f"The papers' study: layer {name}", parts)
        in_short.append(section.in_short)
        ari = layer.at("ari", layer.finder.n_modules)
        sections.append((f"papers-layer-{place}", replace(section, in_short=f"ARI of two samples {ari:.2f}")))
    overview = describe_overview(study, [words for words in in_short if words], regions.note)
    overview = replace(overview, title="The papers' study: all layers", in_short=_HOW)
    sections.insert(0, ("papers", overview))
    if study.successive:
        successive = replace(describe_successive(study, names), title="The papers' study: two successive layers")
        sections.append(("papers-successive", successive))
    return [Chapter(section, anchor, PREFIX, folded=True) for anchor, section in sections]
