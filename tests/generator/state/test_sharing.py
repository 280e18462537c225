"""One module in several adapters, wrapped or not, in threads, forked and spawned processes: no hang, the same maps."""

from __future__ import annotations

import multiprocessing
import threading
from collections import UserDict
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator.state.locks import holding
from support import toys
from support.toy_modules import Deconv


class Halved(nn.Module):
    """Another generator, around one that has an adapter of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.layer = inner, nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layer(self.inner(z) * 0.5)
        return images


def maps(gen: cp.GeneratorAdapter, layer: str) -> Tensor:
    return cp.InfluenceMap(gen, layer).attribute(n_pairs=6, units=[[0], [1]]).maps


def in_threads(acts: list[Callable[[], Any]]) -> list[Any]:
    results: list[Any] = [None] * len(acts)

    def run(place: int) -> None:
        try:
            results[place] = acts[place]()
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "two threads wait for each other"
    return results


@pytest.mark.parametrize("toy", [toys.PLAIN, toys.NOISY], ids=lambda toy: toy.name)
def test_a_module_and_one_that_wraps_it_in_threads(toy: toys.Toy) -> None:
    module = toy.module().train()
    gens = [
        (cp.wrap(module, toy.sampler, **toy.wrap), "main.2"),
        (cp.wrap(Halved(module), toy.sampler, layers="layer"), "layer"),
        (cp.wrap(module, toy.sampler, **toy.wrap), "main.2"),
        (cp.wrap(Halved(module), toy.sampler, layers="layer"), "layer"),
    ]
    expected = [maps(*gen) for gen in gens]
    before = torch.get_rng_state()
    for _ in range(2):
        for found, right in zip(in_threads([lambda g=gen: maps(*g) for gen in gens]), expected, strict=True):
            assert isinstance(found, Tensor), found
            assert torch.equal(found, right)
    assert module.training
    assert torch.equal(torch.get_rng_state(), before)


class Hiding(Halved):
    """Keeps the other in a plain list, where ``modules()`` does not find it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(nn.Identity())
        self.hidden = [inner]

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layer(self.hidden[0](z) * 0.5)
        return images


def test_a_module_and_one_that_hides_it_in_threads() -> None:
    toy = toys.PLAIN
    module = toy.module().train()
    own = cp.wrap(module, toy.sampler, **toy.wrap), "main.2"
    gens = [own, (cp.wrap(Hiding(module), toy.sampler, layers="layer"), "layer")] * 4
    alone = [maps(*gen) for gen in gens[:2]]
    found = in_threads([lambda gen=gen: maps(*gen) for gen in gens])  # type: ignore[misc]
    assert all(torch.equal(each, alone[place % 2]) for place, each in enumerate(found))
    assert module.training


class Remembering(Deconv):
    """Keeps tables for all of its kind, as they are made."""

    tables: ClassVar[dict[int, Tensor]] = {}

    def forward(self, z: Tensor) -> Tensor:
        if len(z) not in self.tables:
            self.tables[len(z)] = torch.ones(len(z), 1)
        return super().forward(z * self.tables[len(z)])


class Noting(Deconv):
    """Writes a number into what it is given, which other modules may have been given as well."""

    def __init__(self, notes: Any) -> None:
        super().__init__()
        self.notes = notes

    def forward(self, z: Tensor) -> Tensor:
        self.notes[0] = float(z[0, 0])
        return super().forward(z)


class Board:
    """Of notes, for whoever names it."""

    last = 0.0


class Writing(Deconv):
    def forward(self, z: Tensor) -> Tensor:
        Board.last = float(z[0, 0])
        return super().forward(z)


class Blank:
    """A board without anything on it."""


class FirstWriting(Deconv):
    def forward(self, z: Tensor) -> Tensor:
        Blank.last = float(z[0, 0])  # type: ignore[attr-defined]
        return super().forward(z)


def noted(z: Tensor) -> None:
    noted.last = float(z[0, 0])  # type: ignore[attr-defined]


noted.last = 0.0  # type: ignore[attr-defined]


class Calling(Deconv):
    def forward(self, z: Tensor) -> Tensor:
        noted(z)
        return super().forward(z)


