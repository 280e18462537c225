"""Pictures in a folder or a zip, decoded once into one array."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.display.text import counted
from ..base.errors import ProbeError, first_few, first_line
from ..base.files import as_path, read_bytes
from ..base.memory import require_room
from ..base.progress import progress_bar
from .decoding import MOST_BYTES, OTHER_SUFFIX, SUFFIX, Bytes, Decoded, decoded
from .images import NOT_STATED, Images

_WORKERS = 8
_ENCRYPTED = 0x1  # in the flags of a zip's entry


@dataclass
class _Filling:
    """The array that is being filled, and the sizes, modes and oddities of the files so far."""

    colours: int
    pixels: Bytes | None = None
    filled: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    paged: list[str] = field(default_factory=list)
    unturned: list[str] = field(default_factory=list)

    def add(self, picture: Decoded, most: int) -> None:
        if picture.pixels is None:
            self.unreadable.append(f"{picture.name} ({picture.reason})")
            return
        self.sizes[picture.size] += 1
        self.modes[picture.mode] += 1
        self.paged += [picture.name] * picture.more
        self.unturned += [picture.name] * (not picture.turned)
        if self.pixels is None:
            require_room(most * picture.pixels.nbytes, f"{most} images of {picture.size[0]}×{picture.size[1]}")
            self.pixels = np.empty((most, *picture.pixels.shape), np.uint8)
        if picture.pixels.shape == self.pixels.shape[1:]:
            self.pixels[self.filled] = picture.pixels
            self.filled += 1
            self.folders.append(PurePosixPath(picture.name).parent.as_posix())

    def notes(self, size: int | None) -> Iterator[str]:
        """What was left out or converted, a sentence each."""
        total = self.filled + len(self.unreadable)
        if self.unreadable:
            few = first_few(self.unreadable)
            yield f"{len(self.unreadable)} of {total} images cannot be read and are left out: {few}"
        if size is not None and (other := self.sizes - Counter({(size, size): self.sizes[size, size]})):
            yield (
                f"{other.total()} of {self.filled} images had other sizes ({_counted(other)}): the largest centred "
                f"square of each was resized to {size}×{size}"
            )
        wanted = "RGB" if self.colours == 3 else "L"
        if other_modes := self.modes - Counter({wanted: self.modes[wanted]}):
            modes = ", ".join(f"{mode}: {n}" for mode, n in other_modes.most_common())
            yield (
                f"{other_modes.total()} of {self.filled} images had other modes ({modes}) and were converted to "
                f"{wanted}, with transparent parts on white"
            )
        if self.paged:
            yield f"{len(self.paged)} files hold several images, of which the first was read: {first_few(self.paged)}"
        if self.unturned:
            few = first_few(self.unturned)
            yield f"{len(self.unturned)} images have damaged metadata, and were not turned upright: {few}"


def read_pictures(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    colours: int = 3,
    most: int | None = None,
    terms: str | None = None,
    show_progress: bool = False,
) -> Images:
    """A picture, or all in a folder (recursively) or a zip (``a.zip/train``: a folder inside), sorted by name.

    With ``size``, the largest centred square of each picture is resized to it; without, all must have the same size.
    ``most`` limits their number, choosing evenly from the sorted names. Files that cannot be decoded are listed in
    ``.unreadable``, with the reason.
    """
    with _opened_archive(as_path(path)) as (paths, read):
        if not paths.pictures:
            raise ProbeError(
                f"{path} holds no images{_but(paths.others)}; give a folder or zip of .png, .jpg, .webp or similar"
            )
        count = len(paths.pictures) if most is None else min(most, len(paths.pictures))
        names = [paths.pictures[i * len(paths.pictures) // count] for i in range(count)]
        filling, others = _Filling(colours), _noted(paths.others)
        with progress_bar(len(names), "decoding", "image", show_progress) as bar:
            for decoded in _all_decoded(names, read, size, colours):
                filling.add(decoded, len(names))
                bar.update()
    return _images_of(path, filling, size, terms, others)


def _images_of(
    path: str | os.PathLike[str], filling: _Filling, size: int | None, terms: str | None, others: list[str]
) -> Images:
    seen, unreadable = filling.sizes, filling.unreadable
    if filling.pixels is None:
        raise ProbeError(f"none of the {len(unreadable)} images in {path} can be read; the first: {unreadable[0]}")
    if size is None and len(seen) > 1:
        raise ProbeError(f"the images in {path} have {len(seen)} sizes ({_counted(seen)}); give size=, or --size")
    pixels: Any = filling.pixels[: filling.filled]
    source = f"{counted(filling.filled, 'image')} in {'/'.join(Path(path).parts[-2:])}"
    labels, classes = _classes_of_folders(filling.folders)
    return Images(
        pixels,
        source,
        terms or NOT_STATED,
        notes=(*filling.notes(size), *others),
        unreadable=tuple(unreadable),
        labels=labels,
        classes=classes,
    )


def _classes_of_folders(folders: list[str]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Each picture's folder is its class, where there are at least two."""
    found = sorted(set(folders))
    if len(found) < 2:
        return None, ()
    last = [PurePosixPath(folder).name for folder in found]
    numbers = {folder: number for number, folder in enumerate(found)}
    return torch.tensor([numbers[folder] for folder in folders]), tuple(last if len(set(last)) == len(last) else found)


