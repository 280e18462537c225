"""Pictures in a folder or a zip, decoded once into one array."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..base.errors import ProbeError, first_few, first_line
from ..base.files import read_bytes
from ..base.progress import progress_bar
from .images import NOT_STATED, Images

Bytes = npt.NDArray[np.uint8]
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_WORKERS = 8


@dataclass
class _Decoded:
    """One file: its pixels, or the reason why it cannot be read."""

    name: str
    pixels: Bytes | None = None
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    reason: str = ""


@dataclass
class _Filling:
    """The array that is being filled, and the sizes and modes of the files so far."""

    colours: int
    pixels: Bytes | None = None
    filled: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def add(self, picture: _Decoded, most: int) -> None:
        if picture.pixels is None:
            self.unreadable.append(f"{picture.name} ({picture.reason})")
            return
        self.sizes[picture.size] += 1
        self.modes[picture.mode] += 1
        if self.pixels is None:
            self.pixels = np.empty((most, *picture.pixels.shape), np.uint8)
        if picture.pixels.shape == self.pixels.shape[1:]:
            self.pixels[self.filled] = picture.pixels
            self.filled += 1
            self.folders.append(PurePosixPath(picture.name).parent.as_posix())


def read_pictures(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    colours: int = 3,
    most: int | None = None,
    terms: str | None = None,
    show_progress: bool = False,
) -> Images:
    """All pictures in a folder (recursively) or a zip (``a.zip/train``: a folder inside), sorted by name.

    With ``size``, the largest centred square of each picture is resized to it; without, all must have the same size.
    ``most`` limits their number, choosing evenly from the sorted names. Files that cannot be decoded are listed in
    ``.unreadable``, with the reason.
    """
    with _opened_archive(Path(path).expanduser()) as (paths, read):
        if not paths:
            raise ProbeError(f"{path} holds no images; give a folder or zip of {', '.join(_SUFFIXES[:4])} or similar")
        count = len(paths) if most is None else min(most, len(paths))
        names = [paths[i * len(paths) // count] for i in range(count)]
        filling = _Filling(colours)
        with progress_bar(len(names), "decoding", "image", show_progress) as bar:
            for decoded in _all_decoded(names, read, size, colours):
                filling.add(decoded, len(names))
                bar.update()
    return _images_of(path, filling, size, terms)


def _images_of(path: str | os.PathLike[str], filling: _Filling, size: int | None, terms: str | None) -> Images:
    seen, unreadable = filling.sizes, filling.unreadable
    if filling.pixels is None:
        raise ProbeError(f"none of the {len(unreadable)} images in {path} can be read; the first: {unreadable[0]}")
    if size is None and len(seen) > 1:
        raise ProbeError(f"the images in {path} have {len(seen)} sizes ({_counted(seen)}); give size=, or --size")
    notes = []
    total = filling.filled + len(unreadable)
    if unreadable:
        notes.append(f"{len(unreadable)} of {total} images cannot be read and are left out: {first_few(unreadable)}")
    if size is not None and (other := seen - Counter({(size, size): seen[size, size]})):
        notes.append(
            f"{other.total()} of {filling.filled} images had other sizes ({_counted(other)}): the largest centred "
            f"square of each was resized to {size}×{size}"
        )
    wanted = "RGB" if filling.colours == 3 else "L"
    if other_modes := filling.modes - Counter({wanted: filling.modes[wanted]}):
        modes = ", ".join(f"{mode}: {n}" for mode, n in other_modes.most_common())
        notes.append(
            f"{other_modes.total()} of {filling.filled} images had other modes ({modes}) and were converted to "
            f"{wanted}, with transparent parts on white"
        )
    pixels: Any = filling.pixels[: filling.filled]
    source = f"{filling.filled} images in {'/'.join(Path(path).parts[-2:])}"
    labels, classes = _classes_of_folders(filling.folders)
    return Images(
        pixels,
        source,
        terms or NOT_STATED,
        notes=tuple(notes),
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


@contextmanager
def _opened_archive(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The sorted names of the image files, and a function that reads one."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield _pictures(names), lambda name: read_bytes(path / name)
        return
    archive = next((parent for parent in (path, *path.parents) if parent.is_file()), None)
    if archive is None:
        raise ProbeError(f"there is no folder or zip {path}; give one of images, an .npy file, or generator:NAME")
    try:
        with zipfile.ZipFile(archive) as opened:
            inside = path.relative_to(archive).as_posix()
            prefix = "" if inside == "." else f"{inside}/"
            names = [item.filename for item in opened.infolist() if not item.is_dir()]
            yield _pictures([name for name in names if name.startswith(prefix)]), opened.read
    except (zipfile.BadZipFile, OSError) as error:
        raise ProbeError(
            f"{archive} is not a complete zip ({first_line(error)}); give a folder or zip of images"
        ) from error


def _pictures(names: list[str]) -> list[str]:
    def wanted(name: str) -> bool:
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        return not hidden and name.lower().endswith(_SUFFIXES)

    return sorted(filter(wanted, names))


def _all_decoded(names: list[str], read: Callable[[str], bytes], size: int | None, colours: int) -> Iterator[_Decoded]:
    """Decoded files in the order of the names; decoders release the interpreter's lock, so threads help."""
    pool = ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1))
    try:
        yield from pool.map(lambda name: _decoded(name, read, size, colours), names)
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(name: str, read: Callable[[str], bytes], size: int | None, colours: int) -> _Decoded:
    try:
        with Image.open(io.BytesIO(read(name))) as image:
            upright = ImageOps.exif_transpose(image)
            picture = _in_mode(upright, colours)
            if size is not None and picture.size != (size, size):
                picture = _square(picture, size)
            pixels = np.asarray(picture).reshape(picture.height, picture.width, colours)
            return _Decoded(name, np.moveaxis(pixels, -1, 0), upright.size, image.mode)
    except UnidentifiedImageError:  # its message has a memory address
        return _Decoded(name, reason="not an image")
    except Exception as error:  # damaged files make decoders raise almost anything
        return _Decoded(name, reason=f"{type(error).__name__}: {first_line(error)[:80]}")


def _in_mode(image: Image.Image, colours: int) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no defined white level")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert("RGB" if colours == 3 else "L")


def _square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))  # resize(box=) would also use pixels outside
    return square.resize((size, size), Image.Resampling.LANCZOS)
