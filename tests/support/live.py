"""How much memory tensors take."""

from __future__ import annotations

import gc

from torch import Tensor


def live_numbers() -> int:
    """Bytes of all tensors alive that the garbage collector has not frozen, each storage once."""
    storages = {}
    for found in gc.get_objects():
        if type(found) is Tensor:
            storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
    return sum(storages.values())
