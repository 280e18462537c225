"""The report of a study: one HTML file with its pictures inside, and every result as a file."""

from __future__ import annotations

import base64
import html
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import ProbeError
from ..base.files import read_bytes, safe_name, write_bytes, write_json, write_text
from ..generator.results import units_to_json
from ..modules.confidence import SURE
from ..registry.regions import Regions, describe, generic_regions
from . import sentences as wording
from .figures import Shown, layer_figures, overview_figures, successive_figure
from .sections.section import SUFFIXES, Section, Table, require_distinct
from .study import LayerStudy, Study

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6472; --line: #d9dee6; --paper: #ffffff; --tint: #f4f6f9 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaf0; --soft: #a3acba; --line: #39404c; --paper: #14181f; --tint: #1c222b } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; line-height: 1.2 }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem }
nav a { margin-right: .8rem; white-space: nowrap } a { color: inherit }
figure { margin: 1.5rem 0; padding: .75rem; background: var(--tint); border-radius: .5rem }
figure img { display: block; width: 100%; height: auto; max-width: 100%; background: #fff; border-radius: .25rem }
figure.narrow img { max-width: 34rem; margin: auto }
figcaption { margin-top: .6rem } .parameters { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left } td { white-space: nowrap } th { vertical-align: bottom }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem }
"""

# What a report consists of, beside its page and study.json.
_OWN_FILES = (
    "figures/*.png",
    "maps-*.safetensors",
    "stability-*.safetensors",
    "hybrids-*.safetensors",
    "one-source-*.safetensors",
    "modules-*.json",
    *(f"section-*{suffix}" for suffix in SUFFIXES),
)


@dataclass(frozen=True)
class Report:
    """The files of a report."""

    page: Path
    figures: tuple[Path, ...]
    results: tuple[Path, ...]


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
    same study gives the same bytes. Files that an earlier report left in ``out`` are removed first;
    ``study.json`` says which are its own.
    """
    folder = Path(out)
    require_distinct(sections)
    _remove_earlier(folder)
    regions = regions or generic_regions(*study.layers[0].maps[0].maps.shape[1:])
    results = [path for layer in study.layers for path in _save_layer(layer, folder, regions)]
    figures: list[Path] = []
    parts = [_section("", "", _figures(overview_figures(study), folder, figures))]
    for layer in study.layers:
        words = [wording.template_sentence(layer, regions), wording.earlier_sentence(layer, regions)]
        words += [wording.stability_sentence(layer), wording.expected_sentence(layer)]
        words += [wording.trusted_sentence(layer), wording.quality_sentence(layer), wording.error_sentence(layer)]
        body = _prose(words) + _figures(layer_figures(study, layer), folder, figures)
        parts.append(_section(_anchor(layer), f"Layer {layer.layer.name}", body))
    if study.successive:
        shown = [successive_figure(study, cross) for cross in study.successive]
        for cross in study.successive:
            name = safe_name(*cross.layers)
            results.append(cross.hybrids.save(folder / f"hybrids-{name}.safetensors"))
        parts.append(_section("successive", "Two successive layers", _figures(shown, folder, figures)))
    for section in sections:
        results += section.save_results(folder)
        parts.append(_further(section, folder, figures))
    links = [*_links(study), *((section.anchor, section.title) for section in sections)]
    page = write_text(folder / "report.html", _page(study, regions, links, parts, card))
    files = sorted(path.relative_to(folder).as_posix() for path in [*results, *figures])
    about = {"provenance": study.provenance, "settings": vars(study.settings), "files": files}
    write_json(folder / "study.json", about)
    return Report(page, tuple(figures), tuple(results))


def require_writable(folder: Path) -> None:
    """Raise a ProbeError now, and not after a long run, where a report cannot be written."""
    write_bytes(folder / ".counterfactual-probe", b"").unlink()


def _remove_earlier(folder: Path) -> None:
    """Remove the files that the report in this folder lists as its own, and no other."""
    if not (folder / "study.json").exists():
        return
    try:
        listed = {folder / name for name in json.loads(read_bytes(folder / "study.json"))["files"]}
    except (ValueError, LookupError, TypeError):
        return  # another study.json, which says nothing of a report
    # Whatever the list says, only files of a report's names, inside the folder.
    for path in {path for pattern in _OWN_FILES for path in folder.glob(pattern)} & listed:
        try:
            path.unlink()
        except OSError as error:
            raise ProbeError(
                f"{path} of an earlier report cannot be removed ({error.strerror}); choose another folder"
            ) from error


