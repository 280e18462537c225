"""Writing and reading result files: atomically, without pickle, with errors in sentences."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .errors import ProbeError, brief, first_line
from .formats.strict import strict_json
from .memory import free_memory

_HEADER = "counterfactual-probe"
FORMAT = 1
_LONGEST_NAME = 255  # bytes, on the usual disks
_LARGEST_JSON = 16 * 2**20  # bytes; a text of numbers takes some twenty times its size once it is read


class OfAnotherKind(ProbeError):
    """A file of this library that holds something else."""


def as_path(path: Any) -> Path:
    """A path given by the caller, with ``~`` written out; a ProbeError if it is none, or no file can have it."""
    try:
        name = os.fspath(path)
        name.encode(sys.getfilesystemencoding(), "strict")
        if "\0" in name:
            raise ValueError("a null byte")
        place = Path(name).expanduser()
        _require_length(place)
        return place
    except (TypeError, AttributeError):
        raise ProbeError(f"the path is {brief(path)}, of type {type(path).__name__}; give a string or a Path") from None
    except (ValueError, RuntimeError) as error:
        start = f"{str(path)[:60]!r}{'…' if len(str(path)) > 60 else ''}"
        raise ProbeError(f"the path {start} cannot be a file's ({first_line(error)}); give another") from error


def _require_length(place: Path) -> None:
    """Raise a ValueError if no disk takes a name as long; whether there is such a file matters not."""
    if max(map(len, map(os.fsencode, place.parts)), default=0) > _LONGEST_NAME:
        raise ValueError(os.strerror(errno.ENAMETOOLONG))
    try:
        place.lstat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP):
            raise ValueError(_reason(error)) from error


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a whole file or nothing: to a temporary neighbour first, then renamed into place.

    A link stays a link, whose target is written; a file keeps its mode. What is no file, such as a pipe or a device,
    is refused: it would be replaced by one.
    """
    target = as_path(path)
    temporary = None
    try:
        place = Path(os.path.realpath(target))
        mode = _mode_of(place, target)
        place.parent.mkdir(parents=True, exist_ok=True)
        _clear_partial(place)
        temporary = place.with_name(_partial_name(place))
        # Created with the modes that the process's umask leaves, which no other thread sees changed.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            _flush_to_disk(file.fileno())
            if (size := os.fstat(file.fileno()).st_size) != len(content):
                raise OSError(errno.ENOSPC, f"{size} of {len(content)} bytes were taken")
        if mode is not None:
            with suppress(OSError):  # some disks have no modes; the content is what must not be lost
                temporary.chmod(mode)
        temporary.replace(place)
    except OSError as error:
        raise ProbeError(f"{target} cannot be written ({_reason(error)}); {_cure(error)}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return target


def _mode_of(place: Path, target: Path) -> int | None:
    """The mode of the file that is there, or None if there is none."""
    try:
        found = place.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise ProbeError(f"{target} cannot be written (it is a folder); give the name of a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise ProbeError(
            f"{target} cannot be written (it is a device, pipe or socket, which a file would replace); give "
            "a file's name"
        )
    return stat.S_IMODE(found.st_mode)


_REFUSED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EBADF}


