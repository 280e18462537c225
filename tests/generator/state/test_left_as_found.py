"""Whatever a forward leaves behind, and wherever the module keeps it, is put back; what cannot be is refused."""

from __future__ import annotations

import random
import threading
from collections import ChainMap, OrderedDict, UserDict, deque
from collections.abc import Callable
from functools import lru_cache, partial
from queue import Queue
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import Deconv, vectors

Z = vectors(5)


class Counter:
    """An object with slots, as configuration objects often have."""

    __slots__ = ("__private", "calls", "late")

    def __init__(self) -> None:
        self.calls = self.__private = 0

    @property
    def private(self) -> int:
        return self.__private

    def count(self) -> None:
        self.calls += 1
        self.__private += 1
        self.late = 1


class Plain:
    """An object with attributes, such as a scheduler."""

    def __init__(self) -> None:
        self.step, self.history = 0, [torch.zeros(1)]


class Keeper(nn.Module):
    """A generator that keeps things in every kind of container."""

    def __init__(self, act: Callable[[Keeper, Tensor], None] = lambda *_: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(5, 12), nn.BatchNorm1d(12)
        self.last = nn.Conv2d(3, 3, 1)
        self.act = act
        self.grids: dict[Any, Any] = {}
        self.ordered = OrderedDict(a=1, b=2)
        self.stored: list[Any] = []
        self.nested = {"deep": [deque([1]), {"x"}]}
        self.user = UserDict({"k": 0})
        self.array = np.zeros(3)
        self.plain, self.table = Plain(), torch.arange(3.0)
        self.generator = torch.Generator()
        self.chain, self.space, self.bytes = ChainMap({}, {"k": 0}), SimpleNamespace(made=None), bytearray()
        self.random = [np.random.default_rng(0), np.random.RandomState(0), random.Random(0)]

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(self.first(z))
        self.act(self, x)
        image: Tensor = self.last(x.reshape(-1, 3, 2, 2))
        return image


def cache(module: Keeper, x: Tensor) -> None:
    module.grids[len(module.grids)] = torch.linspace(-1, 1, 4)


def append(module: Keeper, x: Tensor) -> None:
    module.stored.append(x)
    module.nested["deep"][0].append(x)
    module.nested["deep"][1].add(len(module.nested["deep"][1]))


def reorder(module: Keeper, x: Tensor) -> None:
    module.ordered.move_to_end("a")
    module.ordered["c"] = 3


def attributes(module: Keeper, x: Tensor) -> None:
    module.plain.step += 1
    module.plain.history.append(x)
    module.plain.fresh = x  # type: ignore[attr-defined]
    module.user["k"] += 1


def in_place(module: Keeper, x: Tensor) -> None:
    module.array += 1
    module.table.mul_(2)
    module.plain.history[0].add_(1)
    torch.rand(1, generator=module.generator)


def hook(module: Keeper, x: Tensor) -> None:
    module.last.register_forward_hook(lambda *_: None)
    module.first.register_forward_pre_hook(lambda *_: None)


def freeze(module: Keeper, x: Tensor) -> None:
    module.first.weight.requires_grad_(False)
    module.last.train()


def count(module: Keeper, x: Tensor) -> None:
    module.grids["counter"].count()


def keep_elsewhere(module: Keeper, x: Tensor) -> None:
    module.chain["made"] = module.space.made = x
    module.bytes.extend(b"x")


def draw(module: Keeper, x: Tensor) -> None:
    module.random[0].random(), module.random[1].rand(), module.random[2].random()


def mark_weights(module: Keeper, x: Tensor) -> None:
    module.first.weight.seen = True  # type: ignore[assignment]
    if module.first.weight.requires_grad:
        module.first.weight.register_hook(lambda slope: slope)


def view(item: Any) -> Any:
    """An item's content, so that two looks at it can be compared."""
    for kinds, content in CONTENT.items():
        if isinstance(item, kinds):
            return id(item), content(item)
    if isinstance(item, random.Random):
        return hash(item.getstate())
    return id(item) if callable(item) else repr(item)


CONTENT: dict[Any, Callable[[Any], Any]] = {
    Tensor: lambda item: (item.requires_grad, item.detach().tolist(), len(item._backward_hooks or ()), vars(item)),
    np.ndarray: lambda item: item.tolist(),
    torch.Generator: lambda item: item.get_state().tolist(),
    np.random.Generator: lambda item: str(item.bit_generator.state),
    np.random.RandomState: lambda item: str(item.get_state(legacy=False)),
    bytearray: bytes,
    dict: lambda item: [(key, view(value)) for key, value in item.items()],
    (list, tuple, deque): lambda item: [view(value) for value in item],
    (nn.Module, Plain, UserDict, ChainMap, SimpleNamespace): lambda item: view(item.__dict__),
}


def run_all(module: nn.Module) -> None:
    gen = cp.wrap(module, Z)
    gen(gen.sample(3))
    cp.Hybridizer(gen, "first").hybridize(gen.sample(3), gen.sample(3, seed=1))
    cp.InfluenceMap(gen, "first").attribute(n_pairs=3)


@pytest.mark.parametrize(
    "act", [cache, append, reorder, attributes, in_place, hook, freeze, keep_elsewhere, draw, mark_weights]
)
def test_everything_the_module_leads_to_is_put_back(act: Callable[[Keeper, Tensor], None]) -> None:
    module = Keeper(act).train()
    before = view(module)
    act(module, torch.zeros(1))
    assert view(module) != before  # the look sees what the forward does
    module = Keeper(act).train()
    before = view(module)
    run_all(module)
    assert view(module) == before


def test_slots_are_put_back() -> None:
    module, counter = Keeper(count), Counter()
    module.grids["counter"] = counter
    run_all(module)
    assert (counter.calls, counter.private) == (0, 0)
    assert not hasattr(counter, "late")
    counter.count()
    assert (counter.calls, counter.private, counter.late) == (1, 1, 1)


def test_training_goes_on_after_a_probe_of_a_module_that_keeps_what_it_made() -> None:
    class Grids(Keeper):
        def forward(self, z: Tensor) -> Tensor:
            if "grid" not in self.grids:
                self.grids["grid"] = torch.linspace(0, 1, 2)
            return super().forward(z) * self.grids["grid"]

    @lru_cache
    def table(n: int) -> Tensor:
        return torch.linspace(0, 1, n)

    class Tables(Keeper):
        """Keeps them where nothing leads to from the module."""

        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z) * table(2)

    for module in (Grids(), Tables()):
        run_all(module)
        module(torch.randn(4, 5)).sum().backward()
        assert module.first.weight.grad is not None


