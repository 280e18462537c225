"""A report that was interrupted goes on with the layers that are missing, to the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.reporting import study
from counterfactual_probe.reporting.layer.kept import KeptLayers
from support.wide import wide

SMALL = {"n_modules": 2, "max_pairs": 16}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*/*/layer.json"))


@pytest.fixture
def studied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the layers that are studied from here on."""
    names, real = list[str](), study._study_layer

    def noted(generator: cp.GeneratorAdapter, info: cp.LayerInfo, *more: object) -> study.LayerStudy:
        names.append(info.name)
        return real(generator, info, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(study, "_study_layer", noted)
    return names


def interrupt(out: Path) -> None:
    """Ctrl-C in the second layer."""
    real = study._study_layer

    def stopped(generator: cp.GeneratorAdapter, info: cp.LayerInfo, *more: object) -> study.LayerStudy:
        if info.name == "main.1":
            raise KeyboardInterrupt
        return real(generator, info, *more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study, "_study_layer", stopped)
        cp.report(wide(), out=out, **SMALL)  # type: ignore[arg-type]


@pytest.mark.usefixtures("undrawn")
def test_a_report_goes_on_to_the_same_bytes(studied: list[str], tmp_path: Path) -> None:
    interrupt(tmp_path / "a")
    assert len(kept(tmp_path / "a")) == 1
    assert studied == ["main.3"]
    report = cp.report(wide(), out=tmp_path / "a", **SMALL)  # type: ignore[arg-type]
    assert studied == ["main.3", "main.1"]
    whole = cp.report(wide(), out=tmp_path / "b", **SMALL)  # type: ignore[arg-type]
    assert studied == ["main.3", "main.1", "main.3", "main.1"]  # of a complete report nothing is kept
    assert files(report.page.parent) == files(whole.page.parent)
    assert "Stopped" not in report.page.read_text()


def run(generator: cp.GeneratorAdapter, out: Path, seed: int = 0) -> None:
    """The layer that was done before the interrupt, without a page."""
    settings = study.Settings(2, max_pairs=16, seed=seed)
    keep = KeptLayers(out, generator, settings)
    list(study.growing_study(generator, ["main.3"], settings, kept=keep.layer))


def negated(generator: cp.GeneratorAdapter) -> None:
    """Other weights."""
    with torch.no_grad():
        generator.module.get_parameter("main.0.weight").neg_()


def darker(generator: cp.GeneratorAdapter) -> None:
    """The same weights, and other images."""
    generator.module.register_forward_hook(lambda _module, _inputs, image: image / 2)


def test_layers_of_anything_else_and_damaged_ones_are_not_taken(studied: list[str], tmp_path: Path) -> None:
    run(wide(), tmp_path)
    run(wide(), tmp_path)
    assert studied == ["main.3"], "the control"
    for change in (negated, darker):
        generator = wide()
        change(generator)
        run(generator, tmp_path)
    run(wide(), tmp_path, seed=1)
    assert studied == ["main.3"] * 4
    assert len(kept(tmp_path)) == 4
    for about in kept(tmp_path):
        maps = about.with_name("maps.safetensors")
        maps.write_bytes(maps.read_bytes()[:-9])
    run(wide(), tmp_path)
    assert studied == ["main.3"] * 5


def test_what_cannot_be_kept_is_not_missed(studied: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise cp.ProbeError("the disk is full")

    monkeypatch.setattr("counterfactual_probe.reporting.layer.kept.write_json", full)
    run(wide(), tmp_path)
    assert studied == ["main.3"]
    assert not list(tmp_path.glob(".*/*"))
