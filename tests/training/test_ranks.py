"""What one rank of a training does wrong is told to all ranks, in time and by name."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from support.paths import TESTS
from support.processes import finish, start

pytestmark = pytest.mark.slow  # processes of their own, which wait for each other

PROGRAM = """
import os
os.environ["COUNTERFACTUAL_PROBE_PATIENCE"] = "6"
import sys, json, time
sys.path[:0] = [{tests!r}]
import torch, counterfactual_probe as cp
from pathlib import Path
from support.toy_training import small, squares
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
recipe = small("vae", batch=6, norm=False)
options = dict(out={out!r}, steps=9, device="cpu")
data = squares()
{wrong}
began = time.monotonic()
try:
    cp.train(recipe, data, **options)
except cp.ProbeError as error:
    said = str(error)
except Exception as error:
    said = f"foreign {{type(error).__name__}}: {{error}}"
else:
    said = "trained"
Path({out!r} + f".{{rank}}.json").write_text(json.dumps([said, time.monotonic() - began]))
time.sleep(4)  # a rank that fails may stay alive
os._exit(0)
"""
IN_A_STEP = """
step = type(recipe).step
def fails(self, given):
    if rank == 1 and given.number == 4:
        {what}
    yield from step(self, given)
type(recipe).step = fails
"""

# What goes wrong on rank 1: with what both ranks say, and what rank 1 does.
MISTAKES = {
    "a step fails": (IN_A_STEP.format(what="raise KeyError('mine')"), "rank 1 failed (KeyError: 'mine')", "KeyError"),
    "data": ("if rank == 1: data = data[:2]", "rank 1 failed (ProbeError: 2 images are fewer", "2 images are fewer"),
    "a setting": ("if rank == 1: options['seed'] = 7", "rank 1 has another seed than rank 0 (7 and 0)", "another seed"),
    "a relative folder": (
        "if rank == 1: os.chdir(Path(options['out']).parent)\noptions['out'] = 'counterfactual-probe-training'",
        "rank 1 has another folder than rank 0",
        "another folder",
    ),
    "an argument": ("if rank == 1: options['steps'] = -1", "rank 1 failed (ProbeError: steps is -1", "steps is -1"),
}


def said_by_two(folder: Path, wrong: str) -> list[tuple[str, float]]:
    out = folder / "out"
    finish(start(2, PROGRAM.format(tests=str(TESTS), out=str(out), wrong=wrong)), 60)
    return [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_one_rank_is_told_to_both(name: str, tmp_path: Path) -> None:
    wrong, told, own = MISTAKES[name]
    (other, seconds), (wrong_one, _) = said_by_two(tmp_path, wrong)
    assert told in other
    assert own in wrong_one
    assert seconds < 30


def test_a_rank_that_sleeps_in_a_step_is_named(tmp_path: Path) -> None:
    began = time.monotonic()
    (other, _), _ = said_by_two(tmp_path, IN_A_STEP.format(what="time.sleep(12)"))
    assert "another rank ended or cannot be reached (rank 1 did not come; " in other
    assert time.monotonic() - began < 60
