"""A generator as a list of plain operations and numbers: recorded, simplified, checked, and written as text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ...base.errors import ProbeError
from ...engine.program.program import Op, Program, outputs
from ...engine.program.recording import NotRecordable, in_order, record
from ...engine.program.simplify import Simplified, simplify
from ...generator.adapter import GeneratorAdapter
from ...generator.latents import Latents
from .call import Context, NotPortable, Plain
from .operation import plain_operations

Precision: TypeAlias = Literal["float16", "float32"]
# Beyond these a page loads or answers too slowly, and holds pictures in place of the generator.
MOST_NUMBERS = 16 * 2**20  # 32 MiB of float16, 43 MiB of text
MOST_PRODUCTS = 2**30  # of a forward: some seconds in a browser
# Largest difference from torch's images, as a share of the image's range.
TOLERANCE: dict[Precision, float] = {"float16": 2e-3, "float32": 1e-4}
_CHECKED = 4  # samples
# A page of more weights begins right where it has the fewest numbers, those of its samples counted.
_LARGE = 5 * 2**20
_SAMPLES = 16  # in the strip


class CannotCarry(ProbeError):
    """A page cannot carry this generator; says why."""


@dataclass(frozen=True)
class PortableProgram:
    """What a page needs to compute images and hybrids.

    Attributes:
        operations: in order; the interpreter's form.
        constants: by number, as torch has them.
        inputs: (number, shape) of the values that differ between samples: the latents, or what is computed of them.
        layers: those that can be set.
        precision: of the weights in the page.
        error: largest difference from torch's images that the rounding of weights makes, as a share of the range.
    """

    operations: list[Plain]
    constants: dict[int, Tensor]
    inputs: list[tuple[int, list[int]]]
    image: int
    precision: Precision
    error: float
    _prefix: tuple[Op, ...] = field(default=(), repr=False)
    _program: Program | None = field(default=None, repr=False)

    @property
    def numbers(self) -> int:
        return sum(value.numel() for value in self.constants.values())

    def inputs_of(self, latents: Latents) -> Tensor:
        """(numbers,) of one sample: what the page computes its image from."""
        if self._program is None:
            raise ProbeError("this program was made without its prefix; make it with portable_program")
        values = _values(self._program, self._prefix, latents)
        return torch.cat([values[number].flatten().float().cpu() for number, _ in self.inputs])

    def as_json(self, latents: Sequence[Latents]) -> dict[str, Any]:
        """Everything as JSON takes it, with the inputs of these samples."""
        kind = np.float16 if self.precision == "float16" else np.float32
        constants, parts, start = [], [], 0
        for number, value in self.constants.items():
            constants.append({"number": number, "start": start, "shape": list(value.shape)})
            parts.append(value.detach().cpu().double().numpy().astype(kind).ravel())
            start += value.numel()
        numbers = np.concatenate(parts) if parts else np.zeros(0, kind)
        inputs = torch.stack([self.inputs_of(one) for one in latents]).numpy()
        return {
            "operations": self.operations,
            "image": self.image,
            "inputs": [{"number": number, "shape": shape} for number, shape in self.inputs],
            "constants": constants,
            "type": self.precision,
            "numbers": _text(numbers),
            "latents": _text(inputs.astype(np.float32)),
        }


def portable_program(
    generator: GeneratorAdapter, layers: Sequence[str], precision: Precision = "float16"
) -> PortableProgram:
    """The generator as plain data; raises :class:`CannotCarry` with the reason if a page cannot compute it.

    Weights that float16 rounds too coarsely for :data:`TOLERANCE` are kept as float32.
    """
    with generator.unchanged(), generator.session():
        simplified = _simplified(generator, layers)
        program = simplified.program
        prefix, operations = _portable_part(program)
        _require_small(program, operations)
        numbers = _read(operations, program)
        inputs = _inputs(program, numbers)
        constants = {number: program.constants[number] for number in numbers if number in program.constants}
        for kind in (precision, "float32"):
            error = _rounding_error(generator, program, constants, kind)
            if error <= TOLERANCE[kind]:
                return PortableProgram(operations, constants, inputs, program.image, kind, error, prefix, program)
    raise CannotCarry(f"its simplified form differs from the generator by {error:.2g} of the image's range")


def _simplified(generator: GeneratorAdapter, layers: Sequence[str]) -> Simplified:
    if not generator.batchable:
        raise CannotCarry("it draws noise, or its samples influence one another")
    sites = [generator.site(layer) for layer in layers]
    try:
        simplified = simplify(record(generator, sites), sites, for_processors=False)
    except NotRecordable as error:
        raise CannotCarry(f"its forward cannot be recorded ({error})") from error
    if simplified.program.draws:
        raise CannotCarry("it draws noise")
    return simplified


def _portable_part(program: Program) -> tuple[tuple[Op, ...], list[Plain]]:
    """What comes before, computed here for each sample; and all operations from where the page has every one."""
    shapes = {number: program.size(number, 1) for number in program.shapes}
    context = Context(shapes, program.constants)
    described: list[list[Plain]] = []
    reason = ""
    for op in reversed(program.ops):
        try:
            described.append(list(plain_operations(op, context)))
        except NotPortable as error:
            reason = str(error)
            break
    first = len(program.ops) - len(described)
    if any(op.kind == "edit" for op in program.ops[:first]):
        raise CannotCarry(f"the page cannot compute {reason}")
    described.reverse()
    start = _start(program, first, described)
    return tuple(program.ops[:start]), [made for several in described[start - first :] for made in several]


def _start(program: Program, first: int, described: Sequence[Sequence[Plain]]) -> int:
    """The operation to begin with, from the first that the page has: another only where weights are many.

    What comes before is computed here, and what it gives stands in the page for each sample.
    """
    if _numbers(program, described)[0] <= _LARGE:
        return first
    edited = next((place for place, op in enumerate(program.ops) if op.kind == "edit"), len(program.ops))
    sizes = {start: sum(_numbers(program, described[start - first :])) for start in range(first, edited + 1)}
    return min(sizes, key=lambda start: sizes[start])


def _numbers(program: Program, described: Sequence[Sequence[Plain]]) -> tuple[int, float]:
    """Numbers of 16 bits that a page holds with these operations: of its weights, and of its samples' inputs."""
    read = _read([made for several in described for made in several], program)
    weights = sum(program.constants[number].numel() for number in read if number in program.constants)
    inputs = [number for number in read if number not in program.constants]
    if not all(program.per_sample(number) for number in inputs):
        return weights, float("inf")
    return weights, 2 * _SAMPLES * sum(int(np.prod(program.size(number, 1))) for number in inputs)


