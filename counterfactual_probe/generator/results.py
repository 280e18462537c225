"""What all results share: they describe themselves, save without pickle, load, and plot themselves."""

from __future__ import annotations

import dataclasses
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

from ..base.display.described import Described, Tabulated
from ..base.display.plot import Plot
from ..base.errors import ProbeError, first_few, first_line
from ..base.files import load_tensors, save_tensors
from ..base.formats.arrays import require_agreement
from ..base.formats.provenance import Provenance
from ..base.formats.schema import OpenSchema, Schema, conform
from ..base.formats.types import Name, Text, Units
from ..base.hub.address import FileAddress, is_on_hub, repository_of, require_file_name
from ..base.hub.client import local_file, push
from .latents import LatentsForm
from .units import UnitSet
from .units.axis import CHANNEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERED = re.compile(r"(module \d+( with \d+)?)?")


class Saved(ABC):
    """``save`` and ``load``: one file, written atomically and without pickle, that says what kind of thing it holds."""

    SUFFIX: ClassVar[str] = ".safetensors"  # of its files on the hub

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a file, atomically; ``load`` of the same class reads it back."""
        return self._write(path)

    def push_to_hub(
        self, repository: str, file: str | None = None, *, private: bool = False, revision: str | None = None
    ) -> str:
        """Write the file into a repository of the Hugging Face hub; gives the address that ``load`` takes.

        >>> maps.push_to_hub("user/name", "maps.safetensors")  # doctest: +SKIP
        'hf:user/name/maps.safetensors'
        >>> cp.InfluenceMaps.load("hf:user/name/maps.safetensors")  # doctest: +SKIP

        The repository is created where there is none, ``private`` or not; other files in it stay. The file is by
        default called after the class, and ``revision`` is a branch that there is.
        """
        kind = type(self).__name__
        name = require_file_name(f"{kind}{self.SUFFIX}" if file is None else file)
        if not name.endswith(self.SUFFIX):
            raise ProbeError(f"the name in the repository is {name!r} and a {kind} is kept in a {self.SUFFIX} file")
        with TemporaryDirectory() as folder:
            written = self.save(Path(folder) / f"result{self.SUFFIX}")
            push(repository, {name: written}, message=f"Add {name}", private=private, revision=revision)
        return FileAddress(repository_of(repository), revision, name).text

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file written by ``save``; a corrupt or foreign file raises a ProbeError.

        ``path`` may be that of a file on the Hugging Face hub, ``"hf:user/name/maps.safetensors"``, also at a revision,
        ``"hf:user/name@v1/maps.safetensors"``.
        """
        try:
            return cls._read(local_file(path) if is_on_hub(path) else path)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise ProbeError(
                f"{path} lacks a part of {cls.__name__} or holds one of another form ({first_line(error)}); "
                "make it again with .save()"
            ) from error

    @abstractmethod
    def _write(self, path: str | os.PathLike[str]) -> Path: ...

    @classmethod
    @abstractmethod
    def _read(cls, path: str | os.PathLike[str]) -> Self: ...


