"""Names from outside (of layers, classes, classifiers, files) are text in a report, whatever they hold."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.registry.regions import Regions, generic_regions
from counterfactual_probe.reporting import Section, Settings, Study, Table, run_study, write_report
from counterfactual_probe.reporting.sections.robustness import robustness_section, write_robustness_page
from support.analyses import robust_toys
from support.figures import not_drawn

SCRIPT = """"'><script>document.title = "ran"</script><img src=x onerror='document.title = "ran"'>"""
NAMES = (
    SCRIPT,
    "javascript:alert(1)//",
    r"$\frac{1}{$ and $x_{1}$",
    "_leading",
    "two\nlines\tand a tab",
    "long " * 60,
    "x/y",
    "x-y",
    "x#y",
    "{{ 7 * 7 }}{% raw %}&lt;",
    "caf\udce9",  # a file name that is no UTF-8
    "\u202egnp.exe \u4e2d\u6587",
)
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # letters that the font of figures lacks
SETTINGS = Settings(n_modules=2, max_pairs=16, shown=2)


class Named(nn.Module):
    """A generator whose layers have any names that torch allows."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.start = nn.ConvTranspose2d(4, 6, 4)
        for name in names:
            self.add_module(name, nn.Conv2d(6, 6, 3, padding=1))
        self.end = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.start(z)
        for name in self.names:
            x = torch.tanh(x + self.get_submodule(name)(x))
        image: Tensor = torch.tanh(self.end(x))
        return image


class Reader(HTMLParser):
    """The elements of a page, their attributes and all of its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: dict[str, list[str]] = {}
        self.text = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        for name, value in attrs:
            self.values.setdefault(name, []).append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(page: Path) -> Reader:
    """The page, with ids that differ and links that lead to one of them."""
    reader = Reader(page)
    ids, links = reader.values["id"], reader.values.get("href", [])
    assert len(set(ids)) == len(ids)
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert [tag for tag, _ in reader.elements].count("script") == 1, "our own, which sorts tables"
    assert {tag for tag, _ in reader.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "section", "h1", "h2", "h3", "p", "a", "ul", "li"),
        *("script", "button", "span"),
        *(
            "div",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "figure",
            "figcaption",
            "img",
            "details",
            "summary",
            "pre",
        ),
    }
    allowed = {"lang", "charset", "name", "content", "http-equiv", "class", "id", "href", "scope", "alt", "src", "type"}
    assert {name for _, names in reader.elements for name in names} <= allowed
    return reader


def as_written(name: str) -> str:
    """Characters that would turn the reading direction, and halves of characters, are shown by their numbers."""
    return name.replace("\u202e", r"\u202e").encode("utf-8", "backslashreplace").decode()


@pytest.fixture(scope="module")
def study() -> Study:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        names = tuple(name.replace(".", "") for name in NAMES if "#" not in name)
        generator = cp.wrap(
            Named(names), lambda n, rng: torch.randn(n, 4, 1, 1, generator=rng), name=SCRIPT, layers=list(names)
        )
    return run_study(generator, list(names), settings=SETTINGS)


@pytest.mark.long
def test_layers_of_any_name_through_the_whole_report(study: Study, tmp_path: Path) -> None:
    """With figures drawn, where names are labels."""
    generic = generic_regions(*study.layers[0].maps.maps.shape[1:])
    regions = Regions({f"{name} {SCRIPT}": mask for name, mask in generic.masks.items()}, note=SCRIPT)
    report = write_report(study, tmp_path / "out", regions=regions, card=SCRIPT, sections=[section(SCRIPT)])
    reader = checked(report.page)
    for layer in study.layers:
        assert as_written(f"Layer {layer.layer.name}") in reader.text
    assert f"The modules of {SCRIPT}" in reader.text
    assert len({path.name.casefold() for path in report.figures}) == len(report.figures) == len(set(report.figures))
    assert len(report.results) == len(set(report.results)) == 4 * len(study.layers) + 2
    assert all(path.is_file() and path.resolve().is_relative_to(tmp_path / "out") for path in report.results)
    # Each layer's own maps, whatever its neighbours are called.
    first = [path for path in report.results if path.name.startswith("maps-")]
    for path, layer in zip(first, study.layers, strict=True):
        assert torch.equal(cp.InfluenceMaps.load(path).maps, layer.maps.maps)


