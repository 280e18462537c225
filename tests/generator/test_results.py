"""What every result owes: values in its repr, tables for other programs, a picture, and names as plain text."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import math
import re
import sys
import warnings
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import counterfactual_probe as cp
from counterfactual_probe.base.display.described import Tabulated
from counterfactual_probe.base.display.plot import Plot
from counterfactual_probe.generator.results import Result, names_to_json
from counterfactual_probe.generator.units import UnitSet
from support import saved_results
from support.toys import PLAIN

RESULTS = saved_results.results()
RESULTS["Ranking"] = RESULTS["Robustness.safetensors"].ranking(repetitions=20)
RESULTS["Evidence"] = cp.Evidence(
    ("one", 'the "second"'), np.array([5, 2]), np.array([2.5, np.nan]), np.array([0.25, 1]),
    dict(RESULTS["ModuleFinder.safetensors"].provenance_),
)  # fmt: skip
RESULTS["Exchanged"] = saved_results.exchanged()
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "quotes": "a \"b\" 'c' & d",
    "dollar": "$\\frac{1",
    "underscore": "_x",
    "lines": "two\nlines",
    "long": "y" * 300,
}
# Several at once, for every result; the marathon takes each alone.
HOSTILE["markup"] = " ".join(HOSTILE[kind] for kind in ("script", "quotes", "lines"))
HOSTILE["drawn"] = "".join(HOSTILE[kind] for kind in ("underscore", "dollar", "lines"))


def alone(*kinds: str) -> list[Any]:
    return [pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


@pytest.fixture(params=RESULTS, ids=lambda name: name.partition(".")[0])
def result(request: pytest.FixtureRequest) -> Any:
    """One of every class."""
    return RESULTS[request.param]


@pytest.fixture
def shown(result: Any) -> Page:
    """How a notebook shows the result; its pictures are drawn once."""
    return page_of(next(name for name, each in RESULTS.items() if each is result))


@cache
def page_of(name: str) -> Page:
    return Page(RESULTS[name]._repr_html_())


def close(shown: str, value: float) -> bool:
    return any(
        abs(float(number) - value) <= 0.051 * max(abs(value), 0.02) for number in re.findall(r"\d+\.?\d*", shown)
    )


# --- text ---------------------------------------------------------------------------------------


def test_a_repr_has_at_most_ten_lines(result: Any) -> None:
    lines = repr(result).splitlines()
    assert 1 <= len(lines) <= 10
    assert lines[0].startswith(f"{type(result).__name__}(")
    assert all(len(line) <= 500 for line in lines)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Inversion", lambda r: [*r.error, *r.relative_error, *r.start_errors.max(1).values]),
        ("Edited", lambda r: [*(r.images - r.base).abs().mean((1, 2, 3)), r.relative_error.max()]),
        ("Hybrids", lambda r: [(r.images[0] - r.base).abs().mean(), (r.images[1] - r.source).abs().mean()]),
        ("InfluenceMaps", lambda r: [*r.influence, r.influence_standard_error[1]]),
        ("Invariance", lambda r: [r.mse, *r.mse_per_scale, *r.relative_mse_per_scale]),
        ("Fidelity", lambda r: [r.table[1, 0], r.table[2, 1], r.precision[1]]),
        ("Robustness", lambda r: [*r.curve.ravel(), r.curve_standard_error[0, 0]]),
        ("Stability", lambda r: [*r.consistency.mean(1), *r.cosine.mean(1), *r.ari, *r.draw_cosine]),
        ("Selection", lambda r: [*r.expected_ari, *r.variance_explained, r.suggested]),
        ("ModuleQuality", lambda r: [*r.specificity, *r.influence, *r.random.mean(1)]),
        ("ModuleMatch", lambda r: [*r.cosines]),
        ("ModulesByCall", lambda r: [*r.kept, *r.standard_error, *r.chance.mean(1), *r.p_value, r.kept_throughout]),
        ("PartsAgreement", lambda r: [r.mean_iou, r.mean_ari, r.majority_iou, r.iou[1, 1]]),
        ("SpectralRatios", lambda r: [r.mean, r.summary()["q50"], r.summary()["largest"]]),
        ("ActivationRatios", lambda r: [r.mean, r.summary()["q95"]]),
        ("SpectralTable", lambda r: [r.rows[0]["mean"], r.rows[0]["std"], r.rows[0]["pathways"]]),
        ("FilterRemoval", lambda r: [*r.energy, *r.saturation.mean(1), r.control_saturation.mean()]),
        ("ModuleFinder", lambda r: [r.variance_explained_, r.expected_ari_, 3, 2]),
        ("MIG", lambda r: [r.score, r.chance, *r.gaps]),
        ("Modularity", lambda r: [r.score, r.test_score, r.chance]),
        ("DCI", lambda r: [r.disentanglement, r.completeness, r.informativeness, *r.per_code]),
        ("Exchanged", lambda r: [*r.cause, *r.isolation, r.separation_error[0], *r.influence, *r.faithfulness.mean(1)]),
        ("Evidence", lambda r: [r.gap[0], *r.p_values]),
        ("Ranking", lambda r: [*r.score, *r.first]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_repr_has_the_values_that_matter(name: str, values: Any) -> None:
    result = next(result for result in RESULTS.values() if type(result).__name__ == name)
    for value in values(result):
        assert close(repr(result), float(value)) or close(repr(result), 100 * float(value)), float(value)


def test_print_leaves_nothing_out() -> None:
    rows = RESULTS["SpectralTable.safetensors"].rows * 20
    table = dataclasses.replace(RESULTS["SpectralTable.safetensors"], rows=rows)
    assert len(repr(table).splitlines()) == 10
    assert "more; print it for all" in repr(table)
    assert len(str(table).splitlines()) == 2 + len(rows)


# --- tables -------------------------------------------------------------------------------------


def test_tables_are_written_and_read_back(result: Any, tmp_path: Path) -> None:
    records = list(result.records())
    assert records
    path = result.to_csv(tmp_path / "table.csv")
    assert path.read_text() == result.to_csv()
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
    assert [list(row) for row in rows] == [list(record) for record in records]
    for row, record in zip(rows, records, strict=True):
        for name, value in record.items():
            if isinstance(value, float):
                assert float(row[name]) == value or math.isnan(value), name
            else:
                assert row[name] == ("" if value is None else str(value)), name


def test_json_is_written_without_nan(result: Any, tmp_path: Path) -> None:
    content = json.loads(result.to_json(tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert content == json.loads(json.dumps(result.to_json()))
    assert content


def test_pandas_gets_the_same_rows(result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    for row, record in zip(result.to_dataframe(), result.records(), strict=True):
        assert repr(row) == repr(record)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(cp.ProbeError, match=r"needs pandas, .* install counterfactual-probe\[pandas\]"):
        result.to_dataframe()


# --- pictures and notebooks -----------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_plots_itself_onto_given_axes(result: Any) -> None:
    plot = result.plot()
    assert isinstance(plot, Plot)
    figure, _ = plot
    assert figure.axes
    ax = Figure().add_subplot()
    given, used = result.plot(ax)
    assert (given, used) == (ax.figure, ax)
    assert ax.has_data() or ax.texts


def test_a_notebook_shows_pictures_a_table_the_warning_and_where_to_read_more(result: Any, shown: Page) -> None:
    description, page = result.describe(), shown
    assert page.tags.count("img") == len(description.pictures) >= 1
    assert all(caption.caption in page.text for caption in description.pictures)
    assert description.warning[1:] in page.text
    for name, value in description.facts:
        assert name in page.text
        assert value in page.text
    for row in () if description.table is None else description.table.rows:
        assert all(cell in page.text for cell in row)
    assert description.page
    pages = Path(__file__).parents[2] / "docs"
    assert (pages / f"{description.page}.md").exists()
    assert any(name == "href" and str(value).endswith((".md", ".html")) for name, value in page.attributes)


def test_every_result_keeps_the_contract(result: Any) -> None:
    assert isinstance(result, (Result, cp.ModuleFinder))
    assert isinstance(result, Tabulated)
    if isinstance(result, Result):
        assert type(result).__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_a_ranking_is_kept_too(tmp_path: Path) -> None:
    loaded = cp.Ranking.load(RESULTS["Ranking"].save(tmp_path / "ranking"))
    assert str(loaded) == str(RESULTS["Ranking"])


# --- names from outside -----------------------------------------------------------------------------


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with other names of generators, layers, classes, …"""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, cp.UnitSet):
        return cp.UnitSet({renamed(layer, names): channels for layer, channels in value.items()}, names["name"])
    if isinstance(value, (list, tuple)):
        return type(value)(renamed(item, names) for item in value)
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    return value


