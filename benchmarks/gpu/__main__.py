"""Tests, exactness, determinism, memory, ranks and speed on a GPU, in one command of at most nine minutes.

    python benchmarks/gpu                          on the GPU of this machine
    python benchmarks/gpu --device cpu --small     a rehearsal without one: what needs a GPU is named as skipped

Each stage prints its rows as it ends, and all are written as JSON. A stage that fails does not stop those after it;
the exit status says whether any did.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # run as a folder, which is a package of benchmarks
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from throughput import machine

from gpu import exactness, limits, speed
from gpu.stage import Bench, Outcome, Stage, outcome_of

STAGES = (
    Stage("limits", speed.limits, 10),
    Stage("exactness", exactness.exactness, 15),
    Stage("CUDA graphs", exactness.graphs, 5),
    Stage("determinism", exactness.determinism, 10),
    Stage("settings", exactness.sessions, 5),
    Stage("memory", limits.memory, 15),
    Stage("out of memory", limits.out_of_memory, 10),
    Stage("ranks", limits.ranks, 30),
    Stage("tests", limits.tests, 60),
    Stage("speed", speed.speed, 60),  # last: it takes what time is left, and names what it has none for
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="a CUDA device, or cpu for a rehearsal (default cuda)")
    parser.add_argument("--small", action="store_true", help="narrow generators and few hybrids: a rehearsal")
    parser.add_argument("--seconds", type=float, default=540.0, help="after which no stage begins (default 540)")
    parser.add_argument("--stages", nargs="+", choices=[stage.name for stage in STAGES], help="by default all")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here (CUDA_VISIBLE_DEVICES may be empty); --device cpu --small rehearses")
    if device.type == "cpu" and not args.small:
        raise SystemExit("a CPU takes hours for these sizes; add --small")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about GPUs; results say what was done
        outcomes = run(Bench(device, args.small, args.seconds), args.stages, args.out)
    if any(outcome.state in ("failed", "too late") for outcome in outcomes):
        sys.exit(1)


def run(bench: Bench, chosen: Sequence[str] | None, out: Path | None) -> list[Outcome]:
    """All stages, of which those not chosen are named as skipped, printed and written as they end."""
    result: dict[str, Any] = {"machine": machine(bench.device), "small": bench.small}
    outcomes: list[Outcome] = []
    for stage in STAGES:
        if chosen and stage.name not in chosen:
            outcomes.append(Outcome(stage.name, "skipped", why="--stages does not name it"))
        else:
            outcomes.append(outcome_of(stage, bench))
        print("\n".join(outcomes[-1].lines()), flush=True)
        result["stages"] = [asdict(outcome) for outcome in outcomes]
        if out:  # after every stage: what was measured is kept if the machine is taken away
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(summary(outcomes, bench))
    return outcomes


def summary(outcomes: list[Outcome], bench: Bench) -> str:
    """One line for each state, so that nothing is left out silently."""
    lines = [f"{bench.seconds - bench.left:.0f} s on {bench.device}{', small: a rehearsal' if bench.small else ''}"]
    for state in ("done", "skipped", "failed", "too late"):
        names = [outcome.stage for outcome in outcomes if outcome.state == state]
        lines.append(f"{state}: {', '.join(names) or 'none'}")
    left_out = [row for outcome in outcomes for row in outcome.rows if {"skipped", "failed"} & row.keys()]
    lines.append(f"rows skipped or failed inside of stages: {len(left_out)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
