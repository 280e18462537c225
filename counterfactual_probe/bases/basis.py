"""What all bases share: activations as rows of channels, codes as rows of features, and where a basis is from."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..base.display.described import Described
from ..base.display.description import Description
from ..base.display.text import counted
from ..base.errors import ProbeError
from ..base.files import load_tensors, save_tensors
from ..base.formats.provenance import Provenance
from ..base.formats.schema import Schema, conform
from ..base.formats.types import Count, Name
from ..generator.adapter import GeneratorAdapter
from ..generator.layers.dimensions import axes as ax
from ..generator.layers.info import LayerInfo
from ..generator.results import Saved


class Basis(Described, Saved):
    """Features of a layer: what ``features=`` of :class:`Hybridizer` and :class:`InfluenceMap` takes.

    ``encode`` takes activations as the layer gives them, (n, C, H, W) or (n, T, C), or rows (n, C), and gives codes
    with features in place of channels; ``decode`` takes such codes.

    Attributes:
        layer: the layer that it was made for; None for any.
        provenance: where it is from: generator, weights, layer, seed, number of samples.
    """

    def __init__(self) -> None:
        self.layer: LayerInfo | None = None
        self.provenance: dict[str, Any] = {"basis": type(self).__name__}

    @property
    def origin(self) -> dict[str, Any] | None:
        """The layer and the hash of the weights that it was made for, which a swap must be of; None for any."""
        if self.layer is None or "weights_sha256" not in self.provenance:
            return None
        return {"layer": self.layer.name, "weights_sha256": self.provenance["weights_sha256"]}

    def encode(self, activations: Tensor) -> Tensor:
        """The codes of activations."""
        return self._by_row(activations, self._codes)

    def decode(self, codes: Tensor) -> Tensor:
        """The activations of codes."""
        return self._by_row(codes, self._activations)

    @abstractmethod
    def _codes(self, rows: Tensor) -> Tensor:
        """(rows, features) of (rows, channels)."""

    @abstractmethod
    def _activations(self, codes: Tensor) -> Tensor:
        """(rows, channels) of (rows, features)."""

    def _by_row(self, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        if values.dim() == 2:
            return function(values)
        dim = self._channel_dim(values.dim())
        last = values.movedim(dim, -1)
        made = function(last.reshape(-1, last.shape[-1]))
        return made.view(*last.shape[:-1], made.shape[-1]).movedim(-1, dim)

    def _channel_dim(self, dims: int) -> int:
        if self.layer is not None and len(ax.parse(self.layer.axes).dims) == dims:
            return self.layer.channel_dim
        return ax.standing(dims).channel_dim

    def for_layer(self, layer: LayerInfo) -> Basis:
        """The same basis for activations of this layer."""
        if self.layer is not None:
            return self
        placed = self._copy()
        placed.layer = layer
        return placed

    def of(self, generator: GeneratorAdapter, layer: str) -> Self:
        """The same basis as one of this layer of this generator, which a swap then checks."""
        placed = self._copy()
        placed._settle(generator, generator.layer(layer))
        return placed

    def _copy(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.provenance = dict(self.provenance)
        return made

    def _settle(self, generator: GeneratorAdapter, layer: LayerInfo, **about: Any) -> None:
        """Note where the basis is from."""
        self.layer = layer
        self.provenance = {**generator.provenance(), "basis": type(self).__name__, "layers": [layer.name], **about}

    @property
    @abstractmethod
    def shape(self) -> tuple[int | None, int | None]:
        """Number of features, and of channels; None where it is not known yet."""

    def describe(self) -> Description:
        """How many features of how many channels, and of which layer."""
        features, channels = (
            f"any number of {noun}s" if size is None else counted(size, noun)
            for size, noun in zip(self.shape, ("feature", "channel"), strict=True)
        )
        where = f"{self.provenance.get('generator', 'any generator')}, {self.layer.name}" if self.layer else "any layer"
        about = f"{where}: {features} of {channels}"
        facts = [(name, str(self.provenance[name])) for name in ("n_samples", "seed") if name in self.provenance]
        return Description(type(self).__name__, about, facts=tuple(facts), page="what-can-be-a-unit")


class BasisHeader(Schema):
    """Of a file of a basis: the layer, and where it is from."""

    provenance: Provenance
    layer: Name | None = None
    channels: Count | None = None
    size: list[Count] | None = None
    axes: Name | None = None

    def info(self) -> LayerInfo | None:
        if self.layer is None or self.channels is None or self.size is None or self.axes is None:
            return None
        ax.parse(self.axes).sized(self.channels, self.size)
        return LayerInfo(self.layer, self.channels, tuple(self.size), self.axes)


class LinearBasis(Basis):
    """A basis whose decoder is linear, and whose encoder may be.

    Attributes:
        directions: (features, channels) what a unit of each feature adds; of features of whole activations, (features,
            channels, *positions).
        readers: (channels, features) how codes are read off activations, about ``mean``; None if that is not linear.
        mean: (channels,) the activation of a code of zeros.
    """

    directions: Tensor
    readers: Tensor | None
    mean: Tensor

    @property
    def shape(self) -> tuple[int | None, int | None]:
        if not hasattr(self, "directions"):
            return None, None
        return len(self.directions), self.directions.shape[1]

    def _set(self, directions: Tensor, readers: Tensor | None, mean: Tensor) -> None:
        self.directions, self.readers, self.mean = directions.double(), readers, mean.double()
        if readers is not None:
            self.readers = readers.double()

    @property
    def of_whole(self) -> bool:
        """Whether features are of whole activations, not of each position's channels."""
        return self.directions.dim() > 2

    def encode(self, activations: Tensor) -> Tensor:
        self._require()
        if not self.of_whole or activations.dim() == 2:
            return super().encode(activations)
        return self._codes(self._first(activations).flatten(1))

    def decode(self, codes: Tensor) -> Tensor:
        self._require()
        if not self.of_whole:
            return super().decode(codes)
        flat = self._activations(codes).view(len(codes), *self.directions.shape[1:])
        return flat if self.layer is None else self.layer.as_before(flat)

    def _first(self, activations: Tensor) -> Tensor:
        """(n, channels, *positions) of whole activations."""
        if tuple(activations.shape[1:]) == tuple(self.directions.shape[1:]) or self.layer is None:
            return activations
        return self.layer.channels_first(activations)

    def _require(self) -> None:
        if not hasattr(self, "directions"):
            raise ProbeError(f"{type(self).__name__} is not fitted; call .fit(generator, layer) first")

    def _codes(self, rows: Tensor) -> Tensor:
        if self.readers is None:
            raise ProbeError(f"{type(self).__name__} has no linear encoder")
        mean = self.mean.flatten().to(rows)
        if rows.shape[1] != len(mean):
            raise ProbeError(f"activations have {rows.shape[1]} channels and the basis {len(mean)}; give it those")
        return (rows - mean) @ self.readers.to(rows)

    def _activations(self, codes: Tensor) -> Tensor:
        if codes.shape[1] != len(self.directions):
            raise ProbeError(
                f"codes have {codes.shape[1]} features and the basis {len(self.directions)}; give it those"
            )
        return codes @ self.directions.flatten(1).to(codes) + self.mean.flatten().to(codes)

    def _write(self, path: str | os.PathLike[str]) -> Path:
        self._require()
        tensors = {"directions": self.directions, "mean": self.mean}
        if self.readers is not None:
            tensors["readers"] = self.readers
        info = self.layer
        layer = {} if info is None else {
            "layer": info.name, "channels": info.channels, "size": list(info.size), "axes": info.axes
        }  # fmt: skip
        return save_tensors(path, type(self).__name__, tensors, {"provenance": self.provenance, **layer})

    @classmethod
    def _read(cls, path: str | os.PathLike[str]) -> Self:
        tensors, header = load_tensors(path, cls.__name__)
        kept = conform(header, BasisHeader)
        basis = cls._empty()
        basis.provenance, basis.layer = dict(header["provenance"]), kept.info()
        directions, mean, readers = tensors["directions"], tensors["mean"], tensors.get("readers")
        channels, features = directions.shape[1:], len(directions)
        if directions.dim() < 2 or tuple(mean.shape) != tuple(channels) or not features or not prod(channels):
            raise ValueError(f"directions are {tuple(directions.shape)} and mean {tuple(mean.shape)}")
        info, sizes = basis.layer, tuple(channels)
        if info is not None and sizes not in ((info.channels,), (info.channels, *info.size)):
            raise ValueError(f"directions are {tuple(directions.shape)} and its layer has {info.channels} channels")
        if readers is not None and tuple(readers.shape) != (prod(channels), features):
            raise ValueError(f"readers are {tuple(readers.shape)} for {features} features")
        if not all(value.is_floating_point() and bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise ValueError("it holds NaN, infinite values or no floating-point numbers")
        basis._set(directions, readers, mean)
        return basis

    @classmethod
    def _empty(cls) -> Self:
        basis = object.__new__(cls)
        Basis.__init__(basis)
        return basis