class Result(Described, Tabulated, Saved):
    """Base of the frozen result dataclasses.

    A result prints the values that matter (all of them with ``print``), shows pictures and a table in a notebook, gives
    its rows to ``to_csv``, ``to_json`` and ``to_dataframe``, is written by ``save`` and read by ``load``, and plots
    itself onto given axes.

    A subclass declares what its files must hold: ``SHAPES`` is the form of each array, and of each list that goes with
    arrays (see ``base.formats.arrays``), and ``PROVENANCE`` the schema of ``provenance``.
    """

    SHAPES: ClassVar[Mapping[str, str]] = {}
    ADDED: ClassVar[tuple[str, ...]] = ()  # fields of later versions: None is not written, as it was not then
    PROVENANCE: ClassVar[type[Provenance]] = Provenance

    @abstractmethod
    def plot(self, ax: Axes | None = None) -> Plot[Any]:
        """The figure of the result, on the axes given or on new ones."""

    def _write(self, path: str | os.PathLike[str]) -> Path:
        tensors: dict[str, Tensor] = {}
        header: dict[str, Any] = {"arrays": [], "fields": {}}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is None and field.name in self.ADDED:
                continue
            if field.name == "latents":
                form = LatentsForm.of(value)
                header["latents"] = {"kind": form.kind, "names": form.names}
                tensors |= form.parts(value)
            elif isinstance(value, Tensor):
                tensors[field.name] = value
            elif isinstance(value, np.ndarray):
                tensors[field.name] = torch.from_numpy(np.ascontiguousarray(value))
                header["arrays"].append(field.name)
            elif field.name == "units":
                header["fields"][field.name] = units_to_json(value)
                header |= names_to_json(value)
            else:
                header["fields"][field.name] = value
        return save_tensors(path, type(self).__name__, tensors, header)

    @classmethod
    def _read(cls, path: str | os.PathLike[str]) -> Self:
        tensors, header = load_tensors(path, cls.__name__)
        kept = conform(header, Header)
        if unknown := [name for name in kept.arrays if name not in tensors]:
            raise ValueError(f"it holds no array {unknown[0]!r:.60}")
        values: dict[str, Any] = dict(kept.fields)
        latents = None if kept.latents is None else kept.latents.taken_from(tensors)
        for name, tensor in tensors.items():
            values[name] = tensor.numpy() if name in kept.arrays else tensor
        if "latents" in values:
            raise ValueError("its latents have no form")
        if latents is not None:
            values["latents"] = latents
        if "units" in values:
            kind = kind_of(values.get("provenance"))
            values["units"] = units_from_json(conform(values["units"], Units, "units"), kept.unit_names, kind)
        cls._require_fields(values)
        result = cls(**values)
        if wrong := result._contradiction():
            raise ValueError(wrong)
        return result

    @classmethod
    def _require_fields(cls, values: Mapping[str, Any]) -> None:
        """Raise a ValueError unless all fields are there, of their types, and agree in their shapes."""
        fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := values.keys() - fields.keys():
            raise ValueError(f"it holds an unknown {min(unknown)!r:.60}")
        if missing := [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values]:
            raise ValueError(f"it lacks {missing[0]!r}")
        for name, kind in get_type_hints(cls).items():
            absent = name == "latents" or (values.get(name) is None and type(None) in get_args(kind))
            if name in values and not absent:
                cls._require_field(name, values[name], kind)
        require_agreement(values, cls.SHAPES)

    @classmethod
    def _require_field(cls, name: str, value: Any, kind: Any) -> None:
        """Raise a ValueError unless a field is an array where one is declared, and otherwise of its annotated type."""
        if not cls.SHAPES.get(name, "list ").startswith("list "):
            wanted = Tensor if Tensor in (kind, *get_args(kind)) else np.ndarray
            if not isinstance(value, wanted):
                raise ValueError(f"{name} is a {type(value).__name__} and must be a {wanted.__name__}")
            return  # shapes are compared together
        if isinstance(value, (Tensor, np.ndarray)):
            raise ValueError(f"{name} is a {type(value).__name__} and must be a plain value")
        if kind == tuple[UnitSet, ...]:
            return  # units have been read already
        conform(value, cls.PROVENANCE if name == "provenance" else kind, name)

    def _contradiction(self) -> str | None:
        """What two parts of a loaded result say differently, if anything."""
        units: Sequence[UnitSet] = getattr(self, "units", ())
        layers = getattr(self, "provenance", {}).get("layers") or ()
        strange = [layer for item in units for layer in item if layers and layer not in layers]
        return (
            f"its units are of layer {strange[0]!r:.60} and its provenance of {first_few(layers)}" if strange else None
        )


class Header(Schema):
    """Of a file of a result: which tensors are NumPy's, the fields that are no arrays, and names of unit sets."""

    arrays: list[Name]
    fields: dict[Name, Any]
    unit_names: list[Text] | None = None
    latents: LatentsForm | None = None


class ModulesFile(OpenSchema):
    """The entries that are read of a file which the commands write for ``--modules-file``."""

    modules: Units
    provenance: Provenance | None = None
    ari_between_draws: float | None = None
    agreement_between_draws: dict[str, float | None] | None = None
    expected_ari: float | None = None


def origin(provenance: Mapping[str, Any]) -> str:
    """The generator and the layers that a result is of, in short."""
    about = provenance.get("maps") or provenance  # of modules, whose maps have them
    layers = [str(layer) for layer in about.get("layers") or ()]
    return ", ".join([str(about.get("generator") or "an array"), *([first_few(layers, 2)] if layers else [])])


def kind_of(provenance: Any) -> str:
    """What the units of a result are, as its provenance says, or that of the maps or modules that it was made with;
    channels in files of earlier versions, and of arrays.
    """
    while isinstance(provenance, Mapping):
        if axis := conform(provenance, Provenance, "provenance").axis:
            return axis
        made_with = (provenance.get(name) for name in ("maps", "modules", "first"))
        provenance = next((about for about in made_with if isinstance(about, Mapping)), None)
    return CHANNEL


def units_to_json(units: Sequence[UnitSet]) -> list[dict[str, list[int]]]:
    """The channels of each set, without its name."""
    return [{layer: list(channels) for layer, channels in item.items()} for item in units]


def names_to_json(units: Sequence[UnitSet]) -> dict[str, list[str]]:
    """The sets' names for the header of a file; nothing if the caller gave none.

    The numbers that :class:`ModuleFinder` and :func:`match_modules` use as names by themselves count as none, so that
    such files are, byte for byte, those of earlier versions.
    """
    names = [item.name for item in units]
    return {} if all(_NUMBERED.fullmatch(name) for name in names) else {"unit_names": names}


def units_from_json(
    units: Sequence[dict[str, list[int]]], names: Sequence[str] | None = None, kind: str = CHANNEL
) -> tuple[UnitSet, ...]:
    """The sets, under their names where the file has any."""
    named = names or [""] * len(units)
    return tuple(
        UnitSet({layer: tuple(channels) for layer, channels in item.items()}, str(name), kind)
        for item, name in zip(units, named, strict=True)
    )
