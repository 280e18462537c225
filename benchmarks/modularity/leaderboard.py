"""What the rows say of each method: numbers, the page's tables, and its picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pages import markdown, write_into

from counterfactual_probe.base.display.plot import Plot
from counterfactual_probe.base.drawing import canvas, label, without_frame

Row = Mapping[str, Any]
Mean = tuple[float, float]  # and its standard error
PICTURE = "benchmark.svg"
GROUPS = {"planted": "planted", "continuum": "continua", "decoder": "decoders"}


def leaderboard(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry for each method, those that find planted modules best first."""
    entries = [_entry(name, [row for row in rows if row["method"] == name]) for name in _names(rows, "method")]
    return sorted(entries, key=lambda entry: -entry.get("truth", (-2.0, 0.0))[0])


def _entry(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    scored = [row for row in rows if "failed" not in row]
    reasons = Counter(row["failed"] for row in rows if "failed" in row)
    entry: dict[str, Any] = {"method": name, "problems": len(rows), "failed": dict(reasons)}
    for score, unit in (("truth", "seed"), ("iou", "problem"), ("interchange", "problem")):
        if measured := [row for row in scored if score in row]:
            entry[score] = mean_over(measured, score, unit)
            entry[f"{score}_of"] = {
                problem: mean_over([row for row in measured if row["problem"] == problem], score, "seed")
                for problem in _names(measured, "problem")
            }
    for group in GROUPS:
        own = [row for row in scored if row["group"] == group]
        numbers = {}
        for score in ("agreement", "correlation", "cause", "isolation", "separation", "apart"):
            if measured := [row for row in own if score in row]:
                numbers[score] = float(np.mean([row[score] for row in measured]))
        if numbers:
            entry[group] = numbers
    if telling := [row for row in scored if "apart" in row and row["group"] != "decoder"]:
        entry["apart_of"] = {
            problem: float(np.mean([row["apart"] for row in telling if row["problem"] == problem]))
            for problem in _names(telling, "problem")
        }
    if expecting := [row for row in scored if "expected_ari" in row]:
        errors = [mean_over(some, "error", "seed")[0] for some in _by_kind(expecting)]
        entry["expected_error"] = [float(np.mean(errors)), float(np.mean(np.abs(errors)))]
    for kind in ("seconds", "input_seconds"):
        if timed := [row[kind] for row in scored if kind in row]:
            entry[kind] = float(np.mean(timed))
    return entry


def mean_over(rows: Sequence[Row], score: str, unit: str) -> Mean:
    """Mean over seeds or models of means over all else, and its standard error (0 of a single one)."""
    means = [np.mean([row[score] for row in rows if row[unit] == one]) for one in _names(rows, unit)]
    error = float(np.std(means, ddof=1) / len(means) ** 0.5) if len(means) > 1 else 0.0
    return float(np.mean(means)), error


def _by_kind(rows: Sequence[Row]) -> list[list[dict[str, Any]]]:
    """Rows of a toy of one kind, or of one layer, each with what was expected minus what was measured."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        known = {**row, "error": row["expected_ari"] - row["ari"]}
        kinds.setdefault((row["problem"], row["layer"]), []).append(known)
    return list(kinds.values())


def _names(rows: Sequence[Row], column: str) -> list[Any]:
    return list(dict.fromkeys(row[column] for row in rows))


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """The page's tables, by the name of their place."""
    entries = result["leaderboard"]
    found = {"leaderboard": _leaderboard(entries), "planted": _by_problem(entries, "truth_of")}
    found["samples"] = _table(entries, {
        f"{what}, {name}": _of(group, score)
        for score, what in (("agreement", "ARI"), ("correlation", "templates"))
        for group, name in GROUPS.items()
    })  # fmt: skip
    found["trust"] = _table([entry for entry in entries if "expected_error" in entry], {
        "expected − measured ARI": lambda entry: f"{entry['expected_error'][0]:+.2f}",
        "on average off by": lambda entry: f"{entry['expected_error'][1]:.2f}",
        "layers of decoders whose modules are apart": _of("decoder", "apart", "{:.0%}"),
    })  # fmt: skip
    found["apart"] = _by_problem([entry for entry in entries if "apart_of" in entry], "apart_of", "{:.0%}".format)
    found["parts"] = _by_problem(entries, "iou_of")
    found["factors"] = _by_problem(entries, "interchange_of")
    found["exchange"] = _table(entries, {
        f"{score}, {GROUPS[group]}": _of(group, score)
        for group in ("planted", "decoder")
        for score in ("cause", "isolation", "separation")
    })  # fmt: skip
    return found


def _leaderboard(entries: Sequence[Row]) -> str:
    return _table(entries, {
        "planted modules (ARI)": _mean("truth"),
        "other sample (ARI)": _of("decoder", "agreement"),
        "parts (IoU)": _mean("iou"),
        "factors (accuracy)": _mean("interchange"),
        "separation": _of("decoder", "separation"),
        "false alarms": _of("continuum", "apart", "{:.1%}"),
        "CPU-seconds": lambda entry: f"{entry['input_seconds']:.2f} + {entry['seconds']:.2f}",
        "failed": lambda entry: "; ".join(f"{count} × {reason}" for reason, count in entry["failed"].items()),
    })  # fmt: skip


def _by_problem(entries: Sequence[Row], scores: str, shown: Callable[[Any], str] | None = None) -> str:
    """A column for each kind of toy, or each decoder."""
    problems = list(dict.fromkeys(problem for entry in entries for problem in entry.get(scores, ())))

    def cell(problem: str) -> Callable[[Row], str]:
        return lambda entry: (shown or _shown)(entry[scores][problem])

    return _table(entries, {problem: cell(problem) for problem in problems})


def _table(entries: Sequence[Row], columns: Mapping[str, Callable[[Row], str]]) -> str:
    """A row for each method; a dash where there is no such score."""

    def cell(read: Callable[[Row], str], entry: Row) -> str:
        try:
            return read(entry) or "–"
        except KeyError:
            return "–"

    rows = [[entry["method"], *(cell(read, entry) for read in columns.values())] for entry in entries]
    return markdown(["method", *columns], rows)


def _mean(score: str) -> Callable[[Row], str]:
    return lambda entry: _shown(entry[score])


def _of(group: str, score: str, form: str = "{:.2f}") -> Callable[[Row], str]:
    return lambda entry: form.format(entry[group][score])


def _shown(mean: Sequence[float]) -> str:
    value, error = mean
    return f"{value:.2f} ± {error:.2f}" if error else f"{value:.2f}"


def heat_table(entries: Sequence[Row]) -> Plot[Any]:
    """Methods against scores that are 1 at best, as colours and numbers."""
    kinds = list(dict.fromkeys(kind for entry in entries for kind in entry.get("truth_of", ())))
    columns: dict[str, Callable[[Row], float]] = {kind: partial(_truth_of, kind=kind) for kind in kinds}
    columns["decoders: other sample"] = lambda entry: entry["decoder"]["agreement"]
    columns["decoders: parts"] = lambda entry: entry["iou"][0]
    columns["decoders: factors"] = lambda entry: entry["interchange"][0]
    values = np.array([[_value(read, entry) for read in columns.values()] for entry in entries])
    figure, ax = canvas(None, 0.72 * len(columns) + 2.6, 0.36 * len(entries) + 2.2)
    ax.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        ax.text(column, row, text, ha="center", va="center", color="white" if value < 0.5 else "black")
    ax.set_yticks(range(len(entries)), [label(entry["method"]) for entry in entries])
    ax.set_xticks(
        range(len(columns)), [label(name) for name in columns], rotation=35, ha="left", rotation_mode="anchor"
    )
    ax.xaxis.tick_top()
    ax.axvline(len(kinds) - 0.5, color="white", linewidth=3)
    without_frame(ax)
    return Plot(figure, ax)


def _truth_of(entry: Row, *, kind: str) -> float:
    return float(entry["truth_of"][kind][0])


def _value(read: Callable[[Row], float], entry: Row) -> float:
    try:
        return read(entry)
    except KeyError:
        return float("nan")


def write(page: Path, result: Mapping[str, Any]) -> None:
    """Make the page's tables anew, and its picture."""
    write_into(page, tables(result))
    heat_table(result["leaderboard"]).savefig(page.parent / "images" / PICTURE, metadata={"Date": None})
