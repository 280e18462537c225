"""Files that would run code in a reader that believes them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from support.registry.entries import Hostile


def _plain(harm: Path) -> bytes:
    return pickle.dumps(Hostile(harm))


def _old(harm: Path) -> bytes:
    return pickle.dumps({"state_dict": Hostile(harm)}, protocol=0)


def _torch(harm: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"main.0.weight": torch.ones(2), "state_dict": Hostile(harm)}, buffer)
    return buffer.getvalue()


def _legacy_torch(harm: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": Hostile(harm)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _numpy(harm: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Hostile(harm)], object), allow_pickle=True)
    return buffer.getvalue()


def _npz(harm: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", _numpy(harm))
    return buffer.getvalue()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "pickle": _plain,
    "pickle of protocol 0": _old,
    "torch": _torch,
    "torch before 1.6": _legacy_torch,
    "numpy": _numpy,
    "npz": _npz,
}


def run_unguarded(name: str, content: bytes) -> None:
    """What a reader without any care would do."""
    buffer = io.BytesIO(content)
    if name.startswith("torch"):
        torch.load(buffer, weights_only=False)
    elif name == "numpy":
        np.load(buffer, allow_pickle=True)
    elif name == "npz":
        np.load(buffer, allow_pickle=True)["images"]
    else:
        pickle.load(buffer)
