"""A description as HTML, for notebooks and pages."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .. import html
from .description import Description, Picture
from .plot import png

if TYPE_CHECKING:
    from markupsafe import Markup

_ROWS = 20  # of a table; the rest is in to_dataframe() and to_csv(path)


def as_html(description: Description) -> str:
    """What a notebook shows: the title, the warning, facts, table and pictures, and where to read more."""
    return html.fragment(html.heading(description.kind, description.about), *parts(description))


def parts(description: Description) -> list[Markup]:
    """The same without title and style, for a section of a page that has its own."""
    found = []
    if description.warning:
        found.append(html.warning(f"{description.warning[:1].upper()}{description.warning[1:]}."))
    if description.facts:
        found.append(html.facts(description.facts))
    if (table := description.table) is not None and table.rows:
        shown, more = table.rows[:_ROWS], len(table.rows) - _ROWS
        note = " ".join(filter(None, [table.note, f"And {more} more rows." if more > 0 else ""]))
        found.append(html.table(table.head, shown, note=note))
    found += [_figure(picture) for picture in description.pictures]
    if description.page:
        found.append(_explained(description.page))
    return found


def documentation(page: str) -> str | None:
    """The address of a page of the documentation: on the web, if the package names its site, or in this checkout.

    None where there is neither: a package installed without its sources.
    """
    if (site := _site()) is not None:
        return f"{site}/docs/{page}.html"
    file = Path(__file__).parents[3] / "docs" / f"{page}.md"
    return quote(Path(os.path.relpath(file)).as_posix()) if file.exists() else None


@cache
def _site() -> str | None:
    try:
        urls = metadata("counterfactual-probe").get_all("Project-URL") or []
    except PackageNotFoundError:  # run from a folder that was never installed
        return None
    named = dict(url.split(", ", 1) for url in urls)
    return named["Documentation"].rstrip("/") if "Documentation" in named else None


def _explained(page: str) -> Markup:
    address = documentation(page)
    words = f"Documentation: {page.replace('-', ' ')}"
    return html.paragraph(html.link(words, address) if address else f"docs/{page}.md", note=True)


def _figure(picture: Picture) -> Markup:
    return html.figure(png(picture.draw().figure, dpi=72), picture.caption, width="natural")
