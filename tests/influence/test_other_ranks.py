"""Runs that go on with another number of ranks than they began with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint as checkpoints
from counterfactual_probe.distributed.exchange import Exchange
from counterfactual_probe.distributed.ranks import Ranks
from counterfactual_probe.influence import estimate as estimation
from counterfactual_probe.influence.components import components_on_all_ranks
from counterfactual_probe.influence.progress.furthest import Furthest
from counterfactual_probe.influence.request import MapRequest
from counterfactual_probe.influence.run import Run
from support import processes, toys
from support.analyses.ranks import CASES, MANY, generator
from support.paths import TESTS
from support.processes import finish

BLOCK = 16
ARRAYS = ("maps", "standard_error", "influence", "influence_standard_error", "n_pairs", "zero_maps")
OPTIONAL = ("normalised", "block_sums", "normalised_block_sums", "components", "energy", "energy_block_sums")


@pytest.fixture(autouse=True)
def _every_block_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which pairs are run, and with how many sets."""
    seen, run = [], estimation.Stream.run

    def noted(stream: estimation.Stream, *span: int) -> Iterator[Any]:
        for effect in run(stream, *span):
            seen.append((effect.pair, len(effect.sets)))
            yield effect

    monkeypatch.setattr(estimation.Stream, "run", noted)
    return seen


