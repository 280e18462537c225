"""Generators whose samples influence one another, always or for some values only, are run one sample at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import vectors


class Mixing(nn.Module):
    """A generator with an operation in its middle that may look at the whole batch."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.r, self.b = nn.ConvTranspose2d(8, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1)
        self.mix = mix

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.b(self.mix(self.r(self.a(z[:, :, None, None]))))
        return image


def one_at_a_time(net: Mixing, z1: Tensor, z2: Tensor, channel: int) -> Tensor:
    """The definition, a sample and a hook at a time."""
    maps = []
    for x, y in zip(z1.split(1), z2.split(1), strict=True):
        with torch.no_grad():
            source, plain = net.r(net.a(y[:, :, None, None])), net(x)

            def put(_: nn.Module, __: object, output: Tensor, source: Tensor = source) -> Tensor:
                return torch.cat([output[:, :channel], source[:, channel : channel + 1], output[:, channel + 1 :]], 1)

            hook = net.r.register_forward_hook(put)
            maps.append((net(x) - plain).abs().mean((0, 1)))
            hook.remove()
    return torch.stack(maps).mean(0)


def shared_scale(x: Tensor) -> Tensor:
    return x / x.abs().max()


def first_sample(x: Tensor) -> Tensor:
    return x + 0.1 * x[:1]


def last_sample(x: Tensor) -> Tensor:
    return x + 0.1 * x[-1:]


def only_large_batches(x: Tensor) -> Tensor:
    return x + 0.1 * x.mean(0, keepdim=True) if len(x) > 5 else x


def rare_branch(x: Tensor) -> Tensor:
    return x * 0.5 if float(x.detach().abs().max()) > 0.335 else x


def rare_branch_of_memory(x: Tensor) -> Tensor:
    """Read without an operation of torch's."""
    return x * 0.5 if max(x.flatten().tolist()) > 0.335 else x


def rare_branch_of_a_shape(x: Tensor) -> Tensor:
    return x * 0.5 if len((x > 0.335).nonzero()) else x


MIXES = [
    shared_scale,
    first_sample,
    last_sample,
    only_large_batches,
    rare_branch,
    rare_branch_of_memory,
    rare_branch_of_a_shape,
]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("n", [6, 40])
def test_maps_are_those_of_single_samples(mix: Callable[[Tensor], Tensor], n: int) -> None:
    net = Mixing(mix).eval()
    gen = cp.wrap(net, vectors(8), image_range=(-9, 9))
    z1, z2 = gen.sample(n, seed=0), gen.sample(n, seed=1)
    maps = cp.InfluenceMap(gen, "r").attribute(z1, z2, units=[[0]])
    expected = one_at_a_time(net, z1, z2, 0)
    with torch.no_grad():  # the batch would give other images: the test can fail
        together, alone = net(z1), torch.cat([net(z) for z in z1.split(1)])
    assert not torch.allclose(together, alone, atol=1e-4)
    torch.testing.assert_close(maps.maps[0], expected, atol=1e-6, rtol=0)


def test_what_mixes_samples_only_in_larger_batches_is_found_in_one_that_is_run() -> None:
    net = Mixing(only_large_batches).eval()
    gen = cp.wrap(net, vectors(8), image_range=(-9, 9))
    assert gen.batchable  # three samples do not show it
    z1, z2 = gen.sample(7), gen.sample(7, seed=1)  # so few hybrids run as whole forwards
    hybrids = cp.Hybridizer(gen, "r").hybridize(z1, z2, units=[list(range(6))])
    assert not gen.batchable
    alone = "full forward (one sample at a time: the samples of a batch influence one another)"
    assert hybrids.provenance["executor"] == alone
    with torch.no_grad():
        torch.testing.assert_close(hybrids.images[0], torch.cat([net(z) for z in z2.split(1)]), atol=1e-6, rtol=0)


def test_a_generator_of_independent_samples_stays_batched() -> None:
    gen = cp.wrap(Mixing(nn.Tanh()).eval(), vectors(8), image_range=(-9, 9))
    hybrids = cp.Hybridizer(gen, "r").hybridize(gen.sample(30), gen.sample(30, seed=1), units=[[0]])
    assert gen.batchable
    assert hybrids.provenance["executor"] == "prepared"


def test_a_hook_added_between_two_calls_is_seen() -> None:
    net = Mixing(nn.Tanh()).eval()
    gen = cp.wrap(net, vectors(8), image_range=(-9, 9))
    z1, z2 = gen.sample(40, seed=0), gen.sample(40, seed=1)
    before = cp.InfluenceMap(gen, "r").attribute(z1, z2)
    with torch.no_grad():
        highest = float(net.r(net.a(z1[:1, :, None, None])).tanh().max()) + 1e-3  # the first sample does not show it
    net.b.register_forward_pre_hook(lambda _, inputs: (inputs[0].clamp(max=highest),))
    again = cp.InfluenceMap(gen, "r").attribute(z1, z2)
    fresh = cp.InfluenceMap(cp.wrap(net, vectors(8), image_range=(-9, 9)), "r").attribute(z1, z2)
    assert torch.equal(again.maps, fresh.maps)
    assert not torch.equal(before.maps, fresh.maps)
