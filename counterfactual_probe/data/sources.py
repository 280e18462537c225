"""Training data by name or as an object, and a cache file of decoded images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors
from torch import Tensor

from ..base.errors import ProbeError, first_few, first_line, whole
from ..base.files import as_path, load_header, save_tensors
from ..base.formats.arrays import require_agreement
from ..base.formats.schema import Schema, conform
from ..base.formats.types import Name, Text
from ..generator.adapter import GeneratorAdapter
from .generated import PREFIX, generated
from .images import NOT_STATED, Images
from .labelled import SUFFIXES, read_labelled
from .scene import SCENE, Scene

KIND = "Images"
Data: TypeAlias = str | os.PathLike[str] | Tensor | npt.NDArray[Any] | GeneratorAdapter | Images


class CacheHeader(Schema):
    """Of a file of decoded images: what was asked for, and all that :class:`Images` holds beside arrays."""

    asked: dict[Name, Any]
    source: Text
    terms: Text
    generated: bool
    notes: list[Text]
    unreadable: list[Text]
    classes: list[Text] | None = None  # a file of an earlier version says nothing about them

    def images(self, arrays: Mapping[str, Tensor]) -> Images:
        """The images; a ValueError unless the arrays are there and agree with each other and with the classes."""
        if "pixels" not in arrays:
            raise ValueError("it lacks 'pixels'")
        kind = "float" if arrays["pixels"].is_floating_point() else "count"
        require_agreement(arrays, {"pixels": f"{kind} n C H W", "labels": "count n"})
        labels, classes = arrays.get("labels"), tuple(self.classes or ())
        if classes and labels is not None and len(labels) and len(classes) <= int(labels.max()):
            raise ValueError(f"labels go up to {int(labels.max())} and {len(classes)} classes are named")
        return Images(
            arrays["pixels"],
            self.source,
            self.terms,
            self.generated,
            tuple(self.notes),
            tuple(self.unreadable),
            labels,
            classes,
        )


def open_images(
    data: Data,
    *,
    size: int | None = None,
    colours: int | None = None,
    images: int | None = None,
    seed: int = 0,
    terms: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    skip_unreadable: bool = False,
    show_progress: bool = False,
) -> Images:
    """Training images from a folder or zip of pictures, a generator, the scene, a file or an array.

    >>> from counterfactual_probe.data import open_images
    >>> open_images("generator:dcgan-faces", images=4)
    Images(4 of 3×64×64, from 4 samples of the generator dcgan-faces (seed 0))

    Args:
        data: a path; ``generator:`` followed by anything that ``cp.load`` accepts; ``scene`` (:class:`Scene`; write
            ``./scene`` for a folder of that name); a generator; or an array (n, C, H, W) of bytes or of floats in
            −1…1. Files are .npy arrays, 3D-Shapes (.h5) and MPI3D (.npz).
        size: side of the square images; pictures and samples are resized to it.
        colours: 3, or 1 for grey; pictures are converted (3 by default).
        images: number of images; for a generator or the scene how many to make, for other data the maximum.
        terms: under what terms the data may be used, for the model card.
        cache: a file in which the decoded images are stored, and from which they are mapped the next time.
        skip_unreadable: leave out pictures of a folder or zip that cannot be decoded; ``.notes`` and ``.unreadable``
            list them.

    Raises:
        ProbeError: there is nothing to read; a picture cannot be decoded; images have several sizes and ``size`` is
            missing; an array has another size.
    """
    size = None if size is None else whole(size, "size", 1)
    images = None if images is None else whole(images, "the number of images", 1)
    if colours not in (None, 1, 3):
        raise ProbeError(f"colours is {colours!r}; give 3, or 1 for grey")
    request = {
        "data": _data_name(data),
        "size": size,
        "colours": colours,
        "images": images,
        "seed": seed,
        "terms": terms,
    }
    if cache is not None and as_path(cache).exists():
        return _all_of(data, _mapped(as_path(cache), request), skip_unreadable, cache)
    opened = _read(data, size=size, colours=colours, images=images, seed=seed, terms=terms, show=show_progress)
    if cache is None:
        return _all_of(data, opened, skip_unreadable, None)
    about = {"source": opened.source, "terms": opened.terms, "generated": opened.generated}
    kept = {**about, "notes": opened.notes, "unreadable": opened.unreadable}
    tensors = {"pixels": opened.pixels} | ({} if opened.labels is None else {"labels": opened.labels})
    save_tensors(cache, KIND, tensors, {"asked": request, **kept, "classes": opened.classes})
    return _all_of(data, opened, skip_unreadable, cache)


def _read(
    data: Data,
    *,
    size: int | None,
    colours: int | None,
    images: int | None,
    seed: int,
    terms: str | None,
    show: bool,
) -> Images:
    name = os.fspath(data) if isinstance(data, (str, os.PathLike)) else None
    if isinstance(data, GeneratorAdapter) or (name is not None and name.startswith(PREFIX)):
        generator = data if isinstance(data, GeneratorAdapter) else str(name).removeprefix(PREFIX)
        opened = generated(generator, images, seed=seed, size=size, terms=terms, show_progress=show)
        return _require(opened, None, colours)
    if name == SCENE:
        if images is None:
            raise ProbeError("the number of images of the scene to render is missing; give images=, or --images")
        opened = Scene(size or 64).images(images, seed=seed, show_progress=show)
        return _require(_with_terms(terms, opened), size, colours)
    if name is not None and name.endswith(SUFFIXES):
        opened = read_labelled(name, images=images, seed=seed, terms=terms, show_progress=show).images
        return _require(opened, size, colours)
    if name is not None and not name.endswith(".npy"):
        from .pictures import read_pictures

        return read_pictures(name, size=size, colours=colours or 3, most=images, terms=terms, show_progress=show)
    if isinstance(data, Images):
        given = _with_terms(terms, data)
    else:
        given = Images(data if name is None else _load_npy(name), Path(name or "an array").name, terms or NOT_STATED)  # type: ignore[arg-type]
    if images is not None and images < len(given):
        given = dataclasses.replace(
            given,
            pixels=given.pixels[:images],
            source=f"the first {images} of {given.source}",
            labels=None if given.labels is None else given.labels[:images],
        )
    return _require(given, size, colours)


def _all_of(data: Data, images: Images, skip_unreadable: bool, cache: str | os.PathLike[str] | None) -> Images:
    """Return the images; raise if unreadable files were dropped without ``skip_unreadable``."""
    left_out = 0 if isinstance(data, Images) else len(images.unreadable)
    if left_out and not skip_unreadable:
        mended = "" if cache is None else f" and delete {os.fspath(cache)}"
        raise ProbeError(
            f"{left_out} of {len(images) + left_out} images in {_data_name(data)} cannot be read: "
            f"{first_few(images.unreadable)}; repair or remove them{mended}, or leave them out with "
            "skip_unreadable=True, or --skip-unreadable"
        )
    return images


def _with_terms(terms: str | None, images: Images) -> Images:
    return images if terms is None else dataclasses.replace(images, terms=terms)


def _require(images: Images, size: int | None, colours: int | None) -> Images:
    have = "×".join(map(str, images.size[1:]))
    if size is not None and images.size[1:] != (size, size):
        raise ProbeError(f"the images are {have} and size is {size}×{size}; resize the array, or leave size out")
    if colours not in (None, images.size[0]):
        raise ProbeError(f"the images have {images.size[0]} colours and colours is {colours}; convert them first")
    return images


def _load_npy(path: str) -> npt.NDArray[Any]:
    try:
        # Copy-on-write: memory-mapped, and still writable, which torch requires.
        array: npt.NDArray[Any] = np.load(as_path(path), mmap_mode="c", allow_pickle=False)
    except Exception as error:  # its reader parses a header as Python, and raises what its tokenizer does
        raise ProbeError(f"{path} holds no array ({first_line(error)}); give one written by numpy.save") from error
    return array


def _data_name(data: Data) -> str:
    if isinstance(data, (str, os.PathLike)):
        return os.fspath(data)
    if isinstance(data, GeneratorAdapter):
        return f"{data.name} {data.weights_hash()}"
    return (data if isinstance(data, Images) else Images(data)).fingerprint()  # type: ignore[arg-type]


def _mapped(path: Path, request: dict[str, Any]) -> Images:
    header = load_header(path, KIND)
    try:
        kept = conform(header, CacheHeader)
        for key, value in request.items():
            if kept.asked.get(key) != value:
                raise ProbeError(
                    f"{path} is the cache of other images: its {key} is {kept.asked.get(key)!r:.80} and not {value!r}; "
                    "give another file as cache, or delete it"
                )
        with safetensors.safe_open(path, "pt") as file:
            arrays = {name: file.get_tensor(name) for name in ("pixels", "labels") if name in file.keys()}  # noqa: SIM118 (no mapping)
        return kept.images(arrays)
    except (ValueError, safetensors.SafetensorError) as error:
        raise ProbeError(
            f"{path} was damaged, or edited ({first_line(error)}); delete it, and the images are decoded again"
        ) from error
