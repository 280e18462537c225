"""Swaps of units of every kind, in regions and by strengths, take memory by the batch, not by pairs or unit sets."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.engine.interventions import SwapEdit
from counterfactual_probe.engine.prepared.executor import Prepared
from support.live import live_numbers
from support.toys import PLAIN, TOKENS, Toy

KINDS: dict[str, tuple[Toy, dict[str, Any]]] = {
    "channels": (TOKENS, {}),
    "tokens": (TOKENS, {"axis": "token"}),
    "heads": (TOKENS, {"axis": "head", "heads": 3}),
    "features of maps": (PLAIN, {}),
    "features of tokens": (TOKENS, {}),
    "whole-layer features": (PLAIN, {}),
    "non-negative features": (PLAIN, {}),
}
BASES = {
    "features of maps": cp.bases.PCA(3),
    "features of tokens": cp.bases.PCA(3),
    "whole-layer features": cp.bases.PCA(3, over="layer"),
    "non-negative features": cp.bases.NMF(3),
}


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The bytes alive after each batch, and in it while units are set."""
    alive: list[int] = []
    run, edit = Prepared.intervened, SwapEdit.__call__

    def counted_run(self: Any, *arguments: Any) -> Tensor:
        images = run(self, *arguments)
        alive.append(live_numbers())
        return images

    def counted_edit(self: Any, view: Tensor) -> None:
        edit(self, view)
        alive.append(live_numbers())

    with monkeypatch.context() as patched:
        patched.setattr(Prepared, "intervened", counted_run)
        patched.setattr(SwapEdit, "__call__", counted_edit)
        gc.collect()
        gc.freeze()  # so that only what comes now is looked through
        yield alive


def most_alive(name: str, extent: str, pairs: int, repeats: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most bytes alive, beyond those of the result and of what was given."""
    toy, options = KINDS[name]
    generator = toy.generator()
    if name in BASES:
        options = {"features": BASES[name].fit(generator, toy.layer, n_samples=20)}
    given: dict[str, Any] = {}
    if extent == "masked":
        given = {"where": torch.rand(generator.layer(toy.layer).size, dtype=torch.float64)}
    if extent == "weak":
        given = {"strength": 0.5}
    influence = cp.InfluenceMap(generator, toy.layer, **options)
    units = [[0], [1], [2]] * repeats
    with watched(monkeypatch) as alive:
        found = influence.attribute(n_pairs=pairs, units=units, hybrids_per_eval=batch, **given)
    assert found.provenance["executor"] == "prepared"
    returned = sum(getattr(found, name).nbytes for name in ("maps", "standard_error"))
    return max(alive) - 2 * returned - 24 * len(found)  # running sums are in float64


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "extent"),
    [
        # Every kind with one extent; the others take half a minute.
        pytest.param(name, extent, id=f"{name}, {extent}", marks=[pytest.mark.slow] if (place + step) % 3 else [])
        for place, name in enumerate(KINDS)
        for step, extent in enumerate(["masked", "weak", "whole"])
    ],
)
def test_memory_does_not_grow_with_pairs_or_sets(name: str, extent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = most_alive(name, extent, 8, 2, 4, monkeypatch)
    assert few > 0
    for pairs, repeats in ((32, 2), (8, 8)):
        assert most_alive(name, extent, pairs, repeats, 4, monkeypatch) <= few * 1.05 + 256
    assert most_alive(name, extent, 32, 2, 16, monkeypatch) > 1.5 * few  # the measure sees a larger batch
