"""HTML from text and figures: one template folder and one style sheet for reports, pages and notebooks.

>>> from counterfactual_probe.base import html
>>> print(html.warning("Only 4 pairs, so <20 % of the channels are confident."))
<p class="warning" role="note"><strong>Warning.</strong> Only 4 pairs, so &lt;20 % of the channels are confident.</p>

Every argument that is a plain ``str`` is text and is escaped, wherever it ends up. What these functions return is
``Markup``, a ``str`` that is not escaped again, so parts nest: a cell of a table may be a :func:`link`. A whole file
is made by :func:`page`, and what a notebook shows (``_repr_html_``) by :func:`fragment`.

Anchors must be safe names already (:func:`.files.safe_name`), because a link has to name the same one. jinja2 is
imported at the first call, so that importing the library does not load it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from .errors import ProbeError, visible
from .files import is_safe_name

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# How wide a picture is: the page's width, at most 34 rem, or as many pixels as it has.
Width: TypeAlias = Literal["full", "narrow", "natural"]
Level: TypeAlias = Literal["good", "fair", "poor"]
_SCHEMES = ("", "http", "https")


def page(title: str, body: Iterable[Markup], *, refresh: int = 0) -> str:
    """A whole page without other files: light or dark as the reader's system is.

    >>> text = page("The modules of <mine>", [paragraph("3 modules.")])
    >>> "<h1>The modules of &lt;mine&gt;</h1>" in text
    True

    A content security policy in its head forbids anything from outside, and every script but ours, which sorts tables
    when their heads are clicked. A page that still grows is loaded anew every ``refresh`` seconds.
    """
    values = {"title": title, "body": _joined(body), "refresh": refresh, "script_hash": _script_hash()}
    return _environment().get_template("page.html").render(values)


def fragment(*body: Markup) -> str:
    """Parts with their style, to stand among other content: what ``_repr_html_`` returns.

    >>> fragment(paragraph("3 modules"))[:20]
    '<div class="cprobe">'
    """
    return str(_part("fragment", body=_joined(body)))


def section(title: str, body: Iterable[Markup], *, anchor: str = "") -> Markup:
    """Parts under a heading of the second level; links to it go to ``#anchor``."""
    return _part("section", title=title, body=_joined(body), anchor=_anchor(anchor))


def subheading(text: str) -> Markup:
    """A heading of the third level, inside a section."""
    return _part("subheading", text=text)


def paragraph(text: str, *, note: bool = False) -> Markup:
    """A paragraph; a ``note`` is smaller and fainter.

    >>> print(paragraph("a < b"))
    <p>a &lt; b</p>
    """
    return _part("paragraph", text=text, note=note)


def heading(kind: str, about: str) -> Markup:
    """What a fragment shows, smaller than a heading of a page: a class in bold, and what it is of.

    >>> print(heading("Hybrids", "main.8 of <mine>"))
    <p class="heading"><strong>Hybrids</strong> main.8 of &lt;mine&gt;</p>
    """
    return _part("heading", kind=kind, about=about)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and values, a line for each."""
    return _part("facts", pairs=list(pairs))


def bullets(items: Iterable[str]) -> Markup:
    """An unnumbered list."""
    return _part("bullets", items=list(items))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    note: str = "",
    text_columns: int = 1,
    sortable: bool = False,
) -> Markup:
    """Rows under named columns; wide ones scroll by themselves, and ``sortable`` ones can be sorted on a page.

    >>> table(("layer", "MSE"), [("main.8", "0.031")])  # doctest: +SKIP

    The first ``text_columns`` columns are left-aligned and wrap; the others are for numbers: right-aligned, on one
    line. A ``note`` stands below. Rows of another length than ``columns`` raise a ProbeError.
    """
    cells = [tuple(row) for row in rows]
    for row in cells:
        if len(row) != len(columns):
            raise ProbeError(
                f"a row of the table holds {len(row)} cells ({', '.join(row)}) and its head {len(columns)}; give one "
                "for each"
            )
    return _part("table", columns=tuple(columns), rows=cells, note=note, text_columns=text_columns, sortable=sortable)


def figure(
    image: bytes, caption: str, alt: str | None = None, *, anchor: str = "", note: str = "", width: Width = "full"
) -> Markup:
    """A PNG, WebP or SVG, inside the page, with its caption; ``alt`` says the same to those who do not see it.

    >>> figure(png(fig), "Influence maps of all channels.", note="64 pairs, seed 0")  # doctest: +SKIP

    Without ``alt``, the caption does. An SVG is taken for a plot on white, which turns dark where the page is dark.
    """
    spoken, kind = caption if alt is None else alt, image_type(image)
    classes = " ".join(([] if width == "full" else [width]) + (["plot"] if kind == "svg+xml" else []))
    source = _source(image, kind)
    return _part(
        "figure", source=source, caption=caption, alt=spoken, anchor=_anchor(anchor), note=note, classes=classes
    )


def image_type(image: bytes) -> str:
    """The subtype of an image's media type, by its first bytes: "png", "webp" or "svg+xml"."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return "svg+xml" if image.lstrip()[:1] == b"<" else "png"


