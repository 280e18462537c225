"""Repositories of the Hugging Face hub: their files on this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ..base.errors import ProbeError, first_line
from ..base.hub.address import HUB
from ..base.hub.client import fetched, require_client
from ..base.plugins import imported
from ..generator.wrap import Wrapper, wrappers
from .folders import CARD, CONFIG, DISCRIMINATOR, WEIGHTS
from .modules import MODULES

_USUAL = [CONFIG, CARD, DISCRIMINATOR, MODULES, WEIGHTS[0]]


def hub_folder(name: str) -> Path:
    """Where a repository's files lie on this machine, fetched if they are not in the hub's cache."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    require_client(repr(name))
    try:
        return fetched(repository, revision or None, _USUAL, _wanted)
    except Exception as error:  # the client's errors, and those of its HTTP library
        raise ProbeError(
            f"{name!r} cannot be fetched from the Hugging Face hub ({type(error).__name__}: {first_line(error)}); "
            f"check the name and the connection, or fetch {CONFIG} and {WEIGHTS[0]} elsewhere and load their folder"
        ) from error


def _wanted(held: Collection[str]) -> list[str]:
    """Which of a repository's files are fetched: configuration and weights, or what another library needs."""
    others = [pattern for name, patterns in _other_libraries() if name in held for pattern in patterns]
    if others and CONFIG not in held:
        return [*_USUAL, *others]
    return _USUAL if WEIGHTS[0] in held else [*_USUAL, *WEIGHTS[1:]]


def _other_libraries() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The file by which a repository of another library is known, and patterns of the files that it needs."""
    for entries in wrappers().values():
        wrapper = imported(entries, "wrapper", Wrapper)
        if wrapper.index is not None:
            yield wrapper.index, wrapper.files