def through_data(weight: Tensor) -> None:
    weight.data.mul_(2)


def in_no_grad(weight: Tensor) -> None:
    with torch.no_grad():
        weight.add_(1)


@pytest.mark.parametrize("change", [through_data, in_no_grad])
def test_a_forward_that_changes_a_weight_is_refused(change: Callable[[Tensor], None]) -> None:
    with pytest.raises(cp.ProbeError, match=r"changes its parameter 'last.weight'; make it a function of latents"):
        cp.wrap(Keeper(lambda module, x: change(module.last.weight)), Z)


def test_a_weight_exchanged_through_data_is_put_back() -> None:
    def exchange(module: Keeper, x: Tensor) -> None:
        module.last.weight.data = module.last.weight.data * 1.0

    module = Keeper(exchange)
    before = module.last.weight.data_ptr()
    run_all(module)
    assert module.last.weight.data_ptr() == before


def from_the_first_batch(module: Keeper, x: Tensor) -> None:
    """As the activation norms of flows are set: of another batch, the module is another function."""
    if not getattr(module, "is_set", False):
        module.last.weight.data = module.last.weight / (1 + x.std())
        module.is_set = True


def test_weights_set_from_the_first_batch_are_refused_until_they_are_set() -> None:
    module = Keeper(from_the_first_batch)
    with pytest.raises(cp.ProbeError, match=r"changes its parameter 'last.weight'.*run it on one before"):
        cp.wrap(module, Z)
    with torch.no_grad():
        module(torch.randn(8, 5))
    run_all(module)


_ARMED: list[bool] = []


def when_armed(module: Keeper, x: Tensor) -> None:
    if _ARMED:
        through_data(module.last.weight)


def test_a_weight_changed_in_a_later_run_is_refused_then() -> None:
    gen = cp.wrap(Keeper(when_armed), Z)
    z = gen.sample(2)
    gen(z)
    _ARMED.append(True)
    try:
        with pytest.raises(cp.ProbeError, match=r"changes its parameter 'last.weight'"):
            gen(z)
    finally:
        _ARMED.clear()


