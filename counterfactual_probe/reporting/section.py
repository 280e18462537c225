"""The description of an analysis in a report: its words, tables, figures and files, independent of HTML.

Everything a report shows is a :class:`Section`, whether the study's own or another package's. ``page`` turns sections
into HTML and files, and knows nothing of what they are about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ..base.display.description import Table
from ..base.display.encode import encoded
from ..base.errors import ProbeError, nearest
from ..base.files import is_safe_name, safe_name
from ..base.plugins import blamed_on_plugin, by_name, imported
from ..generator.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..generator.adapter import GeneratorAdapter
    from .study import Study

GROUP = "counterfactual_probe.sections"
# Suffixes of results' files, and how a result writes one.
WRITERS = {".safetensors": "save", ".json": "to_json", ".csv": "to_csv"}


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure as a file's content with its words; made by :func:`shown`.

    Attributes:
        name: of its file, and its anchor on the page.
        sentence: what it shows.
        parameters: what it was made with.
        narrow: whether it should not fill the page's width.
        suffix: of its file: ".webp" of photographs, ".svg" of plots, else ".png".
    """

    name: str
    content: bytes
    sentence: str
    parameters: str = ""
    narrow: bool = False
    suffix: str = ".png"


def shown(
    name: str,
    figure: Figure,
    sentence: str,
    parameters: str = "",
    *,
    photographs: bool = False,
    narrow: bool = False,
) -> CaptionedFigure:
    """A matplotlib figure for the report.

    >>> from matplotlib.figure import Figure
    >>> shown("errors", Figure(), "The error of every layer.", "64 images").name
    'errors'

    Any ``name`` is made safe for a file. ``photographs``, and what has as many colours, become WebP, other figures SVG,
    or PNG where they show arrays; ``narrow`` ones do not fill the page's width.
    """
    safe = name if is_safe_name(name) else safe_name(name)
    content, suffix = encoded(figure, photographs=photographs)
    return CaptionedFigure(safe, content, sentence, parameters, narrow, suffix)


@dataclass(frozen=True)
class Section:
    """A section of the report: sentences, then tables, then figures; and files of results beside it.

    >>> table = Table(("layer", "MSE"), (("main.8", "0.031"),))
    >>> section = Section("Stretch", ("The error is largest in fine scales.",), tables=(table,))
    >>> section.anchor
    'section-stretch'
    >>> write_report(study, "out/report", sections=[section])  # doctest: +SKIP

    Attributes:
        title: its heading; two sections of a report must differ in it.
        figures: pictures with their words, from :func:`shown`.
        results: file name -> a result, which writes itself (``.safetensors``, or ``.csv`` and ``.json`` by its
            ``to_csv(path)`` and ``to_json(path)``), a text (``.csv``) or what JSON holds (``.json``).
        points: statements in a list, after the sentences.
        in_short: the section in a sentence or two, for the list at the head of the page.
    """

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[CaptionedFigure, ...] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    points: tuple[str, ...] = ()
    in_short: str = ""

    def __post_init__(self) -> None:
        if self.anchor == "section-":
            raise ProbeError(f"the title of a section is {self.title!r}; give one with letters, which name its files")
        names = [figure.name for figure in self.figures]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ProbeError(
                f"section {self.title!r} has two figures named {repeated[0]!r}; give each a name of its own"
            )
        for name, content in self.results.items():
            _require_fitting(name, content)

    @classmethod
    def joined(cls, title: str, parts: Sequence[Section]) -> Self:
        """One section of several: all sentences, then all tables, then all figures."""
        return cls(
            title,
            tuple(chain.from_iterable(part.sentences for part in parts)),
            tuple(chain.from_iterable(part.tables for part in parts)),
            tuple(chain.from_iterable(part.figures for part in parts)),
            {name: content for part in parts for name, content in part.results.items()},
            tuple(chain.from_iterable(part.points for part in parts)),
            " ".join(part.in_short for part in parts if part.in_short),
        )

    @property
    def anchor(self) -> str:
        """Its place on the page, and the start of its files' names, with which no file of the study itself starts."""
        slug = f"section-{re.sub(r'[^a-z0-9]+', '-', self.title.lower()).strip('-')}"
        return slug if slug == "section-" else safe_name(slug)


def _require_fitting(name: str, content: Any) -> None:
    suffix = PurePath(name).suffix
    if suffix not in WRITERS or PurePath(name).name != name:
        raise ProbeError(f"{name!r} cannot name a result; give a plain file name that ends in {', '.join(WRITERS)}")
    if isinstance(content, Result) and hasattr(content, WRITERS[suffix]):
        return
    if suffix == ".safetensors" or (suffix == ".csv" and not isinstance(content, str)):
        raise ProbeError(
            f"result {name!r} is a {type(content).__name__}; .safetensors takes a result of this library, .csv a text, "
            ".json anything else"
        )


def require_distinct(sections: Sequence[Section]) -> None:
    """Two sections may not share the names of their files."""
    seen: dict[str, str] = {}
    for section in sections:
        if section.anchor in seen:
            raise ProbeError(
                f"two sections are titled {seen[section.anchor]!r} and {section.title!r}, which name the same files; "
                "rename one"
            )
        seen[section.anchor] = section.title


# Makes the section of a study: the generator, its study, and what says how far it is.
Make: TypeAlias = "Callable[[GeneratorAdapter, Study, Callable[[str], None]], Section]"


@dataclass(frozen=True)
class SectionMaker:
    """What ``report --sections NAME`` adds. A package registers one under ``counterfactual_probe.sections``.

    Attributes:
        ready: raises a ProbeError now for what would make ``make`` fail after a long run, such as missing weights.
        fits: the same for the generator, such as one whose latents have no classes.
    """

    name: str
    summary: str
    make: Make
    ready: Callable[[], None] = lambda: None
    fits: Callable[[GeneratorAdapter], None] = lambda _: None

    def section(self, generator: GeneratorAdapter, study: Study, say: Callable[[str], None]) -> Section:
        """What ``make`` gives; a ProbeError for whatever it raises, and for anything but a section."""
        with blamed_on_plugin(f"section {self.name!r}"):
            made = self.make(generator, study, say)
        if not isinstance(made, Section):
            raise ProbeError(f"section {self.name!r} made a {type(made).__name__}; let it return a Section")
        return made


def available_sections() -> list[str]:
    """Names that ``report --sections`` takes."""
    return list(_entries())


def section_maker(name: str) -> SectionMaker:
    """The registered section of this name."""
    entries = _entries()
    if name not in entries:
        raise ProbeError(f"no section named {name!r} is registered; nearest: {nearest(name, entries)}")
    return imported(entries[name], "section", SectionMaker)


def _entries() -> dict[str, list[EntryPoint]]:
    return by_name(lambda: entry_points(group=GROUP), "a section")
