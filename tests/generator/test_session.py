"""Whatever happens, the user's module and the global random generators are left as they were found."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.devices.cases import on_devices
from support.state import HOOKS, fingerprint, global_random
from support.toy_modules import Deconv, vectors
from support.toys import TOYS, Toy


class Trigger:
    """Raises in the n-th forward from now. A hook pulls it, which is an observer's, and not put back."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.countdown = 0

    def pull(self) -> None:
        self.countdown -= 1
        if self.error is not None and self.countdown < 0:
            raise self.error


class Messy(Deconv):
    """A forward that leaves things lying around, and may fail half way through."""

    trigger = Trigger()

    def __init__(self) -> None:
        super().__init__(dropout=0.5)
        self.calls, self.cache = 0, None
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("average", torch.zeros(5))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        self.cache = z.clone()
        self.late = z.sum()
        self.seen.add_(len(z))
        self.average = 0.9 * self.average + z.mean(0)  # a new tensor under the old name
        image: Tensor = self.main(z[:, :, None, None])
        return image


def messy() -> Messy:
    """In mixed modes, with hooks, gradients and non-default flags of its own."""
    torch.manual_seed(3)
    Messy.trigger = Trigger()
    module = Messy().train()
    module.main[1].eval()
    module.main[6].eval()
    module.main[4].register_forward_hook(lambda *_: None)
    module.main[3].register_forward_hook(lambda *_: Messy.trigger.pull())
    module.main[0].register_forward_pre_hook(lambda *_: None)
    module.main[0].weight.requires_grad_(False)
    module.main[4].weight.grad = torch.ones_like(module.main[4].weight)
    return module


@pytest.fixture
def undisturbed() -> Iterator[Callable[[nn.Module], nn.Module]]:
    """Register modules; after the test they, and the random generators, must be as they were."""
    watched: list[tuple[nn.Module, dict[str, Any]]] = []

    def watch(module: nn.Module) -> nn.Module:
        watched.append((module, fingerprint(module)))
        return module

    torch.manual_seed(17)
    np.random.seed(17)
    random.seed(17)
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    yield watch
    assert watched
    for module, before in watched:
        assert fingerprint(module) == before
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes


class Operation:
    """One thing a user does, on a generator already made and latents already drawn."""

    def __init__(self, name: str, run: Callable[[cp.GeneratorAdapter, Any, Any, Any], Any]) -> None:
        self.name, self.run = name, run


OPERATIONS = [
    Operation("wrap", lambda gen, *_: cp.wrap(gen.module, vectors(5))),
    Operation("call", lambda gen, z1, z2, units: gen(z1)),
    Operation("hybridize", lambda gen, z1, z2, units: cp.Hybridizer(gen, "main.2").hybridize(z1, z2, units=units)),
    Operation("intervene", lambda gen, z1, z2, units: cp.Hybridizer(gen, "main.2").intervene(z1, units=units)),
    Operation(
        "intervene, mean",
        lambda gen, z1, z2, units: cp.Hybridizer(gen, "main.2").intervene(z1, units=units, value="mean"),
    ),
    Operation("attribute", lambda gen, z1, z2, units: cp.InfluenceMap(gen, "main.2").attribute(z1, z2, units=units)),
    Operation(
        "attribute, drawn",
        lambda gen, z1, z2, units: cp.InfluenceMap(gen, "main.2").attribute(n_pairs=3, units=units),
    ),
]
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


def ready() -> tuple[Messy, cp.GeneratorAdapter, Tensor, Tensor]:
    module = messy()
    generator = cp.wrap(module, vectors(5, torch.float32))
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    assert isinstance(z1, Tensor)
    assert isinstance(z2, Tensor)
    return module, generator, z1, z2


@every_operation
def test_success(operation: Operation, undisturbed: Callable[[nn.Module], nn.Module]) -> None:
    module, generator, z1, z2 = ready()
    undisturbed(module)
    before = global_random()
    operation.run(generator, z1, z2, [0, 1])
    assert global_random() == before
    assert not hasattr(module, "late")


WRONG = [
    pytest.param(operation, bad, id=f"{operation.name}-{bad}")
    for operation in OPERATIONS
    for bad in ("latents", "units")
    if operation.name != "wrap" and (operation.name, bad) not in {("call", "units"), ("attribute, drawn", "latents")}
]


@pytest.mark.parametrize(("operation", "bad"), WRONG)
def test_wrong_argument(operation: Operation, bad: str, undisturbed: Callable[[nn.Module], nn.Module]) -> None:
    module, generator, z1, z2 = ready()
    undisturbed(module)
    before = global_random()
    wrong = torch.zeros(3, 77)
    arguments = (wrong, wrong, [0, 1]) if bad == "latents" else (z1, z2, [0, 99])
    with pytest.raises(cp.ProbeError):
        operation.run(generator, *arguments)
    assert global_random() == before


def until_it_fails(operation: Operation, generator: cp.GeneratorAdapter, z1: Tensor, z2: Tensor) -> None:
    """An operation of a single forward is repeated until the trigger's turn."""
    for _ in range(3):
        operation.run(generator, z1, z2, [0, 1])


# Which forward fails: the first, a clean run, a hybrid.
@every_operation
@pytest.mark.parametrize("forward", [0, 1, 2])
def test_raising_module(operation: Operation, forward: int, undisturbed: Callable[[nn.Module], nn.Module]) -> None:
    module, generator, z1, z2 = ready()
    undisturbed(module)
    before = global_random()
    module.trigger.error, module.trigger.countdown = ZeroDivisionError("half way"), forward
    with pytest.raises(cp.ProbeError, match="the forward of Messy raised ZeroDivisionError: half way") as caught:
        until_it_fails(operation, generator, z1, z2)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert global_random() == before
    module.trigger.error = None
    operation.run(generator, z1, z2, [0, 1])  # and everything still works


