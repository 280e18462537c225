"""Which form pays on this processor, by a table of what was measured: the same on one machine in every run."""

from __future__ import annotations

import json
import platform
from enum import Enum
from functools import cache
from pathlib import Path

import torch

_TABLE = Path(__file__).with_name("processors.json")


class Form(Enum):
    """How a convolution of fixed kernels is computed."""

    PLAIN = "plain"  # by torch's own call, which lays the kernel out anew each time
    PACKED = "packed"  # with the kernel laid out beforehand, and tanh in the same pass


def form_on(device: torch.device) -> Form:
    """The form for hybrids on a device. What was never measured gets the plain one."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return Form.PLAIN
    return Form(_measured().get(processor(), Form.PLAIN.value))


@cache
def _measured() -> dict[str, str]:
    table: dict[str, str] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


@cache
def processor() -> str:
    """The maker and the vector instructions of this machine's processor, such as "AMD AVX512"."""
    instructions = torch.backends.cpu.get_cpu_capability()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else platform.processor()
    makers = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}
    maker = next((name for mark, name in makers.items() if mark in text), platform.machine())
    return f"{maker} {instructions}"
