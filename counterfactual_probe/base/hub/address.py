"""Addresses on the hub, ``hf:user/name@revision/file``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import ProbeError, brief

HUB = "hf:"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}")
# A revision with a slash is one of the hub's own, or writes it as %2F.
_FILE = re.compile(rf"({_NAME}/{_NAME})(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?/(.+)")
_PLAIN = re.compile(r"[^\\*?\[\]\x00-\x1f]+")


@dataclass(frozen=True)
class FileAddress:
    """A file in a repository.

    >>> FileAddress.of("hf:user/name@v1/modules.json")
    FileAddress(repository='user/name', revision='v1', file='modules.json')
    """

    repository: str
    revision: str | None
    file: str

    @classmethod
    def of(cls, text: str) -> FileAddress:
        """The address in a text that starts with ``hf:``; a ProbeError if it names no file."""
        match = _FILE.fullmatch(text.removeprefix(HUB))
        if match is None or not _is_inside(match[3]):
            raise ProbeError(
                f"{text!r:.200} names no file on the hub; give {HUB}user/name/file, or {HUB}user/name@revision/file"
            )
        return cls(match[1], match[2] and match[2].replace("%2F", "/"), match[3])

    @property
    def text(self) -> str:
        """The address as it is written.

        >>> FileAddress("user/name", "a/branch", "modules.json").text
        'hf:user/name@a%2Fbranch/modules.json'
        """
        revision = "" if self.revision is None else f"@{self.revision.replace(chr(47), '%2F')}"
        return f"{HUB}{self.repository}{revision}/{self.file}"


def is_on_hub(path: Any) -> bool:
    """Whether a path is an address on the hub; a file of such a name is given as ``./hf:…``."""
    return isinstance(path, str) and path.startswith(HUB)


def repository_of(name: Any) -> str:
    """The name of a repository that is written to, with or without ``hf:``."""
    plain = name.removeprefix(HUB) if isinstance(name, str) else ""
    if not _REPOSITORY.fullmatch(plain) or ".." in plain or "--" in plain:
        raise ProbeError(f"the repository is {brief(name)}; give 'user/name', of letters, digits, '-', '_' and '.'")
    return plain


def require_file_name(file: Any) -> str:
    """The path of a file in a repository; a ProbeError for one that leads out of it or is a pattern."""
    if not isinstance(file, str) or not _is_inside(file):
        raise ProbeError(f"the name in the repository is {brief(file)}; give one such as 'modules.json'")
    return file


def _is_inside(file: str) -> bool:
    parts = file.split("/")
    return _PLAIN.fullmatch(file) is not None and not {"", ".", "..", ".git"} & set(parts)
