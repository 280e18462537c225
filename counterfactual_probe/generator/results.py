"""What all results share: they print their shape and provenance, save without pickle, and load."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError, first_line
from ..base.files import load_tensors, save_tensors
from .units import UnitSet


class Result:
    """Base of the frozen result dataclasses: ``save``, ``load`` and a one-line ``repr``."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file, atomically; ``load`` of the same class reads it back."""
        tensors: dict[str, Tensor] = {}
        header: dict[str, Any] = {"arrays": [], "fields": {}}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                tensors[field.name] = value
            elif isinstance(value, np.ndarray):
                tensors[field.name] = torch.from_numpy(np.ascontiguousarray(value))
                header["arrays"].append(field.name)
            elif field.name == "units":
                header["fields"][field.name] = units_to_json(value)
            else:
                header["fields"][field.name] = value
        return save_tensors(path, type(self).__name__, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file written by ``save``; a corrupt or foreign file raises a ProbeError."""
        tensors, header = load_tensors(path, cls.__name__)
        try:
            values: dict[str, Any] = dict(header["fields"])
            if "units" in values:
                values["units"] = units_from_json(values["units"])
            for name, tensor in tensors.items():
                values[name] = tensor.numpy() if name in header["arrays"] else tensor
            return cls(**values)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise ProbeError(
                f"{path} lacks a part of {cls.__name__} or holds one of another form ({first_line(error)}); "
                "make it again with .save()"
            ) from error

    def __repr__(self) -> str:
        parts = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, (Tensor, np.ndarray)):
                parts.append(f"{field.name} {tuple(value.shape)}")
        provenance = getattr(self, "provenance", {})
        about = [
            f"{key} {value}"
            for key in ("generator", "layers", "seed", "n_pairs")
            if (value := provenance.get(key)) is not None
        ]
        return f"{type(self).__name__}({', '.join(parts)}; {', '.join(about) or 'no provenance'})"


def units_to_json(units: Sequence[UnitSet]) -> list[dict[str, list[int]]]:
    return [{layer: list(channels) for layer, channels in item.items()} for item in units]


def units_from_json(units: Sequence[dict[str, list[int]]]) -> tuple[UnitSet, ...]:
    return tuple(UnitSet({layer: tuple(channels) for layer, channels in item.items()}) for item in units)