def _require_small(program: Program, operations: Sequence[Plain]) -> None:
    numbers = sum(program.constants[n].numel() for n in _read(operations, program) if n in program.constants)
    if numbers > MOST_NUMBERS:
        raise CannotCarry(
            f"it has {numbers / 1e6:.1f} million weights, and a page carries up to {MOST_NUMBERS / 1e6:.1f} million"
        )
    products = sum(_products(made, program) for made in operations)
    if products > MOST_PRODUCTS:
        raise CannotCarry(
            f"a forward takes {products / 1e9:.1f} billion multiplications, and a page computes up to "
            f"{MOST_PRODUCTS / 1e9:.1f} billion"
        )


def _products(made: Plain, program: Program) -> int:
    """Multiplications of a convolution, a linear map or a product of matrices."""
    if made["kind"] == "matmul":
        return int(np.prod(made["shape"])) * program.size(made["in"][0], 1)[-1]
    if made["kind"] == "attention":  # of queries and keys, and of what comes of them and values
        query, key = (program.size(number, 1) for number in made["in"][:2])
        return 2 * int(np.prod(query)) * key[-2]
    if made["kind"] not in ("convolution", "polyphase", "linear"):
        return 0
    weight, shape = program.size(made["in"][1], 1), made["shape"]
    x = program.size(made["in"][0], 1)
    places = int(np.prod(x[2:])) if made.get("transposed") or made["kind"] == "polyphase" else int(np.prod(shape[2:]))
    return int(np.prod(weight)) * places


def _read(operations: Sequence[Plain], program: Program) -> list[int]:
    """The values that the operations do not make themselves, each once, in order."""
    made = {item["out"] for item in operations}
    read = [number for item in operations for number in item["in"] if number is not None]
    return [number for number in dict.fromkeys([*read, program.image]) if number not in made]


def _inputs(program: Program, numbers: Sequence[int]) -> list[tuple[int, list[int]]]:
    inputs = [number for number in numbers if number not in program.constants]
    for number in inputs:
        if not program.per_sample(number):
            raise CannotCarry("its samples influence one another")
    return [(number, program.size(number, 1)) for number in inputs]


def _rounding_error(
    generator: GeneratorAdapter, program: Program, constants: dict[int, Tensor], precision: Precision
) -> float:
    """The largest difference of the program with rounded weights from the generator, as a share of the range."""
    kind = torch.float16 if precision == "float16" else torch.float32
    rounded = {number: value.to(kind).to(value.dtype) for number, value in constants.items()}
    low, high = generator.image_range
    error = 0.0
    for start in range(_CHECKED):
        latents = generator.sample(1, start=start)
        image = _values(program, program.ops, latents, rounded)[program.image]
        gap = (image - generator(latents)).abs().max()
        error = max(error, float(gap) / (high - low)) if bool(torch.isfinite(gap)) else float("inf")
    return error


def _values(
    program: Program, ops: Sequence[Op], latents: Latents, constants: dict[int, Tensor] | None = None
) -> dict[int, Tensor]:
    values = dict(program.constants) | (constants or {})
    values.update(zip(program.inputs, in_order(latents), strict=True))
    with torch.no_grad():
        for op in ops:
            values.update(outputs(op, op(values, 1)))
    return values


def _text(numbers: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()
