"""Images with known factors: 3D-Shapes and MPI3D, from the user's files."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from ..base.errors import ProbeError, first_line, visible, whole
from ..base.files import as_path
from ..base.memory import require_room
from ..base.progress import progress_bar
from ..generator.latents import stream_seed
from .images import NOT_STATED, Images

CHOSEN = 13  # random stream
SHAPES3D = {"floor hue": 10, "wall hue": 10, "object hue": 10, "scale": 8, "shape": 4, "orientation": 15}
# Keyed by the number of images: the three variants of the benchmark, and the one with complex objects.
MPI3D = {
    1_036_800: {
        "object colour": 6,
        "object shape": 6,
        "object size": 2,
        "camera height": 3,
        "background colour": 3,
        "horizontal axis": 40,
        "vertical axis": 40,
    },
    460_800: {
        "object colour": 4,
        "object shape": 4,
        "object size": 2,
        "camera height": 3,
        "background colour": 3,
        "horizontal axis": 40,
        "vertical axis": 40,
    },
}
SUFFIXES = (".h5", ".npz")
_CHUNK = 1024


@dataclass(frozen=True, repr=False)
class Labelled:
    """Images and their factors of variation.

    Attributes:
        images: training data.
        factors: (n, f) integers, counted from 0.
        names: of the factors.
    """

    images: Images
    factors: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return visible(f"Labelled({self.images!r}, factors {', '.join(self.names)})")


def read_labelled(
    path: str | os.PathLike[str],
    *,
    images: int | None = None,
    seed: int = 0,
    terms: str | None = None,
    show_progress: bool = False,
) -> Labelled:
    """3D-Shapes (``3dshapes.h5``; needs h5py) or MPI3D (``mpi3d_toy.npz``, ``…_realistic``, ``…_real``).

    >>> read_labelled("3dshapes.h5", images=20_000).factors.shape  # doctest: +SKIP
    (20000, 6)

    Args:
        images: how many, chosen at random without repetition; by default all, which is 6 to 13 GB.
        seed: for that choice.
        terms: under what terms the images may be used, for the model card.
    """
    file = as_path(path)
    if not file.is_file():
        raise ProbeError(
            f"there is no file {file}; get 3dshapes.h5 or an MPI3D .npz from its authors and give its path"
        )
    if file.suffix not in SUFFIXES:
        raise ProbeError(f"{file.name} is neither .h5 (3D-Shapes) nor .npz (MPI3D); give one of these")
    reader = _Shapes3D if file.suffix == ".h5" else _MPI3D
    with reader.opened(file) as data:
        count = data.count if images is None else min(whole(images, "the number of images", 1), data.count)
        order = np.random.default_rng(stream_seed(seed, CHOSEN, 0)).permutation(data.count)[:count]
        numbers = np.sort(order) if count < data.count else np.arange(count)
        require_room(count * 64 * 64 * 3, f"{count} images of 64×64")
        pixels = torch.empty(count, 3, 64, 64, dtype=torch.uint8)
        with progress_bar(count, "reading images", "image", show_progress) as bar:
            for start, rows in data.rows(numbers):
                pixels[start : start + len(rows)] = torch.from_numpy(np.moveaxis(rows, -1, 1).copy())
                bar.update(len(rows))
        factors = data.factors(numbers)
    part = f"{count} of the {data.count} images" if count < data.count else f"all {count} images"
    return Labelled(Images(pixels, f"{part} of {file.name}", terms or NOT_STATED), factors, tuple(data.sizes))


def _require_images(shape: Sequence[int], dtype: Any, path: Path) -> None:
    if len(shape) != 4 or tuple(shape[1:]) != (64, 64, 3) or dtype != np.uint8:
        raise ProbeError(
            f"the images in {path.name} are {dtype} {tuple(shape)} and (n, 64, 64, 3) bytes are expected; give the "
            "file as its authors published it"
        )


@dataclass
class _Shapes3D:
    file: Any
    path: Path
    count: int
    sizes: Mapping[str, int]

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[_Shapes3D]:
        try:
            import h5py
        except ImportError:
            raise ProbeError(
                f"{path.name} is read by h5py, which is not installed; run: pip install "
                "'counterfactual-probe[shapes3d]'"
            ) from None
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            if "lock" in str(error):
                raise ProbeError(
                    f"{path} is locked by a program that writes it ({first_line(error)}); close that, or set "
                    "HDF5_USE_FILE_LOCKING=FALSE"
                ) from error
            raise ProbeError(f"{path} is not a complete HDF5 file ({first_line(error)}); get it again") from error
        try:
            with file:
                for key in ("images", "labels"):
                    if not isinstance(_found(file, key), h5py.Dataset):
                        held = ", ".join(sorted(file)) or "nothing"
                        raise ProbeError(
                            f"{path.name} holds {held} and no array {key!r}; give 3dshapes.h5 as published"
                        )
                    if not _lies_inside(file, key):
                        raise ProbeError(
                            f"the {key} in {path.name} are kept in another file, which is not opened; give 3dshapes.h5 "
                            "as published"
                        )
                images, labels = file["images"], file["labels"]
                _require_images(images.shape, images.dtype, path)
                if labels.shape != (len(images), len(SHAPES3D)):
                    raise ProbeError(
                        f"the labels in {path.name} are {labels.shape} and {(len(images), len(SHAPES3D))} are expected "
                        f"for {len(images)} images; give 3dshapes.h5 as published"
                    )
                yield cls(file, path, len(images), SHAPES3D)
        except (OSError, RuntimeError, KeyError) as error:  # a damaged block is noticed only when it is read
            raise ProbeError(f"{path} is not a complete HDF5 file ({first_line(error)}); get it again") from error

    def rows(self, numbers: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        for start in range(0, len(numbers), _CHUNK):
            wanted = numbers[start : start + _CHUNK]
            first = int(wanted[0])
            # Reading rows one by one would make HDF5 decode the same block many times.
            block = self.file["images"][first : int(wanted[-1]) + 1] if _dense(wanted) else None
            yield start, block[wanted - first] if block is not None else self.file["images"][wanted]

    def factors(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rank of each value among its column's values: the file has hues, scales and angles as real numbers."""
        table = np.asarray(self.file["labels"])
        if table.dtype.kind not in "iuf":
            raise ProbeError(
                f"the labels in {self.path.name} are {table.dtype} and not numbers; give 3dshapes.h5 as published"
            )
        if not np.isfinite(table).all():
            raise ProbeError(f"some labels in {self.path.name} are not finite; give 3dshapes.h5 as published")
        columns = []
        for (name, size), column in zip(self.sizes.items(), table.T, strict=True):
            values = np.unique(column)
            if len(values) != size:  # with a value missing, ranks would be wrong
                raise ProbeError(
                    f"{name} has {len(values)} values in {self.path.name} and {size} are expected; give 3dshapes.h5 as "
                    "published, the whole file"
                )
            columns.append(np.searchsorted(values, column[numbers]))
        return np.stack(columns, axis=1).astype(np.int64)


