"""The operations that a program is simplified to: convolutions and affine maps of channels.

Each is called like any tensor operation, and says of what ``kind`` it is, and whether its result is ``fresh``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...generator.layers import LayerInfo
from .program import Op, Ref, outputs
from .vocabulary import arguments_of


@dataclass(frozen=True)
class Affine:
    """x · scale + shift; both have one value for each channel, of each sample or of all."""

    kind = "affine"
    fresh = True

    def __call__(self, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        if scale is None:
            return x if shift is None else x + shift
        return x * scale if shift is None else torch.addcmul(shift, x, scale)


@dataclass(frozen=True)
class Edit:
    """The place where a layer's channels are set. In a clean run it hands on what it gets."""

    info: LayerInfo
    kind = "edit"

    @property
    def layer(self) -> str:
        return self.info.name

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Convolution:
    """A convolution of images, transposed or not, of a kernel in torch's own layout."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    transposed: bool = False
    output_padding: tuple[int, int] = (0, 0)
    groups: int = 1
    kind = "convolution"
    fresh = True

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.transposed:
            return F.conv_transpose2d(
                x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    @property
    def out_axis(self) -> int:
        """The dimension of the kernel that belongs to output channels (with one group)."""
        return 1 if self.transposed else 0

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The kernel, every output channel times ``scale`` (channels,)."""
        if not self.transposed:
            return weight * scale[:, None, None, None]
        inputs, outputs, *size = weight.shape
        grouped = weight.view(self.groups, inputs // self.groups, outputs, *size)
        return (grouped * scale.view(self.groups, 1, outputs, 1, 1)).view_as(weight)

    def difference(self, change: Tensor, weight: Tensor) -> Tensor:
        """What the output changes by when channels of the input do: a kernel for each row.

        ``change`` is (rows, m, H, W) and ``weight`` the kernels of each row's channels, (rows, m,
        outputs, kh, kw).
        """
        rows, m, outputs, *size = weight.shape
        if self.transposed:
            stacked = F.conv_transpose2d(
                change.reshape(1, rows * m, *change.shape[2:]),
                weight.flatten(0, 1),
                None,
                self.stride,
                self.padding,
                self.output_padding,
                rows,
                self.dilation,
            )
            return stacked.reshape(rows, outputs, *stacked.shape[2:])
        patches = F.unfold(change, tuple(size), self.dilation, self.padding, self.stride)  # (rows, m · taps, places)
        kernels = weight.transpose(2, 1).reshape(rows, outputs, -1).transpose(1, 2)
        height = _size(change.shape[2], size[0], self.stride[0], self.padding[0], self.dilation[0])
        by_pixel = torch.bmm(patches.transpose(1, 2), kernels)
        return by_pixel.view(rows, height, -1, outputs).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class EachSample:
    """A loop over samples: the same operations on one row after the other, and their results joined.

    Called with values of which each sample has a row, and then with those that all samples share.

    Attributes:
        body: the operations; values are numbered from the arguments on.
        drops: for each of the first arguments, whether a row is taken without the dimension of samples, as ``x[i]``.
        result: the number of what the body makes.
        stacks: whether results get a dimension of samples; otherwise they have it, and are concatenated.
    """

    body: tuple[Op, ...]
    drops: tuple[bool, ...]
    result: int
    stacks: bool
    kind = "each_sample"
    fresh = True

    def __call__(self, *values: Tensor) -> Tensor:
        results = [self._of(sample, values) for sample in range(len(values[0]))]
        return torch.stack(results) if self.stacks else torch.cat(results)

    def _of(self, sample: int, values: tuple[Tensor, ...]) -> Tensor:
        at = dict(enumerate(values))
        for place, drops in enumerate(self.drops):
            at[place] = values[place][sample] if drops else values[place][sample : sample + 1]
        for op in self.body:
            at.update(outputs(op, op(at, 1)))
        return at[self.result]


def _size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def arguments(op: Op) -> dict[str, Any]:
    """The arguments of a torch operation by name, defaults included."""
    return arguments_of(op.run, op.args, op.kwargs)


def canonical(op: Op, shapes: Mapping[int, tuple[Any, ...]]) -> Op:
    """A convolution of images as :class:`Convolution`; anything else as it is."""
    if op.kind not in ("conv2d", "conv_transpose2d", "convolution"):
        return op
    given = arguments(op)
    refs = isinstance(given["input"], Ref) and isinstance(given["weight"], Ref)
    # As many groups as samples: see modulation.py.
    if not isinstance(given["groups"], int):
        return op
    if isinstance(given["padding"], str) or not refs or len(shapes[given["input"].number]) != 4:
        return op
    run = Convolution(
        _pair(given["stride"]),
        _pair(given["padding"]),
        _pair(given["dilation"]),
        given.get("transposed", op.kind == "conv_transpose2d"),
        _pair(given.get("output_padding", 0)),
        given["groups"],
    )
    return Op(run, (given["input"], given["weight"], given["bias"]), {}, op.outs)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])
