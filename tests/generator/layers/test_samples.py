"""Which dimension holds the samples: the one that grows with them, wherever it stands and whatever its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp


class Sequence(nn.Module):
    """Two tokens for every sample, the tokens first, and a recurrent state of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix = nn.Linear(5, 8), nn.MultiheadAttention(8, 2)
        self.rnn, self.out = nn.GRU(8, 8, 2), nn.Linear(8, 6)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z).transpose(0, 1)
        x = x + self.mix(x, x, x)[0]
        x, state = self.rnn(x)
        return torch.tanh(self.out((x + state.sum(0)).transpose(0, 1))).view(-1, 2, 3, 2).transpose(1, 2)


def tokens(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, 2, 5, generator=rng).double()


@pytest.mark.parametrize(("layer", "entry"), [("mix", 0), ("rnn", 0), ("rnn[1]", 1)])
def test_samples_are_found_behind_a_dimension_of_their_size(layer: str, entry: int) -> None:
    """Two tokens, or two layers of a state, are no two samples."""
    torch.manual_seed(0)
    module = Sequence().double().eval()
    generator = cp.wrap(module, tokens)
    assert generator.layer(layer) == cp.LayerInfo(layer, 8, (2,), "t n c")
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    kept: list[Tensor] = []

    def run(z: Tensor, action: Callable[[Tensor], Any]) -> Tensor:
        def hook(_part: nn.Module, _given: Any, output: tuple[Tensor, ...]) -> Any:
            changed = action(output[entry])
            return None if changed is None else tuple(changed if i == entry else o for i, o in enumerate(output))

        handle = module.get_submodule(layer.split("[", maxsplit=1)[0]).register_forward_hook(hook)
        with torch.no_grad():
            image: Tensor = module(z)
        handle.remove()
        return image

    run(z2, lambda value: kept.append(value.clone()))
    expected = run(z1, lambda value: torch.where(torch.arange(8) == 3, kept[0], value))
    many = cp.Hybridizer(generator, layer).hybridize(z1, z2, units=[[3], *([c] for c in range(8))])
    few = cp.Hybridizer(generator, layer).hybridize(z1[:1], z2[:1], units=[[3]])
    assert not many.provenance["executor"].startswith("full")
    assert torch.allclose(many.images[0], expected, rtol=0, atol=1e-10)
    assert torch.allclose(few.images[0], expected[:1], rtol=0, atol=1e-10)
    assert not torch.allclose(many.images[1], expected, rtol=0, atol=1e-6)


def test_two_rows_that_are_the_same_for_any_batch_are_no_samples() -> None:
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codes, self.conv = nn.Embedding(2, 4), nn.Conv2d(4, 3, 1)

        def forward(self, z: Tensor) -> Tensor:
            return torch.tanh(self.conv(z + self.codes(torch.arange(2)).sum(0)[:, None, None]))

    generator = cp.wrap(Codes(), lambda n, rng: torch.randn(n, 4, 4, 4, generator=rng))
    assert list(generator.layers) == ["conv"]
    with pytest.raises(cp.ProbeError, match=r"its output has shape \(2, 4\) for 3 samples"):
        generator.layer("codes")


class Windows(nn.Module):
    """Attention of windows that are folded into the batch, ending in a linear map of zeros, as new blocks do."""

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.zero = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out, self.inner = nn.Conv2d(8, 3, 1), inner
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, c, h, w = x.shape
        windows = x.view(n, c, 2, h // 2, w).permute(*((0, 2) if self.inner else (2, 0)), 3, 4, 1)
        t = self.zero(self.fc(windows.flatten(0, 1).flatten(1, 2))).view(windows.shape)
        back = t.permute(*((0, 4, 1) if self.inner else (1, 4, 0)), 2, 3)
        return torch.tanh(self.out(x + back.flatten(2, 3)))


@pytest.mark.parametrize("inner", [True, False])
def test_equal_rows_take_the_order_of_a_neighbour(*, inner: bool) -> None:
    generator = cp.wrap(Windows(inner=inner), lambda n, rng: torch.randn(n, 3, 4, 4, generator=rng))
    axes = "(n 2) t c" if inner else "(2 n) t c"
    assert [generator.layer(name).axes for name in ("fc", "zero", "zero<")] == [axes] * 3
