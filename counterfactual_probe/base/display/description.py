"""What is to be seen of a result, before anything is made of it: text, HTML or a section of a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ProbeError
from .plot import Plot


@dataclass(frozen=True)
class Table:
    """Rows of text under a head.

    Attributes:
        note: what the columns mean, below.
        title: a heading above.
        text_columns: how many of the first columns are left-aligned and wrap; the others are for numbers.
        folded: whether only the title shows, until it is clicked.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    title: str = ""
    text_columns: int = 1
    folded: bool = False

    def __post_init__(self) -> None:
        if self.folded and not self.title:
            raise ProbeError("a folded table has no title to click on; give one")
        for row in self.rows:
            if len(row) != len(self.head):
                raise ProbeError(
                    f"a row of the table holds {len(row)} cells ({', '.join(row)}) and its head {len(self.head)}; "
                    "give one for each"
                )


@dataclass(frozen=True)
class Picture:
    """A figure with its caption, drawn only where it is shown."""

    caption: str
    draw: Callable[[], Plot[Any]]


@dataclass(frozen=True)
class Description:
    """A result in words, numbers and pictures.

    >>> Description("Stability", "dcgan-faces, main.8", facts=(("ARI between draws", "0.91"),)).title
    'Stability(dcgan-faces, main.8)'

    Attributes:
        kind: the class.
        about: what it is a result of: the generator, the layers, and how much was measured.
        facts: (name, value) of the numbers that matter.
        table: what there is one row of for each unit set, module, scale, …
        pictures: what a notebook and a report show beside the numbers.
        warning: what a reader must know before trusting the numbers; empty where there is nothing.
        page: the page of the documentation that explains the result, such as ``"modules"``.
    """

    kind: str
    about: str
    facts: tuple[tuple[str, str], ...] = ()
    table: Table | None = None
    pictures: tuple[Picture, ...] = ()
    warning: str = ""
    page: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind}({self.about})"
