"""Python in processes of its own: one, several as torchrun starts them, and one that is killed at any moment."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import time
from functools import cache
from pathlib import Path

from .forks import Fork

# A test on a busy machine may come late: a program that ran on meanwhile would be over.
_WAITS = """
import time
from counterfactual_probe.base.checkpoint import Checkpoint
original, left = Checkpoint.save, {writes}
def save(self, *state):
    global left
    original(self, *state)
    left -= 1
    if left == 0:
        time.sleep(600)
        raise SystemExit("nobody has killed this program")
Checkpoint.save = save
"""


def run(code: str) -> str:
    """What the code prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


_PUBLIC = """
from counterfactual_probe import *
import counterfactual_probe.base.html
metrics.mig
"""


@cache
def imported_by(code: str = _PUBLIC) -> frozenset[str]:
    """All modules that the code loads; without any, those that the public names need, which load when first used."""
    return frozenset(run(f"{textwrap.dedent(code)}\nimport sys\nprint(*sys.modules)").splitlines()[-1].split())


def kill(program: str, written: Path, *, delay: float, writes: int) -> None:
    """Start ``program`` and kill it ``delay`` seconds after it has written ``written``, or when it waits after
    ``writes`` of its checkpoints."""
    before = written.stat().st_mtime_ns if written.exists() else 0
    process = Fork(_WAITS.format(writes=writes) + program)
    # Past the start of Python: from when this process has written something itself.
    while process.poll() is None and (not written.exists() or written.stat().st_mtime_ns == before):
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the program ended before it was killed"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(world: int, program: str, **environment: str) -> list[Fork]:
    """The program on each of ``world`` ranks."""
    # What torchrun sets, without its agent.
    given = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **environment}
    return [Fork(program, RANK=str(rank), **given) for rank in range(world)]


def finish(processes: list[Fork], seconds: float = 600) -> list[tuple[int, str]]:
    """Return status and stderr of each process."""
    end = time.monotonic() + seconds
    try:
        results = []
        for process in processes:
            errors = process.communicate(timeout=max(1.0, end - time.monotonic()))[1]
            assert process.returncode is not None
            results.append((process.returncode, errors))
        return results
    finally:
        for process in processes:
            process.kill()
