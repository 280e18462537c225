"""How robust classifiers are to hybrids: images between two classes (S003 §4.2)."""

from .probe import RobustnessProbe
from .ranking import Ranking
from .result import Robustness

__all__ = ["Ranking", "Robustness", "RobustnessProbe"]
