"""Types of fields, with bounds far above what any real file holds, and far below what would take all memory."""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

from msgspec import Meta

T = TypeVar("T")

# Of lists of a certain length: msgspec 0.23 crashes in the garbage collection after tuple[int, int] in a union.
Pair: TypeAlias = Annotated[list[T], Meta(min_length=2, max_length=2)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Channel: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]
Side: TypeAlias = Annotated[int, Meta(ge=1, le=2**16)]  # of an image, in pixels
Width: TypeAlias = Annotated[int, Meta(ge=1, le=2**14)]  # of a layer, in channels
Number: TypeAlias = Annotated[float, Meta(ge=-1e300, le=1e300)]  # and not NaN
Name: TypeAlias = Annotated[str, Meta(max_length=1_000)]
Text: TypeAlias = Annotated[str, Meta(max_length=100_000)]
Units: TypeAlias = list[dict[Name, list[Channel]]]
