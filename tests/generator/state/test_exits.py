"""Ctrl-C, SIGTERM and sys.exit inside the user's code end as such, wherever they come, with everything put back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.state import fingerprint, global_random
from support.toy_modules import Deconv

LAYER = "main.2"


class Fuse:
    """Burns through at the n-th time that it is passed; it lies outside the module."""

    def __init__(self) -> None:
        self.left, self.blow = -1, lambda: None

    def set(self, blow: Callable[[], Any], after: int) -> None:
        self.left, self.blow = after, blow

    def pass_(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.blow()


class User:
    """A generator and a classifier of the user's, with a fuse in one place."""

    def __init__(self, place: str) -> None:
        self.fuse, self.place = Fuse(), place
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.module = Deconv().train()
            self.classifying = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
        self.module.register_buffer("count", torch.zeros(1))
        self.module.register_forward_pre_hook(self._counted)
        part = self.module.get_submodule("main.4")
        part.register_forward_hook(lambda *_: self.passed("hook"))
        part.register_forward_pre_hook(lambda *_: self.passed("pre-hook"))
        self.gen = cp.wrap(self.module, self.sample, image=self.image, layers=[LAYER, "main.4"], name="users")
        self.classifier = cp.Classifier(self.classifying, self.transform)
        self.classifying.register_forward_hook(lambda *_: self.passed("classifier"))

    def _counted(self, module: nn.Module, _inputs: Any) -> None:
        module.count.add_(1)  # something to be put back
        module.trace = [*getattr(module, "trace", []), "x"]
        self.passed("forward")

    def passed(self, place: str) -> None:
        if place == self.place:
            self.fuse.pass_()

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        self.passed("sample_latents")
        torch.rand(1)  # of the global generator, which is put back
        return torch.randn(n, 5, generator=rng)

    def image(self, output: Tensor) -> Tensor:
        self.passed("image")
        return output

    def transform(self, images: Tensor) -> Tensor:
        self.passed("transform")
        return images

    def value(self, values: Tensor) -> Tensor:
        self.passed("value")
        return values * 0


PLACES = ["sample_latents", "forward", "pre-hook", "hook", "image", "value", "classifier", "transform"]
OPERATIONS: dict[str, tuple[set[str], Callable[[User], Any]]] = {
    "wrap": (
        {"sample_latents", "forward", "pre-hook", "hook", "image"},
        lambda user: cp.wrap(user.module, user.sample, image=user.image),
    ),
    "sample": ({"sample_latents"}, lambda user: user.gen.sample(4)),
    "call": ({"forward", "pre-hook", "hook", "image"}, lambda user: user.gen(torch.ones(40, 5))),
    "attribute": (
        {"sample_latents", "forward", "pre-hook", "hook", "image"},
        lambda user: cp.InfluenceMap(user.gen, LAYER).attribute(n_pairs=4, seed=3),
    ),
    "hybridize": (
        {"forward", "pre-hook", "hook", "image"},
        lambda user: cp.Hybridizer(user.gen, [LAYER, "main.4"]).hybridize(torch.ones(4, 5), torch.zeros(4, 5)),
    ),
    "intervene": (
        {"value", "forward", "hook"},
        lambda user: cp.Hybridizer(user.gen, LAYER).intervene(torch.ones(4, 5), value=user.value),
    ),
    "stretch": (
        {"sample_latents", "forward", "image"},
        lambda user: cp.StretchTest(user.gen, LAYER).measure(n_images=3),
    ),
    "spectral": ({"forward", "hook"}, lambda user: cp.SpectralDependency(user.gen)),
    "logits": ({"classifier", "transform"}, lambda user: user.classifier.logits(torch.full((70, 3, 64, 64), 0.5))),
}


class Stop(BaseException):
    """A framework's own way to end a process."""


def raising(error: BaseException) -> Callable[[], None]:
    def blow() -> None:
        raise error

    return blow


ENDS: dict[str, tuple[Callable[[], Any], type[BaseException]]] = {
    "ctrl-c": (lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt),
    "sigterm": (lambda: signal.raise_signal(signal.SIGTERM), SystemExit),
    "sys.exit": (lambda: sys.exit(3), SystemExit),
    "another": (raising(Stop("now")), Stop),
}
CASES = [(operation, place) for operation, (places, _) in OPERATIONS.items() for place in PLACES if place in places]


@pytest.fixture(autouse=True)
def _handlers() -> Any:
    before = (
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)),
        signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def assert_ends(operation: str, place: str, end: str, after: int) -> None:
    user = User(place)
    run = OPERATIONS[operation][1]
    blow, kind = ENDS[end]
    before = fingerprint(user.module), fingerprint(user.classifying), global_random()
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
    user.fuse.set(blow, after)
    with pytest.raises(kind) as caught:
        for _ in range(after + 1):  # an operation that passes the place once is repeated until its turn
            run(user)
    if kind is SystemExit:
        assert type(caught.value) is SystemExit
        assert caught.value.code == {"sigterm": 143, "sys.exit": 3}[end]
    assert (fingerprint(user.module), fingerprint(user.classifying), global_random()) == before
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()) == modes
    user.fuse.set(lambda: None, 0)
    run(user)  # everything still works: no lock is held, nothing is in between
    assert (fingerprint(user.module), fingerprint(user.classifying)) == before[:2]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("operation", "place"), CASES)
def test_an_end_in_the_users_code_ends_as_such(operation: str, place: str, end: str) -> None:
    assert_ends(operation, place, end, after=1)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 2, 3, 5, 8])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("operation", "place"), CASES)
def test_an_end_at_any_time(operation: str, place: str, end: str, after: int) -> None:
    assert_ends(operation, place, end, after)
