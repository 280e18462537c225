"""Everything reachable from a module: the modules, containers, objects and tensors that its forward can change.

A forward reaches more than registered submodules: networks kept in a plain list, a scheduler's counters, a dict of
grids, tables that its class or its file keeps. The walk follows attributes, slots and entries of containers, and the
code of the forward: globals that it names, variables of the functions around it, attributes of its class, methods
and functions that it calls. It does not follow hooks, which are an observer's, and nothing that the code does not
name: the rest leads to all that the user's program is doing. Files, and most objects of the standard library, are
taken as they are.
"""

from __future__ import annotations

import random
import sys
import threading
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial, partialmethod, singledispatchmethod
from types import BuiltinMethodType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ..wrappers import is_compiler
from .code import FOREIGN, Named, globals_named, names_in, package_of
from .opaque import KEEPERS, OPAQUE, POINTERS, Cache, held_by_cache, is_iterator, pointed_at

WeakDict = WeakKeyDictionary[Any, Any] | WeakValueDictionary[Any, Any]
# In quotation marks, because before Python 3.12 an array takes no type of its entries.
Container: TypeAlias = (
    "dict[Any, Any] | list[Any] | set[Any] | deque[Any] | bytearray | array[Any] | WeakDict | WeakSet[Any]"
)
# Objects with random numbers of their own.
Random = torch.Generator | np.random.Generator | np.random.BitGenerator | np.random.RandomState | random.Random

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)
_CALLABLE = (FunctionType, MethodType, BuiltinMethodType, MethodWrapperType, partial)
_OF_MODULES = frozenset(vars(nn.Module()))
_DESCRIPTORS = (staticmethod, classmethod, property, cached_property, partialmethod, singledispatchmethod)
# Of which users make kinds of their own, with attributes.
_OFTEN_SUBCLASSED: tuple[type, ...] = (
    *(dict, OrderedDict, list, tuple, set, frozenset, deque, Tensor, nn.Parameter, np.ndarray),
    *OPAQUE,
)
# What runs when code names a class, and what a forward need not name.
_MAKING = ("__new__", "__init__", "__post_init__")
_NOT_RUN = (*_MAKING, "__del__", "__repr__", "__getstate__", "__setstate__", "__reduce__", "__deepcopy__")


