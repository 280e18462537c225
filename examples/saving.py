"""Common code of the examples: saving figures, tables and sentences, and printing errors as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import counterfactual_probe as cp
from counterfactual_probe.base.display.plot import png
from counterfactual_probe.base.display.records import write_csv
from counterfactual_probe.base.files import write_bytes, write_json, write_text


def save_figure(figure: Any, path: Path, *, photographs: bool = False) -> Path:
    print(write_bytes(path, png(figure, photographs=photographs)))
    return path


def save_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A table as CSV and as JSON."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print(write_csv(path.with_suffix(".csv"), rows, columns))
    print(write_json(path.with_suffix(".json"), list(rows)))


def save_sentences(sentences: Sequence[str], path: Path) -> None:
    """Write the findings to a file, and print them."""
    text = "".join(f"- {sentence}\n" for sentence in sentences)
    print(write_text(path, text))
    print(text, end="")


def run(main: Callable[[], object]) -> None:
    """Run ``main``; a ProbeError is printed as one sentence, without a traceback."""
    try:
        main()
    except cp.ProbeError as error:
        raise SystemExit(str(error)) from error
