"""Undo whatever a forward leaves on the module: counters, caches, hooks, buffers; refuse what cannot be undone."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ....base.errors import ProbeError
from .containers import copy_of, put_at, restore_array, restore_at, restore_class, restore_container, value_at
from .opaque import Restore, WatchedIterator, restorer
from .reachable import Container, Random, Reachable, reachable
from .tensors import Holder, as_plain_tensors, checksums, is_plain, restore_tensor


class ModuleChanged(ProbeError):
    """A forward changed what cannot be restored, such as weights, so no other executor may be tried after it."""


class CacheGrown(UserWarning):
    """A forward added to the cache of a function, which was not empty, so that it cannot be put back."""


@contextmanager
def attributes_kept(module: nn.Module) -> Iterator[Reachable]:
    """Yields everything reachable from the module, and restores all of it at the end.

    Raises:
        ModuleChanged: at the end, if a forward changed values of a parameter, since these are too large to copy; if
            it put others in their place, as a flow does that sets its norms from the first batch; and if it took from
            an iterator.
    """
    everything = reachable(module)
    snapshot = _Snapshot.of(everything)
    try:
        yield everything
    except ProbeError as error:
        _refuse(module, snapshot.restore(), error)  # a forward that changes weights fails in many ways
        raise
    except BaseException:
        snapshot.restore()
        raise
    else:
        _refuse(module, snapshot.restore())


@dataclass
class _Changed:
    """What cannot be restored."""

    weights: list[Tensor]  # and gradients of weights
    others: list[str]  # each a verb with its object, and a cure
    caches: list[str]


def _refuse(module: nn.Module, changed: _Changed, cause: ProbeError | None = None) -> None:
    kind = type(module).__name__
    for sentence in changed.caches:
        warnings.warn(f"the forward of {kind} {sentence}", CacheGrown, stacklevel=2)
    if changed.others:
        raise ModuleChanged(f"the forward of {kind} {changed.others[0]}") from cause
    if not changed.weights:
        return
    for name, value in module.named_parameters():
        if value.grad is not None and _is_among(value.grad, changed.weights):
            raise ModuleChanged(
                f"the forward of {kind} changes the gradient of its parameter {name!r}, which cannot be put back; call "
                "zero_grad() of the module before"
            ) from cause
    names = [name for name, value in module.named_parameters() if _is_among(value, changed.weights)]
    raise ModuleChanged(
        f"the forward of {kind} changes its parameter {(names or ['(unnamed)'])[0]!r}; make it a "
        "function of latents and weights (a counter belongs into a buffer or an attribute, which are put back), "
        "and load the weights again; if it sets them from the first batch that it sees, run it on one before"
    ) from cause


def _is_among(value: Tensor, values: Sequence[Tensor]) -> bool:
    return any(value is other for other in values)


def _gradients(values: Sequence[Tensor]) -> list[Tensor]:
    gradients = [value.grad for value in values if value.is_leaf]  # others warn
    return [value for value in gradients if value is not None and is_plain(value)]


@dataclass
class _Snapshot:
    kinds: list[tuple[nn.Module, type[nn.Module]]]
    containers: list[tuple[Container, Any]]
    places: list[tuple[Any, str, Any]]
    classes: list[tuple[type, dict[str, Any]]]
    tensors: list[tuple[Holder, Tensor]]
    sparse: list[tuple[Tensor, Tensor, int]]  # which get new indices and values, and where the old values are
    arrays: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    generators: list[tuple[Random, Any]]
    opaque: list[Restore]
    caches: list[Restore]
    weights: list[Holder]
    checksums: list[tuple[Any, ...]]
    watched: list[WatchedIterator] = field(default_factory=list)

    @classmethod
    def of(cls, everything: Reachable) -> _Snapshot:
        with as_plain_tensors():
            snapshot = cls._of(everything)
        if everything.iterators:
            snapshot._watch(everything)
        return snapshot

    @classmethod
    def _of(cls, everything: Reachable) -> _Snapshot:
        tensors = [value for value in everything.tensors if is_plain(value)]
        weights: list[Tensor] = [value for value in tensors if isinstance(value, nn.Parameter)]
        others = [value for value in tensors if not isinstance(value, nn.Parameter)]
        weights.extend(_gradients(weights))
        others.extend(_gradients(others))
        places = [*everything.bindings, *everything.iterator_places]
        return cls(
            kinds=[(part, type(part)) for part in everything.modules],
            containers=[(item, copy_of(item)) for item in everything.containers],
            places=[(owner, name, value_at(owner, name)) for owner, name in places],
            classes=[(kind, dict(vars(kind))) for kind in everything.classes],
            tensors=[(Holder.of(value), value.detach().clone()) for value in others],
            sparse=[
                (value, value.data, value._values().data_ptr())
                for value in everything.tensors
                if value.layout is torch.sparse_coo
            ],
            arrays=[(value, value.copy()) for value in everything.arrays if value.flags.writeable],
            generators=[(item, _random_state(item)) for item in everything.generators],
            opaque=[restorer(item) for item in everything.opaque],
            caches=[restorer(item) for item in everything.caches],
            weights=[Holder.of(value) for value in weights],
            checksums=checksums(weights),
        )

    def _watch(self, everything: Reachable) -> None:
        """Put watched iterators in the places of iterators, until those are restored."""
        watched = {id(item): WatchedIterator(item) for item in everything.iterators}
        self.watched.extend(watched.values())
        for item, before in self.containers:
            entries: Any = before.items() if isinstance(before, dict) else enumerate(before)
            if isinstance(item, (dict, list)):
                for key, value in entries:
                    if id(value) in watched:
                        item[key] = watched[id(value)]
        for owner, name in everything.iterator_places:
            put_at(owner, name, watched.get(id(value_at(owner, name)), value_at(owner, name)))

    def restore(self) -> _Changed:
        """Restore everything that can be; returns what cannot."""
        with as_plain_tensors():
            weights = self._restore()
        others = [sentence for restore in self.opaque if (sentence := restore())]
        if any(item.advanced for item in self.watched):
            others.append(
                "takes from an iterator that it keeps, which cannot be put back; keep a number or a list in an "
                "attribute in its place"
            )
        return _Changed(weights, others, [sentence for restore in self.caches if (sentence := restore())])

    def _restore(self) -> list[Tensor]:
        """Returns the parameters whose values a forward changed."""
        for part, kind in self.kinds:
            if type(part) is not kind:
                part.__class__ = kind
        for item, before in self.containers:
            restore_container(item, before)
        for owner, name, value in self.places:
            restore_at(owner, name, value)
        for kind, attributes in self.classes:
            restore_class(kind, attributes)
        for numbers, before in self.arrays:
            restore_array(numbers, before)
        for generator, state in self.generators:
            _set_random_state(generator, state)
        for tensor, storage, place in self.sparse:
            if tensor._values().data_ptr() != place:
                tensor.data = storage
        for holder, before in self.tensors:
            holder.restore()
            restore_tensor(holder.value, before)
        exchanged = [weight.restore() for weight in self.weights]
        values = [weight.value for weight in self.weights]
        now = checksums(values)
        changed = [one != two for one, two in zip(now, self.checksums, strict=True)]
        return [value for value, *either in zip(values, changed, exchanged, strict=True) if any(either)]


def _random_state(item: Random) -> Any:
    if isinstance(item, torch.Generator):
        return item.get_state()
    if isinstance(item, np.random.BitGenerator):
        return item.state
    if isinstance(item, np.random.Generator):
        return item.bit_generator.state
    return item.get_state(legacy=False) if isinstance(item, np.random.RandomState) else item.getstate()


def _set_random_state(item: Random, state: Any) -> None:
    if isinstance(item, np.random.BitGenerator):
        item.state = state
    elif isinstance(item, np.random.Generator):
        item.bit_generator.state = state
    elif isinstance(item, random.Random):
        item.setstate(state)
    else:
        item.set_state(state)