class Hidden(nn.Module):
    """A network in a list, with ``train`` overridden to reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = [nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12))]
        self.out = nn.Conv2d(3, 3, 1)

    def train(self, mode: bool = True) -> Hidden:
        self.frozen[0].train(mode)
        return super().train(mode)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.out(self.frozen[0](z).reshape(-1, 3, 2, 2))
        return image


def test_a_network_kept_in_a_list_runs_in_eval_mode_and_keeps_its_statistics() -> None:
    module = Hidden().train()
    gen = cp.wrap(module, Z)
    z = gen.sample(4)
    seen = gen(z)
    assert int(module.frozen[0][1].num_batches_tracked) == 0
    assert module.frozen[0].training
    with torch.no_grad():
        expected = module.eval()(z)
        assert not torch.equal(expected, module.train()(z))
    torch.testing.assert_close(seen, expected)


class Held:
    """A network with a counter, as a method of it reaches them."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.calls = net, 0

    def run(self, z: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.net(z)
        return out

    def run_as_hook(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return self.run(output)


def in_closure(net: nn.Module) -> Callable[[Tensor], Tensor]:
    def call(z: Tensor) -> Tensor:
        out: Tensor = net(z)
        return out

    return call


HELD: dict[str, Callable[[Held], Callable[[Tensor], Tensor]]] = {
    "a closure": lambda held: in_closure(held.net),
    "a method": lambda held: held.run,
    "a method of the network": lambda held: held.net.forward,
    "a partial function": lambda held: partial(nn.Module.__call__, held.net),
    "a partial function of a method": lambda held: partial(held.run),
}


class Calling(nn.Module):
    """A generator that calls a network through a function alone."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.call = Deconv(), call

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.inner(self.call(z))
        return image


@pytest.mark.parametrize("how", HELD)
def test_a_network_that_a_function_holds_runs_in_eval_mode(how: str) -> None:
    torch.manual_seed(0)
    held = Held(nn.BatchNorm1d(5))
    module = Calling(HELD[how](held)).train()
    state = {name: value.clone() for name, value in held.net.state_dict().items()}
    generator = cp.wrap(module, Z)
    z = generator.sample(3, seed=0)
    held.net.eval()
    with torch.no_grad():
        expected = module.eval()(z)
    module.train(), held.net.train()
    held.calls = 0
    torch.testing.assert_close(generator(z), expected)
    cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=5)
    assert held.net.training
    assert held.calls == 0
    assert all(torch.equal(value, state[name]) for name, value in held.net.state_dict().items())


def test_attributes_of_functions_and_weak_containers_are_put_back() -> None:
    def remember(z: Tensor) -> float:
        remember.last = z  # type: ignore[attr-defined]
        return 0.0

    class Remembering(Calling):
        def __init__(self) -> None:
            super().__init__(lambda z: z)
            self.remember, self.weak, self.keyed = (
                remember,
                WeakValueDictionary[str, Any](),
                WeakKeyDictionary[Any, int](),
            )
            self.weak["net"], self.keyed[self.inner] = self.inner, 1

        def forward(self, z: Tensor) -> Tensor:
            self.weak["z"], self.keyed[self.inner] = z, self.keyed[self.inner] + 1
            return super().forward(z) + self.remember(z)

    module = Remembering()
    generator = cp.wrap(module, Z)
    cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=5)
    assert vars(remember) == {}
    assert dict(module.weak) == {"net": module.inner}
    assert dict(module.keyed) == {module.inner: 1}
    module(generator.sample(1))  # the control: a forward does leave them
    assert "last" in vars(remember)
    assert module.keyed[module.inner] == 2


def test_the_notes_of_an_observer_stay() -> None:
    """Its hook is on the module, and what it has noted is not the module's."""
    held = Held(nn.Identity())

    def count(*_: Any) -> None:
        count.calls = getattr(count, "calls", 0) + 1  # type: ignore[attr-defined]

    module = Deconv()
    handles = [module.register_forward_hook(lambda _m, _i, o: held.run(o)), module.register_forward_pre_hook(count)]
    generator = cp.wrap(module, Z)
    held.calls = count.calls = 0  # type: ignore[attr-defined]
    generator(generator.sample(2))
    assert held.calls == count.calls == 1  # type: ignore[attr-defined]
    module.register_forward_hook(held.run_as_hook)
    generator(generator.sample(2))
    assert held.calls == 3
    for handle in handles:
        handle.remove()


def test_queues_thread_locals_and_classes_are_put_back() -> None:
    class Filling(Calling):
        def __init__(self) -> None:
            super().__init__(lambda z: z)
            self.queue, self.local = Queue[int](), threading.local()
            self.local.seen = [1]

        def forward(self, z: Tensor) -> Tensor:
            self.queue.put(2)
            self.local.seen.append(z)
            self.local.late = z
            if type(self.inner) is Deconv:
                self.inner.__class__ = type("Other", (Deconv,), {})
            return super().forward(z)

    module = Filling()
    generator = cp.wrap(module, Z)
    cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=5)
    assert module.queue.qsize() == 0
    assert vars(module.local) == {"seen": [1]}
    assert type(module.inner) is Deconv
    module(generator.sample(1))  # the control
    assert module.queue.qsize() == 1
    assert type(module.inner) is not Deconv
