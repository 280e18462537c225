"""A fingerprint changes with what a forward may depend on, and not with what a session changes and restores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.generator.state.fingerprint import fingerprint
from support.toy_modules import vectors


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.ConvTranspose2d(5, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4)
        self.options: dict[str, Any] = {"training": False, "steps": [1, 2]}
        self.table = torch.ones(3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self.last(self.act(self.first(z[:, :, None, None])))
        return image


def test_it_is_the_same_in_a_session_and_in_training_mode() -> None:
    net = Net().train()
    gen = cp.wrap(net.double(), vectors(5))
    outside = fingerprint(net)
    with gen.session():
        assert not net.training
        assert fingerprint(net) == outside
    net.eval()
    assert fingerprint(net) == outside


CHANGES: dict[str, Callable[[Net], object]] = {
    "an attribute": lambda net: setattr(net, "scale", 2.0),
    "an entry that is called like a mode": lambda net: net.options.update(training=True),
    "a list inside": lambda net: net.options["steps"].append(3),
    "a tensor's values": lambda net: net.table.mul_(2),
    "a hook": lambda net: net.act.register_forward_hook(lambda *_: None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_changes_with(name: str) -> None:
    net = Net()
    before = fingerprint(net)
    assert fingerprint(net) == before
    CHANGES[name](net)
    assert fingerprint(net) != before
