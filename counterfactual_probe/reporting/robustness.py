"""A robustness assessment as one page of HTML, with its figures inside and its numbers beside it."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..base.display.plot import png
from ..base.files import write_bytes, write_text
from ..robustness import Ranking, Robustness
from .page import STYLE
from .sentences import listing, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE = 8.0  # inches; narrower figures are not stretched over the page


def write_robustness_page(result: Robustness, out: str | os.PathLike[str], *, card: str | None = None) -> Path:
    """Write ``robustness.html``, its figures as PNG, and the result as safetensors, CSV and JSON into ``out``.

    >>> write_robustness_page(result, "out/robustness")  # doctest: +SKIP
    """
    folder = Path(out)
    result.save(folder / "robustness.safetensors")
    result.to_csv(folder / "robustness.csv")
    result.to_json(folder / "robustness.json")
    ranking = result.ranking()
    figures = _figures(result, folder / "figures")
    return write_text(folder / "robustness.html", _page(result, ranking, figures, card))


def in_short(result: Robustness, ranking: Ranking) -> list[str]:
    """The assessment in a few sentences, each computed from its numbers."""
    return [_leader(ranking), _originals(result), _widest(result), _consensus(result)]


def _leader(ranking: Ranking) -> str:
    first = f"{ranking.classifiers[0]} sees an original in {percent(ranking.score[0])} of the hybrids"
    if len(ranking.classifiers) == 1:
        return f"{first} ({percent(ranking.low[0])} to {percent(ranking.high[0])})."
    sure = "more than" if ranking.lead_low[1] > 0 else "which is not certainly more than"
    return (
        f"{first}, {sure} {ranking.classifiers[1]} with {percent(ranking.score[1])}: the difference is "
        f"{100 * ranking.lead[1]:.1f} points ({percent(ranking.confidence)} interval {100 * ranking.lead_low[1]:.1f} "
        f"to {100 * ranking.lead_high[1]:.1f}, pairs resampled)."
    )


def _originals(result: Robustness) -> str:
    first, second = result.classes
    parts = [
        f"{name} {percent(own[0])} and {percent(own[1])}"
        for name, own in zip(result.classifiers, result.original_recognition, strict=True)
    ]
    return f"Of the unchanged images they recognise, {first} and {second}: {listing(parts)}."


def _widest(result: Robustness) -> str:
    curve = result.curve
    if len(result.classifiers) == 1:
        best, worst = int(np.nanargmax(curve[0])), int(np.nanargmin(curve[0]))
        return (
            f"Hybrids are seen as an original most often at {result.layers[best]} ({percent(curve[0, best])}) and "
            f"least often at {result.layers[worst]} ({percent(curve[0, worst])})."
        )
    gap = np.nanmax(curve, 0) - np.nanmin(curve, 0)
    layer = int(np.nanargmax(gap))
    high, low = int(np.nanargmax(curve[:, layer])), int(np.nanargmin(curve[:, layer]))
    return (
        f"They differ most at {result.layers[layer]}: {result.classifiers[high]} {percent(curve[high, layer])}, "
        f"{result.classifiers[low]} {percent(curve[low, layer])}."
    )


def _consensus(result: Robustness) -> str:
    first, second = result.classes
    by_layer = np.nanmean(result.consensus, axis=1)
    parts = [f"{name} {percent(share)}" for name, share in zip(result.layers, by_layer, strict=True)]
    if len(result.classifiers) == 1:
        return f"Distances are means of {result.n_pairs} pairs; {first} is the bases' class and {second} the sources'."
    return f"All classifiers say the same ({first}, {second} or another class) of so many hybrids: {listing(parts)}."


def _figures(result: Robustness, folder: Path) -> list[str]:
    first, second = result.classes
    drawn = [
        (
            "recognition",
            result.plot()[0],
            f"Left: how often hybrids are seen as {first} or as {second}, the larger of both rates of each module, "
            "averaged over modules; right: how far they are from both originals, pixel by pixel. Bars are one standard "
            "error over pairs (S003 Fig. 6).",
            False,
        )
    ]
    drawn += [
        (
            f"entropy_{name}",
            result.plot_entropy(name)[0],
            f"Entropy of what {name} says of each hybrid, over the classes that have the largest mean probability over "
            "all hybrids (S003 Fig. 14).",
            False,
        )
        for name in result.classifiers
    ]
    if len(result.shown):
        words = "The hybrids that the classifiers disagree about most, one of a pair at most, with every answer"
        drawn.append(("disagreements", result.plot_disagreements()[0], f"{words} (S003 Fig. 17, Table 3).", True))
    return [_figure(folder, *item) for item in drawn]


def _figure(folder: Path, name: str, figure: Figure, sentence: str, photographs: bool) -> str:
    image = png(figure, photographs=photographs)
    write_bytes(folder / f"{name.replace('/', '-')}.png", image)
    data, words = base64.b64encode(image).decode(), html.escape(sentence)
    wide, _ = figure.get_size_inches()
    narrow = "" if photographs or wide > _WIDE else ' class="narrow"'
    return (
        f'<figure{narrow} id="{html.escape(name)}"><img alt="{words}" src="data:image/png;base64,{data}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{header}</tr>{body}</table></div>'


def _ranking_table(result: Robustness, ranking: Ranking) -> str:
    first, second = result.classes
    head = ["classifier", "seen as an original", "interval", "comes first", "behind the first", "interval"]
    head += [f"{first} recognised", f"{second} recognised", "mean entropy"]
    rows = []
    for k, name in enumerate(ranking.classifiers):
        c = result.number(name)
        own = result.original_recognition[c]
        behind = ["–", "–"]
        if k:
            behind = [f"{ranking.lead[k]:.3f}", f"{ranking.lead_low[k]:.3f} to {ranking.lead_high[k]:.3f}"]
        cells = [name, f"{ranking.score[k]:.3f}", f"{ranking.low[k]:.3f} to {ranking.high[k]:.3f}"]
        cells += [percent(ranking.first[k]), *behind, *map(percent, own), f"{np.nanmean(result.entropy[c]):.2f}"]
        rows.append(cells)
    note = (
        "Seen as an original: the larger of both rates of each module, averaged over layers and modules. Intervals and "
        f"“comes first” from 2000 resamples of the {result.n_pairs} pairs, the same for all classifiers. Recognised: "
        "the unchanged images."
    )
    return f'{_table(head, rows)}<p class="parameters">{note}</p>'


def _all_rows(result: Robustness) -> str:
    found = list(result.rows())
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in found]
    return f"<details><summary>All numbers</summary>{_table(list(found[0]), cells)}</details>"


def _classifiers(result: Robustness) -> str:
    rows = []
    for about in result.provenance["classifiers"]:
        prepared = about["preprocessing"]
        if isinstance(prepared, dict):
            size = "×".join(map(str, prepared["size"]))
            prepared = f"{size}, {prepared['interpolation']}, crop {prepared['crop']:g} ({prepared['mode']})"
        counted = [f"{name}: {listing(list(own.values()))}" for name, own in about["counts_as"].items()]
        rows.append([about["name"], about["source"] or "–", str(about["classes"]), prepared, "; ".join(counted)])
    return _table(["classifier", "from", "classes", "preprocessing", "counts as"], rows)


def _page(result: Robustness, ranking: Ranking, figures: Sequence[str], card: str | None) -> str:
    first, second = map(html.escape, result.classes)
    generator = html.escape(str(result.provenance["generator"]))
    facts = json.dumps(result.provenance, indent=1, sort_keys=True)
    terms = f"<h2>The generator</h2><pre>{html.escape(card)}</pre>" if card else ""
    summary = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in in_short(result, ranking))
    title = f"Hybrids of {first} and {second}: what classifiers see"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>Images of {generator} of class {first} in which a module, some channels of a layer, takes the values it has for an
image of class {second} (a <em>hybrid</em>). A robust classifier still sees one of the two. {result.n_pairs} pairs.</p>
<h2>In short</h2>
<ul>{summary}</ul>
{_ranking_table(result, ranking)}
{"".join(figures)}
{_all_rows(result)}
<h2>The classifiers</h2>
{_classifiers(result)}
{terms}
<h2>How it was made</h2>
<details><summary>Provenance</summary><pre>{html.escape(facts)}</pre></details>
</body>
</html>
"""
