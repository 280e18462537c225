"""Interventions: the values that unit sets take, for a block of base samples."""

from .assignment import Assignment
from .edits import SwapEdit
from .intervention import Intervention, layers_of, path_of
from .swap import Swap

__all__ = ["Assignment", "Intervention", "Swap", "SwapEdit", "layers_of", "path_of"]
