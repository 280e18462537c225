"""A description as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .description import Description, Table

_ERROR_FORM = {".3g": ".2g"}  # an error has a digit less than its value
_WIDEST = 48  # characters of a cell: names from outside may be of any length


def as_text(description: Description, most: int | None = None) -> str:
    """The title, the facts, the table and the warning, in at most so many lines; rows of the table are left out first.

    >>> from .description import Description
    >>> print(as_text(Description("Stability", "dcgan-faces", facts=(("ARI", "0.91"), ("cosine", "0.95")))))
    Stability(dcgan-faces)
      ARI     0.91
      cosine  0.95
    """
    head = [one_line(description.title, 5 * _WIDEST), *_facts(description.facts)]
    end = [f"  Warning: {one_line(description.warning, 8 * _WIDEST)}"] if description.warning else []
    if most is not None:
        head = head[: most - len(end)]
    room = None if most is None else most - len(head) - len(end)
    table = [] if description.table is None else _table(description.table, room)
    return "\n".join([*head, *table, *end])


def one_line(text: str, most: int = _WIDEST) -> str:
    """Text from outside on one line: breaks and control characters as blanks, the middle of what is too long left out.

    >>> one_line("two\\nlines"), one_line("x" * 20, 9)
    ('two lines', 'xxxx…xxxx')
    """
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(plain) <= most:
        return plain
    start = most // 2
    return f"{plain[:start]}…{plain[len(plain) - (most - start - 1) :]}"


def counted(number: int, noun: str) -> str:
    """How many of a thing.

    >>> counted(1, "pair"), counted(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plus_minus(value: float, error: float, form: str = ".3g") -> str:
    """A value with its standard error, without it where it is unknown.

    >>> plus_minus(0.12345, 0.00678), plus_minus(0.5, float("nan"))
    ('0.123 ± 0.0068', '0.5')
    """
    return f"{value:{form}}" if math.isnan(error) else f"{value:{form}} ± {error:{_ERROR_FORM.get(form, form)}}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, the first column to the left and the others to the right."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _facts(facts: Sequence[tuple[str, str]]) -> list[str]:
    names = [one_line(name) for name, _ in facts]
    width = max(map(len, names), default=0)
    return [f"  {name:<{width}}  {one_line(value, 2 * _WIDEST)}" for name, (_, value) in zip(names, facts, strict=True)]


def _table(table: Table, most: int | None) -> list[str]:
    """All rows and the note, or the head, the first rows, and how many more there are."""
    lines = [f"  {line}" for line in aligned([table.head, *table.rows])]
    note = [f"  {one_line(table.note, 4 * _WIDEST)}"] if table.note else []
    if most is None or len(lines) + len(note) <= most:
        return lines + note
    if len(lines) <= most:
        return lines
    if most < 3:  # a head without rows says nothing
        return []
    return [*lines[: most - 1], f"  … {len(lines) - most + 1} more; print it for all"]
