"""What a prepared run needs besides latents: the simplified program and the paths through it.

It takes several forwards to make, and as long as weights, hooks and attributes are the same it serves every call: the
latest program of each generator is remembered, one for exact hybrids and one for low-precision differences, with its
paths for the latest kinds of units.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...generator.adapter import GeneratorAdapter
from ...generator.state.fingerprint import fingerprint
from ...generator.state.locks import holding
from ...generator.units.axis import Coordinates
from ...generator.units.features import Features
from ...generator.units.space import digest
from ..forms.form import Form
from ..program.independence import Rows, mixing_operation, rows_of_samples
from ..program.program import Program
from ..program.recording import record
from ..program.simplify import Simplified, simplify
from .propagation import edit_path
from .steps import EditPath, Sparse

# The layers that are set, and whether by a swap of few units in each row.
PathKey = tuple[frozenset[str], bool]
_KINDS_KEPT = 4  # of units; bases bring kernels of their directions


@dataclass(frozen=True)
class Preparation:
    """A simplified program with its paths.

    Attributes:
        first: for each set of layers the first of them, if its units can be set one by one.
        needs: numbers of the clean values that the paths read.
        frees: for each operation the values that nothing reads after it.
        independent: whether it is proved that no sample of a batch influences another.
        checked: paths that gave what full forwards give.
    """

    simplified: Simplified
    first: Mapping[frozenset[str], str | None]
    paths: dict[PathKey, EditPath]
    needs: frozenset[int]
    frees: Sequence[Sequence[int]]
    independent: bool
    checked: set[Hashable] = field(default_factory=set)


@dataclass(frozen=True)
class _Recorded:
    """A program, what it was recorded for, and its preparations by kind of units, the latest last."""

    key: Hashable
    simplified: Simplified
    rows: Mapping[int, Rows]
    independent: bool
    by_units: dict[Hashable, Preparation] = field(default_factory=dict)
    packed: dict[Hashable, Tensor] = field(default_factory=dict)


# By the dtype of differences.
_Remembered: TypeAlias = "dict[torch.dtype | None, _Recorded]"


class Preparations:
    """The preparations of one generator for some paths; the latest of each precision are kept for the next calls."""

    _latest: ClassVar[WeakKeyDictionary[GeneratorAdapter, _Remembered]] = WeakKeyDictionary()

    def __init__(
        self,
        generator: GeneratorAdapter,
        paths: Sequence[frozenset[str]],
        difference_dtype: torch.dtype | None,
        coordinates: Mapping[str, Coordinates],
        form: Form,
    ) -> None:
        self.generator, self.paths, self.difference_dtype, self.form = generator, paths, difference_dtype, form
        self.coordinates = coordinates
        # Changes that no attribute shows are possible too, so every call also compares a clean run.
        with holding(generator.module):
            state = generator.weights_hash(), fingerprint(generator.module)
        self._key = (*state, generator.device, form, tuple(paths))
        # Paths are the same for all kinds of units of a layer whose units are not set one by one.
        self._units = tuple(
            sorted((name, _named(at)) for name, at in coordinates.items() if _one_by_one(generator, name))
        )

    def remembered(self) -> Preparation | None:
        """Of the program recorded for an earlier call, if nothing that can be seen has changed since."""
        recorded = self._latest.get(self.generator, {}).get(self.difference_dtype)
        return self._of(recorded) if recorded is not None and recorded.key == self._key else None

    def anew(self) -> Preparation:
        """Record the forward and prepare it; raises NotRecordable. Call it inside a session."""
        latest = self._latest.setdefault(self.generator, {})
        latest.pop(self.difference_dtype, None)
        layers = list(dict.fromkeys(layer for some in self.paths for layer in some))
        sites = [self.generator.site(layer) for layer in layers]
        simplified = simplify(record(self.generator, sites), sites)
        rows, _ = rows_of_samples(simplified.program)
        recorded = _Recorded(self._key, simplified, rows, mixing_operation(simplified.program) is None)
        preparation = self._of(recorded)
        latest[self.difference_dtype] = recorded
        return preparation

    def _of(self, recorded: _Recorded) -> Preparation:
        """The paths through a program for the units of this call."""
        known = recorded.by_units
        found = known.pop(self._units, None) or self._paths_through(recorded)
        known[self._units] = found
        for oldest in list(known)[:-_KINDS_KEPT]:
            del known[oldest]
        return found

    def _paths_through(self, recorded: _Recorded) -> Preparation:
        simplified, rows, dtype = recorded.simplified, recorded.rows, self.difference_dtype
        sparse = {some: _sparse(self.generator, simplified, some, self.coordinates) for some in self.paths}
        paths: dict[PathKey, EditPath] = {}
        path = partial(
            edit_path,
            simplified,
            rows,
            difference_dtype=dtype,
            packed=recorded.packed if self.form is Form.PACKED else None,
        )
        for some, swappable in sparse.items():
            paths[some, False] = path(some, sparse=None)
            if swappable is not None:
                paths[some, True] = path(some, sparse=swappable)
        first = {some: None if item is None else item.layer for some, item in sparse.items()}
        needs = frozenset().union(*(path.needs for path in paths.values()))
        frees = _last_uses(simplified.program, needs)
        return Preparation(simplified, first, paths, needs, frees, recorded.independent)


def _one_by_one(generator: GeneratorAdapter, layer: str) -> bool:
    """Whether a layer's output is images, whose channels or linear features can be swapped alone."""
    return generator.layer(layer).is_image


def _sparse(
    generator: GeneratorAdapter,
    simplified: Simplified,
    layers: frozenset[str],
    coordinates: Mapping[str, Coordinates],
) -> Sparse | None:
    """The first of some layers, if its units are channels or linear features that can be set one by one."""
    first = next(layer for layer in simplified.edited if layer in layers)
    if not _one_by_one(generator, first):
        return None
    at = coordinates.get(first)
    if at is None:
        return Sparse(first)
    if not isinstance(at, Features) or at.directions is None:
        return None
    return Sparse(first, at.directions.to(generator.device, generator.dtype))


def _named(at: Coordinates) -> str:
    """What tells coordinates apart: their kind, and the directions of features."""
    directions = at.directions if isinstance(at, Features) else None
    return at.kind if directions is None else digest(directions)


def _last_uses(program: Program, kept: frozenset[int]) -> list[list[int]]:
    """For each operation the values that nothing reads after it."""
    last: dict[int, int] = {}
    for position, op in enumerate(program.ops):
        for number in (*op.reads, *(number for number in op.outs if number is not None)):
            last[number] = position
    frees: list[list[int]] = [[] for _ in program.ops]
    for number, position in last.items():
        if number not in kept and number != program.image and number not in program.constants:
            frees[position].append(number)
    return frees
