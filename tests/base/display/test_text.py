"""Descriptions as text: every value that matters, in as many lines as there is room for."""

from __future__ import annotations

import pytest

from counterfactual_probe.base.display.description import Description, Table
from counterfactual_probe.base.display.text import as_text, one_line
from counterfactual_probe.base.errors import ProbeError

ROWS = tuple((f"layer {i}", f"{i / 7:.3f}") for i in range(20))
WHOLE = Description(
    "Thing",
    "of something",
    facts=(("first", "1"), ("the second", "2")),
    table=Table(("layer", "error"), ROWS, "A note."),
    warning="be careful",
)


def test_everything_is_said_where_there_is_room() -> None:
    lines = as_text(WHOLE).splitlines()
    assert lines[0] == "Thing(of something)"
    assert [line.split(maxsplit=1) for line in lines[1:2]] == [["first", "1"]]
    assert lines[3].split() == ["layer", "error"]
    assert [tuple(line.rsplit(maxsplit=1)) for line in lines[4:24]] == [(f"  {name}", value) for name, value in ROWS]
    assert lines[24:] == ["  A note.", "  Warning: be careful"]


@pytest.mark.parametrize("most", range(4, 30))
def test_rows_are_left_out_first_and_the_warning_never(most: int) -> None:
    lines = as_text(WHOLE, most).splitlines()
    assert len(lines) <= most
    assert lines[0] == "Thing(of something)"
    assert lines[-1] == "  Warning: be careful"
    assert [line.split()[-1] for line in lines[1:3]] == ["1", "2"]
    rows = [line for line in lines if line.startswith("  layer ") and not line.endswith("error")]
    left_out = [line for line in lines if line.startswith("  … ")]
    assert left_out == ([f"  … {20 - len(rows)} more; print it for all"] if most >= 7 and len(rows) < 20 else [])
    assert not (most >= 7 and not rows)


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ProbeError, match=r"a row of the table holds 1 cells \(a\) and its head 2"):
        Table(("x", "y"), (("a",),))


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab\r\n", "bell\x07", "x" * 300, "\u2028", "<script>", "$x$"])
def test_text_from_outside_stays_on_one_short_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown) <= 48
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable()
    lines = as_text(Description(text, text, ((text, text),), Table((text,), ((text,),)), (), text)).splitlines()
    assert len(lines) == 5
    assert all(len(line) < 500 for line in lines)


def test_what_is_left_out_is_the_middle() -> None:
    assert one_line("start" + "x" * 100 + "end", 20) == "startxxxxx…xxxxxxend"
