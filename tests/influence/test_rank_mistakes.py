"""Ranks of which one makes a mistake, does not come, comes twice or is interrupted: all end, and soon, and say why."""

from __future__ import annotations

import json
import re
import signal
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from counterfactual_probe.distributed.launcher import PATIENCE
from support import processes
from support.forks import Fork
from support.paths import TESTS
from support.processes import finish

START = f"""
import json, os, signal, sys, time, torch
from pathlib import Path
sys.path[:0] = {[str(TESTS)]!r}
from support import toys
from support.analyses.ranks import MANY
import counterfactual_probe as cp
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
generator = toys.PLAIN.generator()
influence = cp.InfluenceMap(generator, "main.6")

def of(features):
    return cp.InfluenceMap(generator, "main.6", features=features)

class Doubled:
    # A user's own basis, whose numbers are in its code alone.
    def __init__(self, factor):
        self.encode, self.decode = lambda h: factor * h, lambda codes: codes / factor

class Given:
    def __init__(self, factor):
        self.factor = [factor]

    def encode(self, h):
        return h * self.factor[0]

    def decode(self, codes):
        return codes / self.factor[0]

def elsewhere(**arguments):
    # The same call, from another working directory.
    os.makedirs("elsewhere", exist_ok=True)
    os.chdir("elsewhere")
    try:
        return influence.attribute(**arguments)
    finally:
        os.chdir("..")

def other(draw=lambda z: z, image=lambda z: z):
    sample = generator._sample_latents
    return cp.wrap(toys.PLAIN.plain(), lambda n, rng: draw(sample(n, rng)), image=image, name=generator.name)
"""

# One call each, right and wrong, of which one rank makes the wrong one, and what all are told.
MISTAKES: list[tuple[str, str, str]] = [
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, seed=-1)", "the seed is -1"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=0)", "n_pairs is 0"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, units=[[99]])", "channel 99 asked of layer"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, units={'x': [0]})", "layer 'x' is not in"),
    ("influence.attribute(n_pairs=4)", "cp.InfluenceMap(generator, 'x').attribute(n_pairs=4)", "layer 'x' is not in"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, tolerance=-1)", "tolerance is -1"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, map_size=7)", "map_size is (7, 7)"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, blocks=1)", "blocks is 1"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, precision='int3')", "int3"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, hybrids_per_eval=0)", "hybrids_per_eval is 0"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=5)", "has another n_pairs than rank 0"),
    (
        "influence.attribute(n_pairs=4)",
        "influence.attribute(n_pairs=4, strength=0.5)",
        "has another strength than rank 0",
    ),
    (
        "influence.attribute(n_pairs=4)",
        "influence.attribute(n_pairs=4, where=torch.eye(16))",
        "has another where than rank 0",
    ),
    (
        "influence.attribute(n_pairs=4)",
        "cp.InfluenceMap(other(draw=lambda z: z + 1), 'main.6').attribute(n_pairs=4)",
        "has another first latents than rank 0",
    ),
    (
        "influence.attribute(n_pairs=4)",
        "cp.InfluenceMap(other(image=lambda z: z * 2), 'main.6').attribute(n_pairs=4)",
        "gives other images of the same latents than rank 0",
    ),
    ("influence.attribute(n_pairs=4)", "influence.attribute(generator.sample(4))", "z2"),
    ("influence.attribute(n_pairs=4)", "influence.attribute(n_pairs=4, checkpoint=5)", "the path is"),
    (
        "influence.attribute(n_pairs=4, checkpoint='one')",
        "influence.attribute(n_pairs=4, checkpoint='two')",
        "has another checkpoint than rank 0",
    ),
    (
        "influence.attribute(n_pairs=4, checkpoint='one')",
        "elsewhere(n_pairs=4, checkpoint='one')",
        "has another checkpoint than rank 0",
    ),
    (
        "of(cp.bases.Linear(torch.eye(5))).attribute(n_pairs=4)",
        "of(cp.bases.Linear(torch.eye(5)[[0, 1, 2, 4, 3]])).attribute(n_pairs=4)",
        "has another basis than rank 0",
    ),
    (
        "of(Given(torch.ones(1))).attribute(n_pairs=4)",
        "of(Given(torch.ones(1) + 1e-6)).attribute(n_pairs=4)",
        "has another basis than rank 0",
    ),
    ("of(Doubled(1)).attribute(n_pairs=4)", "of(Doubled(2)).attribute(n_pairs=4)", "gives other features of layer"),
    ("list(influence.growing(8, blocks=2))", "list(influence.growing(1, blocks=2))", "max_pairs is 1 with 2 blocks"),
    ("list(influence.growing(8, blocks=2))", "list(influence.growing(8, blocks=2, seed=-1))", "the seed is -1"),
]


