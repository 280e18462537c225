"""The command that measures on a GPU: a rehearsal on the CPU and on the stand-in, and nothing left out silently."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import Distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from counterfactual_probe.engine import Prepared
from support.paths import BENCHMARKS, ROOT

NEEDS_A_GPU = {"CUDA graphs", "settings", "out of memory"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of the command."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("stage", "generators", "exactness", "limits", "kernels", "speed", "wheels", "__main__")
    return SimpleNamespace(**{name.strip("_"): import_module(f"gpu.{name}") for name in names})


def of_the_first(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is measured of one generator alone."""
    cases = gpu.generators.cases
    monkeypatch.setattr(gpu.speed, "cases", lambda bench: cases(bench)[:1])


def test_a_rehearsal_names_all_that_it_does_not_do(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_the_first(gpu, monkeypatch)
    out = tmp_path / "made" / "gpu.json"
    stages = [stage.name for stage in gpu.main.STAGES]
    chosen = [name for name in stages if name not in ("tests", "ranks")]
    gpu.main.main(["--device", "cpu", "--small", "--out", str(out), "--stages", *chosen])
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    states = {stage["stage"]: stage["state"] for stage in found["stages"]}
    assert list(states) == stages
    assert {name for name, state in states.items() if state == "skipped"} == NEEDS_A_GPU | {"tests", "ranks"}
    assert set(states.values()) == {"done", "skipped"}
    for stage in found["stages"]:
        assert f"== {stage['stage']}: {stage['state']}" in printed
        assert bool(stage["rows"]) == (stage["state"] == "done")
        assert bool(stage["why"]) == (stage["state"] == "skipped")
    assert "tests, ranks" not in printed
    assert "failed: none" in printed
    rows = {row["name"]: row for stage in found["stages"] for row in stage["rows"]}
    assert rows["hooks, float32, TF32 on"]["skipped"] == rows["ours, tf32"].get("skipped", "no TF32 here")
    assert rows["ours, float32"]["executor"] == "prepared"
    assert rows["peak of 64 pairs of 12 channels"]["MiB"] > rows["peak of 64 pairs of 6 channels"]["MiB"] > 0
    assert rows["ours, float32"]["busy"] == "skipped: no GPU"
    assert found["machine"]["torch"] == torch.__version__


@pytest.mark.long
def test_the_whole_rehearsal(gpu: SimpleNamespace, tmp_path: Path) -> None:
    gpu.main.main(["--device", "cpu", "--small", "--out", str(tmp_path / "gpu.json")])
    stages = {stage["stage"]: stage for stage in json.loads((tmp_path / "gpu.json").read_text())["stages"]}
    assert {name for name, stage in stages.items() if stage["state"] != "done"} == NEEDS_A_GPU
    assert not [row for row in stages["speed"]["rows"] if "failed" in row]


@pytest.mark.parametrize("device", ["stand-in"])
def test_the_stages_that_need_no_real_gpu_run_on_the_stand_in(
    device: str, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_the_first(gpu, monkeypatch)
    bench = gpu.stage.Bench(torch.device("cuda", 0), small=True)
    monkeypatch.setattr(gpu.speed, "kernels_of", lambda _bench, _work: gpu.kernels.Kernels(6, 0.5))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    for name in ("limits", "exactness", "determinism", "settings", "speed"):
        stage = next(stage for stage in gpu.main.STAGES if stage.name == name)
        found = gpu.stage.outcome_of(stage, bench)
        assert (found.state, found.why) == ("done", ""), found.rows
        rows = {row["name"]: row for row in found.rows}
        if name == "exactness":
            assert rows["ours, tf32"]["precision"] == "tf32"
            assert max(row["error"] for row in found.rows) < 0.05
            assert rows["ours, float32"]["error"] < 1e-5
        if name == "speed":
            assert rows["ours, float32"]["busy"] == 0.5
            assert rows["ours, tf32"]["share of arithmetic"] > 0
            assert rows["ours, bf16-diff"]["precision"] == "bf16-diff"


@pytest.mark.parametrize("device", ["stand-in"])
def test_memory_that_is_made_scarce_is_seen_to_halve_batches(
    device: str, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an allocator that refuses rows above 300 while the command lets it have little."""
    fractions = [1.0]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: fractions.append(share))
    right = Prepared.intervened

    def scarce(self: Prepared, base: Any, runs: Any) -> torch.Tensor:
        if fractions[-1] < 1 and len(runs) > 300:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB")
        return right(self, base, runs)

    bench = gpu.stage.Bench(torch.device("cuda", 0), small=True)
    stage = next(stage for stage in gpu.main.STAGES if stage.name == "out of memory")
    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "intervened", scarce)
        found = gpu.stage.outcome_of(stage, bench)
    assert (found.state, found.why) == ("done", "")
    assert found.rows[0]["halved to"] == 256
    assert fractions == [1.0, pytest.approx(300 / 8192), 1.0]
    found = gpu.stage.outcome_of(stage, bench)  # where nothing runs out, the stage shows nothing, and says so
    assert found.state == "failed"
    assert "batches were not halved" in found.why


def test_what_fails_or_comes_too_late_is_said_and_the_rest_runs(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_bench: Any) -> Iterator[dict[str, Any]]:
        yield {"name": "before", "figure": 0.5}
        raise ValueError("what went wrong")

    def works(_bench: Any) -> Iterator[dict[str, Any]]:
        yield {"name": "after"}

    stage = gpu.stage.Stage
    monkeypatch.setattr(gpu.main, "STAGES", (stage("one", fails), stage("two", works)))
    with pytest.raises(SystemExit) as stop:
        gpu.main.main(["--device", "cpu", "--small"])
    printed = capsys.readouterr().out
    assert stop.value.code == 1
    assert "== one: failed" in printed
    assert "ValueError at test_gpu_command.py" in printed
    assert "what went wrong" in printed
    assert "figure 0.5" in printed
    assert "== two: done" in printed
    late = gpu.stage.outcome_of(stage("long", works, 100), gpu.stage.Bench(torch.device("cpu"), seconds=50))
    assert (late.state, late.rows) == ("too late", [])
    assert "it takes about 100" in late.why


def test_without_a_gpu_it_says_what_to_do(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"CUDA_VISIBLE_DEVICES may be empty\); --device cpu --small rehearses"):
        gpu.main.main([])
    with pytest.raises(SystemExit, match="a CPU takes hours for these sizes; add --small"):
        gpu.main.main(["--device", "cpu"])


def test_kernels_that_overlap_count_once(gpu: SimpleNamespace) -> None:
    assert gpu.kernels.of_spans([(6, 10), (0, 2), (1, 3)]) == gpu.kernels.Kernels(3, 0.7)
    assert gpu.kernels.of_spans([]) == gpu.kernels.Kernels(0, 0.0)
    assert gpu.kernels.of_spans([(0, 4), (1, 2)]).busy == 1


SIZES = {
    "StyleGAN2 256": (lambda gpu: gpu.generators.StyleGAN2(256), (512,), (3, 256, 256), 29e6),
    "StyleGAN2 1024": (lambda gpu: gpu.generators.StyleGAN2(1024), (512,), (3, 1024, 1024), 30e6),
    "DiT-B/2": (lambda gpu: gpu.generators.DiT(), (4, 32, 32), (4, 32, 32), 128e6),
}


@pytest.mark.parametrize(("make", "latent", "image", "parameters"), SIZES.values(), ids=SIZES)
def test_generators_have_the_published_sizes_and_stay_on_one_device(
    make: Any, latent: tuple[int, ...], image: tuple[int, ...], parameters: float, gpu: SimpleNamespace
) -> None:
    """At full size, on fake tensors of a GPU, which compute nothing and refuse to be mixed with those of the CPU."""
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            module = make(gpu).eval()
            made = module(torch.randn(2, *latent))
        with pytest.raises(RuntimeError, match="device"):
            module(torch.randn(2, *latent, device="cpu"))
    assert made.shape == (2, *image)
    assert made.device.type == "cuda"
    assert sum(value.numel() for value in module.parameters()) == pytest.approx(parameters, rel=0.05)


def test_the_library_is_put_into_a_folder_as_it_is_installed(gpu: SimpleNamespace, tmp_path: Path) -> None:
    gpu.wheels.put_library(tmp_path)
    (about,) = tmp_path.glob("*.dist-info")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = {(group, name): path for group, some in project["entry-points"].items() for name, path in some.items()}
    found = {(entry.group, entry.name): entry.value for entry in Distribution.at(about).entry_points}
    assert found == expected
    assert Distribution.at(about).metadata["Name"] == project["name"]
    for path in expected.values():
        assert (tmp_path / (path.partition(":")[0].replace(".", "/") + ".py")).exists() or (
            tmp_path / path.partition(":")[0].replace(".", "/") / "__init__.py"
        ).exists()


def test_what_is_missing_is_named(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(
        gpu.wheels, "find_spec", lambda name: None if name in ("msgspec", "pywt") else SimpleNamespace()
    )
    assert gpu.wheels.install(tmp_path / "site", tmp_path / "no wheels") == 1
    said = capsys.readouterr().err
    assert "msgspec, PyWavelets is missing" in said
    assert "make gpu-wheels ARGS=--all" in said
    monkeypatch.setattr(gpu.wheels, "find_spec", lambda name: SimpleNamespace())
    assert gpu.wheels.install(tmp_path / "site", tmp_path / "no wheels") == 0
