"""One call on several processes: the same maps, and no process left waiting for one that has failed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import counterfactual_probe as cp
import toys
from counterfactual_probe.ranks import Ranks, current_ranks

START = """
import os, sys, torch
sys.path[:0] = {path!r}
import toys, counterfactual_probe as cp
from counterfactual_probe import checkpoint
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
generator = toys.PLAIN.generator()
influence = cp.InfluenceMap(generator, "main.6")
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(world: int, code: str) -> list[subprocess.Popen[str]]:
    port = str(free_port())
    processes = []
    for rank in range(world):
        # What torchrun sets, without its agent.
        given = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        program = START.format(path=[str(Path(__file__).parent)]) + code
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program], env={**os.environ, **given}, stderr=subprocess.PIPE, text=True
            )
        )
    return processes


def finish(processes: list[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str]]:
    end = time.monotonic() + seconds
    try:
        results = []
        for process in processes:
            errors = process.communicate(timeout=max(1.0, end - time.monotonic()))[1]
            results.append((process.returncode, errors))
        return results
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_number_of_ranks_gives_the_same_maps(world: int, tmp_path: Path) -> None:
    """Five channels: shares are unequal, and with a tolerance sets stop at different counts."""
    code = f"""
maps = influence.attribute(n_pairs=64, tolerance=0.1, normalise="pair", seed=3)
maps.save(f"{tmp_path}/{{rank}}")
"""
    for status, errors in finish(start(world, code)):
        assert status == 0, errors
    alone = cp.InfluenceMap(toys.PLAIN.generator(), "main.6").attribute(
        n_pairs=64, tolerance=0.1, normalise="pair", seed=3
    )
    for rank in range(world):
        found = cp.InfluenceMaps.load(tmp_path / str(rank))
        assert found.provenance["ranks"] == world
        assert found.n_pairs.tolist() == alone.n_pairs.tolist()
        assert found.units == alone.units
        for name in ("maps", "standard_error", "influence", "normalised"):
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), rtol=0, atol=1e-6)


def test_more_ranks_than_sets(tmp_path: Path) -> None:
    code = f"""
influence.attribute(n_pairs=4, units=[[0, 1]]).save(f"{tmp_path}/{{rank}}")
"""
    for status, errors in finish(start(2, code)):
        assert status == 0, errors
    alone = cp.InfluenceMap(toys.PLAIN.generator(), "main.6").attribute(n_pairs=4, units=[[0, 1]])
    for rank in range(2):
        assert torch.equal(cp.InfluenceMaps.load(tmp_path / str(rank)).maps, alone.maps)


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


def test_a_rank_that_dies_ends_the_run_and_leaves_the_checkpoints(tmp_path: Path) -> None:
    code = f"""
checkpoint.SECONDS_BETWEEN = 0.0
if rank == 1:
    import time
    original = checkpoint.Checkpoint.save
    def slow(self, *state):
        original(self, *state)
        time.sleep(0.2)
    checkpoint.Checkpoint.save = slow
influence.attribute(n_pairs=60, hybrids_per_eval=4, checkpoint="{tmp_path}/p").save(f"{tmp_path}/{{rank}}")
"""
    processes = start(2, code)
    victim = tmp_path / "p.rank1of2"
    end = time.monotonic() + 60
    while not victim.exists() and time.monotonic() < end:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    (status, errors), _ = finish(processes)
    assert status not in (0, -signal.SIGKILL)
    assert "ProbeError: another rank ended or cannot be reached" in errors
    for status, errors in finish(start(2, code)):
        assert status == 0, errors
    alone = cp.InfluenceMap(toys.PLAIN.generator(), "main.6").attribute(n_pairs=60, hybrids_per_eval=4)
    found = cp.InfluenceMaps.load(tmp_path / "0")
    torch.testing.assert_close(found.maps, alone.maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 5, 14])
def test_shares_cover_everything_once(world: int, items: int) -> None:
    shares = [Ranks(rank, world).share(items) for rank in range(world)]
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(shares[0]) == max(map(len, shares))


def test_without_a_launcher_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert current_ranks(torch.device("cpu")) == Ranks(0, 1)
    assert Ranks().first("x") == "x"
    arrays = {"maps": torch.ones(2), "normalised": None}
    assert Ranks().gather(arrays, 2, torch.device("cpu")) == arrays
    with pytest.raises(ValueError, match="as it is"), Ranks().together():
        raise ValueError("as it is")


def test_the_example_runs_under_torchrun(tmp_path: Path) -> None:
    example = Path(__file__).parent.parent / "examples" / "many_devices.py"
    arguments = ["dcgan-faces", "main.11", "--pairs", "2", "--out", str(tmp_path)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(example), *arguments], timeout=120, capture_output=True, text=True, check=False
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
