"""Repositories of the Hugging Face hub: their files on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..base.errors import ProbeError, first_line
from ..base.plugins import imported
from ..generator.wrap import Wrapper, wrappers
from .folders import CARD, CONFIG, DISCRIMINATOR, HUB, WEIGHTS

_PATIENCE = 10.0  # seconds for the hub to answer


def hub_folder(name: str) -> Path:
    """Where a repository's files lie on this machine, fetched if they are not in the hub's cache."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise ProbeError(
            f"{name!r} is on the Hugging Face hub, whose client is not installed; run: pip install huggingface-hub"
        ) from None
    try:
        return Path(_fetch(repository, revision or None))
    except Exception as error:  # the client's errors, and those of its HTTP library
        raise ProbeError(
            f"{name!r} cannot be fetched from the Hugging Face hub ({type(error).__name__}: {first_line(error)}); "
            f"check the name and the connection, or fetch {CONFIG} and {WEIGHTS[0]} elsewhere and load their folder"
        ) from error


def _fetch(repository: str, revision: str | None) -> str:
    """The local copy of a repository's configuration and weights; one fetched earlier needs no connection."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    wanted = [CONFIG, CARD, DISCRIMINATOR, *WEIGHTS[:1]]
    try:
        # One request without retries: the client would repeat the download of a file for half a minute.
        about = HfApi().model_info(repository, revision=revision, timeout=_PATIENCE)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:
        try:
            # Without the patterns, files that were never requested would count as missing.
            return snapshot_download(repository, revision=revision, allow_patterns=wanted, local_files_only=True)
        except LocalEntryNotFoundError:
            raise error from None  # the first error says more
    held = {file.rfilename for file in about.siblings or []}
    others = [pattern for name, patterns in _other_libraries() if name in held for pattern in patterns]
    if others and CONFIG not in held:
        wanted += others
    elif WEIGHTS[0] not in held:
        wanted += WEIGHTS[1:]
    return snapshot_download(repository, revision=revision, allow_patterns=wanted)


def _other_libraries() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The file by which a repository of another library is known, and patterns of the files that it needs."""
    for entries in wrappers().values():
        wrapper = imported(entries, "wrapper", Wrapper)
        if wrapper.index is not None:
            yield wrapper.index, wrapper.files