def hostile(result: Any, text: str) -> Any:
    outside = {saved_results.ABOUT["generator"], "main.2", "main.6", "real", "few", "day", "floor", "wall", "main.0",
               "ratio < 0.9", "again", "toy", "1", "name"}  # fmt: skip
    names = {name: f"{text}{i}" if text != "_x" else f"_x{i}" for i, name in enumerate(sorted(outside))}
    if isinstance(result, cp.ModuleFinder):
        finder = saved_results.finder().name_modules([names["day"], names["few"]])
        finder.provenance_ = renamed(finder.provenance_, names)
        return finder
    changes = {field.name: renamed(getattr(result, field.name), names) for field in dataclasses.fields(result)}
    return dataclasses.replace(result, **changes)


@pytest.mark.parametrize("kind", ["markup", "long", *alone("script", "quotes", "lines")])
def test_names_from_outside_are_text_everywhere(result: Any, shown: Page, kind: str) -> None:
    changed = hostile(result, HOSTILE[kind])
    assert len(repr(changed).splitlines()) <= 10
    content = changed._repr_html_()
    page = Page(content)
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.tags == shown.tags  # no name became a tag, and none broke one off
    written = html.unescape(re.sub(r"<style>.*?</style>", "", content, flags=re.S))
    assert "<script" not in written or "&lt;script" in content
    rows = list(csv.DictReader(io.StringIO(changed.to_csv(), newline="")))
    assert [list(row.values()) for row in rows] == [
        ["" if value is None else str(value) for value in record.values()] for record in changed.records()
    ]


