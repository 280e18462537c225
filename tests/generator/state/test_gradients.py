"""Forwards that compute gradients themselves, as guided samplers and energy models do, run as under ``no_grad``."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import vectors
from support.twins import forward


class Refined(nn.Module):
    """An image that goes one step down an energy; ``leaves`` inference mode by itself, or has to be let out."""

    def __init__(self, *, leaves: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.decode = nn.Linear(5, 8), nn.Linear(8, 48)
        self.energy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus())
        self.leaves = leaves

    def forward(self, z: Tensor) -> Tensor:
        with torch.inference_mode(False) if self.leaves else nullcontext(), torch.enable_grad():
            z = z.clone() if self.leaves else z
            image = self.decode(self.first(z).tanh()).view(-1, 3, 4, 4).detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(image).sum(), image)
            return (image - 0.1 * slope).detach()


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("n", [1, 3])  # whole forwards, and the fast path
def test_gradients_inside_a_forward(leaves: bool, n: int) -> None:
    module = Refined(leaves=leaves).double()
    gen = cp.wrap(module, vectors(5), image_range=(-9, 9))
    z1, z2 = gen.sample(n, seed=0), gen.sample(n, seed=1)
    found = cp.Hybridizer(gen, "first").hybridize(z1, z2, units=[[c] for c in range(8)])
    with torch.no_grad():
        source = module.first(z2)

    def put(channel: int, activation: Tensor) -> Tensor:
        return torch.cat([activation[:, :channel], source[:, [channel]], activation[:, channel + 1 :]], 1)

    for c in range(8):
        expected = forward(module, z1, {"first": lambda activation, c=c: put(c, activation)})  # type: ignore[misc]
        torch.testing.assert_close(found.images[c], expected, rtol=0, atol=1e-10)
    assert not torch.equal(found.images[0], found.base)


class Descending(nn.Module):
    """Calls ``backward``, which frees the graph of its first layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.decode = nn.Linear(5, 6), nn.Linear(6, 48)

    def forward(self, z: Tensor) -> Tensor:
        with torch.enable_grad():
            x = self.first(z)
            self.decode(x).square().sum().backward()
        image: Tensor = self.decode(x.detach().tanh()).view(-1, 3, 4, 4)
        return image


@pytest.mark.parametrize("n", [1, 3])
def test_a_graph_that_a_forward_frees_is_not_needed_again(n: int) -> None:
    module = Descending().double()
    gen = cp.wrap(module, vectors(5), image_range=(-9, 9))
    z1, z2 = gen.sample(n, seed=0), gen.sample(n, seed=1)
    found = cp.Hybridizer(gen, "first").hybridize(z1, z2)
    assert module.first.weight.grad is None
    with torch.no_grad():
        x1, x2 = module.first(z1), module.first(z2)
        for c in range(6):
            edited = torch.cat([x1[:, :c], x2[:, [c]], x1[:, c + 1 :]], 1)
            expected = module.decode(edited.tanh()).view(-1, 3, 4, 4)
            torch.testing.assert_close(found.images[c], expected, rtol=0, atol=1e-10)
