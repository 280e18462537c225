"""Figures of disentanglement metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.display.plot import Plot
from ..base.drawing import Floats, canvas, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERED = 20  # with more codes or factors, cells do not show their values


def plot_matrix(matrix: Floats, title: str, *, ax: Axes | None = None) -> Plot[Axes]:
    """The matrix behind a score: codes down, factors across, darker for larger values."""
    codes, factors = matrix.shape
    figure, ax = canvas(ax, 1.2 + 0.5 * factors, 0.9 + 0.3 * codes)
    largest = float(matrix.max())
    ax.imshow(matrix, cmap="Greys", vmin=0, vmax=largest if largest > 0 else 1, aspect="auto")
    if max(codes, factors) <= _NUMBERED:
        for i in range(codes):
            for j in range(factors):
                shade = "white" if matrix[i, j] > 0.6 * largest else "black"
                ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=7, color=shade)
    ax.set_xticks(range(factors), [str(j) for j in range(factors)])
    ax.set_yticks(range(codes), [str(i) for i in range(codes)])
    ax.set_xlabel("factor")
    ax.set_ylabel("code")
    ax.set_title(label(title), fontsize=10)
    return Plot(figure, ax)