def _found(file: Any, key: str) -> Any:
    try:
        return file.get(key)
    except (OSError, KeyError):  # of a link to a file that is not there
        return None


def _lies_inside(file: Any, key: str) -> bool:
    """Whether an array's bytes are the file's own: links and external storage could name any file of this machine."""
    import h5py

    data = file[key]
    return isinstance(file.get(key, getlink=True), h5py.HardLink) and data.external is None and not data.is_virtual


def _dense(wanted: npt.NDArray[np.int64]) -> bool:
    return int(wanted[-1] - wanted[0]) < 8 * len(wanted)


@dataclass
class _MPI3D:
    stream: IO[bytes]
    path: Path
    count: int
    sizes: Mapping[str, int]

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[_MPI3D]:
        try:
            with zipfile.ZipFile(path) as archive:
                if "images.npy" not in archive.namelist():
                    held = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"
                    raise ProbeError(f"{path.name} holds {held} and no 'images'; give a file of MPI3D as published")
                with archive.open("images.npy") as stream:
                    shape, dtype = _array_header(stream, path)
                    _require_images(shape, dtype, path)
                    if shape[0] not in MPI3D:
                        counts = " or ".join(map(str, MPI3D))
                        raise ProbeError(
                            f"{path.name} holds {shape[0]} images and MPI3D has {counts}; give the whole file, since "
                            "factors are derived from an image's position in it"
                        )
                    yield cls(stream, path, shape[0], MPI3D[shape[0]])
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise ProbeError(f"{path} is not a complete .npz file ({first_line(error)}); get it again") from error

    def rows(self, numbers: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Read the compressed file once, in order, without holding all images in memory."""
        each = 64 * 64 * 3
        start = 0
        for first in range(0, self.count, _CHUNK):
            wanted = numbers[start : start + _CHUNK]
            wanted = wanted[wanted < first + _CHUNK]
            wished = min(_CHUNK, self.count - first) * each
            block = self.stream.read(wished)
            if len(block) < wished:
                raise EOFError(f"it ends after {first + len(block) // each} images")
            if len(wanted):
                yield start, np.frombuffer(block, np.uint8).reshape(-1, 64, 64, 3)[wanted - first]
                start += len(wanted)
            if start == len(numbers):
                return

    def factors(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.stack(np.unravel_index(numbers, tuple(self.sizes.values())), axis=1).astype(np.int64)


def _array_header(stream: IO[bytes], path: Path) -> tuple[tuple[int, ...], Any]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError):
        raise
    except Exception as error:  # headers are parsed as Python, by a tokenizer with errors of its own
        raise ProbeError(f"{path.name} holds no plain array of images ({first_line(error)}); get it again") from error
    if fortran:
        raise ProbeError(f"the images in {path.name} are in Fortran order; give the file as its authors published it")
    return shape, dtype
