"""What inversion minimises: the mean squared error of the images of latents against pictures, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..base.errors import first_line
from ..base.memory import is_out_of_memory
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from .differentiable import no_gradients

# Of the latents that are free to change, by their labels.
Values: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """Errors of some rows, each a latent with the picture that it is to give; no row depends on another.

    Attributes:
        latents: of the rows, with all that stays fixed.
        free: labels of the latents that change.
        pictures: (rows, C, H, W).
        numbers: of the rows' pictures, which also number the noise of a forward that draws some.
        seed: of that noise.
    """

    generator: GeneratorAdapter
    latents: Latents
    free: Sequence[str]
    pictures: Tensor
    numbers: Sequence[int]
    seed: int

    def start(self) -> Values:
        """The free latents as they are, in the pictures' precision."""
        named = dict(lt.named_tensors(self.latents))
        return {label: named[label].detach().to(self.pictures.dtype, copy=True) for label in self.free}

    def with_values(self, values: Mapping[str, Tensor]) -> Latents:
        """The latents with these values of the free ones, in their own types."""
        labels = iter([label for label, _ in lt.named_tensors(self.latents)])

        def chosen(value: Tensor) -> Tensor:
            other = values.get(next(labels))
            return value if other is None else other.to(value.dtype)

        return lt.apply(self.latents, chosen)

    def images(self, values: Mapping[str, Tensor]) -> Tensor:
        """The images of the rows, in the pictures' precision. Inside a session only."""
        made = self.generator.forward(self.with_values(values), noise=self.numbers, seed=self.seed)
        return made.to(self.pictures.dtype)

    def errors(self, values: Mapping[str, Tensor]) -> Tensor:
        """(rows,) mean squared error of the pixels."""
        return (self.images(values) - self.pictures).square().flatten(1).mean(1)

    def slopes(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Values]:
        """The errors, and their gradients by the free latents; where either is not finite, infinite and 0."""
        leaves = {label: value.detach().requires_grad_() for label, value in values.items()}
        with torch.enable_grad():
            errors = self.errors(leaves)
            slopes = self._gradients(errors.sum(), leaves)
        return torch.nan_to_num(errors.detach(), nan=torch.inf), {
            label: torch.nan_to_num(slope, 0, 0, 0) for label, slope in slopes.items()
        }

    def _gradients(self, total: Tensor, leaves: Values) -> Values:
        name = self.generator.name
        if not total.requires_grad:
            raise no_gradients(name, "they are cut off from each other, as by detach() or whole numbers")
        try:
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise no_gradients(name, first_line(error)) from error
        pairs = zip(leaves.items(), found, strict=True)
        return {label: torch.zeros_like(leaf) if slope is None else slope for (label, leaf), slope in pairs}


def require_slopes(objective: Objective) -> None:
    """Raise a ProbeError where no latent makes any difference to an error above 0, as behind rounding."""
    errors, slopes = objective.slopes(objective.start())
    if bool((errors > 0).all()) and not any(bool(slope.any()) for slope in slopes.values()):
        raise no_gradients(objective.generator.name, "all gradients are 0, as behind rounding")
