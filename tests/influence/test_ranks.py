"""One call on several processes: the same maps, and no process left waiting for one that has failed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.distributed.ranks import Ranks
from counterfactual_probe.influence.estimate import pairs_are_shared
from support import processes, toys
from support.analyses.ranks import CASES, MANY, generator
from support.forks import Fork
from support.paths import EXAMPLES, TESTS
from support.processes import finish

START = """
import json, os, signal, sys, torch
from pathlib import Path
sys.path[:0] = {path!r}
from support import processes, toys
import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint
from counterfactual_probe.influence import estimate as estimation, run as run_module
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
generator = toys.PLAIN.generator()
influence = cp.InfluenceMap(generator, "main.6")
ran, original_run = [], estimation.Stream.run
def run(stream, *span):
    for effect in original_run(stream, *span):
        ran.append((effect.pair, len(effect.sets)))
        yield effect
estimation.Stream.run = run
"""


OPTIONAL = (
    "normalised", "block_sums", "normalised_block_sums", "components", "energy", "energy_block_sums",
    "resampled_components", "resampled_energy_block_sums",
)  # fmt: skip


def start(world: int, code: str) -> list[Fork]:
    return processes.start(world, START.format(path=[str(TESTS)]) + code)


@pytest.mark.parametrize(
    "world", [1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_any_number_of_ranks_gives_the_same_maps(world: int, tmp_path: Path) -> None:
    """Shares are unequal, and with a tolerance sets stop at different counts."""
    code = f"""
from support.analyses import ranks as runs
for number, (toy, layer, arguments) in enumerate(runs.CASES.values()):
    layer = ["main.2", "main.6"] if layer is None else layer
    maps = cp.InfluenceMap(runs.generator(toy), layer).attribute(**arguments)
    maps.save(f"{tmp_path}/{{number}}-{{rank}}")
    Path(f"{tmp_path}/{{number}}-{{rank}}.json").write_text(json.dumps(ran))
    ran.clear()
"""
    for status, errors in finish(start(world, code)):
        assert status == 0, errors
    for number, (case, (toy, layer, arguments)) in enumerate(CASES.items()):
        whole = cp.InfluenceMap(generator(toy), ["main.2", "main.6"] if layer is None else layer)
        alone = whole.attribute(**arguments)
        loose = 2e-3 if toy == "HALF" else 1e-6
        for rank in range(world):
            found = cp.InfluenceMaps.load(tmp_path / f"{number}-{rank}")
            assert found.provenance.keys() == alone.provenance.keys(), case
            assert found.provenance["ranks"] == world, case
            assert found.units == alone.units, case
            assert found.provenance["precision"] == alone.provenance["precision"], case
            for name in ("n_pairs", "zero_maps"):
                assert torch.equal(getattr(found, name), getattr(alone, name)), case
            for name in ("maps", "standard_error", "influence", "influence_standard_error", *OPTIONAL):
                if (expected := getattr(alone, name)) is not None:
                    torch.testing.assert_close(
                        getattr(found, name), expected, rtol=0, atol=loose, equal_nan=True, msg=f"{case}: {name}"
                    )
        ran = [json.loads((tmp_path / f"{number}-{rank}.json").read_text()) for rank in range(world)]
        if "components" not in arguments:  # one rank runs some hybrids more to find them
            assert_shared(case, ran, alone)


def assert_shared(case: str, ran: list[list[tuple[int, int]]], alone: cp.InfluenceMaps) -> None:
    """Every map was made once, on one rank, and no rank made them all."""
    made = [sum(sets for _, sets in own) for own in ran]
    assert sum(made) == int(alone.n_pairs.sum()), case
    if len(ran) == 1 or case == "one pair":
        return
    pairs = [{pair for pair, _ in own} for own in ran]
    together = set().union(*pairs)
    if case.startswith("sets"):
        assert max(map(len, pairs)) == len(together), case
        assert all(made), case
    else:
        assert sum(map(len, pairs)) == len(together), case
        blocks = 4 if alone.provenance["tolerance"] else 3
        assert max(map(len, pairs)) - min(map(len, pairs)) <= blocks, case


def test_what_fails_on_one_rank_is_told_on_all() -> None:
    code = """
if rank == 1:
    def broken(*_):
        raise ValueError("out of ink")
    generator.module.get_submodule("main.7").register_forward_pre_hook(broken)