def section(name: str) -> Section:
    table = Table((name, "b"), ((name, "1"),), note=name, title=name, folded=True)
    return Section(
        f"A {name}", (name,), (table,), results={"a.csv": f"{name}\n", "b.json": {name: name}}, points=(name,)
    )


@pytest.fixture(scope="module")
def undrawn(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, list[str]]:
    """The page and the files of plain names, without figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ENCODED, not_drawn)
        return renamed(study, ["one", "other"], tmp_path_factory.mktemp("plain"))


ENCODED = "counterfactual_probe.reporting.section.encoded"


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=2, unique=True))
@example(["x/y", "x-y"])
@example(["X", "x"])
@example(["a#2", "a-2"])
@example(["by_modules", "by_channels"])
@example([SCRIPT, NAMES[2]])
def test_any_two_names_give_a_page_of_the_same_elements(
    study: Study, undrawn: tuple[Reader, list[str]], tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ENCODED, not_drawn)
        page, files = renamed(study, names, tmp_path_factory.mktemp("named"))
    other, same = undrawn
    assert page.elements == other.elements
    assert len(set(files)) == len(files) == len(same)


def renamed(study: Study, names: list[str], folder: Path) -> tuple[Reader, list[str]]:
    """A report of two layers under other names, and its files as disks see them that know no capitals."""
    layers = tuple(
        dataclasses.replace(layer, layer=dataclasses.replace(layer.layer, name=name))
        for layer, name in zip(study.layers, names, strict=False)
    )
    small = dataclasses.replace(study, generator=names[0], layers=layers)
    report = write_report(small, folder, card=names[1], sections=[section(names[1])])
    files = [path.relative_to(folder).as_posix().casefold() for path in (*report.results, *report.figures)]
    assert all((folder / name).is_file() for name in [path.relative_to(folder) for path in report.results])
    return checked(report.page), files


# --- robustness ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(study: Study) -> cp.Robustness:

    found = robust_toys.score(robust_toys.PLAIN.generator())
    provenance: dict[str, Any] = {**found.provenance, "generator": SCRIPT}
    provenance["classifiers"] = [
        {**about, "name": name, "source": SCRIPT, "preprocessing": SCRIPT, "counts_as": {SCRIPT: {"0": name}}}
        | {"answered": dict.fromkeys(about["answered"], SCRIPT)}
        for about, name in zip(found.provenance["classifiers"], ("x/y", "x-y"), strict=True)
    ]
    return dataclasses.replace(
        found,
        provenance=provenance,
        classifiers=("x/y", "x-y"),
        classes=(SCRIPT, NAMES[2]),
        layers=(NAMES[2], "_b", "x" * 300),
        modules=(SCRIPT, "_one", "$"),
    )


def test_classes_and_classifiers_of_any_name(result: cp.Robustness, tmp_path: Path) -> None:
    page = write_robustness_page(result, tmp_path, card=SCRIPT)
    reader = checked(page)
    assert SCRIPT in reader.text
    assert sorted(path.name for path in (tmp_path / "figures").iterdir() if path.name.startswith("entropy")) == [
        "entropy_x-y.svg",
        "entropy_x-y~62aecc6c76.svg",
    ]


def test_robustness_in_a_report_is_the_same_section(result: cp.Robustness, study: Study, tmp_path: Path) -> None:
    one = dataclasses.replace(study, layers=study.layers[:1])
    report = write_report(one, tmp_path / "report", sections=[robustness_section(result)])
    alone = checked(write_robustness_page(result, tmp_path / "alone"))
    text = checked(report.page).text
    inner = alone.text[alone.text.index("A hybrid is an image of ") : alone.text.index("How it was made")]
    assert inner in text
    for name in ("robustness.safetensors", "robustness.csv", "robustness.json"):
        assert (tmp_path / "report" / f"section-robustness-{name}").read_bytes() == (
            tmp_path / "alone" / name
        ).read_bytes()
