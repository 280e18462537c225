"""Exceptions of the caller's own code: a sampler, a forward, a function given as an argument."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ProbeError, first_line
from .memory import is_out_of_memory


@contextmanager
def blamed_on(code: str, cure: str) -> Iterator[None]:
    """What is raised inside comes out as a sentence that names the code and a cure.

    Running out of memory passes as it is: whoever chose the batch tries a smaller one.
    """
    try:
        yield
    except ProbeError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ProbeError(f"{code} raised {type(error).__name__}: {first_line(error)}; {cure}") from error
