"""The engine: runs many counterfactual images, exactly and fast. Statistics live elsewhere.

``interventions`` say what is set where; an ``Executor`` runs the generator with it (the seam:
executors differ in how much of the forward they skip, never in what comes out); ``Checked`` compares
the fast ones with whole forwards and falls back; ``stream`` walks over pairs and unit sets in a fixed
order, within a fixed memory.
"""

from .checked import Checked
from .executors import Choice, Executor, FullForward, Rejection, Strategy
from .interventions import Assignment, Intervention, Swap
from .pairs import Pairs
from .prepared.executor import Prepared
from .replay import Replay
from .runs import CleanRun
from .select import executor_for
from .stream import Effect, Stream

__all__ = [
    "Assignment",
    "Checked",
    "Choice",
    "CleanRun",
    "Effect",
    "Executor",
    "FullForward",
    "Intervention",
    "Pairs",
    "Prepared",
    "Rejection",
    "Replay",
    "Strategy",
    "Stream",
    "Swap",
    "executor_for",
]
