"""Units that are features: codes of a layer's activation, under a basis or a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...base.caller import blamed_on
from ...base.errors import ProbeError
from ..latents import fingerprint
from ..layers.dimensions import axes as ax
from ..layers.info import LayerInfo
from ..state.contents.reachable import reachable
from .axis import FEATURE, Coordinates

_ALONE = 1e-3  # of the largest code: far above rounding in float32, also of a threshold's neighbours


class Basis(Protocol):
    """What ``features=`` takes. Activations are as the layer gives them; codes have features in place of channels, or
    are (samples, features).
    """

    def encode(self, activations: Tensor) -> Tensor: ...

    def decode(self, codes: Tensor) -> Tensor: ...


class Features(Coordinates):
    """Features of a layer. What the basis does not explain of an activation stays as it is.

    Attributes:
        basis: the user's object, or one of ours.
        codes_as: the codes as a layer, whose channels are the features.
        shown: (samples, features + channels) means over positions of codes and what they decode to, of the example.
        directions: (features, channels) if a unit of a code adds this to its position, or (features, channels,
            *positions) if it adds that to the activation; None if nothing says so.
    """

    def __init__(self, layer: LayerInfo, basis: Basis, example: Tensor) -> None:
        """``example`` is an activation, (samples, channels, …)."""
        place = getattr(basis, "for_layer", None)
        basis = place(layer) if callable(place) else basis
        object.__setattr__(self, "basis", basis)
        activation = layer.as_before(example)
        codes = _encoded(basis, activation, layer)
        object.__setattr__(self, "codes_as", _as_layer(layer, codes, len(example), activation.dim()))
        super().__init__(layer, FEATURE, self.codes_as.channels)
        decoded = self.decode(self.codes(example))  # raises what a run would
        self._require_independent(example)
        if not bool(torch.isfinite(decoded).all()):
            raise ProbeError(f"features decode to NaN or infinite values of layer {layer.name!r}; fit them again")
        object.__setattr__(self, "directions", self._directions(getattr(basis, "directions", None)))
        means = [value.flatten(2).mean(2) if value.dim() > 2 else value for value in (self.codes(example), decoded)]
        object.__setattr__(self, "shown", torch.cat(means, 1).to("cpu", torch.float64))

    basis: Basis
    shown: Tensor
    codes_as: LayerInfo
    directions: Tensor | None

    def digest(self) -> str:
        """SHA-256 of all tensors and arrays that the basis holds."""
        held = reachable([self.basis, getattr(self.basis, "__dict__", None)])
        arrays = [
            torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8) for array in held.arrays if array.size
        ]
        return fingerprint({str(place): value for place, value in enumerate([*held.tensors, *arrays])})

    def _directions(self, given: Any) -> Tensor | None:
        size = self.codes_as.size
        form = (self.count, self.layer.channels, *(() if size == self.layer.size else self.layer.size))
        fits = isinstance(given, Tensor) and tuple(given.shape) == form and size in ((), self.layer.size)
        return given if fits else None

    def _require_independent(self, example: Tensor) -> None:
        """Raise a ProbeError if the code of a sample depends on the others of its batch."""
        together, alone = self.codes(example)[:1], self.codes(example[:1])
        if float((together - alone).abs().max()) > _ALONE * max(1.0, float(alone.abs().max())):
            raise ProbeError(
                f"features.encode gives another code for a sample of layer {self.layer.name!r} alone than in a batch; "
                "use an encoder of one sample at a time (of a batch-wise top-k, the threshold that it has learnt)"
            )

    @property
    def of_whole(self) -> bool:
        """Whether a code has no positions, and so is of the whole activation."""
        return self.codes_as.size != self.layer.size

    def codes(self, view: Tensor) -> Tensor:
        codes = _encoded(self.basis, self.layer.as_before(view), self.layer)
        try:
            first = self.codes_as.channels_first(codes)
        except (RuntimeError, IndexError):
            first = codes
        if tuple(first.shape) != (len(view), self.count, *self.codes_as.size):
            raise ProbeError(
                f"features.encode gives codes {tuple(codes.shape)} of {len(view)} samples of layer "
                f"{self.layer.name!r}, and gave {(self.count, *self.codes_as.size)} of one before; a code must depend "
                "on its own sample alone"
            )
        return first

    def decode(self, codes: Tensor) -> Tensor:
        """The activation that codes (samples, features, …) stand for, (samples, channels, …)."""
        given = self.codes_as.as_before(codes)
        cure = f"call it on a tensor of shape {tuple(given.shape)} by itself to see why"
        with blamed_on("features.decode", cure):
            decoded = self.basis.decode(given)
        wanted = tuple(self.layer.as_before(codes.new_empty(len(codes), self.layer.channels, *self.layer.size)).shape)
        if not isinstance(decoded, Tensor) or tuple(decoded.shape) != wanted:
            shape = tuple(decoded.shape) if isinstance(decoded, Tensor) else type(decoded).__name__
            raise ProbeError(
                f"features.decode gives {shape} and layer {self.layer.name!r} is {wanted}; make it give that"
            )
        return self.layer.channels_first(decoded)


def _encoded(basis: Any, activation: Tensor, layer: LayerInfo) -> Tensor:
    cure = f"call it on an activation of layer {layer.name!r}, {tuple(activation.shape)}, by itself to see why"
    with blamed_on("features.encode", cure):
        codes = basis.encode(activation.clone())  # which may work in place
    if not isinstance(codes, Tensor) or not codes.is_floating_point():
        kind = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise ProbeError(f"features.encode gives {kind} where codes are needed; make it give a tensor of floats")
    return codes


def _as_layer(layer: LayerInfo, codes: Tensor, samples: int, dims: int) -> LayerInfo:
    """Codes as a layer of the same axes, or of vectors."""
    if codes.dim() == 2 and len(codes) == samples:
        return LayerInfo(layer.name, codes.shape[1], ())
    axes: Sequence[Any] = ax.parse(layer.axes).dims
    if codes.dim() == dims:
        try:
            bound = ax.Axes(tuple(axes)).bound(codes.shape, samples)
            return LayerInfo(layer.name, *bound.channels_and_size, str(bound))
        except ValueError:
            pass
    raise ProbeError(
        f"features.encode gives codes {tuple(codes.shape)} of {samples} samples of layer {layer.name!r}; give "
        f"({layer.axes}) with features in place of channels, or (samples, features)"
    )


def require_basis(basis: Any, layer: LayerInfo, weights_hash: str) -> None:
    """Raise a ProbeError unless this can encode and decode, and was made for this layer of this generator."""
    if not callable(getattr(basis, "encode", None)) or not callable(getattr(basis, "decode", None)):
        raise ProbeError(
            f"features are a {type(basis).__name__}; give an object with encode(activations) and decode(codes), such "
            "as cp.bases.PCA(64).fit(generator, layer)"
        )
    origin = getattr(basis, "origin", None)
    if not origin:
        return
    if origin["layer"] != layer.name:
        raise ProbeError(f"features are of layer {origin['layer']!r} and asked of {layer.name!r}; fit them there")
    if origin["weights_sha256"] != weights_hash:
        raise ProbeError(
            f"features are of a generator of weights {origin['weights_sha256'][:12]}… and this one's are "
            f"{weights_hash[:12]}…; fit them on this generator"
        )
