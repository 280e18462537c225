"""What installed packages add to the library, found through their entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import TypeVar

from .errors import ProbeError, first_line

T = TypeVar("T")

_REINSTALL = "reinstall it, or uninstall it"


def by_name(entries: Callable[[], Iterable[EntryPoint]], what: str) -> dict[str, EntryPoint]:
    """Entry points by name, sorted; two packages with one name are an error."""
    named: dict[str, EntryPoint] = {}
    try:
        listed = sorted(entries(), key=lambda entry: entry.name)
    except OSError as error:
        raise ProbeError(
            f"what installed packages say about {what} cannot be read ({error.strerror}); close files that you have "
            "open, or allow more with ulimit -n"
        ) from error
    for entry in listed:
        other = named.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ProbeError(
                f"two packages register {what} {entry.name!r} ({other.value!r} and {entry.value!r}); "
                "uninstall one of them"
            )
    return named


def imported(entry: EntryPoint, what: str, kind: type[T]) -> T:
    """The object that an entry point names, which must be of the kind."""
    with blamed_on_plugin(f"{what} {entry.name!r} of {entry.value!r}", "cannot be imported", _REINSTALL):
        loaded = entry.load()
    if not isinstance(loaded, kind):
        raise ProbeError(f"entry point {entry.value!r} is a {type(loaded).__name__} and not {_with_article(kind)}")
    return loaded


@contextmanager
def blamed_on_plugin(what: str, fault: str = "failed", cure: str = "ask whoever made it") -> Iterator[None]:
    """Around code of another package: whatever it raises but Ctrl-C, SystemExit too, is a ProbeError that names it."""
    try:
        yield
    except (ProbeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ProbeError(f"{what} {fault} ({type(error).__name__}: {first_line(error)}); {cure}") from error


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