def request_of(influence: cp.InfluenceMap, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> MapRequest:
    """What a call asks for."""
    asked: list[MapRequest] = []

    class Asked(Run):
        def __init__(self, request: MapRequest, exchange: Exchange) -> None:
            asked.append(request)
            super().__init__(request, exchange)

    with monkeypatch.context() as patched:
        patched.setattr("counterfactual_probe.influence.influence_map.Run", Asked)
        influence.attribute(**arguments)
    return asked[0]


def _components(request: MapRequest, _exchange: Exchange) -> Tensor | None:
    return components_on_all_ranks(request, Exchange(Ranks()))


def leave(request: MapRequest, path: Path, blocks: list[int]) -> int:
    """Leave the files of as many ranks, each of which shares the sets and ends after so many blocks; the hybrids that
    they have run."""
    hybrids, world = 0, len(blocks)
    for rank, several in enumerate(blocks):
        run = Run(request, Exchange(Ranks(rank, world)))
        assert not run.by_pairs
        with pytest.MonkeyPatch.context() as patched:  # the ranks find their components together
            patched.setattr("counterfactual_probe.influence.run.components_on_all_ranks", _components)
            estimate = run._estimate()
        with request.generator.session(), torch.no_grad():
            for _ in range(several):
                if not estimate.done:
                    estimate.advance()
        hybrids += int(estimate.accumulator.arrays.n_pairs.sum())
        if several:
            kept = run.progress_files(path, request.identity(request.generator.provenance()))
            kept.of(Ranks(rank, world)).checkpoint.save(*estimate.state())
    return hybrids


def assert_equal(found: cp.InfluenceMaps, alone: cp.InfluenceMaps, case: str) -> None:
    assert found.units == alone.units
    for name in (*ARRAYS, *OPTIONAL):
        expected, got = getattr(alone, name), getattr(found, name)
        assert (expected is None) == (got is None), (case, name)
        if expected is not None:
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6, equal_nan=True, msg=f"{case}: {name}")


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("sets")])
@pytest.mark.parametrize("blocks", [[3, 1], [0, 2, 1]])
def test_one_goes_on_for_several_that_were_apart(
    case: str, blocks: list[int], tmp_path: Path, ran: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, layer, arguments = CASES[case]
    influence = cp.InfluenceMap(generator(toy), layer)
    arguments = {**arguments, "hybrids_per_eval": arguments["n_pairs"] // 4}
    alone = influence.attribute(**arguments)
    request = request_of(influence, arguments, monkeypatch)
    done = leave(request, tmp_path / "p", blocks)
    ran.clear()
    found = influence.attribute(**arguments, checkpoint=tmp_path / "p")
    assert_equal(found, alone, case)
    assert found.provenance["ranks"] == 1
    # What was done is not done again.
    hybrids = sum(sets for _, sets in ran)
    assert 0 < hybrids == int(alone.n_pairs.sum()) - done or "components" in arguments


def test_a_run_that_goes_on_for_others_can_itself_be_interrupted(
    tmp_path: Path, ran: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    influence = cp.InfluenceMap(toys.PLAIN.generator(), "main.6")
    arguments: dict[str, Any] = {"n_pairs": 100, "units": MANY, "hybrids_per_eval": BLOCK}
    alone = influence.attribute(**arguments)
    done = leave(request_of(influence, arguments, monkeypatch), tmp_path / "p", [4, 1])
    ran.clear()
    advance = estimation.Estimate.advance
    left = iter(range(2))

    def stopping(estimate: estimation.Estimate, *rest: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        advance(estimate, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(estimation.Estimate, "advance", stopping)
        with pytest.raises(KeyboardInterrupt):
            influence.attribute(**arguments, checkpoint=tmp_path / "p")
    tensors, progress = checkpoints.load_tensors(tmp_path / "p", checkpoints.KIND)
    assert progress["progress"]["ahead"]  # the sets of rank 0, which wait
    assert 0 < progress["progress"]["position"] < 64
    assert tensors["n_pairs"].max() == 64
    assert_equal(influence.attribute(**arguments, checkpoint=tmp_path / "p"), alone, "resumed")
    assert sum(sets for _, sets in ran) == int(alone.n_pairs.sum()) - done


def test_files_of_another_run_are_refused_whatever_its_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    influence = cp.InfluenceMap(toys.PLAIN.generator(), "main.6")
    arguments: dict[str, Any] = {"n_pairs": 40, "units": MANY}
    leave(request_of(influence, arguments, monkeypatch), tmp_path / "p", [1, 1])
    with pytest.raises(cp.ProbeError, match=r"p\.rank0of2 is of another run: its n_pairs is 40 and this run's 41"):
        influence.attribute(n_pairs=41, units=MANY, checkpoint=tmp_path / "p")
    for name in ("p.rank2of2", "p.rank0of1", "p.rank01of2", "p.rank0of2.bak", "q.rank0of2"):  # of no rank of this run
        (tmp_path / name).write_text("what something else left")
    influence.attribute(**arguments, checkpoint=tmp_path / "p")
    assert not (tmp_path / "p").exists()  # all was done already
    (tmp_path / "p.rank1of2").write_text("torn")
    with pytest.raises(cp.ProbeError, match=r"p\.rank1of2"):
        influence.attribute(**arguments, checkpoint=tmp_path / "p")


def test_more_ranks_go_on_for_one_and_for_others(tmp_path: Path) -> None:
    """From one to two that share the sets, and the pairs; and from two back to one."""
    units: dict[str, Any] = {"sets": MANY, "pairs": None}
    code = f"""
import os, sys
sys.path[:0] = {[str(TESTS)]!r}
from support import toys
import counterfactual_probe as cp, torch
from counterfactual_probe.base import checkpoint
from counterfactual_probe.influence import estimate as estimation
checkpoint.SECONDS_BETWEEN = 0.0
torch.set_num_threads(1)
ran, run = [], estimation.Stream.run
def noted(stream, *span):
    for effect in run(stream, *span):
        ran.append((effect.pair, len(effect.sets)))
        yield effect
estimation.Stream.run = noted
for name, units in {units!r}.items():
    ran.clear()
    maps = cp.InfluenceMap(toys.PLAIN.generator(), "main.6").attribute(
        n_pairs=100, units=units, hybrids_per_eval=16, checkpoint=f"{tmp_path}/{{name}}")
    maps.save(f"{tmp_path}/{{name}}-{{os.environ['RANK']}}.maps")
    assert ran and min(pair for pair, _ in ran) >= 32, ran
"""
    influence = cp.InfluenceMap(toys.PLAIN.generator(), "main.6")
    advance = estimation.Estimate.advance

    def stopping(estimate: estimation.Estimate, *rest: Any) -> None:
        if estimate.position >= 32:
            raise KeyboardInterrupt
        advance(estimate, *rest)

    for name, wanted in units.items():
        with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(estimation.Estimate, "advance", stopping)
            influence.attribute(n_pairs=100, units=wanted, hybrids_per_eval=16, checkpoint=tmp_path / name)
    for status, errors in finish(processes.start(2, code)):
        assert status == 0, errors
    for name, wanted in units.items():
        alone = influence.attribute(n_pairs=100, units=wanted, hybrids_per_eval=16)
        for rank in range(2):
            found = cp.InfluenceMaps.load(tmp_path / f"{name}-{rank}.maps")
            assert found.provenance["ranks"] == 2
            assert_equal(found, alone, name)
        # Both have come to the end, further than the file of one: nothing is left to be run.
        again = influence.attribute(n_pairs=100, units=wanted, hybrids_per_eval=16, checkpoint=tmp_path / name)
        assert_equal(again, alone, name)


def test_each_set_is_taken_from_where_it_has_come_furthest() -> None:
    like = {"mean": torch.zeros(4, 2), "components": torch.tensor([7.0])}
    furthest = Furthest([0, 2, 4, 6], 50, like)
    assert furthest.state() is None
    about = {"hybrids_per_eval": 8, "precision": "float32"}

    def rows(*values: float) -> dict[str, Tensor]:
        return {"mean": torch.tensor(values)[:, None].expand(-1, 2), "components": torch.tensor([7.0])}

    furthest.add(range(0, 8, 2), rows(1, 2, 3, 4), {"position": 10, "active": [0, 1, 3], **about})  # 4 has stopped
    furthest.add([2, 3, 4], rows(20, 30, 40), {"position": 20, "active": [0, 1, 2], **about, "hybrids_per_eval": 4})
    furthest.add([0, 6], rows(100, 600), {"position": 5, "active": [0], "ahead": [[1, 15]], **about})
    state = furthest.state()
    assert state is not None
    tensors, progress = state
    assert tensors["mean"][:, 0].tolist() == [1, 20, 3, 600]
    assert tensors["components"].tolist() == [7.0]
    assert progress["position"] == 10
    assert progress["active"] == [0]
    assert progress["ahead"] == [[1, 20], [3, 15]]
    assert progress["hybrids_per_eval"] == 4
