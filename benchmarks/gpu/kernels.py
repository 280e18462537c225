"""What a GPU does during a call: how many kernels run, and for how much of the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from .stage import Bench


@dataclass(frozen=True)
class Kernels:
    """Of one call.

    Attributes:
        number: kernels and copies that the device ran.
        busy: share of the time, from the first of them to the end of the last, in which one ran.
    """

    number: int
    busy: float


def kernels_of(bench: Bench, work: Callable[[], Any]) -> Kernels | None:
    """The kernels of a call; None where there is no GPU."""
    if not bench.on_gpu:
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        work()
        bench.synchronize()
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in recorded.events() or ()
        if event.device_type.name == "CUDA"
    ]
    return of_spans(spans)


def of_spans(spans: list[tuple[float, float]]) -> Kernels:
    """From the start and end of each kernel; those that overlap count once.

    >>> of_spans([(0, 2), (1, 3), (6, 10)])
    Kernels(number=3, busy=0.7)
    """
    if not spans:
        return Kernels(0, 0.0)
    spans = sorted(spans)
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return Kernels(len(spans), busy / max(1e-9, reached - spans[0][0]))
