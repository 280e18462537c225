"""Descending an objective: Adam for all rows side by side, L-BFGS for one row at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, pi

import torch
from torch import Tensor

from .objective import Objective, Values

RATE = 0.1  # of the latents' own spread, in the first step of Adam; it falls to 0 as a cosine
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-12  # of Adam (Kingma and Ba 2015, algorithm 1)
_HISTORY = 20  # of L-BFGS


def descend(
    objective: Objective, scales: Mapping[str, float], steps: int, advance: Callable[[], object]
) -> tuple[Values, Tensor]:
    """So many steps of Adam, and for each row the best values on its way and their error (rows,).

    ``scales`` is how much each free latent varies, and ``advance`` is called after each step.
    """
    values = objective.start()
    first = {label: torch.zeros_like(value) for label, value in values.items()}
    second = {label: torch.zeros_like(value) for label, value in values.items()}
    best, least = dict(values), torch.full_like(objective.pictures.flatten(1)[:, 0], torch.inf)
    for step in range(1, steps + 1):
        errors, slopes = objective.slopes(values)
        best, least = _better(best, least, values, errors)
        rate = RATE * (1 + cos(pi * (step - 1) / steps)) / 2
        for label, slope in slopes.items():
            first[label] = _FIRST * first[label] + (1 - _FIRST) * slope
            second[label] = _SECOND * second[label] + (1 - _SECOND) * slope.square()
            size = (second[label] / (1 - _SECOND**step)).sqrt() + _TINY
            values[label] = values[label] - rate * scales[label] * first[label] / (1 - _FIRST**step) / size
        advance()
    with torch.no_grad():
        errors = torch.nan_to_num(objective.errors(values), nan=torch.inf)
    return _better(best, least, values, errors)


def _better(best: Values, least: Tensor, values: Values, errors: Tensor) -> tuple[Values, Tensor]:
    """Row by row, the values of the smaller error."""
    lower = errors < least

    def chosen(label: str) -> Tensor:
        rows = lower.view(-1, *[1] * (values[label].dim() - 1))
        return torch.where(rows, values[label], best[label])

    return {label: chosen(label) for label in values}, torch.where(lower, errors, least)


def polish(objective: Objective, values: Values, steps: int, unit: float) -> tuple[Values, Tensor]:
    """At most so many iterations of L-BFGS from the values of a single row; the best on the way, and its error (1,).

    ``unit`` is an error that counts as large, in which it is measured.
    """
    leaves = {label: value.detach().clone() for label, value in values.items()}
    best, least = (
        dict(values),
        torch.full((1,), torch.inf, dtype=objective.pictures.dtype, device=objective.pictures.device),
    )

    def closure() -> Tensor:
        nonlocal best, least
        errors, slopes = objective.slopes(leaves)
        best, least = _better(best, least, {label: leaf.clone() for label, leaf in leaves.items()}, errors)
        for label, leaf in leaves.items():
            leaf.grad = slopes[label] / unit
        return errors.sum() / unit

    optimiser = torch.optim.LBFGS(
        list(leaves.values()),
        max_iter=steps,
        history_size=_HISTORY,
        tolerance_grad=0.0,
        tolerance_change=torch.finfo(least.dtype).eps ** 2,  # until arithmetic sees no difference
        line_search_fn="strong_wolfe",
    )
    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return best, least
