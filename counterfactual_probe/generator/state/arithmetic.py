"""How a GPU multiplies float32: exactly and reproducibly, or rounded to TF32 where that is asked for.

cuDNN by default rounds the factors of a convolution to TF32, ten bits, and may choose kernels that add up in another
order each time. Influence maps are differences of two images, of which such rounding is a far larger share: so neither
is allowed while a module is borrowed, whatever the caller has set, and the caller's settings come back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# The settings of convolutions and of matrix products. Newer versions of torch have a second name for each, and refuse
# to read the first one after a change under the second: so each is set under the name that can be read.
_Settings = tuple[Any, ...]
_CUDNN: Any = torch.backends.cudnn  # whose second names its types do not list
_FAST, _EXACT = "tf32", "ieee"


def tf32_settings() -> _Settings:
    """What the process allows now, for :func:`set_tf32_settings`."""
    return (*_of_convolutions(), *_of_products())


def set_tf32_settings(value: _Settings) -> None:
    """Allow again what was allowed when :func:`tf32_settings` gave this."""
    convolutions, products = value[:2], value[2:]
    if convolutions[0] is None:
        _CUDNN.conv.fp32_precision, _CUDNN.rnn.fp32_precision = convolutions[1]
    else:
        _CUDNN.allow_tf32 = convolutions[0]
    if products[0] is None:
        torch.backends.cuda.matmul.fp32_precision = products[1]
    else:
        torch.set_float32_matmul_precision(products[0])


def _of_convolutions() -> tuple[Any, Any]:
    try:
        return _CUDNN.allow_tf32, None
    except RuntimeError:
        return None, (_CUDNN.conv.fp32_precision, _CUDNN.rnn.fp32_precision)


def _of_products() -> tuple[Any, Any]:
    try:
        return torch.get_float32_matmul_precision(), None
    except RuntimeError:
        return None, torch.backends.cuda.matmul.fp32_precision


def is_tf32_allowed() -> bool:
    """Whether a GPU may round the factors of convolutions or matrix products to TF32 now."""
    convolutions, new, products, newer = tf32_settings()
    return bool(convolutions) or _FAST in (new or ()) or products in ("high", "medium") or newer == _FAST


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Inside, a GPU may round factors to TF32, or may not."""
    before = convolutions, _, products, _ = tf32_settings()
    word = _FAST if allowed else _EXACT
    wanted = (
        None if convolutions is None else allowed,
        (word, word),
        None if products is None else "high" if allowed else "highest",
        word,
    )
    if allowed or is_tf32_allowed():
        set_tf32_settings(wanted)
    try:
        yield
    finally:
        if tf32_settings() != before:
            set_tf32_settings(before)


@contextmanager
def exact_arithmetic(kinds: set[str]) -> Iterator[None]:
    """On these kinds of devices the same operation gives the same bits each time, and float32 is not rounded."""
    if "cuda" not in kinds:
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    with tf32_allowed(False):
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before


def multiplies_tf32(device: torch.device) -> bool:
    """Whether a device has such arithmetic: NVIDIA's since Ampere."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
