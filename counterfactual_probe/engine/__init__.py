"""The engine: how many counterfactual images are run, exactly and fast. It knows no statistics.

``interventions`` say what is set where; an ``Executor`` runs the generator with it (the seam:
executors differ in how much of the forward they skip, never in what comes out); ``stream`` walks
over pairs and unit sets in a fixed order, within a fixed memory.
"""

from .executors import Executor, FullForward
from .interventions import Assignment, Intervention, Swap
from .pairs import Pairs
from .prepared.executor import Prepared
from .replay import Replay
from .runs import CleanRun
from .select import executor_for
from .stream import Effect, Stream

__all__ = [
    "Assignment",
    "CleanRun",
    "Effect",
    "Executor",
    "FullForward",
    "Intervention",
    "Pairs",
    "Prepared",
    "Replay",
    "Stream",
    "Swap",
    "executor_for",
]
