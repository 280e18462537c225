"""The noise that a pipeline begins with: found, and replaced by the latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Drawn(BaseException):
    """Ends a pipeline at its first draw, which is all that was wanted; no code of the pipeline's catches it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(f"noise {shape}")
        self.shape = shape


class FirstDraw(TorchFunctionMode):
    """Inside, the first normal numbers drawn are what ``give`` makes of their shape; all later ones are drawn.

    Every pipeline draws its starting noise first and by ``torch.randn``, whatever it then makes of it: scaled by the
    scheduler, packed into patches, or as it is. So no pipeline has to be known by name.
    """

    def __init__(self, give: Callable[[tuple[int, ...]], Tensor]) -> None:
        super().__init__()
        self._give = give
        self.over = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and args and isinstance(args[0], Tensor):
            # Where a pipeline expects a list of classes; torch warns that this copies.
            return args[0].to(device=kwargs.get("device"), dtype=kwargs.get("dtype")).clone()
        if self.over or func is not torch.randn:
            return func(*args, **kwargs)
        self.over = True
        size = kwargs.get("size", args)
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
        noise = self._give(tuple(map(int, shape)))
        return noise.to(device=kwargs.get("device"), dtype=kwargs.get("dtype") or noise.dtype)


def ended(shape: tuple[int, ...]) -> Tensor:
    """What :class:`FirstDraw` gives when only the shape is wanted."""
    raise Drawn(shape)
