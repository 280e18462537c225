"""Sections to a page: one HTML file with its figures inside, and the figures and results as files beside it.

Nothing here knows what a section is about.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..base import html
from ..base.display.description import Table
from ..base.files import as_path, write_bytes, write_json, write_text
from ..generator.results import Result
from .folder import replaced
from .section import WRITERS, Section

if TYPE_CHECKING:
    from markupsafe import Markup


_SECONDS_BETWEEN_LOADS = 5  # of a page that grows


@dataclass(frozen=True)
class Chapter:
    """A section in its place on a page.

    Attributes:
        anchor: its place on the page; empty where no link goes to it.
        prefix: before the names of its figures and files.
        folded: whether only its heading shows, with what it says in short, until it is clicked.
    """

    section: Section
    anchor: str = ""
    prefix: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """Everything on a page.

    Attributes:
        facts: how it was made.
        screen: what stands above the chapters.
        card: what the generator is.
        status: how far the making of it has come, or why it ended early; empty for a complete page.
        growing: whether more will be added, so that browsers should load it anew.
    """

    title: str
    chapters: Sequence[Chapter]
    facts: Mapping[str, Any]
    screen: Sequence[Markup] = ()
    card: str | None = None
    status: str = ""
    growing: bool = False


@dataclass(frozen=True)
class Report:
    """The files of a report.

    Attributes:
        in_short: what it says in a few sentences.
    """

    page: Path
    figures: tuple[Path, ...]
    results: tuple[Path, ...]
    in_short: tuple[str, ...] = ()


def write_page(
    page: Page,
    out: str | os.PathLike[str],
    name: str,
    *,
    listing: str | None = None,
    about: Mapping[str, Any] | None = None,
    again: bool = False,
) -> Report:
    """Write the page as the file ``name`` into the folder ``out``, with its figures and results.

    Everything is written aside and put in place at the end. ``listing`` is a JSON file that holds ``about`` and lists
    the files, so that a later page there removes what is no longer a part of it. A page that was there a moment ago and
    has only grown is written ``again``: it is there all the time.
    """
    folder, page = as_path(out), replace(page, chapters=_placed(page.chapters))
    with replaced(folder, page=name, listing=listing, again=again) as aside:
        results = [path for chapter in page.chapters for path in _write_results(chapter, aside)]
        figures = [path for chapter in page.chapters for path in _write_figures(chapter, aside)]
        refresh = _SECONDS_BETWEEN_LOADS if page.growing else 0
        write_text(aside / name, html.page(page.title, list(_body(page)), refresh=refresh))
        files = sorted(path.relative_to(aside).as_posix() for path in [*results, *figures])
        if listing is not None:
            write_json(aside / listing, {**(about or {}), "files": files})
    figures, results = ([folder / path.relative_to(aside) for path in paths] for paths in (figures, results))
    in_short = tuple(chapter.section.in_short for chapter in page.chapters if chapter.section.in_short)
    return Report(folder / name, tuple(figures), tuple(results), in_short)


def _placed(chapters: Sequence[Chapter]) -> list[Chapter]:
    """The chapters with distinct names of figures and files, prefixes included."""
    # Anchors are links' and stay as they are: sections and layers have distinct ones, in which capitals count.
    ids, files, placed = {chapter.anchor.casefold() for chapter in chapters}, set[str](), []
    for chapter in chapters:
        section, prefix = chapter.section, chapter.prefix
        figures = tuple(replace(item, name=_distinct(prefix + item.name, "", ids)) for item in section.figures)
        results = {
            _distinct(prefix + PurePath(name).stem, PurePath(name).suffix, files): content
            for name, content in section.results.items()
        }
        placed.append(replace(chapter, section=replace(section, figures=figures, results=results)))
    return placed


def _distinct(stem: str, suffix: str, taken: set[str]) -> str:
    """A name that is not taken yet, not even on disks that ignore case."""
    number = 1
    while (name := f"{stem}{'' if number == 1 else f'+{number}'}{suffix}").casefold() in taken:
        number += 1
    taken.add(name.casefold())
    return name


def _body(page: Page) -> Iterator[Markup]:
    if page.status:
        yield html.status(page.status)
    yield from page.screen
    for chapter in page.chapters:
        section, parts = chapter.section, list(_parts(chapter))
        if chapter.folded:
            yield html.chapter(section.title, section.in_short, parts, anchor=chapter.anchor)
        else:
            yield html.section(section.title, parts, anchor=chapter.anchor)
    if page.card:
        yield html.chapter("The generator", page.card.partition("\n")[0], [html.preformatted(page.card)])
    facts = html.preformatted(json.dumps(page.facts, indent=1, sort_keys=True))
    yield html.chapter("How it was made", "settings and provenance", [facts])


def _parts(chapter: Chapter) -> Iterator[Markup]:
    section = chapter.section
    for sentence in section.sentences:
        yield html.paragraph(sentence)
    if section.points:
        yield html.bullets(section.points)
    for table in section.tables:
        yield from _table(table)
    for figure in section.figures:
        yield html.figure(
            figure.content,
            figure.sentence,
            anchor=figure.name,
            note=figure.parameters,
            width="narrow" if figure.narrow else "full",
        )


def _table(table: Table) -> Iterator[Markup]:
    made = html.table(table.head, table.rows, note=table.note, text_columns=table.text_columns)
    if table.folded:
        yield html.details(table.title, [made])
        return
    if table.title:
        yield html.subheading(table.title)
    yield made


def _write_figures(chapter: Chapter, folder: Path) -> list[Path]:
    figures, place = chapter.section.figures, folder / "figures"
    return [write_bytes(place / f"{figure.name}{figure.suffix}", figure.content) for figure in figures]


def _write_results(chapter: Chapter, folder: Path) -> Iterator[Path]:
    for name, content in chapter.section.results.items():
        yield _write_result(folder / name, content)


def _write_result(path: Path, content: Any) -> Path:
    if not isinstance(content, Result):
        return write_text(path, content) if path.suffix == ".csv" else write_json(path, content)
    write: Callable[[Path], Path] = getattr(content, WRITERS[path.suffix])
    return write(path)