influence.attribute(n_pairs=4)
"""
    (first, told), (second, itself) = finish(start(2, code))
    assert first != 0
    assert second != 0
    assert "rank 1 failed (ProbeError: the forward of Deconv raised ValueError: out of ink" in told
    assert "out of ink" in itself


def test_ranks_that_make_another_call_are_told() -> None:
    for status, errors in finish(start(2, "influence.attribute(n_pairs=4 + rank)")):
        assert status != 0
        assert "ProbeError: rank 1 has another n_pairs than rank 0 (5 and 4)" in errors


# Where rank 1, or 0, fails, and how; the other must hear of it wherever it happens.
FAILURES = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background starts without
def failing(error, at):
    def run(stream, *span):
        for effect in original_run(stream, *span):
            if effect.pair >= at:
                raise error
            yield effect
    return run
def unwritable(file, *state):
    raise cp.ProbeError("the disk is full")
broadcast, broadcast_object = torch.distributed.broadcast, torch.distributed.broadcast_object_list
def interrupted(exchange):
    def exchange_and_stop(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        exchange(*arguments, **options)
    return exchange_and_stop
def grown(*arguments):
    raise MemoryError("no room to add a map")
failures = [
    (1, estimation.Stream, "run", failing(ValueError("out of ink"), 0)),
    (1, estimation.Stream, "run", failing(ValueError("out of paper"), 60)),
    (0, estimation.Stream, "run", failing(KeyboardInterrupt(), 34)),
    (1, torch.distributed, "broadcast", interrupted(broadcast)),
    (1, torch.distributed, "broadcast_object_list", interrupted(broadcast_object)),
    (0, checkpoint.Checkpoint, "save", unwritable),
    (0, checkpoint.Checkpoint, "load", unwritable),
    (1, estimation.MapAccumulator, "add", grown),
]
checkpoint.SECONDS_BETWEEN = 0.0
"""


def test_a_failure_anywhere_leaves_the_ranks_in_step(tmp_path: Path) -> None:
    """After each the same ranks make the next call together, which they could not with an exchange left over."""
    code = f"""{FAILURES}
told = []
for number, (where, owner, name, broken) in enumerate(failures):
    arguments = dict(n_pairs=100, hybrids_per_eval=16, checkpoint=f"{tmp_path}/{{number}}")
    as_it_was = getattr(owner, name)
    if rank == where:
        setattr(owner, name, broken)
    try:
        influence.attribute(**arguments)
    except (cp.ProbeError, ValueError, MemoryError, KeyboardInterrupt) as error:
        told.append(f"{{type(error).__name__}}: {{error}}")
    setattr(owner, name, as_it_was)
    maps = influence.attribute(**arguments)
maps.save(f"{tmp_path}/maps{{rank}}")
Path(f"{tmp_path}/told{{rank}}").write_text(json.dumps(told))
"""
    for status, errors in finish(start(2, code)):
        assert status == 0, errors
    first, second = (json.loads((tmp_path / f"told{rank}").read_text()) for rank in range(2))
    expected = [
        (1, "ValueError: out of ink"),
        (1, "ValueError: out of paper"),
        (0, "Interrupted: interrupted; progress is in "),
        (1, "Interrupted: interrupted; Deconv is as it was"),
        (1, "Interrupted: interrupted; everything is as it was"),
        (0, "ProbeError: the disk is full"),
        (0, "ProbeError: the disk is full"),
        (1, "MemoryError: no room to add a map"),
    ]
    assert len(first) == len(second) == len(expected)
    for (where, sentence), found in zip(expected, zip(first, second, strict=True), strict=True):
        assert found[where].startswith(sentence)
        assert found[1 - where].startswith(f"ProbeError: rank {where} failed ({sentence}")
    alone = cp.InfluenceMap(toys.PLAIN.generator(), "main.6").attribute(n_pairs=100)
    for rank in range(2):
        torch.testing.assert_close(cp.InfluenceMaps.load(tmp_path / f"maps{rank}").maps, alone.maps, rtol=0, atol=1e-6)


