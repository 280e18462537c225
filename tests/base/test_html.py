"""HTML: text stays text, parts nest, names make safe and different files."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import counterfactual_probe as cp
from counterfactual_probe.base import html
from counterfactual_probe.base.files import is_safe_name, safe_name
from support.processes import imported_by

HOSTILE = """'"><script>alert(1)</script>&amp;{{ 7 * 7 }}{% raw %}"""


class Reader(HTMLParser):
    """The elements of a page, their attributes and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def everything(text: str) -> str:
    """A page with the text in every place that takes one."""
    parts = [
        html.navigation([html.link(text, "#a")]),
        html.paragraph(text),
        html.bullets([text, text]),
        html.table((text, "b"), [(text, html.link(text, "#a"))], note=text),
        html.figure(b"image", text, note=text, anchor="a"),
        html.warning(text),
        html.details(text, [html.preformatted(text)]),
    ]
    return html.page(text, [html.section(text, parts)])


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf")), min_size=1))
@example(HOSTILE)
def test_text_stays_text_everywhere(text: str) -> None:
    page, harmless = Reader(everything(text)), Reader(everything("harmless"))
    assert page.elements == harmless.elements
    assert [name for name, _ in page.attributes] == [name for name, _ in harmless.attributes]
    assert dict(page.attributes)["alt"] == text
    assert page.text.count(text) >= harmless.text.count("harmless")


def test_what_could_not_be_written_or_would_turn_the_line_is_shown_by_its_number() -> None:
    text = html.page("caf\udce9", [html.paragraph("caf\udce9\n"), html.paragraph("\x00a\u202eb\x1b[0m")])
    assert "<p>caf\\udce9\n</p>" in text
    assert r"<p>\x00a\u202eb\x1b[0m</p>" in text
    text.encode()


def test_a_fragment_brings_its_style_and_a_page_no_more_than_once() -> None:
    part = html.paragraph("x")
    assert html.fragment(part, part).count("<style>") == html.page("t", [part, part]).count("<style>") == 1
    assert "Content-Security-Policy" in html.page("t", [])


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "java\nscript:alert(1)", " javascript:x", "data:text/html,x", "http://["]
)
def test_links_go_nowhere_else(target: str) -> None:
    with pytest.raises(cp.ProbeError, match=r"a link goes to .*; give an anchor, a file or http"):
        html.link("x", target)


def test_mistakes_are_sentences() -> None:
    with pytest.raises(cp.ProbeError, match=r"a row of the table holds 1 cells \(1\) and its head 2; give one for"):
        html.table(("a", "b"), [("1",)])
    with pytest.raises(cp.ProbeError, match="an anchor is 'x y'; make it with safe_name"):
        html.section("t", [], anchor="x y")


@settings(deadline=None)
@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
@example(["x/y", "x-y"])
@example(["x/y", safe_name("x/y")])
@example(["x/2", "x#2"])
@example(["x" * 300, "x" * 301])
@example(["..", "."])
@example(["", " "])
def test_two_names_never_share_a_file(names: list[str]) -> None:
    assume(not any(re.search(r"#\d+$", name) for name in names) or "-" not in "".join(names))
    one, two = map(safe_name, names)
    assert one != two
    assert is_safe_name(one)
    assert len(one) <= 100
    assert len(two) <= 100
    assert one.strip(".")


def test_names_of_our_generators_stay_as_they_are() -> None:
    for name in ("main.11", "up1.conv2", "decoder.level_3", "0"):
        assert safe_name(name) == name
    assert safe_name("main.8", "main.11") == "main.8+main.11"
    assert safe_name("act#2") == "act-2", "a call of a layer"
    assert safe_name("a+b") != safe_name("a", "b")
    assert len(safe_name(*map(str, range(200)))) <= 200


def test_importing_the_library_does_not_load_jinja2() -> None:
    assert "jinja2" not in imported_by()
