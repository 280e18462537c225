"""Ratios of this version that `make bench` has measured: for CI, which compares them with the last, and to be kept.

    python benchmarks/history.py out/bench            writes out/bench/ratios.json
    python benchmarks/history.py out/bench --keep     and benchmarks/history/VERSION.json, which the site draws

Times depend on the machine, and ratios much less: each is of two things that took turns in one process.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

from counterfactual_probe.base.display.plot import Plot

HISTORY = Path(__file__).parent / "history"


def ratios(throughput: dict[str, Any], compare: dict[str, Any], samplers: dict[str, Any]) -> dict[str, list[float]]:
    """By name, the median ratio, and the smallest and largest of the rounds."""
    hybrids = {
        f"hybrids for an image, {row['layer']}": [row["ratio"], *row["ratio_range"]] for row in throughput["layers"]
    }
    row = compare["rows"]["float32"]
    hooks = {"maps as fast as hooks, four layers": [row["ratios_to"]["hooks"], *row["ratio_ranges_to"]["hooks"]]}
    calls = {f"maps as fast as hooks, {row['layer']}": [row["ratio"], *row["ratio_range"]] for row in samplers["rows"]}
    return {**hybrids, **hooks, **calls}


def for_action(found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """As github-action-benchmark reads them; bigger is better."""
    return [
        {"name": name, "unit": "ratio", "value": round(value, 4), "range": f"{low:.2f}–{high:.2f}"}
        for name, (value, low, high) in found.items()
    ]


def kept(folder: Path = HISTORY) -> list[dict[str, Any]]:
    """What each version measured, the oldest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(found, key=lambda one: (one["date"], one["version"]))


def plot(versions: list[dict[str, Any]]) -> Plot[Any]:
    """A row for each ratio, and in it a point for each version, with the smallest and the largest of its rounds."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for one in versions for name in one["ratios"]))
    figure = Figure(figsize=(7.5, 0.6 + 0.42 * len(names)), layout="constrained")
    ax = figure.subplots()
    for number, one in enumerate(versions):
        shown = [name for name in names if name in one["ratios"]]
        values = [one["ratios"][name] for name in shown]
        bars = [[value - low for value, low, _ in values], [high - value for value, _, high in values]]
        at = [names.index(name) + 0.12 * (number - (len(versions) - 1) / 2) for name in shown]
        label = f"{one['version']} ({one['date']})"
        ax.errorbar([value for value, *_ in values], at, xerr=bars, fmt="o", capsize=2, label=label)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.axvline(1, color="0.8", zorder=0)
    ax.set_xlabel("ratio; more is better")
    ax.legend(frameon=False)
    return Plot(figure, ax)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with throughput.json, compare.json and samplers.json")
    parser.add_argument("--keep", action="store_true", help="keep the ratios in benchmarks/history, as this version's")
    parser.add_argument("--note", help="kept with them, such as what else the machine did")
    options = parser.parse_args()
    measured = {
        name: json.loads((options.folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("throughput", "compare", "samplers")
    }
    found = ratios(**measured)
    _write(options.folder / "ratios.json", for_action(found))
    if options.keep:
        machine = measured["throughput"]["machine"]
        kept = {
            "version": machine["counterfactual_probe"],
            "date": datetime.date.today().isoformat(),
            "machine": machine,
            "note": options.note,
            "ratios": {name: [round(value, 4) for value in values] for name, values in found.items()},
        }
        _write(HISTORY / f"{kept['version']}.json", kept)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
