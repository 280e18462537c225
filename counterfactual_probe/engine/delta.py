"""Difference propagation through the linear submodule that reads a layer.

A convolution of a hybrid activation is the base's own, which the clean run has computed, plus the
convolution of what changed: a few channels instead of all of them. Exact to rounding, and rows
without a change keep the base's bits.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# With more than this share of the channels changed, the plain convolution is no slower.
LARGEST_SHARE = 0.25


def is_linear(module: nn.Module, dims: int) -> bool:
    """Whether :func:`difference` knows how the submodule takes the channels of a layer of ``dims`` dimensions.

    Its type exactly, with its own forward and no hook that may change what it gives.
    """
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        plain = type(module) in (nn.Conv2d, nn.ConvTranspose2d)
        return plain and dims == 4 and module.groups == 1 and module.padding_mode == "zeros"
    # The last dimension of images is not their channels.
    return type(module) is nn.Linear and dims in (2, 3)


def difference(module: nn.Module, change: Tensor, channels: Tensor) -> Tensor:
    """What the output changes by when ``channels`` (rows, m) of the input change by ``change`` (rows, m, …).

    Each row has channels of its own, hence kernels of its own: one group per row.
    """
    rows, m = channels.shape
    if isinstance(module, nn.ConvTranspose2d):
        kernels = module.weight[channels]  # (rows, m, out, kh, kw)
        output = F.conv_transpose2d(
            change.reshape(1, rows * m, *change.shape[2:]),
            kernels.flatten(0, 1),
            None,
            module.stride,
            module.padding,  # type: ignore[arg-type]  # a string is for Conv2d only
            module.output_padding,
            rows,
            module.dilation,
        )
        return output.reshape(rows, -1, *output.shape[2:])
    if isinstance(module, nn.Conv2d):
        kernels = module.weight[:, channels].transpose(0, 1)  # (rows, out, m, kh, kw)
        output = F.conv2d(
            change.reshape(1, rows * m, *change.shape[2:]),
            kernels.flatten(0, 1),
            None,
            module.stride,
            module.padding,
            module.dilation,
            rows,
        )
        return output.reshape(rows, -1, *output.shape[2:])
    # nn.Linear, whose channels are the last dimension of its input, and second in ``change``.
    return torch.einsum("rm...,orm->r...o", change, cast(nn.Linear, module).weight[:, channels])
