"""Stand between a module and its submodules: see every call, and answer some without running them.

Hooks can change an output but never keep a submodule from running. So for the time of one forward
the call of every submodule goes through a handler, below the user's own hooks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..generator.layers import Arguments, with_items, with_values

Call: TypeAlias = tuple[str, int]  # a submodule's name and which of its calls


class Invocation:
    """One call of a submodule, to be made by calling this; its arguments may be replaced before."""

    def __init__(self, function: Callable[..., Any], arguments: Arguments) -> None:
        self._function, self.arguments = function, arguments

    def __call__(self) -> Any:
        given, named = self.arguments
        return self._function(*given, **named)


# (submodule's name, how often it has been called in this forward, the call to be made) -> output
Handler: TypeAlias = Callable[[str, int, Invocation], Any]


@contextmanager
def intercepted(modules: Mapping[str, nn.Module], handler: Handler) -> Iterator[None]:
    """Every call of the named submodules goes through ``handler`` in the one forward run inside."""
    seen: Counter[str] = Counter()

    def call(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        seen[name] += 1
        return handler(name, seen[name], Invocation(original, (args, kwargs)))

    # Fused fast paths, as of nn.TransformerEncoderLayer, run submodules only where hooks ask for it.
    handles = [part.register_forward_hook(_nothing) for part in modules.values()]
    try:
        for name, part in modules.items():
            # nn.Module.__call__ looks this up on the instance, so the class stays untouched.
            part.__dict__["_call_impl"] = partial(call, name, part._call_impl)
        yield
    finally:
        for part in modules.values():
            part.__dict__.pop("_call_impl", None)
        for handle in handles:
            handle.remove()


def _nothing(*_: Any) -> None:
    """A hook that is only there to be seen."""


class NotReplayable(Exception):
    """An output that is no plain structure of tensors, or a forward that took another path."""


def map_tensors(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same output with ``function`` applied to every tensor in it."""
    if isinstance(output, Tensor):
        return function(output)
    if output is None or isinstance(output, (bool, int, float, str)):
        return output
    if isinstance(output, (tuple, list)):
        return with_items(output, [map_tensors(item, function) for item in output])
    if isinstance(output, dict):
        return with_values(output, {key: map_tensors(value, function) for key, value in output.items()})
    raise NotReplayable(f"a submodule returns a {type(output).__name__}")


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of an output, in the order in which :func:`map_tensors` meets them."""
    tensors: list[Tensor] = []

    def note(value: Tensor) -> Tensor:
        tensors.append(value)
        return value

    map_tensors(output, note)
    return tensors


def storage_of(value: Tensor) -> int | None:
    """Where the values are in memory: equal for tensors that share it. None for types without memory of their own."""
    try:
        return value.untyped_storage().data_ptr()
    except RuntimeError:  # NotImplementedError is one
        return None


class Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that sees every tensor operation. By itself torch would import its compiler for one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
