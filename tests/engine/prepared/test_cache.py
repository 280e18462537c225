"""A forward is recorded once, whatever units of a layer are asked for in turn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.engine.prepared import cache
from support.toys import PLAIN, TOKENS, Toy

N = 12


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each forward that is recorded."""
    entries: list[int] = []
    record = cache.record

    def counting(*arguments: Any) -> Any:
        entries.append(1)
        return record(*arguments)

    monkeypatch.setattr(cache, "record", counting)
    return entries


def asked(toy: Toy) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Arguments of the hybridizer and of its call, by name."""
    generator = toy.generator()
    basis = cp.bases.PCA(3).fit(generator, toy.layer, n_samples=20)
    mask = torch.rand(generator.layer(toy.layer).size)
    several = {"channels": ({}, {}), "masked": ({}, {"where": mask}), "features": ({"features": basis}, {})}
    of_tokens = {"tokens": ({"axis": "token"}, {}), "heads": ({"axis": "head", "heads": 2}, {})}
    return several | (of_tokens if toy is TOKENS else {})


def images(generator: cp.GeneratorAdapter, toy: Toy, how: tuple[dict[str, Any], dict[str, Any]]) -> torch.Tensor:
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    hybrids = cp.Hybridizer(generator, toy.layer, **how[0]).hybridize(z1, z2, units=[[0], [1]], **how[1])
    assert hybrids.provenance["executor"] == "prepared"
    return hybrids.images


@pytest.mark.parametrize("toy", [PLAIN, TOKENS], ids=lambda toy: toy.name)
def test_units_of_any_kind_share_a_program(toy: Toy, recorded: list[int]) -> None:
    generator, kinds = toy.generator(), asked(toy)
    alone = {name: images(toy.generator(), toy, how) for name, how in kinds.items()}
    assert sum(recorded) == len(kinds)  # the control: a generator of its own each
    del recorded[:]
    for _ in range(2):
        for name, how in kinds.items():
            assert torch.equal(images(generator, toy, how), alone[name]), name
    assert sum(recorded) == 1
    with torch.no_grad():
        next(generator.module.parameters()).mul_(1.5)
    assert not torch.equal(images(generator, toy, kinds["channels"]), alone["channels"])
    assert sum(recorded) == 2  # of other weights


def test_few_kinds_are_kept(recorded: list[int]) -> None:
    generator = PLAIN.generator()
    for number in range(2 * cache._KINDS_KEPT):
        basis = cp.bases.Linear((number + 1) * torch.eye(6)[:2])
        images(generator, PLAIN, ({"features": basis}, {}))
    (kept,) = cache.Preparations._latest[generator].values()
    assert len(kept.by_units) == cache._KINDS_KEPT
    assert sum(recorded) == 1