@pytest.mark.parametrize("kind", ["drawn", "long", *alone("dollar", "underscore", "lines")])
def test_figures_show_names_letter_by_letter(result: Any, kind: str) -> None:
    figure = hostile(result, HOSTILE[kind]).plot().figure
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # about labels that leave no room for what they label
        figure.savefig(io.BytesIO(), dpi=40)  # a formula that is none would raise
    width, height = figure.get_size_inches()
    assert width < 25
    assert height < 25
    for item in figure.findobj(Text):
        drawn, is_formula = item._preprocess_math(item.get_text())
        assert not is_formula, drawn
    legends = [legend for ax in figure.axes if (legend := ax.get_legend()) is not None]
    plain = [legend for ax in result.plot().figure.axes if (legend := ax.get_legend()) is not None]
    assert [len(one.get_texts()) for one in legends] == [len(one.get_texts()) for one in plain]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_generator_of_any_name_shows_itself(text: str) -> None:
    generator = cp.wrap(PLAIN.module(), PLAIN.sampler, name=text)
    assert len(repr(generator).splitlines()) <= 10
    page = Page(generator._repr_html_())
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert repr(text)[1:-1] in page.text
    assert [row in page.text for row in generator.layers] == [True] * len(generator.layers)


def test_a_generator_shows_samples() -> None:
    generator = PLAIN.generator()
    figure, ax = generator.show(10, seed=3)
    assert isinstance(figure, Figure)
    sheet = torch.as_tensor(ax.images[0].get_array())
    assert sheet.shape == (2 * 18 - 2, 8 * 18 - 2, 3)
    image = generator(generator.sample(10, seed=3))[9].float()
    torch.testing.assert_close(sheet[18:34, 18:34].movedim(-1, 0).float(), (image + 1) / 2, atol=1e-5, rtol=0)
    own = Figure().add_subplot()
    assert generator.show(1, ax=own).axes is own


@pytest.mark.parametrize(
    "names", [["", ""], ["module 1", "module 2"], ["module 1", "module 1"], ["module 1 with 2", "module 2 with 1"]]
)
def test_numbers_of_modules_are_no_names_to_be_saved(names: list[str]) -> None:
    units = [UnitSet({"a": (k,)}, name) for k, name in enumerate(names)]
    assert names_to_json(units) == {}
    assert names_to_json([*units, UnitSet({"a": (5,)}, "eyes")]) == {"unit_names": [*names, "eyes"]}
