"""Pickles of what holds a user's functions: those that cannot be pickled are named, with a cure."""

from __future__ import annotations

import io
import pickle
import sys
from types import FrameType
from typing import Any

from torch import Tensor

from ...base.errors import ProbeError, first_line

# What copies functions, or writes them with their code, so that lambdas are no obstacle.
_BY_VALUE = {"copy", "cloudpickle", "dill"}
_ARGUMENTS = {"_sample_latents": "sample_latents", "_read_image": "image", "_features": "features"}


class Picklable:
    """Can be copied and pickled as it is; a ProbeError says which of its parts cannot."""

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if not _writes_by_value():
            for name, value in state.items():
                if reason := _why_not(value):
                    raise ProbeError(
                        f"{_ARGUMENTS.get(name, name)} of {state.get('name', type(self).__name__)!r} cannot be pickled "
                        f"({reason}); define its function or class by a name at the top of a module that can be "
                        "imported, with functools.partial for values, not as a lambda or inside a function"
                    )
        return state


class _DryRun(pickle.Pickler):
    """Writes all but the values of tensors, to nowhere."""

    def persistent_id(self, item: Any) -> Any:
        return 0 if isinstance(item, Tensor) else None


def _why_not(value: Any) -> str:
    """Why a value cannot be pickled; nothing if it can."""
    try:
        _DryRun(io.BytesIO()).dump(value)
    except ProbeError:
        raise
    except Exception as error:  # anything that an object's own code raises
        return first_line(error)
    return ""


def _writes_by_value() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if not _BY_VALUE.isdisjoint(str(frame.f_globals.get("__name__")).split(".")):
            return True
        frame = frame.f_back
    return False
