"""Two ranks on two cores against one rank on one core: the same maps under ``torchrun``, taking turns.

Every rank has one thread and its own core, so the ratio is the gain from a second core. Only the call itself is
timed, between barriers, without starting, importing and loading.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

import counterfactual_probe as cp

PAIRS, ROUNDS = 4, 3
TOLERANCE = 1e-5


def work(pairs: int, maps: Path) -> None:
    """The work of each rank; rank 0 prints how long the call took."""
    rank = int(os.environ["RANK"])
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
    gen = cp.load("dcgan-faces")
    probe = cp.InfluenceMap(gen, list(gen.layers))
    probe.attribute(n_pairs=1, seed=0)  # a warm-up, which also creates the process group
    dist.barrier()
    start = time.perf_counter()
    found = probe.attribute(n_pairs=pairs, seed=0)
    dist.barrier()
    seconds = time.perf_counter() - start
    if rank == 0:
        torch.save(found.maps, maps)
        about = {name: found.provenance[name] for name in ("ranks", "executor")}
        print(json.dumps(about | {"seconds": seconds, "threads": torch.get_num_threads()}))


def started(script: str, ranks: int, worker: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What rank 0 of a script prints last, as JSON; every rank has one thread."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    run = subprocess.run([*launcher, script, *worker], env=given, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{run.stderr}\n{ranks} ranks failed with the error above")
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    if told["ranks"] != ranks or told["threads"] != 1:
        raise SystemExit(f"{ranks} ranks of one thread were requested, and {told} ran")
    return told


def ranks_row(*, pairs: int = PAIRS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Time of one rank divided by that of two: the median over rounds in which they take turns."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with TemporaryDirectory() as folder:
        files = {ranks: Path(folder) / f"{ranks}.pt" for ranks in seconds}
        for _ in range(rounds):
            for ranks, file in files.items():
                worker = ["--worker", "--pairs", str(pairs), "--maps", str(file)]
                seconds[ranks].append(started(__file__, ranks, worker, {})["seconds"])
            one, two = (torch.load(file) for file in files.values())
            if not torch.allclose(one, two, rtol=0, atol=TOLERANCE):
                raise SystemExit(f"maps of one rank and of two differ by {float((one - two).abs().max()):.1e}")
    return {
        "pairs": pairs,
        "cores": cores,
        "seconds": {str(ranks): median(values) for ranks, values in seconds.items()},
        "ratio": median(one / two for one, two in zip(seconds[1], seconds[2], strict=True)),
    }


def line(row: dict[str, Any]) -> str:
    shown = "2 ranks of one thread: {ratio:.2f} × as fast as 1, {pairs} pairs".format(**row)
    return shown if row["cores"] >= 2 else f"{shown} (on a single core: there is nothing to gain)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", help="run as one of the ranks (used by torchrun)")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--maps", type=Path, help="file in which rank 0 saves the maps")
    args = parser.parse_args()
    if args.worker:
        work(args.pairs, args.maps)
    else:
        print(line(ranks_row(pairs=args.pairs, rounds=args.rounds)))
