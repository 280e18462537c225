"""A robustness assessment as a table: text, CSV, and rows for JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .result import Robustness


def rows(result: Robustness) -> Iterator[dict[str, Any]]:
    """One for each classifier, layer and module, with all that is known about it as plain numbers."""
    first, second = result.classes
    top1, top5, best, error = result.recognition, result.recognition5, result.best, result.best_standard_error
    distance, entropy, consensus = result.distance, result.entropy, result.consensus
    present = np.argwhere(result.present).tolist()
    for c, classifier in enumerate(result.classifiers):
        for layer, module in present:
            at = c, layer, module
            yield {
                "classifier": classifier,
                "layer": result.layers[layer],
                "module": result.modules[module],
                f"{first} top-1": float(top1[at][0]),
                f"{second} top-1": float(top1[at][1]),
                f"{first} top-5": float(top5[at][0]),
                f"{second} top-5": float(top5[at][1]),
                "larger": float(best[at]),
                "standard error": float(error[at]),
                f"distance to {first}": float(distance[at][0]),
                f"distance to {second}": float(distance[at][1]),
                "entropy": float(entropy[at]),
                "consensus": float(consensus[layer, module]),
            }


def as_csv(result: Robustness) -> str:
    found = list(rows(result))
    text = io.StringIO()
    writer = csv.DictWriter(text, found[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def as_text(result: Robustness) -> str:
    """Columns under their names, with what the whole is about above them."""
    found = list(rows(result))
    cells = [list(found[0]), *([_cell(value) for value in row.values()] for row in found)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if k < 3 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([repr(result), *lines])


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