class Drawing(Deconv):
    """Draws from a generator that it is given."""

    def __init__(self, rng: Any) -> None:
        super().__init__()
        self.rng = rng

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + 0 * torch.rand(1, generator=self.rng)


BOTH_HAVE: dict[str, Any] = {
    "a dict": {0: 0.0},
    "a list": [0.0],
    "an object": UserDict({0: 0.0}),
    "an array": np.zeros(3),
    "a tensor": torch.zeros(3),
}
SHARING: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "a class": (Remembering, True),
    "nothing": (Deconv, False),
    "nothing that is the same": (lambda: Noting({0: 0.0}), False),
    **{what: (lambda notes=notes: Noting(notes), True) for what, notes in BOTH_HAVE.items()},
    "memory of an array": (lambda: Noting(BOTH_HAVE["an array"][1:]), True),
    "memory of a tensor": (lambda: Noting(BOTH_HAVE["a tensor"][1:]), True),
    "memory of a tensor and an array": (lambda: Noting(torch.from_numpy(BOTH_HAVE["an array"])), True),
    "a number of another class": (Writing, True),
    "a number that another class is to have": (FirstWriting, True),
    "an attribute of a function": (Calling, True),
    "a generator of random numbers": (partial(Drawing, torch.Generator()), True),
}


@pytest.mark.parametrize(("make", "waits"), SHARING.values(), ids=SHARING)
def test_modules_that_share_anything_wait_for_each_other(make: Callable[[], nn.Module], *, waits: bool) -> None:
    """What one thread puts back, another would miss."""
    one, two = make(), make()
    entered = threading.Event()

    def enter() -> None:
        with holding(two):
            entered.set()

    thread = threading.Thread(target=enter)
    with holding(one):
        thread.start()
        assert entered.wait(0.3 if waits else 60) is not waits
    thread.join(60)
    assert entered.is_set()


def test_modules_that_are_equal_are_not_the_same() -> None:
    class Equal(nn.Sequential):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, nn.Module)

        def __hash__(self) -> int:
            return 1

    one, two = (Equal(nn.Linear(5, 12), nn.Unflatten(1, (3, 2, 2))).train() for _ in range(2))
    gens = [cp.wrap(module, lambda n, rng: torch.randn(n, 5, generator=rng)) for module in (one, two)]
    with gens[0].session():
        with gens[1].session():
            assert not two.training
        assert two.training
        assert not one.training


def test_sessions_of_modules_that_share_a_part_nest() -> None:
    """Each is in eval mode inside its own, and as found after it."""
    module = toys.PLAIN.module().train()
    outer = Halved(module).train()
    one, two = (cp.wrap(it, toys.PLAIN.sampler, layers=layer) for it, layer in ((module, "main.2"), (outer, "layer")))
    with one.session():
        assert not module.training
        assert outer.training
        with two.session():
            assert not outer.training
        assert outer.training
        assert not module.training
    assert module.training


def test_modules_that_are_joined_later_are_locked_together() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    for module in (first, second):
        with holding(module):
            pass
    both, order = nn.Sequential(first, second), []

    def alone(module: nn.Module, name: str) -> None:
        with holding(module):
            order.append(name)

    with holding(both):
        threads = [threading.Thread(target=alone, args=pair) for pair in ((first, "first"), (second, "second"))]
        for thread in threads:
            thread.start()
            thread.join(0.2)
        order.append("both")
    for thread in threads:
        thread.join(10)
    assert order[0] == "both"
    assert sorted(order) == ["both", "first", "second"]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_fork_while_locks_are_held_does_not_hang() -> None:
    gen = toys.NOISY.generator()
    expected, inside, stop = maps(gen, "main.2"), threading.Event(), threading.Event()

    def hold() -> None:
        with gen.session():
            inside.set()
            stop.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(maps(gen, "main.2").numpy()))
    process.start()
    answered = receiver.poll(60)
    stop.set()
    thread.join()
    assert answered, "the child waits for a lock of a thread that it does not have"
    assert torch.equal(torch.from_numpy(receiver.recv()), expected)
    process.join(60)
    assert process.exitcode == 0
