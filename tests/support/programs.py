"""Hybrids by a given executor, and small generators whose programs are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.engine import Checked, FullForward, Pairs, Prepared, Strategy, Stream, Swap, executor_for
from counterfactual_probe.generator.units import parse_layers, parse_units
from support import toys


def cut(latents: Any, start: int, stop: int) -> Any:
    if isinstance(latents, dict):
        return {key: value[start:stop] for key, value in latents.items()}
    if isinstance(latents, tuple):
        return tuple(value[start:stop] for value in latents)
    return latents[start:stop]


N = 3


def hybrids(generator: cp.GeneratorAdapter, sets: Any, executor: Any, **options: Any) -> Tensor:
    """Hybrids of unit sets, (pairs, sets, C, H, W), with a given executor."""
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    pairs = Pairs(N, lambda a, b: cut(z1, a, b), lambda a, b: cut(z2, a, b))
    found = torch.zeros(N, len(sets), *generator.image_size, dtype=torch.float64, device=generator.device)
    with generator.session():
        for effect in Stream(generator, Swap(sets), pairs, executor=executor, **options).run():
            found[effect.pair, effect.sets] = effect.original.double()
            found[effect.pair, effect.changed] = effect.hybrids.double()
    return found


def single_hybrids(generator: cp.GeneratorAdapter, layers: str | list[str], executor: Any) -> Tensor:
    """Hybrids of each channel alone, (pairs, sets, C, H, W), with a given executor."""
    return hybrids(generator, parse_units(None, parse_layers(generator, layers)), executor)


def prepared(generator: cp.GeneratorAdapter, *layers: str) -> Checked:
    """A program, and full forwards where it is wrong."""
    sets = [frozenset([layer]) for layer in layers]
    return Checked(generator, {Strategy.PREPARED: lambda: Prepared(generator, sets)})


class Net(nn.Module):
    """A first layer, and a rest given as a function of it and the submodules."""

    def __init__(self, rest: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(5, 8, 4)
        self.act = nn.ReLU()
        for name, part in parts.items():
            self.add_module(name, part)
        self.rest = rest

    def forward(self, z: Tensor) -> Tensor:
        return self.rest(self, self.act(self.first(z[:, :, None, None])))


def build(rest: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> cp.GeneratorAdapter:
    with toys.seeded(0):
        return cp.wrap(Net(rest, **parts).double().eval(), toys.vectors(5))


def largest_gap(generator: cp.GeneratorAdapter, layer: str) -> float:
    """Between hybrids of single channels and of two, prepared and plain."""
    infos = parse_layers(generator, layer)
    sets = [*parse_units(None, infos, generator), *parse_units([[0, 1]], infos, generator)]
    executor = prepared(generator, layer)
    found, full = hybrids(generator, sets, executor), hybrids(generator, sets, FullForward(generator))
    assert str(executor.choice) == "prepared"
    assert full.std(0).max() > 1e-3, "the hybrids must differ to mean anything"
    return float((found - full).abs().max())


def conv(inputs: int = 8, outputs: int = 3) -> nn.Conv2d:
    with toys.seeded(1):
        return nn.Conv2d(inputs, outputs, 3, padding=1)


def agrees(generator: cp.GeneratorAdapter, layer: str) -> str:
    """What a result records of the executor after a run whose hybrids were those of full forwards."""
    executor = executor_for(generator, parse_units(None, parse_layers(generator, layer)))
    found, full = (single_hybrids(generator, layer, each) for each in (executor, FullForward(generator)))
    assert (found - full).abs().max() <= 1e-10
    assert full.std(0).max() > 1e-3, "the hybrids must differ to mean anything"
    return str(executor.choice)