@every_operation
@pytest.mark.parametrize("forward", [0, 1, 2])
@pytest.mark.parametrize("handler", [cp.ProbeError, KeyboardInterrupt])
def test_ctrl_c(
    operation: Operation,
    forward: int,
    handler: type[BaseException],
    undisturbed: Callable[[nn.Module], nn.Module],
) -> None:
    """Seen by either handler; and nothing is retried, although some errors elsewhere are."""
    module, generator, z1, z2 = ready()
    undisturbed(module)
    before = global_random()
    module.trigger.error, module.trigger.countdown = KeyboardInterrupt(), forward
    with pytest.raises(handler, match="interrupted; Messy is as it was and nothing was saved") as caught:
        until_it_fails(operation, generator, z1, z2)
    assert isinstance(caught.value, cp.Interrupted)
    assert global_random() == before


def test_ctrl_c_while_latents_are_drawn(undisturbed: Callable[[nn.Module], nn.Module]) -> None:
    module, stop = messy(), [False]

    def sampler(n: int, rng: torch.Generator) -> Tensor:
        if stop[0]:
            raise KeyboardInterrupt
        return torch.randn(n, 5, generator=rng)

    generator = cp.wrap(undisturbed(module), sampler)
    stop[0] = True
    with pytest.raises(cp.Interrupted):
        cp.InfluenceMap(generator, "main.2").attribute(n_pairs=4)
    with pytest.raises(cp.Interrupted):
        generator.sample(1)


def test_sampling_leaves_the_global_generators_alone() -> None:
    generator = ready()[1]
    before = global_random()
    generator.sample(5, seed=8)
    assert global_random() == before


def test_a_forward_that_reseeds_or_draws_leaves_the_global_generators_alone() -> None:
    class Rude(Deconv):
        def forward(self, z: Tensor) -> Tensor:
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
            return super().forward(z + torch.rand(()) + np.random.rand() + random.random())

    module = Rude()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = global_random()
    generator = cp.wrap(module, vectors(5, torch.float32))
    cp.InfluenceMap(generator, "main.2").attribute(n_pairs=2)
    assert global_random() == before
    generator.module(generator.sample(1))
    assert global_random() != before  # the module itself is as rude as ever


def test_numpy_and_python_noise_count_as_noise() -> None:
    class Draws(Deconv):
        def __init__(self, draw: Callable[[], float]) -> None:
            super().__init__()
            self.draw = draw

        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z + self.draw())

    for draw in (np.random.rand, random.random):
        generator = cp.wrap(Draws(draw), vectors(5, torch.float32))
        assert not generator.batchable
        z = generator.sample(2)
        assert torch.equal(generator(z, seed=1), generator(z, seed=1))
        assert not torch.equal(generator(z, seed=1), generator(z, seed=2))


@pytest.mark.parametrize("toy", on_devices(TOYS))
def test_every_toy_is_given_back(toy: Toy) -> None:
    """The wrapper of a compiled or parallel module included; and it still trains."""
    module = toy.module()
    modes = {name: part.training for name, part in module.named_modules()}
    weights = copy.deepcopy(module.state_dict())
    generator = cp.wrap(module, toy.sampler, **toy.wrap)
    z1, z2 = generator.sample(2), generator.sample(2, seed=1)
    cp.InfluenceMap(generator, toy.layer).attribute(z1, z2)
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert all(modes.values())
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())
    assert not any(getattr(part, kind) for part in module.modules() for kind in HOOKS)
    inner = generator.module
    arguments = z1 if isinstance(z1, tuple) else (z1,)
    image = toy.read(inner(**z1) if isinstance(z1, dict) else inner(*arguments))
    image.float().sum().backward()
    assert any(parameter.grad is not None for parameter in module.parameters())


def test_the_fingerprint_sees_what_it_should() -> None:
    """The check can fail: each disturbance changes the fingerprint."""
    disturb: list[Callable[[Messy], Any]] = [
        lambda module: module.eval(),
        lambda module: module.main[4].eval(),
        lambda module: module.main[4].register_forward_hook(lambda *_: None),
        lambda module: module.seen.add_(1),
        lambda module: setattr(module, "average", module.average.clone()),
        lambda module: setattr(module, "calls", 7),
        lambda module: setattr(module, "new", 0),
        lambda module: module.main[4].weight.requires_grad_(False),
        lambda module: module.main[4].weight.data.mul_(2),
        lambda module: module.zero_grad(),
        lambda module: module.double(),
    ]
    for change in disturb:
        module = messy()
        before = fingerprint(module)
        change(module)
        assert fingerprint(module) != before


def test_a_device_argument_leaves_the_module_where_it_was() -> None:
    module = messy()
    assert cp.wrap(module, vectors(5, torch.float32), device="cpu").module is module
    before = fingerprint(module)
    with pytest.raises(cp.ProbeError):
        cp.wrap(module, vectors(5, torch.float32), device="cuda:77")
    assert fingerprint(module) == before


def test_wrapping_failed_leaves_the_module_alone(undisturbed: Callable[[nn.Module], nn.Module]) -> None:
    module = messy()
    undisturbed(module)
    for arguments in ({"layers": ["main.99"]}, {"image": lambda x: x[0]}, {"image_range": (1, -1)}):
        with pytest.raises(cp.ProbeError):
            cp.wrap(module, vectors(5, torch.float32), **arguments)
    with pytest.raises(cp.ProbeError):
        cp.wrap(module, vectors(6, torch.float32))
