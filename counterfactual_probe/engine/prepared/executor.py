"""Run a generator as a simplified program: folded, cut to what the images need, started at the layer.

The program is the generator's own forward, recorded. Every way through it is compared with full
forwards on the first batch that takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...base.errors import described
from ...base.memory import is_out_of_memory
from ...generator import latents as lt
from ...generator.adapter import GeneratorAdapter
from ...generator.images import all_finite
from ...generator.latents import Latents
from ...generator.layers import channels_first
from ...generator.state.randomness import random_states
from ..executors import Executor, FullForward, disagreement
from ..interception import NotReplayable
from ..interventions import SwapEdit
from ..program.program import Draw, outputs
from ..program.recording import in_order
from ..runs import CleanRun, Edits, Runs
from .batch import Batch, Clean, laid_out
from .cache import Preparations

# With more than this share of the channels set, a convolution of all is no slower.
LARGEST_SHARE = 0.25
# Room for the rounding of fifty layers; what a mistake makes is far larger.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# Of a difference in bfloat16, in the mean over an image: far above its rounding, far below a mistake.
_NARROW_TOLERANCE = 0.05
_CHECKED_ROWS = 2


@dataclass(frozen=True)
class PreparedRun(CleanRun):
    """A clean run with the values that the ways after the layer read."""

    clean: Clean = field(default_factory=lambda: Clean({}))


class Prepared:
    """Executor of simplified programs; raises NotRecordable if there is none for the generator.

    ``instead`` makes the executor to fall back to. ``narrow`` is the type in which differences travel;
    None for exact hybrids.
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        ways: Sequence[frozenset[str]],
        instead: Callable[[], Executor],
        narrow: torch.dtype | None = None,
    ) -> None:
        self.generator = generator
        self._instead = instead
        self.name = "prepared"
        self._full = FullForward(generator)
        self._narrow = narrow
        self._clean_checked = False
        with generator.session():
            self._preparations = Preparations(generator, ways, narrow)
            remembered = self._preparations.remembered()
            self._preparation = remembered or self._preparations.anew()
        # What is remembered may be out of date, and is then made once more.
        self._another_try = remembered is not None

    @cached_property
    def instead(self) -> Executor:
        """What runs the rest when this one is found wrong."""
        return self._instead()

    @property
    def batches(self) -> bool:
        return self.name == "prepared" or self.instead.batches

    @property
    def rounding(self) -> str:
        return "bf16-diff" if self._narrow is not None and self.name == "prepared" else ""

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        if self.name == "prepared":
            found, problem = self._attempt(latents, layers, numbers, seed, base)
            if found is None and self._another_try:
                self._another_try = False
                problem = self._prepared_anew()
                if problem is None:
                    found, problem = self._attempt(latents, layers, numbers, seed, base)
            if found is not None:
                return found
            self._give_up(problem or "")
        return self.instead.clean(latents, layers, numbers, seed, base=base)

    def _attempt(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, base: bool
    ) -> tuple[PreparedRun | None, str | None]:
        """A clean run, or why it cannot be had; the first is compared with a full forward."""
        try:
            found = self._clean(latents, layers, numbers, seed, base=base)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return None, described(error)
        if not self._clean_checked and (problem := self._clean_problem(found, layers)) is not None:
            return None, problem
        self._clean_checked, self._another_try = True, False
        return found, None

    def _prepared_anew(self) -> str | None:
        try:
            self._preparation = self._preparations.anew()
        except NotReplayable as error:
            return described(error)
        return None

    def _clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool
    ) -> PreparedRun:
        simplified, n = self._preparation.simplified, len(numbers)
        program = simplified.program
        values: dict[int, Tensor] = dict(program.constants)
        values.update(zip(program.inputs, in_order(latents), strict=True))
        values.update(self._noise(program.draws, numbers, seed))
        for op, frees in zip(program.ops, self._preparation.frees, strict=True):
            values.update(outputs(op, op(values, n)))
            for number in frees:
                del values[number]
        activations = {layer: channels_first(values[simplified.edited[layer][0]]).clone() for layer in layers}
        images = values[program.image]
        # Nothing that is kept may be seen to change: views of it are given away.
        kept = {number: laid_out(values[number]) for number in self._preparation.needs} if base else {}
        return PreparedRun(latents, images.clone(), activations, numbers, seed, Clean(kept))

    def _noise(self, draws: Sequence[Draw], numbers: Sequence[int], seed: int) -> dict[int, Tensor]:
        """What the forward of each sample draws by itself."""
        drawn: dict[int, list[Tensor]] = {draw.op.out: [] for draw in draws}
        for number in numbers if draws else ():
            self.generator.seed_noise(seed, number)
            for draw in draws:
                drawn[draw.op.out].append(draw())
        return {value: torch.cat(rows) for value, rows in drawn.items()}

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        if self.name != "prepared" or not isinstance(base, PreparedRun):
            return self.instead.intervened(base, runs)
        chosen = frozenset(runs.edits)
        few = self._few(runs.edits, self._preparation.first.get(chosen))
        key = (chosen, few is not None)
        try:
            images = self._preparation.ways[key](Batch(base.clean, runs, few, self.generator.device))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return self._fall_back(base, runs, described(error))
        if key in self._preparation.checked:
            return images
        if (problem := self._problem(base, runs, images)) is not None:
            return self._fall_back(base, runs, problem)
        self._preparation.checked.add(key)
        return images

    def _few(self, edits: Edits, first: str | None) -> SwapEdit | None:
        """The swap of the first layer, if it sets few channels, and as many in every row."""
        if first is None:
            return None
        swap, *more = edits[first]
        if more or not isinstance(swap, SwapEdit) or swap.per_row is None:
            return None
        return swap if swap.per_row <= LARGEST_SHARE * swap.values.shape[1] else None

    def _clean_problem(self, found: CleanRun, layers: Sequence[str]) -> str | None:
        """What is wrong with a clean run, as a full forward of its first sample shows: what is put into
        hybrids comes from here."""
        first = lt.take(found.latents, slice(0, 1))
        expected = self._full.clean(first, layers, found.numbers[:1], found.seed)
        if self.generator.draws_noise:
            after = random_states(self.generator.module)
            self._noise(self._preparation.simplified.program.draws, found.numbers[:1], found.seed)
            if random_states(self.generator.module) != after:
                return "the forward draws noise outside torch's operations"
        pairs = [(found.images[:1], expected.images)]
        pairs += [(found.activations[layer][:1], expected.activations[layer]) for layer in layers]
        return next((problem for pair in pairs if (problem := self._disagreement(*pair))), None)

    def _disagreement(self, found: Tensor, expected: Tensor) -> str | None:
        return disagreement(found, expected, _TOLERANCE.get(self.generator.dtype or expected.dtype, 1e-2))

    def _problem(self, base: CleanRun, runs: Runs, images: Tensor) -> str | None:
        """What is wrong with images, as full forwards of some of the rows show; None if nothing is."""
        if not all_finite(images):
            return "an image is not finite"
        step = max(1, len(runs) // _CHECKED_ROWS)
        chosen = list(range(len(runs)))[::-step][:_CHECKED_ROWS]
        some = runs.part(chosen)
        reference = self._full.intervened(base, some)
        if self._narrow is not None:
            gap = (images[chosen] - reference).abs()
            change = (reference - base.images[some.samples]).abs()
            allowed = _NARROW_TOLERANCE * change.mean((1, 2, 3)) + 1e-5
            return None if bool((gap.mean((1, 2, 3)) <= allowed).all()) else f"a difference of {float(gap.max()):.2g}"
        return self._disagreement(images[chosen], reference)

    def _fall_back(self, base: CleanRun, runs: Runs, problem: str) -> Tensor:
        self._give_up(problem)
        return self.instead.intervened(base, runs)

    def _give_up(self, problem: str) -> None:
        self.name = f"{self.instead.name} (prepared disagreed: {problem})"
