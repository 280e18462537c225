"""Both halves of guidance in one batch: hybrids start at the layer there as well, from what clean runs kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine import Prepared
from counterfactual_probe.engine.program.independence import rows_of_samples


class Guided(nn.Module):
    """Two steps of a network that sees every sample with its condition and without, and heads folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.mid = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.late, self.clock = nn.Conv2d(8, 3, 3, padding=1), nn.Embedding(4, 8)

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        x = noise
        for step in range(3):
            both = self.early(torch.cat([x, x])) + torch.cat([torch.zeros_like(condition), condition])[..., None, None]
            both = both * self.clock(torch.full((len(both),), step))[..., None, None]
            heads = self.mid(F.group_norm(both, 2)).reshape(2 * len(both), 4, -1)
            both = both + (heads @ (heads.mT @ heads / 16).softmax(-1)).reshape_as(both)
            without, given = self.late(both.tanh()).chunk(2)
            x = x - 0.3 * (without + 2 * (given - without))
        return x


@pytest.fixture(scope="module")
def generator() -> cp.GeneratorAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Guided().double()

    def sample(n: int, rng: torch.Generator) -> Any:
        made = {"noise": torch.randn(n, 3, 4, 4, generator=rng), "condition": torch.randn(n, 8, generator=rng)}
        return {name: value.double() for name, value in made.items()}

    return cp.wrap(module, sample, layers=["mid#2", "mid#*", "early#2"], axes={"mid": "(2 n) c h w"})


@pytest.mark.parametrize("layer", ["mid#2", "mid#*"])
def test_hybrids_equal_plain_hooks_and_are_proved_independent(layer: str, generator: cp.GeneratorAdapter) -> None:
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    sets = [[c] for c in range(8)]
    maps = cp.Hybridizer(generator, layer).hybridize(z1, z2, units=sets)
    assert maps.provenance["executor"] == "prepared"
    calls = [2] if layer == "mid#2" else [1, 2, 3]
    for sample in range(3):  # alone, each with its own rows of both halves
        one, two = ({name: value[sample : sample + 1] for name, value in z.items()} for z in (z1, z2))
        sources = by_hooks(generator, two, calls, None, 0)[0]
        for channel in (0, 5):
            _, expected = by_hooks(generator, one, calls, sources, channel)
            torch.testing.assert_close(maps.images[channel, sample], expected[0], rtol=0, atol=1e-10)
            assert (expected[0] - maps.base[sample]).abs().max() > 1e-4  # negative control


def test_what_comes_before_is_kept_of_both_halves(generator: cp.GeneratorAdapter) -> None:
    """Of one step, nothing before the layer runs again: its halves are rows of what the clean run kept."""
    executor = Prepared(generator, [frozenset(["mid#2"])])
    program = executor._preparation.simplified.program
    rows, mixing = rows_of_samples(program)
    assert mixing is None
    assert any(rows[number].outer == 2 for number in executor._preparation.needs)
    steps = executor._preparation.paths[frozenset(["mid#2"]), False].steps
    assert len(steps) < 0.65 * len(program.ops)  # the second half of the second step, and the third


def by_hooks(
    gen: cp.GeneratorAdapter, latents: Any, calls: list[int], values: dict[int, Tensor] | None, channel: int
) -> tuple[dict[int, Tensor], Tensor]:
    kept: dict[int, Tensor] = {}
    ran = 0

    def hook(_module: nn.Module, _given: Any, output: Tensor) -> None:
        nonlocal ran
        ran += 1
        if ran in calls:
            kept[ran] = output.clone()
            if values is not None:
                output[:, channel] = values[ran][:, channel]

    handle = gen.module.get_submodule("mid").register_forward_hook(hook)
    with torch.no_grad():
        images = gen.module(**latents)
    handle.remove()
    return kept, images
