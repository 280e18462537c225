"""Losses of a run: gathered without waiting for the device, watched, and written down."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...base.display.plot import Plot
from ...base.display.records import unguarded, write_csv
from ...base.drawing import PALETTE, canvas, label
from ...base.errors import ProbeError, first_line
from ...base.files import read_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST = 1e8  # what no loss or gradient of a sound run comes near
Values = npt.NDArray[np.float32]


class Diverged(ProbeError):
    """A loss or a gradient is no number any more, or far too large."""


class Losses:
    """Values by step, counted from 1, in float32. They are checked when :meth:`flush` is called."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.rows: list[Values] = []
        self._waiting: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, values: dict[str, Tensor]) -> None:
        """The values of one more step, still on the device."""
        if not self.names:
            self.names = tuple(values)
        if tuple(values) != self.names:
            raise ProbeError(
                f"a step shows {', '.join(values)} and the first showed {', '.join(self.names)}; show the same in each"
            )
        self._waiting.append(torch.stack([value.detach().float() for value in values.values()]))

    def flush(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Fetch what waits, averaged over ranks; raises at the first step that is not sound, keeping those before."""
        if not self._waiting:
            return
        rows = mean(torch.stack(self._waiting)).cpu().numpy()
        self._waiting.clear()
        for row in rows:
            if not np.all(np.abs(row) < LARGEST):  # NaN compares as false
                bad = int(np.flatnonzero(~(np.abs(row) < LARGEST))[0])
                raise Diverged(f"step {len(self.rows) + 1}, where {self.names[bad]} is {row[bad]:.3g}")
            self.rows.append(row)

    def last(self) -> dict[str, float]:
        """The values of the last step."""
        return dict(zip(self.names, map(float, self.rows[-1]), strict=True)) if self.rows else {}

    def columns(self) -> dict[str, Values]:
        """All values by name."""
        table = np.stack(self.rows) if self.rows else np.empty((0, len(self.names)), np.float32)
        return {name: table[:, i] for i, name in enumerate(self.names)}

    def save(self, path: Path) -> None:
        """As CSV, each value in as few digits as give it back exactly."""
        columns = ["step", *self.names]
        rows = (dict(zip(columns, [i, *map(str, row)], strict=True)) for i, row in enumerate(self.rows, 1))
        write_csv(path, rows, columns)

    def digest(self) -> str:
        """SHA-256 over names and values."""
        values = b"".join(row.tobytes() for row in self.rows)
        return hashlib.sha256(json.dumps(self.names).encode() + values).hexdigest()

    def load(self, path: Path, steps: int, digest: str) -> None:
        """The first ``steps`` rows of such a file, whose digest is known."""
        try:
            header, *rows = csv.reader(io.StringIO(read_bytes(path).decode(), newline=""), strict=True)
            first, *names = map(unguarded, header)
            numbers = [row[0] for row in rows[:steps]]
            values = [np.array(row[1:], np.float32) for row in rows[:steps]]
            if first != "step" or numbers != [str(i) for i in range(1, steps + 1)]:
                raise ValueError(f"its rows are not numbered from 1 to {steps}")
            if not names or len(set(names)) < len(names) or any(len(row) != len(names) for row in values):
                raise ValueError("its rows do not have a value for each name in the first")
            if not all(np.all(np.abs(row) < LARGEST) for row in values):
                raise ValueError("a value is no loss of a sound run")
            self.names, self.rows = tuple(names), values
            if self.digest() != digest:
                raise ValueError("they are other than those of its state")
        except (ValueError, IndexError, csv.Error) as error:
            raise ProbeError(
                f"{path} holds no losses of {steps} steps of this training, or altered ones ({first_line(error)}); put "
                "it back as it was, or give another folder"
            ) from error


def plot_losses(losses: Mapping[str, Values], *, ax: Axes | None = None) -> Plot[Axes]:
    """Each loss (steps,) by step."""
    from matplotlib.ticker import MaxNLocator

    figure, ax = canvas(ax, 6.4, 3.2)
    for i, (name, values) in enumerate(losses.items()):
        ax.plot(np.arange(1, len(values) + 1), values, color=PALETTE[i % len(PALETTE)], label=label(name), lw=1)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("loss")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all gradients together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        raise ProbeError("no parameter of this optimiser has a gradient; let its loss depend on them")
    return torch.nn.utils.get_total_norm(gradients)
