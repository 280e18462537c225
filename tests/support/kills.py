"""Programs that are killed at any moment after their first write, and that wait for it, so are never over before."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

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


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def kill(program: str, written: Path, *, delay: float, writes: int) -> None:
    """Start ``program`` and kill it ``delay`` seconds after it has written ``written``, or when it waits after
    ``writes`` of its checkpoints."""
    before = written.stat().st_mtime_ns if written.exists() else 0
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITS.format(writes=writes) + program], stdout=subprocess.DEVNULL
    )
    # Past the start of Python: from when this process has written something itself.
    while process.poll() is None and (not written.exists() or written.stat().st_mtime_ns == before):
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the program ended before it was killed"