def start(world: int, code: str, folder: Path, patience: float = 300) -> list[Fork]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PATIENCE, str(patience))
        patch.chdir(folder)
        return processes.start(world, START + code)


def assert_mistakes_are_told(world: int, folder: Path, wrong: int) -> None:
    code = f"""
told = []
for right, mistaken, _ in {MISTAKES!r}:
    try:
        eval(mistaken if rank == {wrong} else right)
        told.append("")
    except Exception as error:
        told.append(f"{{type(error).__name__}}: {{error}}")
influence.attribute(n_pairs=4)  # together again after each
of(Given(torch.ones(1))).attribute(n_pairs=4)  # the control: of the same numbers, another object on each rank
Path(f"{{rank}}.json").write_text(json.dumps(told))
"""
    for status, errors in finish(start(world, code, folder)):
        assert status == 0, errors
    told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
    for number, (_, mistaken, sentence) in enumerate(MISTAKES):
        for rank in range(world):
            found = told[rank][number]
            assert found.startswith("ProbeError: "), (mistaken, rank, found)
            # Of options that are checked late, ranks first see that they differ.
            assert sentence in found or "than rank 0" in found, (mistaken, rank, found)
            if rank != wrong and "than rank 0" not in found:  # which both see for themselves
                assert f"rank {wrong} failed (ProbeError: " in found


def test_a_mistake_of_one_rank_is_told_to_both(tmp_path: Path) -> None:
    assert_mistakes_are_told(2, tmp_path, wrong=1)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "wrong"), [(2, 0), (3, 2), (4, 0), (4, 2)])
def test_a_mistake_of_any_rank_is_told_to_all(tmp_path: Path, world: int, wrong: int) -> None:
    # Rank 0 is the one that others are compared with.
    assert_mistakes_are_told(world, tmp_path, wrong)


# What a rank does instead of the second call, which all the others make.
ABSENCES = {
    "sleeps": "time.sleep(8)",
    "ends": "sys.exit(0)",
    "fails": "raise ValueError('something of the user')",
    "dies": "os.kill(os.getpid(), signal.SIGKILL)",
}


def assert_absence_is_told(world: int, folder: Path, absent: int, how: str) -> None:
    code = f"""
influence.attribute(n_pairs=2)
if rank == {absent}:
    {ABSENCES[how]}
else:
    began = time.monotonic()
    try:
        influence.attribute(n_pairs=2)
    except cp.ProbeError as error:
        Path(f"{{rank}}.json").write_text(json.dumps([str(error), time.monotonic() - began]))
"""
    began = time.monotonic()
    finish(start(world, code, folder, patience=4))
    for rank in range(world):
        if rank != absent:
            error, seconds = json.loads((folder / f"{rank}.json").read_text())
            assert "another rank ended or cannot be reached" in error
            assert "make the same calls on every rank and start all again" in error
            assert seconds < 4 + 12, "its own farewell may come first"
            if absent != 0 and how == "sleeps":  # otherwise the store may have ended with rank 0
                assert f"(rank {absent} did not come; " in error
    assert time.monotonic() - began < 120


def test_a_rank_that_does_not_call_is_named(tmp_path: Path) -> None:
    assert_absence_is_told(2, tmp_path, 1, "sleeps")


@pytest.mark.slow
@pytest.mark.parametrize(("world", "absent"), [(2, 0), (3, 1), (4, 3)])
@pytest.mark.parametrize("how", ABSENCES)
def test_any_rank_that_does_not_call(tmp_path: Path, world: int, absent: int, how: str) -> None:
    assert_absence_is_told(world, tmp_path, absent, how)


