"""Entries that lie deeper than one container, and the objects that a forward may keep them in."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp

Sequences = tuple[Tensor, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class State:
    hidden: tuple[Tensor, Tensor]


FORMS: dict[str, Any] = {
    "[1][0]": lambda out, h, c: (out, (h, c)),
    "[1][1][0]": lambda out, h, c: (out, [c, (h, c)]),
    "[state][hidden]": lambda out, h, c: {"out": out, "state": {"hidden": h, "cell": c}},
    "[state]": lambda out, h, c: SimpleNamespace(out=out, state=h, cell=c),
    "[1][hidden][0]": lambda out, h, c: (out, State((h, c))),
}


class Inner(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.rnn, self.form = nn.LSTM(6, 8, batch_first=True), form

    def forward(self, x: Tensor) -> Any:
        out, (h, c) = self.rnn(x)
        return FORMS[self.form](out, h[0], c[0])


def hidden(made: Any) -> Tensor:
    """The state h, wherever it is."""
    if isinstance(made, SimpleNamespace):
        return made.state  # type: ignore[no-any-return]
    made = made["state"]["hidden"] if isinstance(made, dict) else made[1]
    made = made.hidden if isinstance(made, State) else made[1] if isinstance(made, list) else made
    return made if isinstance(made, Tensor) else made[0]


class Model(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.inner, self.out = Inner(form), nn.Linear(8, 48)

    def read(self, h: Tensor) -> Tensor:
        return torch.tanh(self.out(h)).view(-1, 3, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(hidden(self.inner(x)))


@pytest.mark.parametrize("entry", FORMS)
@pytest.mark.parametrize("n", [1, 4])  # whole forwards, and the fast path
def test_a_nested_entry_is_set(entry: str, n: int) -> None:
    torch.manual_seed(0)
    module = Model(entry).double().eval()
    generator = cp.wrap(module, lambda n, rng: torch.randn(n, 5, 6, generator=rng))
    assert f"inner{entry}" in generator.layers
    z1, z2 = generator.sample(n, seed=0), generator.sample(n, seed=1)
    found = cp.Hybridizer(generator, f"inner{entry}").hybridize(z1, z2, units=[[c] for c in range(8)])
    with torch.no_grad():
        base, source = (hidden(module.inner(z)) for z in (z1, z2))
        for c in range(8):
            changed = base.clone()
            changed[:, c] = source[:, c]
            torch.testing.assert_close(found.images[c], module.read(changed), rtol=0, atol=1e-10)
    assert not torch.equal(found.images[0], found.base)


def test_the_states_of_an_lstm_are_named() -> None:
    """(layers, samples, channels): the samples are found in the second dimension."""
    generator = cp.wrap(Model("[1][0]").double(), lambda n, rng: torch.randn(n, 5, 6, generator=rng))
    assert generator.layers["inner.rnn[1][0]"].axes == "t n c"
    with pytest.raises(cp.ProbeError, match=r"its output has no tensor \[1\]\[2\]; name one of .*'inner\[1\]\[1\]'"):
        generator.layer("inner[1][2]")


class TakesPairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 1)

    def forward(self, streams: tuple[Tensor, dict[str, Tensor]]) -> Tensor:
        return self.conv(streams[0] + streams[1]["image"])  # type: ignore[no-any-return]


def test_nested_inputs_are_named() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.block = nn.Conv2d(3, 4, 1), TakesPairs()

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            return self.block((h, {"image": h.tanh()}))  # type: ignore[no-any-return]

    module = Whole().double().eval()
    generator = cp.wrap(module, lambda n, rng: torch.randn(n, 3, 4, 4, generator=rng))
    z1, z2 = generator.sample(6, seed=0), generator.sample(6, seed=1)
    found = cp.Hybridizer(generator, "block[0][1][image]<").hybridize(z1, z2, units=[[c] for c in range(4)])
    with torch.no_grad():
        base, source = module.first(z1), module.first(z2)
        changed = base.tanh()
        changed[:, 2] = source.tanh()[:, 2]
        torch.testing.assert_close(found.images[2], module.block((base, {"image": changed})), rtol=0, atol=1e-10)