def test_ranks_that_share_pairs_go_on_from_rank_0s_file(tmp_path: Path) -> None:
    """Rank 1 is given no checkpoint, or another one; batches halved on one rank alone change no block."""
    code = f"""{FAILURES}
class Halved(estimation.Stream):
    def run(self, *span):
        self.hybrids_per_eval = 1 if rank == 1 else self.hybrids_per_eval
        yield from super().run(*span)
run_module.Stream = Halved
given = f"{tmp_path}/p" if rank == 0 else None
estimation.Stream.run = failing(ValueError("out of ink"), 70)
try:
    influence.attribute(n_pairs=100, tolerance=1e-9, checkpoint=given)
except (ValueError, cp.ProbeError):
    pass
Path(f"{tmp_path}/p.rank1of2").write_text("what another run left")
estimation.Stream.run = run
ran.clear()
influence.attribute(n_pairs=100, tolerance=1e-9, checkpoint=f"{tmp_path}/p").save(f"{tmp_path}/resumed{{rank}}")
assert min(pair for pair, _ in ran) == (64 if rank == 0 else 72), ran
influence.attribute(n_pairs=100, tolerance=1e-9).save(f"{tmp_path}/whole{{rank}}")
"""
    for status, errors in finish(start(2, code)):
        assert status == 0, errors
    whole = cp.InfluenceMaps.load(tmp_path / "whole0")
    for rank in range(2):
        found = cp.InfluenceMaps.load(tmp_path / f"resumed{rank}")
        for name in ("maps", "standard_error", "influence"):
            torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=0, atol=1e-6)
            assert torch.equal(getattr(found, name), getattr(cp.InfluenceMaps.load(tmp_path / "resumed0"), name))


@pytest.mark.parametrize(
    ("units", "kept"),
    [
        pytest.param(None, "p.rank0of2", id="pairs"),
        pytest.param(MANY, "p.rank1of2", id="sets", marks=pytest.mark.long),
    ],
)
def test_a_rank_that_dies_ends_the_run_and_leaves_the_checkpoints(tmp_path: Path, units: Any, kept: str) -> None:
    code = f"""
checkpoint.SECONDS_BETWEEN = 0.0
import time
original = checkpoint.Checkpoint.save
def waiting(self, *state):
    original(self, *state)
    while not Path("{tmp_path}/killed").exists():  # so that the run is not over before
        time.sleep(0.01)
checkpoint.Checkpoint.save = waiting
influence.attribute(
    n_pairs=180, units={units}, hybrids_per_eval=16, checkpoint="{tmp_path}/p").save(f"{tmp_path}/{{rank}}")
"""
    # Rank 0 waits to the end of its farewell for one that is dead.
    brief = "from datetime import timedelta\nfrom counterfactual_probe.distributed import group\n"
    started = start(2, f"{brief}group._FAREWELL = timedelta(seconds=1)\n{code}")
    end = time.monotonic() + 600
    while not (tmp_path / kept).exists() and time.monotonic() < end:
        time.sleep(0.01)
    started[1].send_signal(signal.SIGKILL)
    (tmp_path / "killed").touch()
    (status, errors), _ = finish(started)
    assert status not in (0, -signal.SIGKILL)
    assert "ProbeError: another rank ended or cannot be reached" in errors
    for status, errors in finish(start(2, code)):
        assert status == 0, errors
    alone = cp.InfluenceMap(toys.PLAIN.generator(), "main.6").attribute(n_pairs=180, units=units)
    found = cp.InfluenceMaps.load(tmp_path / "0")
    torch.testing.assert_close(found.maps, alone.maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("sets", "pairs", "world", "tolerance", "shared"),
    [
        (1, 256, 4, None, True),
        (5, 256, 4, None, True),
        (31, 256, 4, None, True),
        (32, 256, 4, None, False),  # many sets
        (1, 256, 1, None, False),  # nobody to share with
        (4, 1, 4, None, False),  # one pair is no work for four
        (1, 3, 4, None, True),
        (100, 256, 64, None, True),
        (100, 256, 64, 0.1, False),  # 16 pairs to a decision are no work for 64
    ],
)
def test_what_is_shared(sets: int, pairs: int, world: int, tolerance: float | None, shared: bool) -> None:
    assert pairs_are_shared(sets, pairs, Ranks(0, world), tolerance) is shared


@pytest.mark.examples
def test_the_example_runs_under_torchrun(tmp_path: Path) -> None:
    example = EXAMPLES / "many_devices.py"
    arguments = ["dcgan-faces", "main.11", "--pairs", "2", "--out", str(tmp_path)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(example), *arguments], timeout=600, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    maps = cp.InfluenceMaps.load(tmp_path / "main.11.safetensors")
    assert maps.provenance["ranks"] == 2
    assert sorted(path.name for path in tmp_path.glob("*.progress.*")) == [
        "main.11.progress.rank0of2",
        "main.11.progress.rank1of2",
    ]
    alone = cp.InfluenceMap(cp.load("dcgan-faces"), "main.11").attribute(n_pairs=2)
    torch.testing.assert_close(maps.maps, alone.maps, rtol=0, atol=1e-6)
