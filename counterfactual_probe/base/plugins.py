"""What installed packages add to the library, found through their entry points."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import TypeVar

from .errors import ProbeError, first_line

T = TypeVar("T")


def by_name(entries: Iterable[EntryPoint], what: str) -> dict[str, EntryPoint]:
    """Entry points by name, sorted; two packages with one name are an error."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ProbeError(
                f"two packages register {what} {entry.name!r} ({other.value!r} and {entry.value!r}); "
                "uninstall one of them"
            )
    return found


def imported(entry: EntryPoint, what: str, kind: type[T]) -> T:
    """The object that an entry point names, which must be of the kind."""
    try:
        found = entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever another package does when it is imported, SystemExit too
        raise ProbeError(
            f"{what} {entry.name!r} of {entry.value!r} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); reinstall it, or uninstall it"
        ) from error
    if not isinstance(found, kind):
        raise ProbeError(f"entry point {entry.value!r} is a {type(found).__name__} and not {_with_article(kind)}")
    return found


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
