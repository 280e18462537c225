"""Units: what an intervention sets in a layer, one coordinate system beside another, and where and how far it does."""

from .extent import Extent, Strength, Where, extent_of
from .features import Basis, Features
from .parsing import UnitsLike, by_layer, parse_layers, parse_units
from .space import Space, unit_space
from .unit_set import UnitSet, titles, union

__all__ = [
    "Basis",
    "Extent",
    "Features",
    "Space",
    "Strength",
    "UnitSet",
    "UnitsLike",
    "Where",
    "by_layer",
    "extent_of",
    "parse_layers",
    "parse_units",
    "titles",
    "union",
    "unit_space",
]