def _save_layer(layer: LayerStudy, folder: Path, regions: Regions) -> list[Path]:
    name = safe_name(layer.layer.name)
    saved = [maps.save(folder / f"maps-{name}-draw{draw}.safetensors") for draw, maps in enumerate(layer.maps, 1)]
    for method, stability in layer.stability.items():
        saved.append(stability.save(folder / f"stability-{name}-{method}.safetensors"))
    saved.append(layer.hybrids.save(folder / f"hybrids-{name}.safetensors"))
    saved.append(layer.one_source.save(folder / f"one-source-{name}.safetensors"))
    k = layer.finder.n_modules
    content: dict[str, Any] = {
        "layer": layer.layer.name,
        "labels": layer.finder.labels_.tolist(),
        "modules": units_to_json(layer.modules),
        "shows": [region for region, _ in describe(layer.finder.templates_, regions)],
        "agreement_between_draws": {q: _number(layer.at(q, k)) for q in ("ari", "draw_agreement", "draw_cosine")},
        "expected_ari": _number(layer.expected_ari),
        "confidence": None
        if layer.selection is None
        else [_number(float(value)) for value in layer.finder.confidence_],
        "specificity": None
        if layer.quality is None
        else [_number(float(value)) for value in layer.quality.specificity],
        "label_consistency": {method: _number(layer.at("consistency", k, method)) for method in layer.stability},
        "provenance": layer.maps[0].provenance,
    }
    return [*saved, write_json(folder / f"modules-{name}.json", content)]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _figures(figures: Iterable[Shown], folder: Path, written: list[Path]) -> str:
    parts = []
    for shown in figures:
        written.append(write_bytes(folder / "figures" / f"{shown.name}.png", shown.png))
        data = base64.b64encode(shown.png).decode()
        narrow = ' class="narrow"' if shown.narrow else ""
        parts.append(
            f'<figure{narrow} id="{html.escape(shown.name)}"><img alt="{html.escape(shown.sentence)}" '
            f'src="data:image/png;base64,{data}"><figcaption>{html.escape(shown.sentence)}'
            f'<div class="parameters">{html.escape(shown.parameters)}</div></figcaption></figure>'
        )
    return "\n".join(parts)


def _further(section: Section, folder: Path, written: list[Path]) -> str:
    own = [replace(shown, name=f"{section.anchor}-{shown.name}") for shown in section.figures]
    body = _prose(section.sentences) + "".join(map(_table, section.tables)) + _figures(own, folder, written)
    return _section(section.anchor, section.title, body)


def _prose(sentences: Iterable[str | None]) -> str:
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences if sentence)


def _section(anchor: str, title: str, body: str) -> str:
    heading = f'<h2 id="{html.escape(anchor)}">{html.escape(title)}</h2>' if title else ""
    return f"<section>{heading}{body}</section>"


def _overview(study: Study) -> Table:
    k = study.settings.n_modules
    head = (
        "layer",
        "channels",
        "size",
        f"modules (K = {k})",
        "ARI of two draws",
        "expected ARI",
        "sure channels",
        "labels kept",
        "NMF",
        "k-means",
    )
    rows = []
    for layer in study.layers:
        sizes = " + ".join(str(units.size) for units in layer.modules)
        cells = [layer.layer.name, str(layer.layer.channels), "×".join(map(str, layer.layer.size)), sizes]
        cells += [f"{layer.at('ari', k):.2f}", *_sureness(layer)]
        cells.append(wording.percent(layer.at("draw_agreement", k)))
        missing = wording.no_subsets(layer)
        cells += [missing or wording.percent(layer.at("consistency", k, method)) for method in ("nmf", "kmeans")]
        rows.append(tuple(cells))
    note = (
        "ARI and labels kept: between two draws of latents; expected: what the first draw alone says of that, and "
        f"channels that keep their module in {wording.percent(SURE)} of its resamples. NMF and k-means: labels kept "
        "between subsets of channels."
    )
    return Table(head, tuple(rows), note)


def _table(table: Table) -> str:
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    note = f'<p class="parameters">{html.escape(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table><tr>{header}</tr>{body}</table></div>{note}'


def _sureness(layer: LayerStudy) -> tuple[str, str]:
    """Expected ARI and share of sure channels, for the table."""
    if layer.selection is None:
        return "too few pairs", "–"
    kept = layer.finder.confidence_
    return f"{layer.expected_ari:.2f}", wording.percent(float((kept[np.isfinite(kept)] >= SURE).mean()))


def _links(study: Study) -> list[tuple[str, str]]:
    """Anchors of the study's own sections, and what their links say."""
    layers = [(_anchor(layer), layer.layer.name) for layer in study.layers]
    return [*layers, ("successive", "successive layers")] if study.successive else layers


def _page(
    study: Study, regions: Regions, links: Sequence[tuple[str, str]], parts: Sequence[str], card: str | None
) -> str:
    settings = study.settings
    navigation = "".join(f'<a href="#{anchor}">{html.escape(text)}</a>' for anchor, text in links)
    summary = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in wording.summary(study, regions))
    note = f'<p class="parameters">{html.escape(regions.note)}</p>' if regions.note else ""
    facts = json.dumps({"settings": vars(settings), "provenance": study.provenance}, indent=1, sort_keys=True)
    terms = f"<h2>The generator</h2><pre>{html.escape(card)}</pre>" if card else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The modules of {html.escape(study.generator)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>The modules of {html.escape(study.generator)}</h1>
<p>Channels of a generator are set to the values they take for another latent (a <em>hybrid</em>). Where the image
changes is a channel's <em>influence map</em>; channels with similar maps form a <em>module</em>. {settings.n_pairs}
pairs of latents per map, in two independent draws (seeds {settings.draws[0]} and {settings.draws[1]}).</p>
<nav>{navigation}</nav>
<h2>In short</h2>
<ul>{summary}</ul>
{note}
{_table(_overview(study))}
{"".join(parts)}
{terms}
<h2>How it was made</h2>
<pre>{html.escape(facts)}</pre>
</body>
</html>
"""


def _anchor(layer: LayerStudy) -> str:
    return f"layer-{safe_name(layer.layer.name)}"
