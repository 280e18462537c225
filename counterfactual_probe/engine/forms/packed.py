"""Convolutions whose kernels are laid out once, as oneDNN's code reads them, and not anew in each call.

With 32 rows that saves a twentieth of a convolution of 256 to 128 channels at 8×8, and images get their tanh in the
pass that makes them, before it leaves the cache. oneDNN's relu would do that for hidden layers, but it makes 0 of NaN:
what a module answers with NaN would pass as a finite image, so it is not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..program.operators import Convolution
from ..program.polyphase import PolyphaseConvolution
from ..program.program import Op, Program

_NO_ENDING = "none"
_ENDINGS = ("tanh",)


class PackedConvolution:
    """A convolution of a fixed kernel and bias, and the ending that is computed in the same pass.

    Called with x (rows, inputs, H, W). Where oneDNN is switched off or does not take it, torch's own calls answer.
    """

    def __init__(
        self, run: Convolution, weight: Tensor, bias: Tensor | None, ending: str, packed: dict[Hashable, Tensor]
    ) -> None:
        self.run, self.weight, self.bias, self.ending = run, weight, bias, ending
        # Shared by all paths through a program, so that a kernel is held once.
        self._packed, self._key = packed, (weight.data_ptr(), weight.shape, weight.stride(), run)

    def __call__(self, x: Tensor) -> Tensor:
        if not torch.backends.mkldnn.enabled or x.dtype is not torch.float32:
            result = self.run(x, self.weight, self.bias)
            return result if self.ending == _NO_ENDING else getattr(torch, self.ending + "_")(result)
        kernel = self._packed.get(self._key)
        if kernel is None:
            kernel = self._packed[self._key] = self._pack(x)
        run, ops = self.run, torch.ops.mkldnn
        about: tuple[Any, ...] = (list(run.stride), list(run.dilation), run.groups, self.ending, [], "")
        padding = list(run.padding)
        if run.transposed:
            moved = list(run.output_padding)
            return ops._convolution_transpose_pointwise(  # type: ignore[no-any-return]
                x, kernel, self.bias, padding, moved, *about
            )
        return ops._convolution_pointwise(x, kernel, self.bias, padding, *about)  # type: ignore[no-any-return]

    def _pack(self, x: Tensor) -> Tensor:
        """The kernel as it is read for this many rows; for others oneDNN lays it out again if it must."""
        run, ops, sizes = self.run, torch.ops.mkldnn, list(x.shape)
        about = (list(run.stride), list(run.dilation), run.groups, sizes)
        padding = list(run.padding)
        if run.transposed:
            moved = list(run.output_padding)
            return ops._reorder_convolution_transpose_weight(  # type: ignore[no-any-return]
                self.weight, padding, moved, *about
            )
        return ops._reorder_convolution_weight(self.weight, padding, *about)  # type: ignore[no-any-return]


class Packing:
    """What is packed of a program: kernels, shared by its paths, and which operations end in one pass.

    Attributes:
        endings: by the number of what a convolution makes, the elementwise operation that alone reads it.
    """

    def __init__(self, program: Program, packed: dict[Hashable, Tensor]) -> None:
        self._constants, self._packed = program.constants, packed
        self.endings = _endings(program)

    def of(self, op: Op) -> PackedConvolution | None:
        """The convolution inside an operation, packed; None if it has none of a fixed float32 kernel on a CPU."""
        run = op.run.inner if isinstance(op.run, PolyphaseConvolution) else op.run
        if not isinstance(run, Convolution) or op.reads[0] in self._constants:
            return None
        given = [None if item is None else self._constants.get(item.number) for item in op.args[1:]]
        weight, bias = given
        if weight is None or weight.dtype is not torch.float32 or weight.device.type != "cpu":
            return None
        if op.args[2] is not None and bias is None:
            return None
        ending = self.endings.get(op.out)
        return PackedConvolution(run, weight, bias, _NO_ENDING if ending is None else ending.kind, self._packed)


def _endings(program: Program) -> Mapping[int, Op]:
    uses = Counter([number for op in program.ops for number in op.reads] + [program.image])
    makers = {op.out for op in program.ops if isinstance(op.run, (Convolution, PolyphaseConvolution))}
    return {
        op.reads[0]: op
        for op in program.ops
        if op.kind in _ENDINGS and op.single and op.reads[0] in makers and uses[op.reads[0]] == 1
    }
