"""What torch's operations do to the routes of the channels that go in."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ...engine.program.vocabulary import CONCATENATIONS, RESHAPES, is_pointwise, parameters
from .autocorrelation import Size
from .resampling import downsampling_kernel, upsampling_kernel
from .routes import Routes, joined

# Positions and channels stay where they are, as they do in what is pointwise.
_KEEPING = """
    batch_norm instance_norm group_norm layer_norm rms_norm local_response_norm normalize
    dropout dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
    contiguous detach to type type_as float double half bfloat16 cpu cuda requires_grad alias
"""
# They look at a tensor, or at its form, and make none that carries channels.
_ASKING = """
    size dim stride get set numel is_floating_point data_ptr item tolist len format repr str
    zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty new_tensor
"""


class Unsupported(Exception):
    """An operation through which kernels cannot be compared; the text names it."""


@dataclass(frozen=True)
class Call:
    """One call of a function of torch on tensors that depend on the input."""

    name: str
    args: Any
    kwargs: Mapping[str, Any]
    inputs: list[Tensor]  # those that depend on the input
    result: Any
    routes_of: Callable[[Any], Routes]

    @property
    def first(self) -> Tensor:
        return self.inputs[0]

    @property
    def routes(self) -> Routes:
        return self.routes_of(self.first)

    @cached_property
    def given(self) -> dict[str, Any]:
        """Its arguments by name."""
        by_position = dict(zip(parameters(self.name), self.args, strict=False))
        other_names = {"axis": "dim", "split_size_or_sections": "split_size"}
        return by_position | {other_names.get(name, name): value for name, value in self.kwargs.items()}

    def argument(self, name: str) -> Any:
        return self.given.get(name, parameters(self.name).get(name))


Handler: TypeAlias = Callable[[Call], "Routes | list[Routes]"]


def asks(name: str) -> bool:
    """Whether an operation only looks at a tensor."""
    return name in _ASKING.split()


def through(call: Call) -> Routes | list[Routes]:
    """The routes to what an operation makes, or to each of its results; raises :class:`Unsupported`."""
    handler = _HANDLERS.get(call.name)
    if handler is None and not is_pointwise(call.name):
        raise Unsupported(call.name)
    return (handler or _pointwise)(call)


def _pointwise(call: Call) -> Routes:
    """Gains of other shapes, which are broadcast, bring no routes with them."""
    if not isinstance(call.result, Tensor):
        raise Unsupported(call.name)
    return joined(call.routes_of(value) for value in call.inputs if value.shape == call.result.shape)


def _reshaped(call: Call) -> Routes:
    if call.result.shape != call.first.shape:
        raise Unsupported(call.name)
    return call.routes


def _concatenated(call: Call) -> Routes:
    parts, dim, output = call.argument("tensors"), call.argument("dim"), call.result
    if dim % output.dim() != 1:
        raise Unsupported(f"concatenation along dimension {dim}")
    before, found = 0, []
    for part in parts:
        after = output.shape[1] - before - part.shape[1]
        places = [-1] * before + list(range(part.shape[1])) + [-1] * after
        found.append(tuple(route.selected(places) for route in call.routes_of(part)))
        before += part.shape[1]
    return joined(found)


def _got(call: Call) -> Routes:
    return _indexed(call.args[0], call.args[1], call.routes_of(call.args[0]))


def _narrowed(call: Call) -> Routes:
    index = [slice(None)] * call.first.dim()
    start = call.argument("start")
    index[call.argument("dim")] = slice(start, start + call.argument("length"))
    return _indexed(call.first, tuple(index), call.routes)


def _indexed(value: Tensor, index: Any, routes: Routes) -> Routes:
    """``x[:, channels, top:bottom, ::2]`` and the like: channels are chosen, borders cut, steps are strides."""
    parts = list(index) if isinstance(index, tuple) else [index]
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if dots:
        parts[dots[0] : dots[0] + 1] = [slice(None)] * (value.dim() - len(parts) + 1)
    parts += [slice(None)] * (value.dim() - len(parts))
    slices = all(isinstance(part, slice) for part in (parts[0], *parts[2:]))
    if value.dim() != 4 or len(parts) != 4 or not slices or not isinstance(parts[1], (slice, list, Tensor)):
        raise Unsupported("indexing")
    if parts[1] != slice(None):
        chosen = torch.arange(value.shape[1])[parts[1]].tolist()
        routes = joined([tuple(route.selected(chosen) for route in routes)])
    factor = parts[2].step or 1, parts[3].step or 1
    if factor != (1, 1):
        routes = tuple(route.downsampled(factor, None, f"one of {shown(factor)} pixels") for route in routes)
    return routes


def _divided(call: Call) -> list[Routes]:
    """Chunks along the channels."""
    if call.argument("dim") % call.first.dim() != 1:
        raise Unsupported(f"chunks along dimension {call.argument('dim')}")
    found, before = [], 0
    for part in call.result:
        chosen = range(before, before + part.shape[1])
        found.append(joined([tuple(route.selected(chosen) for route in call.routes)]))
        before += part.shape[1]
    return found


def _interpolated(call: Call) -> Routes:
    mode = call.argument("mode")
    if call.argument("align_corners"):
        raise Unsupported(f"{mode} interpolation with align_corners=True, which has another kernel at each place")

    def again(pixels: Tensor, size: Size) -> Tensor:
        return F.interpolate(pixels, size, mode=mode, antialias=call.argument("antialias"))

    up, down = _factors(call, f"{mode} interpolation")
    if up != (1, 1):
        kernel = upsampling_kernel(again, up)
        return tuple(route.upsampled(up, kernel, f"{mode} interpolation ×{shown(up)}") for route in call.routes)
    if down == (1, 1):
        return call.routes
    kernel = downsampling_kernel(again, down)
    return tuple(route.downsampled(down, kernel, f"{mode} interpolation ÷{shown(down)}") for route in call.routes)


def _averaged(call: Call) -> Routes:
    window = pair(call.argument("kernel_size"))
    return _pooled(window, pair(call.given.get("stride") or window), call.routes)


def _pooled(window: Size, stride: Size, routes: Routes) -> Routes:
    kernel = None if window == (1, 1) else torch.ones(window, dtype=torch.float64)
    text = f"average pooling {shown(window)}" + ("" if stride == (1, 1) else f" ÷{shown(stride)}")
    return tuple(route.downsampled(stride, kernel, text) for route in routes)


def _max_pooled(call: Call) -> Routes:
    stride = pair(call.given.get("stride") or call.argument("kernel_size"))
    text = f"max-pooling ÷{shown(stride)}, counted as decimation"
    return tuple(route.downsampled(stride, None, text) for route in call.routes)


def _adaptively_pooled(call: Call) -> Routes:
    up, down = _factors(call, "adaptive average pooling")
    if up != (1, 1):
        raise Unsupported("adaptive average pooling to a larger size")
    return _pooled(down, down, call.routes) if down != (1, 1) else call.routes


def _padded(call: Call) -> Routes:
    """Borders are left out of the analysis, as a convolution's own padding is."""
    if any(call.argument("pad")[4:]):
        raise Unsupported("padding of channels")
    return call.routes


