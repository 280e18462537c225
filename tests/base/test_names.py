"""Names from outside (of layers, classes, plug-ins, files): whatever they hold, no sink takes them for syntax.

Pages and file names are in ``test_html``, cells of CSV files in ``display/test_records``, whole reports in
``reporting/test_names``.
"""

from __future__ import annotations

import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.cbook import is_math_text

import counterfactual_probe as cp
from counterfactual_probe.base.display.description import Description, Table
from counterfactual_probe.base.display.markdown import code_block, escaped
from counterfactual_probe.base.display.text import as_text
from counterfactual_probe.base.drawing import label
from counterfactual_probe.base.errors import first_line, visible
from counterfactual_probe.generator.units import UnitSet

PIECES = (
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\r",
        "\n",
        "\t",
        "\0",
        "\x9b31m",
        "\u202e",
        "\u2067",
        "\u200f",
        "\udce9",
        "\u2028",
    ),
    *("<script>", "<b a='", '"', "-->", "&lt;", "&#60;", "{{ 7 }}", "{% raw %}", "javascript:"),
    *(
        "#",
        "# ",
        "`",
        "```\n",
        "~~~",
        "*a*",
        "_b_",
        "__",
        "[a](b)",
        "![x]",
        "|",
        "\\",
        "1. ",
        "- ",
        "> ",
        "===\n",
        "---\n",
    ),
    *("$", "$x_1$", r"\$", "=1+1", "@", "a", "Z9", " ", "...", "/", "中文", "é"),
)
NAMES = st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


def drives_a_terminal(text: str) -> list[str]:
    """Characters that do not stand for themselves, but for line feeds and tabs."""
    hidden = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        letter
        for letter in text
        if (unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t")
        or unicodedata.bidirectional(letter) in hidden
    ]


@given(NAMES)
@example("\x1b[2J\x1b]0;owned\x07")
def test_what_is_printed_does_not_drive_the_terminal(name: str) -> None:
    description = Description(name, name, facts=((name, name),), table=Table((name, "b"), ((name, "1"),)), warning=name)
    units = UnitSet({name: (1, 2)})
    for text in (visible(name), as_text(description), str(cp.ProbeError(name)), repr(units)):
        assert drives_a_terminal(text) == []
        text.encode()
    assert len(as_text(description, 10).splitlines()) <= 10


def test_harmless_text_is_printed_as_it_is() -> None:
    for text in ("main.8", "two\nlines\tand a tab", "中文 é β → – “x”", "$x_1$", ""):
        assert visible(text) == text == str(cp.ProbeError(text))
    assert drives_a_terminal("\x1b[0m") == ["\x1b"]  # the check can fail


def test_an_exception_that_cannot_be_printed_has_its_type() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert first_line(Odd()) == "Odd"


@given(NAMES)
@example("$x_1$")
@example("_hidden")
@example(r"\$a\$")
def test_a_label_is_drawn_letter_by_letter(name: str) -> None:
    drawn = label(name)
    assert not is_math_text(drawn)
    assert not drawn.startswith("_")
    assert len(drawn.splitlines()) <= 4
    assert all(len(line.replace(r"\$", "$")) <= 41 for line in drawn.splitlines())
    assert drives_a_terminal(drawn) == []


# --- model cards -----------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(*lines: str) -> Elements:
    return Elements(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render("\n".join(lines)))


def card(name: str) -> Elements:
    """The name in every place of a card that takes one."""
    text = escaped(name)
    return rendered(
        f"# x {text}",
        "",
        escaped(f"{name}."),
        "",
        f"- {text}",
        "- b",
        "",
        "| a | b |",
        "|---|---|",
        f"| {text} | 1 |",
        "",
        "end",
    )


@given(NAMES.filter(lambda name: name.strip()))
@example("# heading\n## other")
@example("<img src=x onerror=alert(1)>")
@example("1. one")
@example("0 #")
@example("_a_ *b* `c` [d](e) ~~f~~ | g")
@example("a_b")
def test_a_name_is_text_in_a_card(name: str) -> None:
    made = card(name)
    assert made.found == card("harmless").found
    line, sentence = (visible(" ".join(text.split())) for text in (name, f"{name}."))
    assert made.text.split() == f"x {line} {sentence} {line} b a b {line} 1 end".split()


@given(NAMES)
@example("```\n<script>")
@example("``````\n")
def test_a_command_stays_in_its_block(command: str) -> None:
    made = rendered("a", "", code_block(command), "", "b")
    assert made.found == rendered("a", "", code_block("x"), "", "b").found
    assert visible(command).split() == made.text.split()[1:-1]


def test_the_check_of_cards_can_fail() -> None:
    assert rendered("<script>x</script>").found == [("script", [])]
    assert rendered("# a *b*").found != rendered("# a").found


@pytest.mark.parametrize("text", ["a_b.zip", "images of dcgan-faces, 64×64 (seed 0)", "β-VAE: 0.5"])
def test_plain_words_stay_readable(text: str) -> None:
    assert escaped(text) == text
