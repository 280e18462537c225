"""What installed packages add to the library, found through their entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import TypeVar

from .errors import ProbeError, first_line

T = TypeVar("T")

_REINSTALL = "reinstall it, or uninstall it"


def by_name(entries: Callable[[], Iterable[EntryPoint]], what: str) -> dict[str, list[EntryPoint]]:
    """Entry points by name, sorted; several of one name are of packages of which one must go."""
    named: dict[str, list[EntryPoint]] = {}
    try:
        listed = sorted(entries(), key=lambda entry: entry.name)
    except OSError as error:
        raise ProbeError(
            f"what installed packages say about {what} cannot be read ({error.strerror}); close files that you have "
            "open, or allow more with ulimit -n"
        ) from error
    for entry in listed:
        of_name = named.setdefault(entry.name, [])
        if entry.value not in [other.value for other in of_name]:
            of_name.append(entry)
    return named


def clash(entries: Sequence[EntryPoint], what: str) -> str | None:
    """What is wrong with a name that several packages register; None for one of a single package."""
    first, *others = entries
    if not others:
        return None
    return (
        f"two packages register the {what} {first.name!r} ({_place(first)} and {_place(others[0])}); "
        "uninstall one of them"
    )


def imported(entries: Sequence[EntryPoint], what: str, kind: type[T]) -> T:
    """The object that the entry point of a name refers to, which must be of the kind, and the only one of the name."""
    if problem := clash(entries, what):
        raise ProbeError(problem)
    entry = entries[0]
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


def _place(entry: EntryPoint) -> str:
    """The package of an entry point, if that is known, and what it names there."""
    package = getattr(entry.dist, "name", None)
    return repr(entry.value) if package is None else f"{entry.value!r} of {package!r}"


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
