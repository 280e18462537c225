"""Whether there are modules at all: gaps between groups of channels, against a continuum without any."""

from .result import Evidence

__all__ = ["Evidence"]