def _source(image: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def exchange(title: str, note: str, rows: Iterable[Sequence[tuple[bytes, str]]]) -> Markup:
    """What an exchange does, as rows of pictures with a word below each: base, what is taken, and what comes out.

    Narrow screens show the first row only. Each picture's word is what is told to those who do not see it.
    """
    shown = [[(_source(image, image_type(image)), caption) for image, caption in row] for row in rows]
    return _part("exchange", title=title, note=note, rows=shown)


def verdict(badge: str, level: Level, sentence: str) -> Markup:
    """A judgement in a coloured badge, and what it means in a sentence.

    >>> print(verdict("reproducible", "good", "Other latents give the same."))
    <p class="verdict"><span class="badge good">reproducible</span> Other latents give the same.</p>
    """
    return _part("verdict", badge=badge, level=level, sentence=sentence)


def status(text: str) -> Markup:
    """How far the making of the page has come, for a page that is not complete."""
    return _part("status", text=text)


def warning(text: str) -> Markup:
    """A sentence that the reader must not miss."""
    return _part("warning", text=text)


def link(text: str, target: str) -> Markup:
    """A link to ``#anchor``, a file beside the page or a web address; another scheme raises a ProbeError.

    >>> print(link("layer <1>", "#layer-1"))
    <a href="#layer-1">layer &lt;1&gt;</a>
    >>> link("here", "javascript:alert(1)")
    Traceback (most recent call last):
    counterfactual_probe.base.errors.ProbeError: a link goes to 'javascript:alert(1)'; give an anchor, a file or http(s)
    """
    # Browsers leave out control characters, which must not hide a scheme; blanks have to be quoted anyway.
    try:
        allowed = target.isprintable() and " " not in target and urlsplit(target).scheme in _SCHEMES
    except ValueError:  # an address that is none
        allowed = False
    if not allowed:
        raise ProbeError(f"a link goes to {target!r}; give an anchor, a file or http(s)")
    return _part("link", text=text, target=target)


def navigation(links: Iterable[Markup]) -> Markup:
    """Links side by side, as many on a line as fit."""
    return _part("navigation", links=list(links))


def details(summary: str, body: Iterable[Markup]) -> Markup:
    """Parts that are shown when the summary is clicked."""
    return _part("details", summary=summary, body=_joined(body))


def chapter(title: str, about: str, body: Iterable[Markup], *, anchor: str = "") -> Markup:
    """A section whose heading, with a few words beside it, unfolds it; links to it go to ``#anchor``."""
    return _part("chapter", title=title, about=about, body=_joined(body), anchor=_anchor(anchor))


def preformatted(text: str) -> Markup:
    """Text whose lines and blanks stay, in a font of fixed width."""
    return _part("preformatted", text=text)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("counterfactual_probe.base", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _script_hash() -> str:
    """What the content security policy knows the page's script by."""
    script = _environment().get_template("script.html").render()
    inside = script[script.index(">") + 1 : script.rindex("</script>")]
    return base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()


def _visible(value: Any) -> Any:
    """Text whose characters can all be written and seen, as :func:`.errors.visible` makes it."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def _parts() -> Any:
    """The macros of parts.html as attributes."""
    return _environment().get_template("parts.html").module


def _part(name: str, **values: Any) -> Markup:
    made: Markup = getattr(_parts(), name)(**values)
    return made.strip()


def _joined(parts: Iterable[Markup]) -> Markup:
    from markupsafe import Markup

    return Markup("\n").join(parts)


def _anchor(anchor: str) -> str:
    if anchor and not is_safe_name(anchor):
        raise ProbeError(f"an anchor is {anchor!r}; make it with safe_name")
    return anchor
