"""Long runs: killed at any moment they go on, and end with the bits of a run that was never stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint as checkpoints
from counterfactual_probe.base.files import load_tensors
from support import forks, processes, toys
from support.paths import TESTS

RUN = """
import sys, torch
sys.path[:0] = {path!r}
from support import toys
import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint
checkpoint.SECONDS_BETWEEN = 0.0
torch.set_num_threads(1)
maps = cp.InfluenceMap(toys.PLAIN.generator(), ["main.2", "main.6"]).attribute(
    n_pairs=600, hybrids_per_eval=5, tolerance=0.04, normalise="pair", checkpoint={checkpoint!r})
maps.save({result!r})
"""
WRITES = 150  # of its checkpoint, from the start to the end

ARRAYS = ("maps", "standard_error", "influence", "influence_standard_error", "n_pairs", "zero_maps", "normalised")


def program(folder: Path, name: str) -> str:
    path = [str(TESTS)]
    return RUN.format(path=path, checkpoint=str(folder / f"{name}.progress"), result=str(folder / f"{name}.maps"))


def assert_survives_kills(folder: Path, times: int, seed: int) -> None:
    forks.run(program(folder, "whole"))
    rng, positions, progress = random.Random(seed), set(), folder / "killed.progress"
    for _ in range(times):
        processes.kill(program(folder, "killed"), progress, delay=rng.uniform(0, 0.1), writes=WRITES // (times + 1))
        positions.add(load_tensors(progress, checkpoints.KIND)[1]["progress"]["position"])
    assert len(positions) == times, "each part of the run gets further"
    forks.run(program(folder, "killed"))
    whole, killed = (cp.InfluenceMaps.load(folder / f"{name}.maps") for name in ("whole", "killed"))
    for name in ARRAYS:
        assert torch.equal(getattr(whole, name), getattr(killed, name)), name
    assert len(set(whole.n_pairs.tolist())) > 1
    leftovers = [path.name for path in folder.iterdir() if not path.name.endswith((".progress", ".maps"))]
    assert len(leftovers) <= times, "at most the temporary file of each kill"


def test_a_killed_run_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    assert_survives_kills(tmp_path, times=3, seed=0)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    assert_survives_kills(tmp_path, times=20, seed=1)


class Stops(Exception):
    pass


@pytest.mark.parametrize("tolerance", [None, 0.1])
@pytest.mark.parametrize("after", [1, 4, 11])
def test_an_interrupted_run_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, tolerance: float | None
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    generator = toys.PLAIN.generator()
    arguments: dict[str, Any] = {"n_pairs": 50, "hybrids_per_eval": 4, "tolerance": tolerance, "normalise": "pair"}
    whole = cp.InfluenceMap(generator, "main.6").attribute(**arguments)
    path = tmp_path / "progress"
    writes = 0
    original = checkpoints.Checkpoint.save

    def save(self: checkpoints.Checkpoint, *state: Any) -> None:
        nonlocal writes
        original(self, *state)
        writes += 1
        if writes == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoint, "save", save)
    with pytest.raises(cp.Interrupted, match=r"progress is in .*progress, and the same call goes on from it"):
        cp.InfluenceMap(generator, "main.6").attribute(**arguments, checkpoint=path)
    resumed = cp.InfluenceMap(generator, "main.6").attribute(**arguments, checkpoint=path)
    for name in ARRAYS:
        assert torch.equal(getattr(resumed, name), getattr(whole, name)), name
    assert resumed.provenance == whole.provenance


def test_a_complete_checkpoint_gives_its_maps_at_once(tmp_path: Path) -> None:
    generator = toys.PLAIN.generator()
    first = cp.InfluenceMap(generator, "main.6").attribute(n_pairs=6, checkpoint=tmp_path / "p")
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    handle = generator.module.get_submodule("main.7").register_forward_pre_hook(count)
    again = cp.InfluenceMap(generator, "main.6").attribute(n_pairs=6, checkpoint=tmp_path / "p")
    handle.remove()
    assert torch.equal(again.maps, first.maps)
    assert runs <= 3, "only what is needed to get ready"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "its seed is 0 and this run's 1"),
        ({"n_pairs": 7}, "its n_pairs is 6 and this run's 7"),
        ({"units": [0]}, "its units is"),
        ({"tolerance": 0.5}, "its tolerance is null and this run's 0.5"),
        ({"normalise": "pair"}, 'its normalise is null and this run\'s "pair"'),
        ({"hybrids_per_eval": 2}, "its hybrids_per_eval is"),
        ({"z": True}, "its latents is"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    generator = toys.PLAIN.generator()
    influence = cp.InfluenceMap(generator, "main.6")
    influence.attribute(n_pairs=6, checkpoint=tmp_path / "p")
    arguments: dict[str, Any] = {"n_pairs": 6, **change}
    if arguments.pop("z", False):
        arguments |= {"z1": generator.sample(6), "z2": generator.sample(6, seed=1), "n_pairs": None}
    with pytest.raises(cp.ProbeError, match=f"is of another run: .*{sentence}"):
        influence.attribute(**arguments, checkpoint=tmp_path / "p")


def test_other_weights_layers_and_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p"
    generator = toys.PLAIN.generator()
    cp.InfluenceMap(generator, "main.6").attribute(n_pairs=3, checkpoint=path)
    with pytest.raises(cp.ProbeError, match="its units is"):
        cp.InfluenceMap(generator, "main.2").attribute(n_pairs=3, checkpoint=path)
    monkeypatch.setattr("counterfactual_probe.version.__version__", "99.0")
    with pytest.raises(cp.ProbeError, match=r'its counterfactual-probe is ".*" and this run\'s "99.0"'):
        cp.InfluenceMap(generator, "main.6").attribute(n_pairs=3, checkpoint=path)
    monkeypatch.undo()
    bias = generator.module.get_submodule("main.7")
    assert isinstance(bias, nn.ConvTranspose2d)
    with torch.no_grad():
        bias.weight.add_(1e-6)
    with pytest.raises(cp.ProbeError, match="its weights_sha256 is"):
        cp.InfluenceMap(generator, "main.6").attribute(n_pairs=3, checkpoint=path)


def test_a_result_is_no_checkpoint_and_a_torn_file_is_told(tmp_path: Path) -> None:
    influence = cp.InfluenceMap(toys.PLAIN.generator(), "main.6")
    path = influence.attribute(n_pairs=3).save(tmp_path / "maps")
    with pytest.raises(cp.ProbeError, match="holds InfluenceMaps and not Checkpoint"):
        influence.attribute(n_pairs=3, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(cp.ProbeError, match=r"is not a complete safetensors file .*; delete it to start again"):
        influence.attribute(n_pairs=3, checkpoint=path)