@pytest.mark.long
def test_a_rank_that_has_finished_waits_for_ten_seconds_at_most(tmp_path: Path) -> None:
    """Rank 1 never leaves; rank 0 used to stay until torch's own half hour was over."""
    code = """
influence.attribute(n_pairs=2)
if rank == 1:
    Path("done").write_text(str(time.time()))
    time.sleep(60)
"""
    started = start(2, code, tmp_path)
    assert started[0].wait(120) == 0
    assert time.time() - float((tmp_path / "done").read_text()) < 20
    started[1].kill()
    finish(started)


# --- Ctrl-C ---------------------------------------------------------------------------------------------

INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background starts without
Path(f"{rank}").touch()
influence.attribute(n_pairs=10**7, hybrids_per_eval=8, units=UNITS)
"""


def assert_all_end(world: int, folder: Path, interrupted: tuple[int, ...], units: str, delay: float) -> None:
    started = start(world, INTERRUPTED.replace("UNITS", units), folder)
    while not all((folder / str(rank)).exists() for rank in range(world)):
        assert all(process.poll() is None for process in started)
        time.sleep(0.02)
    time.sleep(delay)
    for rank in interrupted:
        started[rank].send_signal(signal.SIGINT)
    began = time.monotonic()
    results = finish(started, 90)
    assert time.monotonic() - began < 60
    for rank, (status, errors) in enumerate(results):
        assert status not in (0, -signal.SIGKILL), (rank, errors)
        last = re.sub(r"^\[rank\d\]: ", "", errors.strip().splitlines()[-1])  # which torch puts before
        kinds = ("Interrupted: interrupted", "ProbeError: rank", "ProbeError: another rank")
        assert last.startswith(tuple(f"counterfactual_probe.base.errors.{kind}" for kind in kinds)), (rank, last)
        if rank not in interrupted:
            assert "failed (Interrupted: interrupted" in last, (rank, last)


@pytest.mark.parametrize("units", ["None", "MANY"], ids=["pairs", "sets"])
def test_an_interrupt_of_one_ends_both(tmp_path: Path, units: str) -> None:
    assert_all_end(2, tmp_path, (1,), units, 2.0)


SUBSETS: list[Any] = [some for size in (1, 2, 3, 4) for some in combinations(range(4), size)]


@pytest.mark.slow
@pytest.mark.parametrize("units", ["None", "MANY"], ids=["pairs", "sets"])
@pytest.mark.parametrize("interrupted", SUBSETS, ids=str)
def test_an_interrupt_of_any_subset_ends_all(tmp_path: Path, interrupted: tuple[int, ...], units: str) -> None:
    assert_all_end(4, tmp_path, interrupted, units, 2.0 + 0.37 * len(interrupted))


# --- threads --------------------------------------------------------------------------------------------


def test_two_threads_of_a_rank_do_not_mix_their_maps(tmp_path: Path) -> None:
    """One call at a time is right to the bit; the other is told, and nobody waits for it."""
    code = """
import threading
found, told = {}, []
def call(seed):
    try:
        found[seed] = float(influence.attribute(n_pairs=8, seed=seed, hybrids_per_eval=2).maps.sum())
    except cp.ProbeError as error:
        told.append(str(error))
threads = [threading.Thread(target=call, args=(seed,)) for seed in (1, 2, 3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
call(4)
Path(f"{rank}.json").write_text(json.dumps([found, told]))
"""
    finish(start(2, code, tmp_path, patience=20))
    code = """
Path("alone.json").write_text(json.dumps([
    float(influence.attribute(n_pairs=8, seed=seed, hybrids_per_eval=2).maps.sum()) for seed in (1, 2, 3, 4)]))
"""
    finish(start(1, code, tmp_path))
    alone = dict(zip("1234", json.loads((tmp_path / "alone.json").read_text()), strict=True))
    for rank in range(2):
        found, told = json.loads((tmp_path / f"{rank}.json").read_text())
        for seed, value in found.items():
            assert abs(value - alone[seed]) < 1e-6 * abs(alone[seed])
        assert len(found) + len(told) >= 3
        for sentence in told:
            assert re.search(
                "another thread of rank|has another seed than rank 0|rank . failed|cannot be reached", sentence
            )
