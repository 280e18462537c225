"""A user's own thread that draws random numbers or changes modes while a forward runs: noticed where it can be."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.generator.state.disturbance import Disturbed
from counterfactual_probe.generator.state.randomness import RandomNumbersDrawn
from support.toy_modules import Deconv, vectors

Z = vectors(5, torch.float32)


def in_thread(act: Callable[[], Any]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


class Noisy(Deconv):
    """Draws some numbers; how many may depend on the latents, as where they are drawn until one fits."""

    def __init__(self, draw: Callable[[], Any] = lambda: torch.rand(1), *, varies: bool = False) -> None:
        super().__init__()
        self.draw, self.varies = draw, varies

    def forward(self, z: Tensor) -> Tensor:
        for _ in range(1 + int(self.varies and z.sum() > 0)):
            z = z + float(self.draw())
        return super().forward(z)


DRAWS: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.rand(3),
    "torch, normal": lambda: torch.randn(100),
    "NumPy": lambda: np.random.rand(2),
    "Python": random.random,
}


@pytest.mark.parametrize("what", DRAWS)
@pytest.mark.parametrize("n", [1, 12])  # whole forwards, and a program of them
def test_draws_of_another_thread_during_a_noisy_forward_are_noticed(what: str, n: int) -> None:
    module = Noisy()
    generator = cp.wrap(module, Z)
    z = generator.sample(n)
    expected = generator(z)
    handle = module.main[2].register_forward_hook(lambda *_: in_thread(other) if next(turns) == 2 else None)
    other, turns = DRAWS[what], iter(range(10**6))
    with pytest.raises(Disturbed, match="random numbers were drawn while the forward of Noisy drew its own"):
        for _ in range(4):
            cp.Hybridizer(generator, "main.2").hybridize(z, z.flip(0), units=[[0], [1]])
    handle.remove()
    torch.testing.assert_close(generator(z), expected)  # the control, as below


ONE: dict[str, Callable[[], Any]] = {"torch": lambda: torch.rand(1), "NumPy": np.random.rand, "Python": random.random}


@pytest.mark.parametrize("what", ONE)
def test_a_forward_that_draws_more_for_some_latents_is_left_in_peace(what: str) -> None:
    generator = cp.wrap(Noisy(ONE[what], varies=True), Z)
    z = generator.sample(8)
    assert torch.equal(generator(z), generator(z))
    cp.InfluenceMap(generator, "main.2").attribute(n_pairs=4)


def test_draws_of_another_thread_during_other_runs_are_told() -> None:
    module = Deconv()
    generator = cp.wrap(module, Z)
    z = generator.sample(3)
    before = torch.get_rng_state()
    handle = module.main[2].register_forward_hook(lambda *_: in_thread(lambda: torch.rand(1)))
    with pytest.warns(RandomNumbersDrawn, match="whose forward drew none before, by it or by another thread"):
        generator(z)
    handle.remove()
    assert torch.equal(torch.get_rng_state(), before)
    generator(z)  # the control: a warning would be an error


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("part", ["", "main.1"])
def test_a_part_put_into_train_mode_by_another_thread_is_noticed(part: str, n: int) -> None:
    module = Deconv()
    generator = cp.wrap(module, Z)
    z = generator.sample(n)
    expected = generator(z)
    target = module.get_submodule(part)
    handle = module.main[0].register_forward_hook(lambda *_: in_thread(target.train))
    with pytest.raises(Disturbed, match=r"'main.*' of Deconv was put into train mode during a run in eval mode"):
        cp.Hybridizer(generator, "main.2").hybridize(z, z.flip(0), units=[[0], [1]])
    handle.remove()
    torch.testing.assert_close(generator(z), expected)


def test_a_forward_that_sets_a_mode_by_itself_is_left_in_peace() -> None:
    class Setting(Deconv):
        def forward(self, z: Tensor) -> Tensor:
            self.main[3].train()  # dropout of nothing
            return super().forward(z)

    generator = cp.wrap(Setting().eval(), Z)
    cp.InfluenceMap(generator, "main.2").attribute(n_pairs=3)
    assert not generator.module.main[3].training
