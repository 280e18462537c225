"""What the code of a forward keeps outside of the module, in classes, files, closures and caches: all is put back."""

from __future__ import annotations

import importlib
import io
import itertools
import os
import sys
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, lru_cache, singledispatchmethod
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator.state.contents.attributes import CacheGrown, ModuleChanged
from support import toy_modules
from support.toy_modules import Deconv, vectors

Z = vectors(5, torch.float32)

_calls, _tables, _seen = 0, dict[int, Tensor](), list[int]()
_context: ContextVar[int] = ContextVar("_context")
_inside: ContextVar[list[int]] = ContextVar("_inside")
_local = threading.local()
_frozen = nn.BatchNorm1d(5)


class Shared:
    """Holds what all of its kind share."""

    made = 0

    def __init__(self) -> None:
        Shared.made += 1


class Keeping(Deconv):
    """A generator that does something before it makes an image."""

    calls = 0
    tables: ClassVar[dict[int, Tensor]] = {}

    def __init__(self, act: Callable[[Keeping, Tensor], Any] = lambda *_: None, kept: Any = None) -> None:
        super().__init__()
        self.act, self.kept = act, kept

    def forward(self, z: Tensor) -> Tensor:
        self.act(self, z)
        return super().forward(z)

    @lru_cache(maxsize=8)  # noqa: B019
    def grid(self, n: int) -> Tensor:
        return torch.linspace(0, 1, n)

    @singledispatchmethod
    def note(self, item: Any) -> None: ...

    @note.register
    def _(self, item: Tensor) -> None:
        type(self).calls += 1


@lru_cache
def table(n: int) -> Tensor:
    return torch.linspace(0, 1, n)


@cache
def unlimited(n: int) -> list[int]:
    return [n]


def count_in_class(module: Keeping, z: Tensor) -> None:
    module.__class__.calls += 1
    type(module).tables[len(type(module).tables)] = z
    setattr(type(module), f"made_{len(z)}", z)


class Counting(type):
    """The class of a class."""

    made = 0


class Counted(metaclass=Counting):
    pass


def count_in_metaclass(module: Keeping, z: Tensor) -> None:
    type(Counted).made += 1


def set_for_the_process(module: Keeping, z: Tensor) -> None:
    torch.set_default_dtype(torch.float16)
    torch.set_num_threads(torch.get_num_threads() + 1)
    os.environ["MADE_BY_A_FORWARD"] = "1"
    sys.path.append("/nowhere")


def settings_of_the_process() -> Any:
    return torch.get_default_dtype(), torch.get_num_threads(), "MADE_BY_A_FORWARD" in os.environ, "/nowhere" in sys.path


def count_in_file(module: Keeping, z: Tensor) -> None:
    global _calls, _made  # noqa: PLW0603
    _calls += 1
    _made = z  # type: ignore[name-defined]
    _tables[len(_tables)] = z


def count_by_name(module: Keeping, z: Tensor) -> None:
    globals()["_calls"] += 1


def helped(module: Keeping, z: Tensor) -> None:
    count_in_file(module, z)
    Shared()


def count_in_another_file(module: Keeping, z: Tensor) -> None:
    from support.toy_modules import N_CLASSES  # noqa: F401

    toy_modules.N_CLASSES += 1  # type: ignore[misc]


def count_by_strings(module: Keeping, z: Tensor) -> None:
    other = importlib.import_module("support.toy_modules")
    setattr(other, "N_CLASSES", getattr(other, "N_CLASSES") + 1)  # noqa: B009, B010


def in_context(module: Keeping, z: Tensor) -> None:
    _context.set(_context.get(0) + 1)
    _inside.get().append(1)


def in_thread(module: Keeping, z: Tensor) -> None:
    _local.calls = getattr(_local, "calls", 0) + 1


def closure() -> tuple[Callable[[Keeping, Tensor], None], Callable[[], Any]]:
    calls, seen, net = 0, [], nn.BatchNorm1d(5)

    def act(module: Keeping, z: Tensor) -> None:
        nonlocal calls
        calls += 1
        seen.append(net(z))

    return act, lambda: (calls, len(seen), net.training, int(net.num_batches_tracked))  # type: ignore[arg-type]


