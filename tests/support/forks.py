"""Programs as forks of one process that has imported the library: each starts at once, where Python with torch takes
two seconds. They end as any program does, with its status, its farewells and its last words.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from functools import cache
from pathlib import Path
from typing import IO

from .paths import TESTS

# It forks for each request: a child that runs the program as ``python -c`` would, and one that waits for it and tells
# its status. It computes nothing itself, because threads do not survive a fork.
_PARENT = f"""
import json, os, signal, socket, sys
sys.path.insert(0, {str(TESTS)!r})
import accelerate, torch.distributed
from counterfactual_probe import *
from support import toy_training, toys
torch.set_num_threads(1)
requests, given = socket.socket(fileno=int(sys.argv[1])), None
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
while given is None:
    text, files, _, _ = socket.recv_fds(requests, 1 << 20, 3)
    if not text:
        sys.exit()
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if child := os.fork():
            os.write(files[2], b"%d\\n" % child)
            os.write(files[2], b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            os._exit(0)
        given = json.loads(text)
        os.environ.clear()
        os.environ.update(given["environment"])
        os.chdir(given["folder"])
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
    for file in files:
        os.close(file)
requests.close()
sys.argv = ["-c"]
exec(compile(given["program"], "<string>", "exec"), {{"__name__": "__main__"}})
"""


@cache
def _parent() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", _PARENT, str(theirs.fileno())]
    parent = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    atexit.register(parent.wait)
    atexit.register(ours.close)  # before that: then it ends
    return ours


class Fork:
    """A program in a process of its own; the part of :class:`subprocess.Popen` that the tests need."""

    def __init__(self, program: str, **environment: str) -> None:
        # Open for as long as the program runs.
        self._files, self._said = [tempfile.TemporaryFile() for _ in range(2)], list[str]()  # noqa: SIM115
        reading, writing = os.pipe()
        given = {
            "program": textwrap.dedent(program),
            "environment": {**os.environ, **environment},
            "folder": str(Path.cwd()),
        }
        socket.send_fds(_parent(), [json.dumps(given).encode()], [*(file.fileno() for file in self._files), writing])
        os.close(writing)
        self._status: IO[bytes] = os.fdopen(reading, "rb", buffering=0)
        self.pid, self.returncode = int(self._status.readline()), None

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Its status, negative if a signal ended it; None if it runs on, unlike in ``Popen``."""
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
            for file in self._files:
                file.seek(0)
                self._said.append(file.read().decode())
                file.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, ...]:
        """What it has printed, and its errors, once it has ended."""
        if self.wait(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return tuple(self._said)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(program: str, **environment: str) -> str:
    """What it prints; it must succeed."""
    fork = Fork(program, **environment)
    out, errors = fork.communicate(600)
    assert fork.returncode == 0, errors
    return out
