"""One forward, watched: which convolutions run, and which channels of which reach which."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ...engine.interception import intercepted
from ...generator.layers import activation_of
from .kernels import Convolution
from .operations import Call, Unsupported, asks, pair, shown, through
from .routes import Route, Routes, joined

LAYER = "layer "  # before the name of a source that is a layer's output and no convolution
PLANE = {"conv2d", "conv_transpose2d"}
_OTHER = {"conv1d": 1, "conv3d": 3, "conv_transpose1d": 1, "conv_transpose3d": 3}


@dataclass
class Traced:
    """What a forward consists of, as far as kernels go.

    ``reached[name]`` are the routes by which earlier convolutions, or tagged layers, reach a convolution.
    """

    convolutions: dict[str, Convolution] = field(default_factory=dict)
    reached: dict[str, Routes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # convolutions that cannot be measured, and why


class ConvolutionMode(TorchFunctionMode):
    """Sees torch's functions in one forward, and knows the submodule that calls them."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[str] = []
        self._times: Counter[str] = Counter()

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        with intercepted(modules, self._call), self:
            yield

    def _call(self, name: str, number: int, run: Callable[[], Any]) -> Any:
        self._running.append(name)
        try:
            return self.finished(name, number, run())
        finally:
            self._running.pop()

    def finished(self, _name: str, _number: int, output: Any) -> Any:
        """A submodule has run; what it gives may be looked at."""
        return output

    @property
    def where(self) -> str:
        return self._running[-1] if self._running else ""

    def numbered(self) -> str:
        """The name of the convolution that runs now: its submodule's, and which one there."""
        name = self.where or "the forward"
        self._times[name] += 1
        return f"{name}#{self._times[name]}"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        return self.seen(func, args, kwargs or {})

    def seen(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)


class Tracer(ConvolutionMode):
    """Follows channels from convolution to convolution.

    ``layers`` are names "layer#call" whose outputs are sources as well.
    """

    def __init__(self, inputs: list[Tensor], layers: Collection[str] = ()) -> None:
        super().__init__()
        self._routes: Any = WeakIdKeyDictionary()  # every tensor that depends on the input
        for value in inputs:
            self._routes[value] = ()
        self._layers = layers
        self._found = Traced()

    def finished(self, name: str, number: int, output: Any) -> Any:
        activation = activation_of(output)
        if f"{name}#{number}" in self._layers and activation is not None and activation in self._routes:
            self._routes[activation] = (*self._routes[activation], Route(f"{LAYER}{name}#{number}"))
        return output

    def seen(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "an operation").strip("_")
        inputs = [value for value in _tensors((args, kwargs)) if value in self._routes]
        result = func(*args, **kwargs)
        if name == "setitem" and inputs:
            self._routes[args[0]] = self._stopped(inputs, "writing into a part of a tensor")
        elif inputs and not asks(name):
            call = Call(name, args, kwargs, inputs, result, self._of)
            outputs, routes = list(_tensors(result)), self._through(call)
            for output, own in zip(
                outputs, routes if isinstance(routes, list) else [routes] * len(outputs), strict=True
            ):
                self._routes[output] = own
        elif name in PLANE:
            self.numbered()  # of constants alone; keeps the numbers of later calls right
        return result

    def _through(self, call: Call) -> Routes | list[Routes]:
        try:
            if call.name in PLANE:
                return self._convolution(call)
            if call.name in _OTHER:
                said = f"a {_OTHER[call.name]}-D convolution"
                self._found.refused[self.numbered()] = f"it is {said}, and only 2-D ones are compared"
                raise Unsupported(said)
            return through(call)
        except Unsupported as reason:
            return self._stopped(call.inputs, str(reason))

    def _convolution(self, call: Call) -> Routes:
        label, value, weight = self.numbered(), call.argument("input"), call.argument("weight")
        if weight in self._routes:
            self._found.refused[label] = "its kernels depend on the input"
            raise Unsupported(f"a convolution in {self.where!r} whose kernels depend on the input")
        if value.dim() != 4:
            self._found.refused[label] = "it is given a single map without a batch"
            raise Unsupported("a convolution of a single map without a batch")
        routes = self._of(value)
        convolution = Convolution(
            name=label,
            # A parameter is looked at when it is measured; what is made of others, under spectral norm, is kept.
            weight=weight if isinstance(weight, nn.Parameter) else weight.detach().clone(),
            transposed=call.name == "conv_transpose2d",
            stride=pair(call.argument("stride")),
            dilation=pair(call.argument("dilation")),
            groups=call.argument("groups"),
            input_size=(value.shape[2], value.shape[3]),
            output_size=(call.result.shape[2], call.result.shape[3]),
        )
        self._found.convolutions[label] = convolution
        self._found.reached[label] = routes
        own = Route(label)
        if not convolution.transposed and convolution.stride != (1, 1):
            own = own.downsampled(convolution.stride, None, f"its stride {shown(convolution.stride)}")
        return (own,)

    def _of(self, value: Any) -> Routes:
        found: Routes = self._routes.get(value, ()) if isinstance(value, Tensor) else ()
        return found

    def _stopped(self, inputs: list[Tensor], reason: str) -> Routes:
        place = f"{reason} in {self.where!r}" if self.where and self.where not in reason else reason
        return joined(tuple(route.stopped(place) for route in self._of(value)) for value in inputs)

    def result(self) -> Traced:
        """Convolutions under their submodules' names, with the number of the call where there are several."""
        final = {
            label: name if self._times[name] == 1 else label
            for label in [*self._found.convolutions, *self._found.refused]
            for name in [label.rpartition("#")[0]]
        }
        traced = Traced(refused={final[label]: why for label, why in self._found.refused.items()})
        for label, convolution in self._found.convolutions.items():
            convolution.name = final[label]
            traced.convolutions[final[label]] = convolution
            traced.reached[final[label]] = tuple(_renamed(route, final) for route in self._found.reached[label])
        return traced


def _renamed(route: Route, final: Mapping[str, str]) -> Route:
    return dataclasses.replace(route, source=final.get(route.source, route.source))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