def decorated() -> tuple[Callable[[Keeping, Tensor], None], Callable[[], Any]]:
    kept: dict[int, Tensor] = {}

    def remembering(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(module: Keeping, z: Tensor) -> Any:
            if len(z) not in kept:
                kept[len(z)] = function(module, z)
            return kept[len(z)]

        return inner

    @torch.no_grad()
    @remembering
    def act(module: Keeping, z: Tensor) -> Tensor:
        return torch.linspace(0, 1, len(z))

    return act, lambda: list(kept)


# What a forward does, and what is seen of it.
ACTS: dict[str, tuple[Callable[[Keeping, Tensor], Any], Callable[[], Any]]] = {
    "a class": (
        count_in_class,
        lambda: (Keeping.calls, len(Keeping.tables), [name for name in vars(Keeping) if name.startswith("made_")]),
    ),
    "a class, by the type of an argument": (lambda module, z: module.note(z), lambda: Keeping.calls),
    "the class of a class": (count_in_metaclass, lambda: Counting.made),
    "settings of the process": (set_for_the_process, settings_of_the_process),
    "a file": (count_in_file, lambda: (_calls, "_made" in globals(), len(_tables))),
    "a file, by name": (count_by_name, lambda: _calls),
    "a function that it calls": (helped, lambda: (_calls, Shared.made)),
    "another file": (count_in_another_file, lambda: toy_modules.N_CLASSES),
    "another file, by strings": (count_by_strings, lambda: toy_modules.N_CLASSES),
    "a context variable": (in_context, lambda: (_context.get(None), len(_inside.get()))),
    "a thread": (in_thread, lambda: vars(_local).get("calls")),
    "a network of a file": (lambda module, z: _frozen(z), lambda: (_frozen.training, int(_frozen.num_batches_tracked))),
    "variables of a function": closure(),
    "a decorator": decorated(),
    "a cache of a function": (lambda module, z: table(len(z)), table.cache_info),
    "a cache of a method": (lambda module, z: module.grid(len(z)), lambda: Keeping.grid.cache_info().currsize),
    "a cache without limit": (
        lambda module, z: (unlimited(0).append(1), unlimited(len(z))),
        lambda: (unlimited.cache_info().currsize, unlimited(0)),
    ),
}


def run_all(module: nn.Module) -> None:
    generator = cp.wrap(module, Z)
    z = generator.sample(3)
    cp.Hybridizer(generator, "main.2").hybridize(z, z.flip(0))
    cp.InfluenceMap(generator, "main.2").attribute(n_pairs=3)


@pytest.mark.parametrize("what", ACTS)
def test_what_the_code_of_a_forward_keeps_is_put_back(what: str) -> None:
    act, look = ACTS[what]
    threads = torch.get_num_threads()
    _inside.set([])
    unlimited(0)
    module = Keeping(act)
    before = look()
    run_all(module)
    assert look() == before
    try:
        module(torch.randn(7, 5)).sum().backward()  # the control, and it still trains
        assert look() != before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
        os.environ.pop("MADE_BY_A_FORWARD", None)
        sys.path[:] = [folder for folder in sys.path if folder != "/nowhere"]


def _log(module: Keeping, z: Tensor) -> None:
    module.kept.write(module.kept.getvalue()[:0] + ("x" if isinstance(module.kept, io.StringIO) else b"x"))


def _add(module: Keeping, z: Tensor) -> None:
    module.kept[len(module.kept)].append(z)


class Log(list[Any]):
    """Of the user's own kind, with an attribute."""

    total = 0

    def append(self, item: Any) -> None:
        self.total += 1
        super().append(item)


class Plain:
    def __init__(self) -> None:
        self.calls = 0


_plain = Plain()


def _file() -> Any:
    file = io.TextIOWrapper(io.BytesIO(b"abc" * 50))
    file.seek(0)
    return file


def _through_reference(module: Keeping, z: Tensor) -> None:
    module.kept().calls += 1


# What the module keeps, what a forward does to it, and what is seen of it.
KEPT: dict[str, tuple[Callable[[], Any], Callable[[Keeping, Tensor], Any], Callable[[Any], Any]]] = {
    "a text stream": (lambda: io.StringIO("ab"), _log, lambda s: (s.getvalue(), s.tell())),
    "a stream of bytes": (lambda: io.BytesIO(b"ab"), _log, lambda s: (s.getvalue(), s.tell())),
    "the place in a file": (_file, lambda m, z: m.kept.read(1), lambda file: file.tell()),
    "a simple queue": (SimpleQueue, lambda m, z: m.kept.put(z), lambda q: q.qsize()),
    "a deque of few": (lambda: deque([1], 2), lambda m, z: m.kept.append(z), lambda d: (len(d), d.maxlen)),
    "a dict with defaults": (lambda: defaultdict(list), _add, len),
    "a dict with other defaults": (
        lambda: defaultdict(list),
        lambda m, z: setattr(m.kept, "default_factory", dict),
        lambda d: d.default_factory,
    ),
    "the shape of an array": (lambda: np.zeros(4), lambda m, z: setattr(m.kept, "shape", (2, 2)), np.shape),
    "a list of the user's kind": (Log, lambda m, z: m.kept.append(1), lambda log: log.total),
    "an event": (threading.Event, lambda m, z: m.kept.set(), lambda e: e.is_set()),
    "a weak reference": (lambda: weakref.ref(_plain), _through_reference, lambda r: r().calls),
    "a read-only view": (
        lambda: MappingProxyType({"a": [0]}),
        lambda m, z: m.kept["a"].append(1),
        lambda view: len(view["a"]),
    ),
    "another file": (
        lambda: toy_modules,
        lambda m, z: setattr(m.kept, "N_CLASSES", m.kept.N_CLASSES + 1),
        lambda file: file.N_CLASSES,
    ),
    "a memory view": (lambda: memoryview(bytearray(2)), lambda m, z: m.kept.__setitem__(0, 1), bytes),
    "a method of a list": (lambda: [0].append, lambda m, z: m.kept(1), lambda append: len(append.__self__)),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_the_module_keeps_is_put_back(what: str) -> None:
    make, act, look = KEPT[what]
    module = Keeping(act, kept := make())
    before = look(kept)
    run_all(module)
    assert module.kept is kept
    assert look(kept) == before
    module(torch.zeros(7, 5))  # the control
    assert look(kept) != before


def _forever() -> Iterator[int]:
    while True:
        yield 1


_numbers = itertools.count()


def _take_number(module: Keeping, z: Tensor) -> None:
    next(_numbers)


REFUSED: dict[str, tuple[Callable[[], Any], Callable[[Keeping, Tensor], Any], str]] = {
    "a count": (itertools.count, lambda m, z: next(m.kept), "takes from an iterator that it keeps"),
    "a count of a file": (lambda: None, _take_number, "takes from an iterator that it keeps"),
    "a count in a list": (lambda: [itertools.count()], lambda m, z: next(m.kept[0]), "takes from an iterator"),
    "a generator": (_forever, lambda m, z: next(m.kept), "takes from an iterator"),
    "a cycle": (lambda: itertools.cycle([1, 2]), lambda m, z: m.kept.__next__(), "takes from an iterator"),
    "a sequence of seeds": (lambda: np.random.SeedSequence(0), lambda m, z: m.kept.spawn(1), "spawns from a SeedSeq"),
    "a file": (_file, lambda m, z: m.kept.write("x" * 200), "writes to a file that it keeps"),
    "a generator's seeds": (lambda: np.random.default_rng(0), lambda m, z: m.kept.spawn(1), "spawns from a SeedSeq"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_put_back_is_refused(what: str) -> None:
    make, act, sentence = REFUSED[what]
    with pytest.raises(ModuleChanged, match=f"the forward of Keeping {sentence}"):
        cp.wrap(Keeping(act, make()), Z)
    run_all(module := Keeping(lambda *_: None, kept := make()))  # the control: kept and not used
    assert module.kept is kept


def test_a_gradient_that_a_forward_changes_is_refused() -> None:
    def accumulate(module: Keeping, z: Tensor) -> None:
        if module.main[0].weight.grad is not None:
            module.main[0].weight.grad.add_(1)

    module = Keeping(accumulate)
    run_all(module)  # the control: there is none
    module(torch.randn(2, 5)).sum().backward()
    with pytest.raises(ModuleChanged, match=r"changes the gradient of its parameter 'main\.0\.weight'"):
        cp.wrap(module, Z)


def test_a_cache_that_is_not_empty_and_grows_is_told() -> None:
    table.cache_clear()
    module = Keeping(lambda module, z: table(len(z)))
    table(100)
    with pytest.warns(CacheGrown, match=r"the forward of Keeping adds to the cache of table.*table\.cache_clear\(\)"):
        cp.wrap(module, Z)
    cp.wrap(module, Z)  # the control: nothing more is added, and warnings are errors here
    table.cache_clear()
