"""The module's own code from the edited layer on: finished submodules answer from a record."""

from .executor import Replay

__all__ = ["Replay"]
