"""Options that say what the units of a layer are, and where and how far they are swapped."""

from __future__ import annotations

import argparse
import io
import os
from typing import Any

from ...base.errors import ProbeError, first_line
from .values import count, number


def axis_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--axis", choices=["channel", "token", "head"], default="channel", help="what units are (default channel)"
    )
    parser.add_argument("--heads", type=count, help="how many heads, if the module does not say")
    parser.add_argument(
        "--basis",
        type=os.path.expanduser,
        metavar="BASIS.safetensors",
        help="units are the features of a saved basis",
    )
    parser.add_argument(
        "--where",
        type=os.path.expanduser,
        metavar="MASK.npy",
        help="swap inside a mask, booleans or numbers from 0 to 1, of the image's size",
    )
    parser.add_argument("--strength", type=number, default=1.0, help="how far towards the source (default 1)")


def unit_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of :class:`Hybridizer` and :class:`InfluenceMap`."""
    from ... import bases

    features = None if options.basis is None else bases.load(options.basis)
    return {"axis": options.axis, "heads": options.heads, "features": features}


def extent_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Where and how far."""
    return {"where": None if options.where is None else _mask(options.where), "strength": options.strength}


def _mask(path: str) -> Any:
    import numpy as np

    from ...base.files import read_bytes

    try:
        return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ProbeError(f"{path} holds no mask ({first_line(error)}); write one with numpy.save") from error
