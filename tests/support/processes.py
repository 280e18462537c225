"""One program on several processes, as torchrun starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(world: int, program: str) -> list[subprocess.Popen[str]]:
    port = str(free_port())
    processes = []
    for rank in range(world):
        # What torchrun sets, without its agent.
        given = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program], env={**os.environ, **given}, stderr=subprocess.PIPE, text=True
            )
        )
    return processes


def finish(processes: list[subprocess.Popen[str]], seconds: float = 600) -> list[tuple[int, str]]:
    """Return status and stderr of each process."""
    end = time.monotonic() + seconds
    try:
        results = []
        for process in processes:
            errors = process.communicate(timeout=max(1.0, end - time.monotonic()))[1]
            results.append((process.returncode, errors))
        return results
    finally:
        for process in processes:
            process.kill()
