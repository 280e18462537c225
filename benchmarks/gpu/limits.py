"""Memory: that it stays flat, that running out of it halves the batches; and ranks: one of NCCL."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from live import LiveBytes

import counterfactual_probe as cp

from .exactness import subject
from .stage import Bench, Row

# What tests on devices are recognised by; those in other files need not be collected.
_ON_DEVICES = r"on_devices\(|ACCELERATORS|toy: Toy"
_GO_ON = ["--continue-on-collection-errors"]  # of files that need what is not installed
MARGIN = 1.10  # of peaks that should be equal


def memory(bench: Bench) -> Iterator[Row]:
    """Peaks of one layer's maps: as high for many pairs as for few, and more for more channels by their maps alone."""
    _, gen, layer, _ = subject(bench)
    channels = gen.layers[layer].channels
    some = [[channel] for channel in range(channels // 2)]
    probe = cp.InfluenceMap(gen, layer)
    probe.attribute(n_pairs=2, units=some)  # records, and fills caches of kernels
    peaks = {}
    # At least as many pairs as hybrids in a batch, since so many clean runs are kept at a time.
    for name, pairs, units in (("few", 64, some), ("more pairs", 256, some), ("more units", 64, None)):
        peaks[name] = _peak(bench, partial(probe.attribute, n_pairs=pairs, units=units, hybrids_per_eval=64))
        what = f"peak of {pairs} pairs of {channels if units is None else len(some)} channels"
        yield {"name": what, "MiB": peaks[name] / 2**20}
    if peaks["more pairs"] > MARGIN * peaks["few"]:
        raise RuntimeError("memory grows with the number of pairs")


def _peak(bench: Bench, work: Callable[[], Any]) -> int:
    """Bytes that are taken at the peak, beside those taken before: by torch's allocator, or of tensors on a CPU."""
    if not bench.on_gpu:
        with LiveBytes() as live:
            work()
        peak: int = live.peak
        return peak
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    work()
    return torch.cuda.max_memory_allocated(bench.device) - before


def out_of_memory(bench: Bench) -> Iterator[Row]:
    """A batch that does not fit is halved until it does, and the maps are those of a batch that fits."""
    bench.require_gpu("a GPU's allocator is given too little")
    _, gen, layer, _ = subject(bench)
    probe = cp.InfluenceMap(gen, layer)
    fits = probe.attribute(n_pairs=64, hybrids_per_eval=32)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(bench.device).total_memory
    room = torch.cuda.memory_reserved(bench.device) + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), bench.device)
    try:
        found = probe.attribute(n_pairs=64, hybrids_per_eval=4096)  # of which 64 channels fill one batch
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
    batch = found.provenance["hybrids_per_eval"]
    gap = float((found.maps - fits.maps).abs().max())
    yield {"name": f"{room / 2**20:.0f} MiB for batches of 4096", "halved to": batch, "largest difference": gap}
    if batch >= 4096 or gap > 1e-5:
        raise RuntimeError("batches were not halved, or maps are others")


WORKER = """
import json, sys
import torch, torch.distributed as dist
import counterfactual_probe as cp
from torch import nn
torch.manual_seed(0)
module = nn.Sequential(nn.ConvTranspose2d(8, 12, 4), nn.ReLU(), nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Tanh())
gen = cp.wrap(module, lambda n, rng: torch.randn(n, 8, 1, 1, generator=rng), device=sys.argv[1])
maps = cp.InfluenceMap(gen, "1").attribute(n_pairs=4)
print(json.dumps({"backend": dist.get_backend(), "ranks": maps.provenance["ranks"], "sum": float(maps.maps.sum())}))
"""


def ranks(bench: Bench) -> Iterator[Row]:
    """A process group of one rank: NCCL on a GPU, gloo on a CPU; and the same maps without one."""
    told = [_worker(bench, {}, "no group"), _worker(bench, _launched(), "group")]
    yield {
        "name": f"one rank of {told[1]['backend']}",
        "ranks": told[1]["ranks"],
        "same sum": told[0]["sum"] == told[1]["sum"],
    }
    if told[1]["backend"] != ("nccl" if bench.on_gpu else "gloo") or told[0]["sum"] != told[1]["sum"]:
        raise RuntimeError(f"{told}")


def _launched() -> dict[str, str]:
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


def _worker(bench: Bench, environment: dict[str, str], what: str) -> dict[str, object]:
    code = WORKER if environment else WORKER.replace("dist.get_backend()", "None")
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, str(bench.device)],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if run.returncode:
        raise RuntimeError(f"{what}: {run.stderr.strip().splitlines()[-1:]}")
    told: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
    return told


def tests(bench: Bench) -> Iterator[Row]:
    """The tests that run on a device; on a CPU those of the stand-in for a GPU."""
    root = Path(__file__).resolve().parents[2]
    chosen = ["-m", "gpu"] if bench.on_gpu else ["-m", "not slow and not gpu and not long", "-k", "stand"]
    folder = root / "tests" / "devices" if bench.small else root / "tests"
    found = sorted(folder.rglob("test_*.py"))
    files = [str(file) for file in found if re.search(_ON_DEVICES, file.read_text(encoding="utf-8"))]
    several = ["-n", "4", "--dist", "loadfile"] if bench.on_gpu and find_spec("xdist") else []
    run = subprocess.run(
        # Without the current folder, where the library is not as it is installed.
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *_GO_ON, *several, *chosen, *files],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=max(60, min(240, bench.left)),
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    yield {"name": "pytest", "said": (run.stdout.strip().splitlines() or run.stderr.strip().splitlines() or [""])[-1]}
    for line in lines[:40]:
        yield {"name": line[:200]}
    if run.returncode:
        raise RuntimeError(f"pytest ended with {run.returncode}")
