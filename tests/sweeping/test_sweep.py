"""Sweeps: which jobs a file asks for, what is kept and run again, and what is said of what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli.entry import main
from counterfactual_probe.sweeping import sweep as sweeping
from counterfactual_probe.sweeping.plan import read_plan
from support.factories import FACTORY

FILE = """
command = "influence"
out = "swept"

[settings]
generator = "users_own:make"
layer = ["1", "3"]
pairs = 2
seed = [0, 1]
"""
NAMES = ["1+seed-0", "1+seed-1", "3+seed-0", "3+seed-1"]


class Ended:
    """A job that has ended."""

    def done(self) -> bool:
        return True

    def stderr(self) -> str:
        return "slurmstepd: error: Detected 1 oom_kill event\n"


class InThisProcess:
    """An executor that runs each job at once, and loses the first ones."""

    cluster = "local"
    lost = 0
    ran: list[str]

    def __init__(self, folder: Path, cluster: str | None) -> None:
        assert cluster in (None, "local")

    def update_parameters(self, **given: Any) -> None:
        assert given["timeout_min"] > 60

    def submit(self, run: Callable[..., None], arguments: list[str], folder: str, *more: Any) -> Ended:
        if InThisProcess.lost:
            InThisProcess.lost -= 1
            InThisProcess.ran.append("lost")
        else:
            InThisProcess.ran.append(Path(folder).name)
            run(arguments, folder, *more)
        return Ended()


@pytest.fixture
def folder(users_module: Callable[[str, str], Path]) -> Path:
    made = users_module("users_own", FACTORY)
    (made / "sweep.toml").write_text(FILE)
    return made


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were run, in this process."""
    module: Any = ModuleType("submitit")
    module.__spec__, module.AutoExecutor = ModuleSpec("submitit", None), InThisProcess
    monkeypatch.setitem(sys.modules, "submitit", module)
    monkeypatch.setattr(sweeping, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    InThisProcess.lost, InThisProcess.ran = 0, []
    return InThisProcess.ran


def test_every_combination_is_run_once_and_gathered(folder: Path, ran: list[str]) -> None:
    found = cp.sweep("sweep.toml")
    assert ran == NAMES
    assert not found.failed
    rows = list(found.records())
    assert [(row["layer"], row["seed"]) for row in rows] == [("1", 0), ("1", 1), ("3", 0), ("3", 1)]
    for row in rows:
        maps = cp.InfluenceMaps.load(folder / "swept" / row["job"] / f"maps-{row['layer']}.safetensors")
        assert row["median_influence"] == float(maps.influence.median())
        assert row["unit_sets"] == len(maps)
        assert maps.provenance["seed"] == row["seed"]
        assert (folder / "swept" / row["job"] / "progress").exists()  # it would have gone on from there
    assert (folder / "swept/table.csv").read_text() == found.to_csv()
    assert json.loads((folder / "swept/table.json").read_text()) == found.to_json()
    assert repr(found).startswith(f"Sweep(4 jobs in {folder / 'swept'}, 0 failed)")
    assert cp.sweep("sweep.toml").to_csv() == found.to_csv()
    assert len(ran) == 4, "what is done is not done again"


def test_a_job_whose_worker_is_killed_is_run_again(folder: Path, ran: list[str]) -> None:
    InThisProcess.lost = 2
    found = cp.sweep("sweep.toml", workers=1)
    assert ran == ["lost", "lost", *NAMES]
    assert not found.failed
    (folder / "swept" / NAMES[1] / "outcome.json").unlink()
    InThisProcess.lost = 3
    found = cp.sweep("sweep.toml")
    assert ran[6:] == ["lost"] * 3
    (row,) = found.failed
    assert row.job == NAMES[1]
    assert row.problem.startswith("its worker ended 3 times without a result (slurmstepd: error: Detected 1 oom_kill")
    assert not cp.sweep("sweep.toml").failed  # the next time it may have room
    assert ran[9:] == [NAMES[1]]


def test_a_job_that_fails_is_named_and_the_table_goes_on(
    folder: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "sweep.toml").write_text(FILE.replace('"3"', '"30"'))
    assert main(["sweep", "sweep.toml", "--no-progress"]) == 1
    said = capsys.readouterr().out
    assert "4 jobs in" in said
    assert "2 failed" in said
    table = json.loads((folder / "swept/table.json").read_text())["rows"]
    assert [row["status"] for row in table] == ["done", "done", "failed", "failed"]
    assert table[2]["problem"].startswith("layer '30' is not in this generator; nearest: ")
    assert table[2]["problem"].endswith("(see 30+seed-0/log.txt)")
    assert table[2]["median_influence"] is None
    # What the command itself cannot foresee.
    (folder / "users_own.py").write_text("def make():\n    raise SystemError('no such thing')\n")
    (folder / "sweep.toml").write_text(FILE.replace('["1", "3"]', '"1"').replace("swept", "other"))
    assert all("no such thing" in row.problem for row in cp.sweep("sweep.toml").failed)


def test_results_of_other_settings_are_kept_unless_forced(folder: Path, ran: list[str]) -> None:
    cp.sweep("sweep.toml")
    (folder / "sweep.toml").write_text(FILE.replace("pairs = 2", "pairs = 3"))
    with pytest.raises(cp.ProbeError, match=r"seed-0 is there already, made with pairs 2, not 3; give --force"):
        cp.sweep("sweep.toml")
    assert len(ran) == 4
    found = cp.sweep("sweep.toml", force=True)
    assert len(ran) == 8
    assert not found.failed
    maps = cp.InfluenceMaps.load(folder / "swept" / NAMES[0] / "maps-1.safetensors")
    assert maps.provenance["n_pairs"] == 3
    (folder / "swept" / NAMES[0] / "outcome.json").write_text("{")
    with pytest.raises(cp.ProbeError, match=r"outcome.json is damaged .*; delete it to run the job again"):
        cp.sweep("sweep.toml")


def test_runs_and_patterns(folder: Path) -> None:
    for name in ("b", "a"):
        (folder / "trained" / name).mkdir(parents=True)
    (folder / "sweep.toml").write_text(
        'command = "report"\n[settings]\npairs = 8\nfidelity = true\nmodules = 2\n'.replace("fidelity = true\n", "")
        + '[[runs]]\ngenerator = "trained/*"\n[[runs]]\ngenerator = "vae-faces"\nmodules = [3, 4]\n'
    )
    plan = read_plan(folder / "sweep.toml")
    generators = [job.settings["generator"] for job in plan.jobs]
    assert generators == [f"trained{os.sep}a", f"trained{os.sep}b", "vae-faces", "vae-faces"]
    assert [job.settings["modules"] for job in plan.jobs] == [2, 2, 3, 4]
    assert len({job.name for job in plan.jobs}) == 4
    typed = plan.jobs[3].arguments(Path("there"), plan.options, force=True)
    assert typed[:4] == ["report", "--out=there", "--no-progress", "--force"]
    assert set(typed[4:-2]) == {"--pairs=8", "--modules=4"}
    assert typed[-2:] == ["--", "vae-faces"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("pairs = 2", "pair = 2"), r"setting 'pair' is no option of 'influence'; nearest: 'pairs'"),
        (('"influence"', '"influences"'), r"command 'influences'; nearest: 'influence'"),
        (('generator = "users_own:make"', ""), r"names no generator; give generator = "),
        (("users_own:make", "nowhere/*"), r"nothing fits the pattern 'nowhere/\*' of generators"),
        (("pairs = 2", 'out = "x"'), r"setting 'out' is set by the sweep itself"),
        (("[0, 1]", "[0, 0]"), r"asks for .* twice"),
        (("[0, 1]", "[]"), r"gives no value of 'seed'"),
        (("[0, 1]", "[[0]]"), r"settings\[\.\.\.\]\[0\] is another and must be"),
        (("[settings]", "workers = 0\n[settings]"), r"workers in .* is 0"),
        (("[settings]", 'cluster = "cloud"\n[settings]'), r"cluster is 'cloud'; give 'local' or 'slurm'"),
        (("[settings]", "worker = 2\n[settings]"), r"worker"),
        (("[settings]", "[settings"), r"is no TOML file"),
    ],
)
def test_what_a_file_gets_wrong(folder: Path, ran: list[str], change: tuple[str, str], sentence: str) -> None:
    (folder / "sweep.toml").write_text(FILE.replace(*change))
    with pytest.raises(cp.ProbeError, match=sentence):
        cp.sweep("sweep.toml")
    assert not ran
    assert not (folder / "swept").exists()


