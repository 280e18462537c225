"""Arrays of others: NumPy's, torch's, lists, whatever turns itself into an array; taken or refused in one place."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import ProbeError, first_line


def plain_array(given: Any, what: str, form: str = "an array of numbers") -> npt.NDArray[Any]:
    """Numbers as an ordinary NumPy array, in this machine's byte order and one after the other.

    >>> import numpy as np
    >>> plain_array(np.arange(3, dtype=">f4")[::-1], "the values")
    array([2., 1., 0.], dtype=float32)
    >>> plain_array([[1, 2], [3]], "the values")
    Traceback (most recent call last):
    counterfactual_probe.base.errors.ProbeError: the values are rows of unequal length; give an array of numbers

    Bytes in another order, negative strides, long doubles, bfloat16, lists, tables and pictures are taken. Refused are
    masked values, complex, sparse, quantised and meta ones, text and objects.
    """
    values = _of_tensor(given, what, form) if isinstance(given, Tensor) else _of_others(given, what, form)
    if values.dtype.kind not in "biuf":
        raise ProbeError(f"{what} are of type {values.dtype}; give numbers")
    wide = values.dtype.itemsize > 8 and values.dtype.kind == "f"
    return np.asarray(values, np.float64 if wide else values.dtype.newbyteorder("="), order="C")


def plain_tensor(given: Any, what: str, form: str = "an array of numbers") -> Tensor:
    """The same as a tensor; one of torch's stays as it is, and an array that can be is shared, not copied."""
    if isinstance(given, Tensor):
        require_dense(given, what)
        return given
    values = plain_array(given, what, form)
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def require_dense(given: Tensor, what: str) -> None:
    """Raise a ProbeError unless a tensor is real numbers in memory, one for each place."""
    kinds = {
        "a meta tensor, which holds no numbers": given.is_meta,
        "a nested tensor, of parts of several sizes": given.is_nested,
        "a quantised tensor": given.is_quantized,
        f"a {str(given.layout).removeprefix('torch.')} tensor": given.layout != torch.strided,
        "complex": given.is_complex(),
    }
    if found := [kind for kind, holds in kinds.items() if holds]:
        raise ProbeError(f"{what} are {found[0]}; give dense, real numbers")


def _of_tensor(given: Tensor, what: str, form: str) -> npt.NDArray[Any]:
    require_dense(given, what)
    values = given.detach().cpu().resolve_neg()
    if values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64):
        values = values.double()  # bfloat16 and float8, which NumPy has not
    try:
        return np.asarray(values.numpy())
    except (RuntimeError, TypeError) as error:
        raise ProbeError(f"{what} cannot be read as an array ({first_line(error)}); give {form}") from error


def _of_others(given: Any, what: str, form: str) -> npt.NDArray[Any]:
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise ProbeError(f"{what} are masked in {int(given.mask.sum())} places; fill them first, with .filled(value)")
    try:
        if hasattr(given, "toarray"):
            raise ProbeError(f"{what} are a {type(given).__name__}, which is sparse; give .toarray() of it")
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            return np.asarray(given)
    except ProbeError:
        raise
    except ValueError as error:  # NumPy's, of lists of unequal length
        if "inhomogeneous" in str(error):
            raise ProbeError(f"{what} are rows of unequal length; give {form}") from None
        raise ProbeError(f"{what} cannot be read as an array ({first_line(error)}); give {form}") from error
    except Exception as error:  # whatever an object does when it is asked for an array
        raise ProbeError(f"{what} cannot be read as an array ({first_line(error)}); give {form}") from error
