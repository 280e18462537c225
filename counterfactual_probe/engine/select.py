"""Which executor runs a generator's hybrids: the fastest that is right for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..base.errors import one_of
from ..generator.adapter import GeneratorAdapter
from ..generator.device import multiplies_bfloat16
from ..generator.state.arithmetic import multiplies_tf32
from ..generator.units import UnitSet
from ..generator.units.axis import Coordinates
from .checked import Checked, FastExecutor
from .executors import Executor, FullForward, Strategy
from .interventions import layers_of, path_of
from .prepared.executor import Prepared
from .replay import Replay
from .rounded import InTF32
from .unmixed import Unmixed

PRECISIONS = ("float32", "tf32", "bf16-diff")


# Writing a program down takes as long as some ten whole forwards.
_FEW_HYBRIDS = 8


def executor_for(
    generator: GeneratorAdapter,
    sets: Sequence[UnitSet],
    precision: str = "float32",
    pairs: int | None = None,
    *,
    coordinates: Mapping[str, Coordinates] | None = None,
) -> Executor:
    """The fastest executor that is right for setting these units of this generator, for so many pairs.

    A program of the whole forward if one can be written down; otherwise its own code, from the layer
    on; otherwise whole forwards, as for a handful of hybrids. Never by what was run before: the same
    call gives the same bits.
    """
    one_of(precision, "precision", PRECISIONS)
    layers = layers_of(sets)
    if precision == "tf32" and generator.dtype is torch.float32 and multiplies_tf32(generator.device):
        return InTF32(executor_for(generator, sets, "float32", pairs, coordinates=coordinates))
    if not layers or not (generator.batchable or generator.draws_noise):
        return FullForward(generator)
    # Where bfloat16 is not multiplied but imitated, exact hybrids are faster.
    difference_dtype = torch.bfloat16 if precision == "bf16-diff" and multiplies_bfloat16(generator.device) else None
    if difference_dtype is None and pairs is not None and pairs * len(sets) <= _FEW_HYBRIDS:
        return Unmixed(generator, FullForward(generator))
    paths = list(dict.fromkeys(path_of(units) for units in sets if units.size))
    candidates: dict[Strategy, Callable[[], FastExecutor]] = {
        Strategy.PREPARED: lambda: Prepared(generator, paths, difference_dtype, coordinates),
        Strategy.REPLAY: lambda: Replay(generator, layers),
    }
    return Unmixed(generator, Checked(generator, candidates))
