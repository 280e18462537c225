"""Run a generator as a simplified program: folded, cut to what the images need, started at the layer.

The program is the generator's own forward, recorded.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ...generator import latents as lt
from ...generator.adapter import GeneratorAdapter
from ...generator.images import all_finite
from ...generator.latents import Latents
from ...generator.state.disturbance import Draws
from ...generator.state.randomness import random_states
from ...generator.units.axis import Coordinates
from ..checked import disagreement
from ..executors import FullForward
from ..forms.form import Form, form_on
from ..interception import NotReplayable
from ..interventions import SwapEdit
from ..program.program import Draw, Program, outputs
from ..program.recording import NotRecordable, in_order
from ..runs import CleanRun, Edits, Runs
from .batch import Batch, Clean, laid_out
from .cache import Preparations

# Above this share of as many units as channels, a convolution of all channels is as fast.
LARGEST_SHARE = 0.25
# Allows for the rounding of fifty layers; errors of a wrong program are far larger.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# Of a bfloat16 difference, averaged over an image: far above its rounding, far below the error of a wrong program.
_DIFFERENCE_TOLERANCE = 0.05
_CHECKED_ROWS = 2


@dataclass(frozen=True)
class PreparedRun(CleanRun):
    """A clean run with the values that the paths from the layer on read."""

    clean: Clean = field(default_factory=lambda: Clean({}))


class Prepared:
    """Executor of simplified programs; raises NotRecordable if there is none for the generator.

    ``difference_dtype`` is the type in which differences travel; None for exact hybrids. ``form`` is that of
    convolutions; None lets the processor decide.
    """

    run_type = PreparedRun
    batches = True

    def __init__(
        self,
        generator: GeneratorAdapter,
        paths: Sequence[frozenset[str]],
        difference_dtype: torch.dtype | None = None,
        coordinates: Mapping[str, Coordinates] | None = None,
        form: Form | None = None,
    ) -> None:
        if generator.dtype not in (torch.float32, torch.float64):
            # Folding multiplies parameters, which loses too many digits in lower precision.
            raise NotRecordable(f"parameters are {generator.dtype}, and are folded in float32 and float64 only")
        self.generator = generator
        self.by_difference = False
        self.rounding = "" if difference_dtype is None else "bf16-diff"
        self._full = FullForward(generator)
        self._draws = Draws()
        self._difference_dtype = difference_dtype
        # Differences in lower precision, and kernels in float64, are for torch's own calls.
        packable = difference_dtype is None and generator.dtype is torch.float32
        self._form = (form or form_on(generator.device)) if packable else Form.PLAIN
        self._preparations = Preparations(generator, paths, difference_dtype, coordinates or {}, self._form)
        remembered = self._preparations.remembered()
        if remembered is None:
            with generator.session():  # it reads all weights twice
                self._preparation = self._preparations.anew()
        else:
            self._preparation = remembered
        # A remembered program may be stale; then it is recorded again.
        self._may_be_stale = remembered is not None
        self._is_confirmed = False  # that a clean run gives what a whole forward does

    @property
    def convolutions(self) -> str:
        return self._form.value

    @property
    def independent(self) -> bool:
        return self._preparation.independent

    @property
    def confirmed(self) -> set[Hashable]:
        return self._preparation.checked

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> PreparedRun:
        """As every executor's. A source's run ends at the last of the layers: nothing reads the rest."""
        simplified, n = self._preparation.simplified, len(numbers)
        program = simplified.program
        values: dict[int, Tensor] = dict(program.constants)
        values.update(zip(program.inputs, in_order(latents), strict=True))
        values.update(self._noise(program.draws, latents, numbers, seed))
        set_at = {simplified.edited[layer][0]: layer for layer in layers}
        activations: dict[str, Tensor] = {}
        only_layers = not base and self._is_confirmed and self.independent
        for op, frees in zip(program.ops, self._preparation.frees, strict=True):
            if op.kind == "edit" and (layer := set_at.get(op.reads[0])) is not None:
                activations[layer] = self.generator.layer(layer).channels_first(values[op.reads[0]]).clone()
                if only_layers and len(activations) == len(layers) and all(map(all_finite, activations.values())):
                    return PreparedRun(latents, _no_images(program), activations, numbers, seed)
            values.update(outputs(op, op(values, n)))
            for number in frees:
                del values[number]
        images = values[program.image]
        # Kept values must not change, and callers get views: so the image is a copy.
        kept = {number: laid_out(values[number]) for number in self._preparation.needs} if base else {}
        return PreparedRun(latents, images.clone(), activations, numbers, seed, Clean(kept))

    def _noise(self, draws: Sequence[Draw], latents: Latents, numbers: Sequence[int], seed: int) -> dict[int, Tensor]:
        """The noise that the forward of each sample draws."""
        drawn: dict[int, list[Tensor]] = {draw.op.out: [] for draw in draws}
        for noise_seed in self.generator.noise_seeds(latents, numbers, seed) if draws else ():
            run = partial(self._of_one_sample, draws, noise_seed)
            for draw, row in zip(
                draws, self._draws.watched(self.generator.name, self.generator.module, run), strict=True
            ):
                drawn[draw.op.out].append(row)
        return {value: torch.cat(rows) for value, rows in drawn.items()}

    def _of_one_sample(self, draws: Sequence[Draw], seed: int) -> list[Tensor]:
        self.generator.seed_noise(seed)
        return [draw() for draw in draws]

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        if not isinstance(base, PreparedRun):
            raise NotReplayable("the clean run is not of a program")
        few = self._few(runs.edits)
        self.by_difference |= few is not None
        path = self._preparation.paths[frozenset(runs.edits), few is not None]
        return path(Batch(base.clean, runs, few, self.generator.device))

    def kind(self, runs: Runs) -> Hashable:
        """Which layers are set, and whether by a swap of few units."""
        return frozenset(runs.edits), self._few(runs.edits) is not None

    def rows_to_compare(self, rows: int) -> list[int]:
        """A few rows, spread over the batch."""
        return list(range(rows))[:: -max(1, rows // _CHECKED_ROWS)][:_CHECKED_ROWS]

    def hybrid_problem(self, images: Tensor, reference: Tensor, originals: Tensor) -> str | None:
        if self._difference_dtype is None:
            return self._disagreement(images, reference)
        gap, change = (images - reference).abs(), (reference - originals).abs()
        allowed = _DIFFERENCE_TOLERANCE * change.mean((1, 2, 3)) + 1e-5
        return None if bool((gap.mean((1, 2, 3)) <= allowed).all()) else f"a difference of {float(gap.max()):.2g}"

    def try_differently(self) -> bool:
        """Record again, if the program is from an earlier call: the forward may have changed since."""
        stale, self._may_be_stale = self._may_be_stale, False
        if stale:
            self._preparation, self._is_confirmed = self._preparations.anew(), False
        return stale

    def clean_problem(self, run: CleanRun, layers: Sequence[str]) -> str | None:
        """Compare the first sample with a whole forward: activations that are swapped in come from this run."""
        first = lt.take(run.latents, slice(0, 1))
        expected = self._full.clean(first, layers, run.numbers[:1], run.seed)
        if self.generator.draws_noise:
            after = random_states(self.generator.module)
            self._noise(self._preparation.simplified.program.draws, first, run.numbers[:1], run.seed)
            if random_states(self.generator.module) != after:
                return "the forward draws noise outside torch's operations"
        pairs = [(run.images[:1], expected.images)]
        pairs += [(run.activations[layer][:1], expected.activations[layer]) for layer in layers]
        problem = next((text for pair in pairs if (text := self._disagreement(*pair))), None)
        if problem is None:
            self._may_be_stale, self._is_confirmed = False, True
        return problem

    def _few(self, edits: Edits) -> SwapEdit | None:
        """The swap of the first layer, if it sets few units, equally many in each row."""
        first = self._preparation.first.get(frozenset(edits))
        if first is None:
            return None
        swap, *more = edits[first]
        if more or not isinstance(swap, SwapEdit) or not swap.is_sparse or swap.per_row is None:
            return None
        return swap if swap.per_row <= LARGEST_SHARE * self.generator.layer(first).channels else None

    def _disagreement(self, images: Tensor, expected: Tensor) -> str | None:
        return disagreement(images, expected, _TOLERANCE.get(self.generator.dtype or expected.dtype, 1e-2))


def _no_images(program: Program) -> Tensor:
    return torch.empty(0, *program.size(program.image, 1)[1:])
