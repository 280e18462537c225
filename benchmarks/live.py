"""How many bytes of tensors are alive at most, counted as they are made and freed: the same on every machine."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, counts the memory of tensors that operations make; what was there before does not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._note(leaf, counts=False)
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            self._note(leaf, counts=True)
        self.peak = max(self.peak, self.now)
        return made

    def _note(self, value: Any, *, counts: bool) -> None:
        if not isinstance(value, Tensor) or value.is_mkldnn:  # packed kernels, whose memory nobody can look at
            return
        storage = value.untyped_storage()
        place, size = id(storage), storage.nbytes() if counts else 0
        if place in self._known:
            return

        def freed(_: Any) -> None:
            self.now -= size
            self._known.pop(place, None)

        self._known[place] = weakref.ref(storage, freed)
        self.now += size
