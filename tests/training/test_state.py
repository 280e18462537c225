"""A training's state whose parts do not fit is refused, even where its digest is right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.base.checkpoint import Checkpoint
from counterfactual_probe.training.record.state import packed, unpack
from support.files.limits import bounded
from support.toy_training import Toy, train


def made() -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    module = nn.Linear(3, 2)
    return {"net": module}, {"adam": torch.optim.Adam(module.parameters(), lr=0.1)}


def state() -> tuple[dict[str, Any], dict[str, Any]]:
    networks, optimisers = made()
    networks["net"](torch.ones(1, 3)).sum().backward()
    optimisers["adam"].step()
    return packed(networks, optimisers, {"k": torch.ones(1)})


def test_a_state_and_back() -> None:
    tensors, groups = state()
    networks, optimisers = made()
    assert unpack(tensors, groups, networks, optimisers)["k"].tolist() == [1]
    assert packed(networks, optimisers, {"k": torch.ones(1)})[1] == groups


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t, g: g.clear(), "holds no optimiser 'adam'"),
        (lambda t, g: g["adam"]["groups"].clear(), "groups of optimiser 'adam' are not this training's"),
        (lambda t, g: g["adam"]["groups"][0].pop("lr"), "groups of optimiser 'adam' are not this training's"),
        (lambda t, g: g["adam"]["groups"][0].update(hook="os.system"), "are not this training's"),
        (lambda t, g: g["adam"]["groups"][0].update(params=[0, 10**18]), "are not this training's"),
        (lambda t, g: g["adam"]["plain"].update({"9/step": 3}), "optimiser 'adam' has a parameter 9"),
        (lambda t, g: g["adam"]["plain"].update({f"{10**18}/step": 3}), "has a parameter 1000000000000000000"),
        (lambda t, g: g["adam"]["plain"].update({"x/step": 3}), "has a parameter -1"),
        (
            lambda t, g: t.update({"optimiser/adam/0/exp_avg": torch.ones(7)}),
            r"exp_avg of parameter 0 in the checkpoint's optimiser 'adam' is \(7,\) and the parameter \(2, 3\)",
        ),
        (lambda t, g: t.pop("network/net/weight"), "missing: weight"),
    ],
    ids=[
        *("no optimiser", "no groups", "no rate", "a hook", "a huge parameter", "a ninth parameter", "a huge number"),
        *("no number", "another shape", "no weight"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[Any, Any], Any], sentence: str) -> None:
    tensors, groups = state()
    change(tensors, groups)
    networks, optimisers = made()
    with pytest.raises(cp.ProbeError, match=sentence):
        unpack(tensors, groups, networks, optimisers)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a toy after four steps."""
    return train(Toy(), tmp_path_factory.mktemp("toy") / "t", steps=4).folder


@pytest.mark.parametrize(
    ("progress", "sentence"),
    [
        ({"step": -1}, r"progress\.step is -1 and must be an integer >= 0"),
        ({"step": 10**30}, r"progress\.step is 10+ and must be an integer"),
        ({"seconds": float("nan")}, r"progress\.seconds is nan"),
        ({"optimisers": []}, r"progress\.optimisers is \[\] and must be an object"),
        ({"losses": 3}, r"progress\.losses is 3 and must be text"),
        ({"more": 3}, "progress holds an unknown 'more'"),
    ],
)
def test_progress_of_another_form(
    trained: Path, progress: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: Any
) -> None:
    shutil.copytree(trained, tmp_path / "t")
    loaded = Checkpoint.load

    def changed(self: Checkpoint) -> Any:
        found = loaded(self)
        assert found is not None
        return found[0], {**found[1], **progress}

    monkeypatch.setattr(Checkpoint, "load", changed)
    with bounded(60, 2**29), pytest.raises(cp.ProbeError, match=rf"state\.safetensors was damaged, .*{sentence}"):
        train(Toy(), tmp_path / "t", steps=8, resume=True)
