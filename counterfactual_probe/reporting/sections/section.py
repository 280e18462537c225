"""Further sections of the report: what other analyses add to it, and how the command line finds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from ...base.display.description import Table
from ...base.errors import ProbeError, nearest
from ...base.files import write_json, write_text
from ...base.plugins import by_name, imported
from ...generator.results import Result

if TYPE_CHECKING:
    from ...generator.adapter import GeneratorAdapter
    from ..figures import Shown
    from ..study import Study

# Sections of other packages take Table from here.
__all__ = [
    "GROUP",
    "SUFFIXES",
    "Make",
    "Section",
    "SectionMaker",
    "Table",
    "available_sections",
    "require_distinct",
    "section_maker",
]

GROUP = "counterfactual_probe.sections"
SUFFIXES = (".safetensors", ".json", ".csv")


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
        figures: pictures with their words, from :func:`figures.shown`.
        results: file name -> a result (``.safetensors``), a text (``.csv``) or what JSON holds (``.json``).
    """

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Shown, ...] = ()
    results: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.anchor == "section-":
            raise ProbeError(f"the title of a section is {self.title!r}; give one with letters, which name its files")
        names = [shown.name for shown in self.figures]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ProbeError(
                f"section {self.title!r} has two figures named {repeated[0]!r}; give each a name of its own"
            )
        for name, content in self.results.items():
            _require_fitting(name, content)

    @property
    def anchor(self) -> str:
        """Its place on the page, and what its files' names start with: no file of the study's own does."""
        return f"section-{re.sub(r'[^a-z0-9]+', '-', self.title.lower()).strip('-')}"

    def save_results(self, folder: Path) -> list[Path]:
        """Write the files of results into the report's folder."""
        written = []
        for name, content in self.results.items():
            path = folder / f"{self.anchor}-{name}"
            if isinstance(content, Result):
                written.append(content.save(path))
            else:
                written.append(write_text(path, content) if path.suffix == ".csv" else write_json(path, content))
        return written


def _require_fitting(name: str, content: Any) -> None:
    suffix = PurePath(name).suffix
    if suffix not in SUFFIXES or PurePath(name).name != name:
        raise ProbeError(f"{name!r} cannot name a result; give a plain file name that ends in {', '.join(SUFFIXES)}")
    if (suffix == ".safetensors") != isinstance(content, Result) or (suffix == ".csv" and not isinstance(content, str)):
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

    ``ready`` raises a ProbeError where ``make`` would, after a long run: weights that are not installed, say.
    """

    name: str
    summary: str
    make: Make
    ready: Callable[[], None] = lambda: None


def available_sections() -> list[str]:
    """Names that ``report --sections`` takes."""
    return list(_entries())


def section_maker(name: str) -> SectionMaker:
    """The registered section of this name."""
    entries = _entries()
    if name not in entries:
        raise ProbeError(f"no section named {name!r} is registered; nearest: {nearest(name, entries)}")
    return imported(entries[name], "section", SectionMaker)


def _entries() -> dict[str, EntryPoint]:
    return by_name(entry_points(group=GROUP), "a section")