def _factors(call: Call, what: str) -> tuple[Size, Size]:
    """How many times larger and how many times smaller the result's maps are."""
    before, after = tuple(call.first.shape[2:]), tuple(call.result.shape[2:])
    if len(before) != 2:
        raise Unsupported(f"{what} of {len(before)}-D maps")
    if all(b % a == 0 for a, b in zip(before, after, strict=True)):
        return (after[0] // before[0], after[1] // before[1]), (1, 1)
    if all(a % b == 0 for a, b in zip(before, after, strict=True)):
        return (1, 1), (before[0] // after[0], before[1] // after[1])
    raise Unsupported(f"{what} from {shown(before)} to {shown(after)}, which is no whole factor")


def pair(value: Any) -> Size:
    """An argument that torch takes as one number or as one for each axis."""
    if not isinstance(value, Iterable):
        return operator.index(value), operator.index(value)
    items = [operator.index(item) for item in value]
    return items[0], items[-1]


def shown(size: tuple[int, ...]) -> str:
    """2 for (2, 2), and 2×1 for (2, 1)."""
    return str(size[0]) if len(set(size)) == 1 else "×".join(map(str, size))


_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_KEEPING.split(), _pointwise),
    **dict.fromkeys(RESHAPES | {"expand"}, _reshaped),
    **dict.fromkeys(CONCATENATIONS, _concatenated),
    **dict.fromkeys(("chunk", "split"), _divided),
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices"), _max_pooled),
    "getitem": _got,
    "narrow": _narrowed,
    "interpolate": _interpolated,
    "avg_pool2d": _averaged,
    "adaptive_avg_pool2d": _adaptively_pooled,
    "pad": _padded,
}
