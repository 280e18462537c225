"""Prompts as latents: what a pipeline's own ``encode_prompt`` makes of them, and how it is given back in a forward."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ENCODE = "encode_prompt"


@dataclass(frozen=True)
class Encoding:
    """What the calls of ``encode_prompt`` in one run returned.

    Attributes:
        calls: what each returned; a tensor, or a tuple of tensors and other things.
    """

    calls: tuple[Any, ...]

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The tensors by name, as the pipeline's source calls them; those of a second call have a 2 behind."""
        return {
            name: value
            for number in range(len(self.calls))
            for name, value in self._named(number, names)
            if isinstance(value, Tensor)
        }

    def filled(self, names: Sequence[str], values: dict[str, Tensor]) -> tuple[Any, ...]:
        """What the calls return with these tensors in the places of their names."""
        calls = []
        for number, returned in enumerate(self.calls):
            parts = tuple(values.get(name, value) for name, value in self._named(number, names))
            calls.append(parts if isinstance(returned, (tuple, list)) else parts[0])
        return tuple(calls)

    def _named(self, number: int, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """What one of the calls returned, each with its name."""
        returned = self.calls[number]
        for place, value in enumerate(returned if isinstance(returned, (tuple, list)) else (returned,)):
            name = names[place] if place < len(names) else f"embedding_{place + 1}"
            yield (f"{name}_{number + 1}" if number else name), value


class Recorder:
    """Stands for ``encode_prompt`` and keeps what it returns."""

    def __init__(self, encode: Callable[..., Any]) -> None:
        self._encode = encode
        self.calls: list[Any] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            returned = self._encode(*args, **kwargs)
        self.calls.append(returned)
        return returned


class Player:
    """Stands for ``encode_prompt`` and returns what was encoded before."""

    def __init__(self, calls: Sequence[Any]) -> None:
        self._calls = iter(calls)

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return next(self._calls)


def returned_names(encode: Callable[..., Any]) -> list[str]:
    """What the last ``return`` of the function calls the values: ``["prompt_embeds", "negative_prompt_embeds"]``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(encode)))
    except (OSError, TypeError, SyntaxError):
        return []
    returns = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    if not returns:
        return []
    last = returns[-1]
    parts = last.elts if isinstance(last, ast.Tuple) else [last]
    return [part.id if isinstance(part, ast.Name) else f"embedding_{i + 1}" for i, part in enumerate(parts)]