def _flush_to_disk(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _REFUSED:  # some file systems cannot; a full or broken disk is another matter
            raise


def _partial_name(place: Path) -> str:
    """A hidden name that tells whose process writes it: what a killed one left can then be cleared."""
    host = re.sub(r"[^A-Za-z0-9-]", "", platform.node())[:20]
    return f".{_stem(place)}.{host}.{os.getpid()}.{secrets.token_hex(4)}.partial"


def _stem(place: Path) -> str:
    return hashlib.sha256(place.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _clear_partial(place: Path) -> None:
    """Remove what killed processes of this machine left of the same file."""
    prefix = _partial_name(place).split(".")[1:3]
    for left in place.parent.glob(f".{'.'.join(prefix)}.*.partial"):
        number = left.name.split(".")[3]
        if number.isdecimal() and not _is_running(int(number)):
            with suppress(OSError):
                left.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def require_writable(folder: Path) -> None:
    """Raise a ProbeError now, and not after a long run, where no file can be written into a folder; leave none."""
    made = missing_folders(folder)
    write_bytes(folder / ".counterfactual-probe", b"").unlink()
    remove_empty(made)


def missing_folders(folder: Path) -> list[Path]:
    """The folder and those above it that are not there yet, innermost first."""
    try:
        return [place for place in (folder, *folder.parents) if not place.exists()]
    except OSError:  # of a folder that may not be looked into, where nothing will be made either
        return []


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those in which there is nothing, innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_text(path: str | os.PathLike[str], content: str) -> Path:
    """As UTF-8; bytes of file names that are no text are written by their number, as in ``\\udce9``."""
    return write_bytes(path, content.encode(errors="backslashreplace"))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    return write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_bytes(path: str | os.PathLike[str], *, most: int | None = None) -> bytes:
    """The content of a file of at most so many bytes; by default of as many as the memory has room for."""
    try:
        return _readable(path, most).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _readable(path: str | os.PathLike[str], most: int | None = None) -> Path:
    """The path of what is a file, and small enough to be read; an OSError if there is none."""
    place = as_path(path)
    about = place.stat()
    if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
        raise ProbeError(f"{path} cannot be read (it is a device, pipe or socket); give a file")
    room = free_memory(torch.device("cpu")) if most is None else most
    if room is not None and stat.S_ISREG(about.st_mode) and about.st_size > room:
        limit = f"{room:,} bytes of memory are free" if most is None else f"such a file has at most {room:,}"
        raise ProbeError(f"{path} cannot be read (it holds {about.st_size:,} bytes, and {limit}); give another file")
    return place


def _unreadable(path: str | os.PathLike[str], error: OSError) -> ProbeError:
    cure = _MORE_FILES if error.errno in _NO_DESCRIPTOR else "check the path and its permissions"
    return ProbeError(f"{path} cannot be read ({_reason(error)}); {cure}")


def names_in(folder: Path) -> list[str]:
    """The names of what is in a folder, sorted; none where there is no folder."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def read_json(path: str | os.PathLike[str], *, nan: bool = False) -> Any:
    """The value of a JSON file, read strictly; a ValueError says what is wrong with its text."""
    return strict_json(read_bytes(path, most=_LARGEST_JSON), nan=nan)


def save_tensors(
    path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> Path:
    """A safetensors file whose header says what kind of result it is, and everything beside tensors."""
    description = json.dumps({"kind": kind, "format": FORMAT, **header}, sort_keys=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return write_bytes(path, safetensors.torch.save(plain, metadata={_HEADER: description}))


def load_tensors(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file written by :func:`save_tensors` for the same kind of result."""
    content = read_bytes(path)
    try:
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = strict_json(content[8 : 8 + length].rstrip(b" ")).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProbeError(
            f"{path} is not a complete safetensors file ({first_line(error)}); make it again with .save()"
        ) from error
    return tensors, _header(path, kind, metadata)


def save_plain(path: str | os.PathLike[str], kind: str, values: Mapping[str, Any]) -> Path:
    """The same as JSON, for results of a few numbers: kind, format and values side by side."""
    return write_json(path, {"kind": kind, "format": FORMAT, **values})


def load_plain(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """The values of a file written by :func:`save_plain` for the same kind of result."""
    try:
        content: dict[str, Any] = read_json(path, nan=True)
        found, version = content.pop("kind"), content.pop("format")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProbeError(f"{path} holds no score ({first_line(error)}); give a file made by .save()") from error
    if found != kind or version != FORMAT:
        raise ProbeError(
            f"{path} holds {str(found)[:60]} of format {str(version)[:60]} and not {kind} of format {FORMAT}; load it "
            "with that class and version"
        )
    return content


def load_header(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """The header of such a file alone, without reading its tensors."""
    try:
        with safetensors.safe_open(_readable(path), "pt") as file:
            metadata = file.metadata() or {}
    except OSError as error:
        raise _unreadable(path, error) from error
    except safetensors.SafetensorError as error:
        raise ProbeError(
            f"{path} is not a complete safetensors file ({first_line(error)}); make it again with .save()"
        ) from error
    return _header(path, kind, metadata)


def _header(path: str | os.PathLike[str], kind: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _HEADER not in metadata:
        raise ProbeError(f"{path} is a safetensors file but holds no result of this library; give one made by .save()")
    try:
        header: dict[str, Any] = strict_json(metadata[_HEADER], nan=True, any_text=True)
        found, version = header.pop("kind"), header.pop("format")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProbeError(
            f"{path} has an altered header ({type(error).__name__}: {first_line(error)}); make it again with .save()"
        ) from error
    if found != kind:
        raise OfAnotherKind(f"{path} holds {str(found)[:60]} and not {kind}; load it with that class")
    if version != FORMAT:
        raise ProbeError(
            f"{path} has format {str(version)[:60]} and this version reads {FORMAT}; install a matching version"
        )
    return header


_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_MORE_FILES = "close files that you have open, or allow more with ulimit -n"


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _cure(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space or choose another disk; no partial file was left"
    if error.errno in _NO_DESCRIPTOR:
        return f"{_MORE_FILES}; no partial file was left"
    return "choose a folder that you may write to; no partial file was left"


_LONGEST = 100  # characters; two of them and what our files' names add stay below the 255 bytes of most disks
# A layer may be one of several calls, such as relu#2.
_PLAIN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{_LONGEST - 11}}}(#[0-9]{{1,9}})?")
_SAFE = re.compile(r"[A-Za-z0-9_.~+-]+")


def safe_name(*names: str) -> str:
    """Any names (of layers, classes, files) as one part of a file's name, an HTML id or an address.

    >>> safe_name("main.8"), safe_name("main.8", "main.11")
    ('main.8', 'main.8+main.11')
    >>> safe_name("x/y"), safe_name("x-y")
    ('x-y~bd3c9047d6', 'x-y')

    Plain names stay as they are, and "relu#2", the second call of a layer, is "relu-2". Others keep what can be kept
    and end in "~" and ten digits of their hash, so that two different ones do not share a file; so do names of more
    than 90 characters, and more names than fit.
    """
    joined = "+".join(map(_safe, names))
    return joined if len(joined) <= 2 * _LONGEST else _hashed(joined)


def is_safe_name(name: str) -> bool:
    """Whether it holds no other characters than those of :func:`safe_name`."""
    return _SAFE.fullmatch(name) is not None


def _safe(name: str) -> str:
    return name.replace("#", "-") if _PLAIN.fullmatch(name) else _hashed(name)


def _hashed(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    kept = re.sub(r"[^A-Za-z0-9_.]+", "-", name)[: _LONGEST // 2].strip("-.")
    return f"{kept}~{digest[:10]}"
