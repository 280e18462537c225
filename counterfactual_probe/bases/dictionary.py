"""Features of a dictionary or a sparse autoencoder, an nn.Module with ``encode`` and ``decode``."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..base.caller import blamed_on
from ..base.errors import ProbeError
from ..base.files import load_tensors, save_tensors
from ..base.formats.schema import conform
from .basis import Basis, BasisHeader

_ROWS = 4096  # encoded at a time
_LINEAR_WITHIN = 1e-5


class Dictionary(Basis):
    """The features of a dictionary, such as a sparse autoencoder's of the ``overcomplete`` package.

    >>> features = cp.bases.Dictionary(sae)  # doctest: +SKIP
    >>> cp.Hybridizer(gen, "blocks.3", features=features).hybridize(z1, z2)  # doctest: +SKIP

    Args:
        module: with ``encode`` of rows (n, channels) to codes (n, features), or to a tuple whose last entry they are,
            and ``decode`` of codes to rows. It is copied, and run in eval mode.

    Attributes:
        directions: (features, channels) what a unit of each feature adds, if the decoder is found to be linear; None if
            it is not, or as long as nothing has been encoded.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not isinstance(module, nn.Module) or not all(
            callable(getattr(module, name, None)) for name in ("encode", "decode")
        ):
            raise ProbeError(
                f"the dictionary is a {type(module).__name__}; give an nn.Module with encode(rows) and decode(codes)"
            )
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.directions: Tensor | None = None
        self._place: tuple[torch.device, torch.dtype] | None = None
        self._features: int | None = None
        self._channels: int | None = None

    @property
    def shape(self) -> tuple[int | None, int | None]:
        return self._features, self._channels

    def _codes(self, rows: Tensor) -> Tensor:
        codes = self._run("encode", rows)
        if isinstance(codes, (tuple, list)) and codes:
            codes = codes[-1]
        if not isinstance(codes, Tensor) or codes.dim() != 2 or len(codes) != len(rows):
            shape = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
            raise ProbeError(f"the dictionary encodes {tuple(rows.shape)} to {shape}; make it give (n, features)")
        if self._features is None:
            self._features, self._channels = codes.shape[1], rows.shape[1]
            self.directions = self._linear(codes)
        return codes.to(rows)

    def _activations(self, codes: Tensor) -> Tensor:
        rows = self._run("decode", codes)
        if not isinstance(rows, Tensor) or rows.dim() != 2 or len(rows) != len(codes):
            shape = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ProbeError(f"the dictionary decodes {tuple(codes.shape)} to {shape}; make it give (n, channels)")
        return rows.to(codes)

    def _run(self, what: str, rows: Tensor) -> Any:
        if self._place != (rows.device, rows.dtype):
            # Some keep what they derive from their weights, from the change to eval mode on.
            self.module.to(rows.device, rows.dtype).train().eval()
            self._place = rows.device, rows.dtype
        cure = f"call it on a tensor of shape {tuple(rows.shape)} by itself to see why"
        with blamed_on(f"the dictionary's {what}", cure), torch.no_grad():
            return getattr(self.module, what)(rows)

    def _linear(self, codes: Tensor) -> Tensor | None:
        """What a unit of each feature adds, if decoding is found to be linear."""
        zero, unit = codes.new_zeros(1, codes.shape[1]), torch.eye(codes.shape[1]).to(codes)
        start = self._activations(zero)
        directions = self._activations(unit) - start
        tried = codes[:64] + torch.linspace(-1, 1, codes.shape[1]).to(codes)
        gap = (self._activations(tried) - start - tried @ directions).abs().max()
        scale = max(1e-30, float(directions.abs().max() * tried.abs().sum(1).max()))
        return directions.double() if float(gap) <= _LINEAR_WITHIN * scale else None

    def _write(self, path: str | os.PathLike[str]) -> Path:
        info = self.layer
        layer = {} if info is None else {
            "layer": info.name, "channels": info.channels, "size": list(info.size), "axes": info.axes
        }  # fmt: skip
        tensors = {name: value.clone() for name, value in self.module.state_dict().items()}
        return save_tensors(path, type(self).__name__, tensors, {"provenance": self.provenance, **layer})

    @classmethod
    def load(cls, path: str | os.PathLike[str], module: nn.Module | None = None) -> Self:
        """Read the weights of a dictionary into a copy of ``module``, whose code no file holds."""
        if module is None:
            raise ProbeError(f"{path} holds the weights of a dictionary; give the module they are for, too")
        return cls._read_into(path, module)

    @classmethod
    def _read_into(cls, path: str | os.PathLike[str], module: nn.Module) -> Self:
        basis = cls(module)
        tensors, header = load_tensors(path, cls.__name__)
        try:
            kept = conform(header, BasisHeader)
            basis.provenance, basis.layer = dict(header["provenance"]), kept.info()
            basis.module.load_state_dict(tensors)
            basis._place = None
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise ProbeError(f"{path} holds no weights of this dictionary ({lines[-1].strip()[:120]})") from error
        return basis

    @classmethod
    def _read(cls, path: str | os.PathLike[str]) -> Self:
        raise ProbeError(f"{path} holds the weights of a dictionary; give the module they are for, too")