def _counted(sizes: Counter[tuple[int, int]]) -> str:
    shown = ", ".join(f"{width}×{height}: {n}" for (width, height), n in sizes.most_common(3))
    return f"{shown}, …" if len(sizes) > 3 else shown


@dataclass
class _Names:
    """Names of files, sorted: of pictures, and of pictures of kinds that cannot be read."""

    pictures: list[str]
    others: list[str]

    @classmethod
    def among(cls, names: list[str], special: Container[str] = ()) -> _Names:
        """Those named as pictures; ``special`` ones, which are no files, count among the other kinds."""
        shown = sorted(filter(_is_shown, names))
        pictures = [name for name in shown if SUFFIX.fullmatch(PurePosixPath(name).suffix)]
        others = [name for name in shown if OTHER_SUFFIX.fullmatch(PurePosixPath(name).suffix)]
        return cls(
            [name for name in pictures if name not in special],
            sorted([*others, *(name for name in pictures if name in special)]),
        )


def _is_shown(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _noted(others: list[str]) -> list[str]:
    return [f"{len(others)} files of other kinds are left out: {first_few(others)}"] if others else []


def _but(others: list[str]) -> str:
    return f" that can be read ({first_few(others, 3)})" if others else ""


@contextmanager
def _opened_archive(path: Path) -> Iterator[tuple[_Names, Callable[[str], bytes]]]:
    """The sorted names of the image files, and a function that reads one."""
    if path.is_dir():
        names = list(_files_in(path))
        special = {name for name in names if not (path / name).is_file()}  # pipes, and links that lead nowhere
        yield _Names.among(names, special), lambda name: read_bytes(path / name, most=MOST_BYTES)
        return
    if path.is_file() and SUFFIX.fullmatch(path.suffix):
        yield _Names([path.name], []), lambda _: read_bytes(path, most=MOST_BYTES)
        return
    archive = next((parent for parent in (path, *path.parents) if parent.is_file()), None)
    if archive is None:
        raise ProbeError(f"there is no folder or zip {path}; give one of images, an .npy file, or generator:NAME")
    with _opened_zip(archive) as opened:
        inside = path.relative_to(archive).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        entries = {item.filename: item for item in opened.infolist() if item.filename and not item.is_dir()}

        def read(name: str) -> bytes:
            if entries[name].file_size > MOST_BYTES:
                raise ValueError(f"it holds {entries[name].file_size:,} bytes, and at most {MOST_BYTES:,} are read")
            if entries[name].flag_bits & _ENCRYPTED:
                raise ValueError("it is encrypted")
            return opened.read(name)

        yield _Names.among([name for name in entries if name.startswith(prefix)]), read


@contextmanager
def _opened_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise ProbeError(
            f"{archive} is not a complete zip ({first_line(error)}); give a folder or zip of images"
        ) from error
    except Exception as error:  # of versions, methods and encodings of names that Python's reader does not know
        raise ProbeError(
            f"{archive} is a zip that cannot be read ({first_line(error)}); pack its files anew, or give their folder"
        ) from error
    with opened:
        yield opened


def _files_in(folder: Path) -> Iterator[str]:
    """The files below a folder, behind links too; each real folder once, since links may lead back up."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        about = Path(place).stat()
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        here = Path(place).relative_to(folder)
        yield from ((here / name).as_posix() for name in files)


def _all_decoded(names: list[str], read: Callable[[str], bytes], size: int | None, colours: int) -> Iterator[Decoded]:
    """Decoded files in the order of the names; decoders release the interpreter's lock, so threads help."""
    pool = ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1))
    try:
        yield from pool.map(lambda name: decoded(name, read, size, colours), names)
    finally:
        pool.shutdown(cancel_futures=True)