def test_a_missing_file_and_a_missing_library(
    folder: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "no.toml"]) == 2
    assert "no.toml cannot be read" in capsys.readouterr().err
    monkeypatch.setattr(sweeping, "find_spec", lambda name: None)
    assert main(["sweep", "sweep.toml"]) == 2
    assert "submitit, which is not installed; run: pip install 'counterfactual-probe[jobs]'" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed")
def test_two_workers_of_which_one_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real worker, killed while its command runs: the job goes on from its checkpoint, and the table is complete."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (folder / "users_own.py").write_text(
        FACTORY
        + """
import os, time
from pathlib import Path
from counterfactual_probe.base import checkpoint
from counterfactual_probe.influence import estimate
checkpoint.SECONDS_BETWEEN = 0.0
advance = estimate.Estimate.advance
def slow(self, *given):
    advance(self, *given)
    with Path(f"{os.getpid()}.positions").open("a") as file:
        file.write(f"{self.position}\\n")
    while self.position > 16 and not Path("killed").exists():  # what came before is in the checkpoint
        time.sleep(0.05)
estimate.Estimate.advance = slow
"""
    )
    (folder / "sweep.toml").write_text(
        FILE.replace("pairs = 2", "pairs = 60\ntolerance = 1e-9").replace("seed = [0, 1]", "seed = 0")
    )
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed:
            for file in folder.glob("*.positions"):
                if file.read_text().count("\n") >= 2 and not killed:
                    killed.append(int(file.stem))
                    os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.05)
        (folder / "killed").touch()

    killer = Thread(target=kill)
    killer.start()
    found = cp.sweep("sweep.toml", workers=2, cluster="local")
    killer.join()
    assert killed
    assert not found.failed
    positions = {int(file.stem): list(map(int, file.read_text().split())) for file in folder.glob("*.positions")}
    assert len(positions) == 3, "two workers, of which one was killed, and one that went on"
    assert max(positions.pop(killed[0])) < 60
    assert [max(seen) for seen in positions.values()] == [60, 60]
    assert sorted(min(seen) > 16 for seen in positions.values()) == [False, True], "one of them from the checkpoint"
    alone = cp.sweep("sweep.toml", out="alone", workers=1, cluster="local")
    assert [row.results for row in alone.rows] == [row.results for row in found.rows]