@dataclass
class Reachable:
    """Each thing once, in the order in which the walk met it.

    Attributes:
        bindings: places outside of containers: an object and its slot, a variable of a function around (its cell), a
            dict of globals and a name in it.
        iterator_places: those, and classes with names of attributes, where an iterator is.
        hooks: by identity, functions that are hooks: those of an observer, whose notes are not the module's, are not
            undone.
        own: by identity, containers that other modules reach only with the module, or the function, that they are of.
        shared: what other modules may reach as well without sharing a part: classes, code, names of globals.
        compiled: whether anything is compiled by ``torch.compile``.
    """

    modules: list[nn.Module] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    bindings: list[tuple[Any, str]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    arrays: list[np.ndarray[Any, Any]] = field(default_factory=list)
    generators: list[Random] = field(default_factory=list)
    opaque: list[Any] = field(default_factory=list)
    caches: list[Any] = field(default_factory=list)
    classes: list[type] = field(default_factory=list)
    iterators: list[Any] = field(default_factory=list)
    iterator_places: list[tuple[Any, str]] = field(default_factory=list)
    hooks: set[int] = field(default_factory=set)
    own: set[int] = field(default_factory=set)
    shared: list[Any] = field(default_factory=list)
    compiled: bool = False


def reachable(start: Any) -> Reachable:
    """Everything that a module, or another object, leads to; itself first."""
    return _Walk(start).result


class _Walk:
    def __init__(self, start: Any) -> None:
        self.result = Reachable()
        self._seen: dict[int, Any] = {}  # held, so that no new object can get the number of one
        self._waiting: deque[Any] = deque([start])
        self._packages: set[str] = set()
        self._mentioned = {"forward"}
        self._assigned: frozenset[str] = frozenset()
        # By name, attributes of classes, and of modules of Python, that no code has named yet.
        self._unnamed: dict[str, list[tuple[Any, Any]]] = {}
        seen, waiting = self._seen, self._waiting
        while waiting:
            item = waiting.popleft()
            if isinstance(item, _PLAIN) or id(item) in seen:
                continue
            seen[id(item)] = item
            waiting.extend(self._note(item))
        for kind in self.result.classes:
            if any(name in self._assigned and _is_value(value) for name, value in vars(kind).items()):
                self.result.shared.append(kind)

    def _note(self, item: Any) -> Iterable[Any]:
        """Put an item where it belongs; gives what it leads to."""
        result = self.result
        inner: Iterable[Any] = ()
        if isinstance(item, Tensor):
            result.tensors.append(item)
            inner = [*_values_of(item), *(vars(item).values() if type(item) in _OFTEN_SUBCLASSED else ())]
        elif isinstance(item, dict):
            result.containers.append(item)
            # Whole, at one moment: another thread may be in a forward.
            inner = [part for entry in entries(item) for part in entry if not isinstance(part, _PLAIN)]
        elif isinstance(item, (tuple, frozenset)):
            inner = item
        elif isinstance(item, (list, set, deque)):
            result.containers.append(item)
            inner = items(item)
        elif issubclass(type(item), nn.Module):  # what passes itself off as one has a class of its own
            result.modules.append(item)
            result.hooks.update(_hooks_of(item))
            result.own.update(_own_containers(item))
            self._packages.add(package_of(type(item).__module__))
            inner = (item.__dict__, type(item))
        elif isinstance(item, type):
            inner = self._of_class(item)
        elif isinstance(item, (*_CALLABLE, *_DESCRIPTORS)):
            inner = () if id(item) in result.hooks else self._of_callable(item)
        else:
            inner = self._note_rare(item)
        if isinstance(item, _OFTEN_SUBCLASSED) and type(item) not in _OFTEN_SUBCLASSED:
            inner = [*inner, *self._own_parts(item)]
            if isinstance(item, defaultdict):
                self._binding(item, "default_factory")
                inner = [*inner, item.default_factory]
        return inner

    def _note_rare(self, item: Any) -> Iterator[Any]:
        result = self.result
        if isinstance(item, np.ndarray):
            result.arrays.append(item)
            yield from list(item.flat) if item.dtype == object else ()
        elif isinstance(item, Random):
            result.generators.append(item)
            yield getattr(getattr(item, "bit_generator", item), "seed_seq", None)
        elif isinstance(item, (bytearray, array)):
            result.containers.append(item)
        elif isinstance(item, (WeakKeyDictionary, WeakValueDictionary)):
            result.containers.append(item)
            yield from [part for entry in entries(item) for part in entry]
        elif isinstance(item, WeakSet):
            result.containers.append(item)
            yield from list(item)
        elif isinstance(item, OPAQUE):
            result.opaque.append(item)
        elif isinstance(item, Cache):
            result.caches.append(item)
            yield from held_by_cache(item)
        elif is_iterator(item):
            result.iterators.append(item)
        elif isinstance(item, POINTERS):
            yield from pointed_at(item)
        elif isinstance(item, ModuleType):
            yield from self._of_python_module(item)
        else:
            yield from self._own_parts(item)

    # --- objects and classes ----------------------------------------------------------------------

    def _is_own_object(self, item: Any) -> bool:
        kind = type(item)
        if isinstance(item, KEEPERS):
            return True
        getter = next((vars(each)["__get__"] for each in kind.__mro__ if "__get__" in vars(each)), None)
        if getter is not None and not isinstance(getter, FunctionType):  # functions and methods of any compiler's
            return False
        return package_of(kind.__module__) not in FOREIGN

    def _own_parts(self, item: Any) -> Iterator[Any]:
        """The attributes and the class of an object of the user's."""
        if self._is_own_object(item):
            yield from self._attributes(item)
            yield type(item)

    def _attributes(self, item: Any) -> Iterator[Any]:
        # What its type says: a proxy gives the attributes of another object.
        kind: Any = threading.local if isinstance(item, threading.local) else object
        with suppress(AttributeError):
            yield kind.__getattribute__(item, "__dict__")
        if isinstance(item, nn.Module):
            yield getattr(item, "__wrapped__", None)
        for kind in type(item).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__"):
                    self._binding(item, _mangled(kind, name))
                    yield getattr(item, _mangled(kind, name), None)

    def _of_class(self, kind: type) -> Iterator[Any]:
        if is_compiler(kind):
            self.result.compiled = True
        if not self._is_users(package_of(kind.__module__)):
            return
        yield from (*kind.__bases__, type(kind))
        self.result.classes.append(kind)
        for name, value in list(vars(kind).items()):
            if name in self._mentioned or (name.startswith("__") and name not in _NOT_RUN):
                yield self._of_class_attribute(kind, name, value)
            else:
                self._unnamed.setdefault(name, []).append((kind, value))

    def _of_python_module(self, item: ModuleType) -> Iterator[Any]:
        """One that an attribute or a variable holds; globals are found by the code that names them."""
        if self._is_users(package_of(item.__name__)):
            for name, value in list(vars(item).items()):
                if name in self._mentioned:
                    yield from self._of_global(Named(vars(item), name, assigned=True))
                else:
                    self._unnamed.setdefault(name, []).append((vars(item), value))

    def _of_class_attribute(self, kind: type, name: str, value: Any) -> Any:
        if is_iterator(value):
            self.result.iterator_places.append((kind, name))
        if self._has_state(value):
            self.result.shared.append(kind)
        return value

    def _has_state(self, value: Any) -> bool:
        """Whether it can be changed in place, and is no module, class or function."""
        if isinstance(value, (*_PLAIN, *_CALLABLE, *_DESCRIPTORS, type, nn.Module, tuple, frozenset)):
            return False
        return isinstance(value, (CONTAINERS, Tensor, np.ndarray, Random, *OPAQUE)) or self._is_own_object(value)

    # --- code -------------------------------------------------------------------------------------

    def _is_users(self, package: str) -> bool:
        """Whether code of a package is followed: that of the modules, and of whatever is not installed."""
        return package not in FOREIGN and (package in self._packages or not _is_installed(package))

    def _of_callable(self, item: Any) -> Iterator[Any]:
        """What a function leads to: its attributes, what it is bound to, and what its code names."""
        if isinstance(item, (partial, partialmethod)):
            yield from (item.func, item.args, item.keywords, item.__dict__)
        elif isinstance(item, MethodType):
            yield from (item.__self__, item.__func__)
        elif isinstance(item, FunctionType):
            yield from self._of_function(item)
        elif isinstance(item, property):
            yield from (item.fget, item.fset, item.fdel)
        elif isinstance(item, cached_property):
            yield item.func
        elif isinstance(item, singledispatchmethod):
            yield from (item.func, item.dispatcher)
        elif isinstance(item, (staticmethod, classmethod)):
            yield item.__func__
        else:
            yield item.__self__

    def _of_function(self, item: FunctionType) -> Iterator[Any]:
        if "_torchdynamo_orig_callable" in item.__dict__:
            self.result.compiled = True
        if package_of(item.__module__) in FOREIGN:
            return
        if not item.__dict__:  # as of every method of a class
            self.result.own.add(id(item.__dict__))
        yield from (item.__dict__, item.__defaults__, item.__kwdefaults__)
        followed = self._is_users(package_of(item.__globals__.get("__name__")))
        yield from self._of_variables(item, followed)
        if followed:
            names = names_in(item.__code__)
            self._assigned |= names.attributes
            for name in names.read:
                if name not in self._mentioned:
                    self._mentioned.add(name)
                    for owner, value in self._unnamed.pop(name, ()):
                        if isinstance(owner, type):
                            yield self._of_class_attribute(owner, name, value)
                        else:
                            yield from self._of_global(Named(owner, name, assigned=True))
            for named in globals_named(item):
                if named.name in names.owners and isinstance(value := named.scope.get(named.name), type):
                    self.result.shared.append(value)
                yield from self._of_global(named)

    def _of_variables(self, item: FunctionType, followed: bool) -> Iterator[Any]:
        """Those of functions around it; of another package's functions, such as decorators, the functions alone."""
        assigned = names_in(item.__code__).variables if followed else frozenset[str]()
        for name, cell in zip(item.__code__.co_freevars, item.__closure__ or (), strict=True):
            content = None
            with suppress(ValueError):  # an empty one
                content = cell.cell_contents
            if name in assigned:
                self._binding(cell, "cell_contents")
            if is_iterator(content):
                self.result.iterator_places.append((cell, "cell_contents"))
            if name in assigned or self._has_state(content):
                self.result.shared.append(item.__code__)
            if followed and isinstance(content, type) and name in names_in(item.__code__).owners:
                self.result.shared.append(content)
            if followed or isinstance(content, (nn.Module, *_CALLABLE)):
                yield content

    def _of_global(self, named: Named) -> Iterator[Any]:
        value = named.scope.get(named.name)
        if named.assigned:
            self._binding(named.scope, named.name)
        if is_iterator(value):
            self.result.iterator_places.append((named.scope, named.name))
        if named.assigned or self._has_state(value):
            self.result.shared.append(f"{named.scope.get('__name__')}.{named.name}")
        yield value
        if isinstance(value, type) and self._is_users(package_of(value.__module__)):
            yield from (vars(value).get(name) for name in _MAKING)

    def _binding(self, owner: Any, name: str) -> None:
        self.result.bindings.append((owner, name))


PLAIN_DICTS = (dict, OrderedDict)
CONTAINERS = (dict, list, set, deque, bytearray, array, WeakKeyDictionary, WeakValueDictionary, WeakSet)


def entries(item: Any) -> list[tuple[Any, Any]]:
    """Of a dict, by the built-in type: a subclass may make what it gives. An OrderedDict has an order of its own."""
    if type(item) in PLAIN_DICTS:  # nearly all are, and the tests below are slow
        return list(item.items())
    if isinstance(item, (WeakKeyDictionary, WeakValueDictionary)):
        return list(item.items())
    return list((OrderedDict if isinstance(item, OrderedDict) else dict).items(item))


def items(item: Any) -> list[Any]:
    """Of a list, a set or the like, by the built-in type."""
    kind = next((kind for kind in (list, set, deque) if isinstance(item, kind)), None)
    return list(item if kind is None else kind.__iter__(item))


def _values_of(item: Tensor) -> Iterator[Tensor]:
    """Those of a sparse tensor, which is written in place through them."""
    if item.layout is torch.sparse_coo:
        yield item.detach()._values()
    elif item.layout in _COMPRESSED:
        yield item.detach().values()


def _own_containers(module: nn.Module) -> Iterator[int]:
    yield id(module.__dict__)
    for name, value in module.__dict__.items():
        if name in _OF_MODULES:
            yield id(value)


def _is_value(value: Any) -> bool:
    """Of a class: no method, property or slot."""
    return not hasattr(type(value), "__get__")


def _hooks_of(module: nn.Module) -> Iterator[int]:
    for name, value in module.__dict__.items():
        if name.endswith("_hooks") and isinstance(value, dict):
            yield from map(id, value.values())


def _mangled(kind: type, name: str) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if private else name


_installed: dict[str, bool] = {}


def _is_installed(package: str) -> bool:
    """Whether a package lies where installers put them."""
    known = _installed.get(package)
    if known is None:
        file = getattr(sys.modules.get(package), "__file__", None) or ""
        known = _installed[package] = "site-packages" in file or "dist-packages" in file
    return known
