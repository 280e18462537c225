"""The hub's client: what it fetches and pushes, and its errors in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import ProbeError, first_line
from ..files import as_path
from .address import HUB, FileAddress, is_on_hub, repository_of, require_file_name

PATIENCE = 10.0  # seconds for the hub to answer
INSTALL = "pip install 'counterfactual-probe[hub]'"


def require_client(what: str) -> None:
    """Raise a ProbeError where the client is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise ProbeError(f"{what} is on the Hugging Face hub, whose client is not installed; run: {INSTALL}") from None


def fetched(
    repository: str, revision: str | None, usual: Sequence[str], wanted: Callable[[Collection[str]], Sequence[str]]
) -> Path:
    """The local copy of a repository's files; one fetched earlier needs no connection. The client's errors are its own.

    ``wanted`` says which patterns are fetched of the files that the repository holds, and ``usual`` which are of use
    where the hub does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        # One request without retries: the client would repeat the download of a file for half a minute.
        about = HfApi().model_info(repository, revision=revision, timeout=PATIENCE)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:
        try:
            # Without the patterns, files that were never requested would count as missing.
            return Path(
                snapshot_download(repository, revision=revision, allow_patterns=list(usual), local_files_only=True)
            )
        except LocalEntryNotFoundError:
            raise error from None  # the first error says more
    patterns = wanted({file.rfilename for file in about.siblings or []})
    return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


def local_file(path: str | os.PathLike[str]) -> Path:
    """The place of a file on this machine, fetched first where it is one on the hub: ``hf:user/name/modules.json``."""
    if not is_on_hub(path):
        return as_path(path)
    address = FileAddress.of(str(path))
    held: list[str] = []

    def wanted(files: Collection[str]) -> list[str]:
        held.extend(sorted(files))
        return [address.file]

    require_client(repr(path))
    with told_in_one_sentence(f"{path!r} cannot be fetched from", "the name and the connection"):
        place = fetched(address.repository, address.revision, [address.file], wanted) / address.file
    if not place.is_file():
        others = f" (it holds {', '.join(held[:5])})" if held else ""
        raise ProbeError(f"{HUB}{address.repository} has no file {address.file!r}{others}; check the name")
    return place


def push(
    repository: str,
    files: Mapping[str, bytes | Path],
    *,
    message: str,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Create the repository if there is none, and write the files as one commit; gives the address for ``load``."""
    name = repository_of(repository)
    contents = {require_file_name(file): content for file, content in files.items()}
    require_client(repr(f"{HUB}{name}"))
    from huggingface_hub import CommitOperationAdd, HfApi

    cure = "the name, the connection, and that you may write there (run: hf auth login)"
    with told_in_one_sentence(f"'{HUB}{name}' cannot be written on", cure), _quiet():
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.create_commit(
            name,
            [
                CommitOperationAdd(file, content if isinstance(content, bytes) else str(content))
                for file, content in contents.items()
            ],
            commit_message=message,
            revision=revision,
        )
    return f"{HUB}{name}" if revision is None else f"{HUB}{name}@{revision}"


@contextmanager
def told_in_one_sentence(what: str, check: str) -> Iterator[None]:
    """Whatever the client raises, or its HTTP library, as a ProbeError that says what to check."""
    try:
        yield
    except ProbeError:
        raise
    except Exception as error:
        raise ProbeError(
            f"{what} the Hugging Face hub ({type(error).__name__}: {first_line(error)}); check {check}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's progress bars."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
