"""The one error family of the library, and the near-miss hint its sentences use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProbeError(Exception):
    """Something the caller can put right; the message is one sentence that says how."""


class Interrupted(ProbeError, KeyboardInterrupt):
    """Ctrl-C during a run: everything has been put back, and nothing was half written.

    Both a ``ProbeError`` and a ``KeyboardInterrupt``, so that either handler sees it.
    """


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """The names closest to a mistyped one, quoted, for the end of an error sentence."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=limit, cutoff=0.3) or names[:limit]
    return ", ".join(repr(candidate) for candidate in close) or "none"


def first_line(error: BaseException) -> str:
    """The first line of another library's message, to quote in a sentence of ours."""
    return (str(error).strip().splitlines() or [""])[0]
