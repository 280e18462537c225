"""An operation of a program that is to be described for the page, and the way to say that the page has none such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from ...engine.program.operators import arguments
from ...engine.program.program import Op, Ref

Plain: TypeAlias = dict[str, Any]


class NotPortable(Exception):
    """The page's interpreter has no such operation; says which."""


@dataclass(frozen=True)
class Context:
    """What an operation is described with: shapes of values for one sample, and the program's constants."""

    shapes: Mapping[int, list[int]]
    constants: Mapping[int, Tensor]

    def shape(self, ref: Any) -> list[int]:
        return self.shapes[ref.number]


@dataclass(frozen=True)
class Call:
    """An operation of torch with its arguments by name."""

    op: Op
    context: Context

    @property
    def given(self) -> Plain:
        return arguments(self.op)

    @property
    def read(self) -> int:
        """The number of the first value that it reads."""
        return self.op.reads[0]

    @property
    def shape(self) -> list[int]:
        """Of the result, for one sample."""
        return self.context.shapes[self.op.out]


def refs(items: Any) -> list[int | None]:
    """Numbers of values; None for an argument that is none."""
    return [item.number if isinstance(item, Ref) else None for item in items]
