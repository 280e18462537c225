"""A report in the making: its page is there after the first layer, and stands whatever happens next."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib import font_manager
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.base.errors import Interrupted
from counterfactual_probe.reporting import Section, SectionMaker, growth, study
from counterfactual_probe.reporting.page import Report, write_page
from support.toys import seeded
from support.wide import wide

SMALL = {"n_modules": 2, "max_pairs": 16}


def body(page: Path) -> str:
    text = page.read_text()
    return text[text.index("<body") :]


@pytest.fixture
def second_layer(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let the second layer raise this."""

    def fail(error: BaseException) -> None:
        real, done = study._study_layer, list[str]()

        def made(generator: cp.GeneratorAdapter, info: cp.LayerInfo, *more: object) -> study.LayerStudy:
            if done:
                raise error
            done.append(info.name)
            return real(generator, info, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(study, "_study_layer", made)

    return fail


@pytest.mark.usefixtures("undrawn")
def test_the_page_grows_and_is_loaded_anew_until_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def noted(*given: object, **more: object) -> Report:
        report = write_page(*given, **more)  # type: ignore[arg-type]
        pages.append(report.page.read_text())
        return report

    monkeypatch.setattr("counterfactual_probe.reporting.writing.write_page", noted)
    maker = SectionMaker("more", "a further analysis", lambda *_: Section("More", ("All is well.",)))
    report = cp.report(wide(), out=tmp_path, sections=[maker], **SMALL)  # type: ignore[arg-type]
    assert report.page.read_text() == pages[-1]
    assert ['http-equiv="refresh"' in page for page in pages] == [True, True, False]
    assert [re.findall(r'role="status">([^<]*)', page) for page in pages] == [
        ["This page grows: step 2 of 3 is layer main.1."],  # of more channels than the first
        ["This page grows: step 3 of 3 is a further analysis."],
        [],
    ]
    assert "All is well." in pages[-1]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted("interrupted")])
@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_leaves_a_page_that_says_how_to_go_on(
    stop: BaseException, second_layer: Callable[[BaseException], None], tmp_path: Path
) -> None:
    second_layer(stop)
    with pytest.raises(KeyboardInterrupt):
        cp.report(wide(), out=tmp_path, **SMALL)  # type: ignore[arg-type]
    text = body(tmp_path / "report.html")
    assert (
        "Stopped by hand: what is missing is layer main.1, all else is complete. To go on, call cp.report again" in text
    )
    assert "<h2>Layer main.3</h2>" in text
    assert "refresh" not in (tmp_path / "report.html").read_text().partition("<body")[0]


def test_stopped_before_the_first_layer_the_earlier_page_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("of yesterday")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "_study_layer", stop)
    with pytest.raises(KeyboardInterrupt):
        cp.report(wide(), out=tmp_path, **SMALL)  # type: ignore[arg-type]
    assert (tmp_path / "report.html").read_text() == "of yesterday"


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_leaves_the_page_of_the_layers_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = growth.write_report, list[Path]()

    def full(*given: object, **more: object) -> Report:
        if written:
            monkeypatch.setattr("os.fsync", _no_space)
        report = real(*given, **more)  # type: ignore[arg-type]
        written.append(report.page)
        return report

    monkeypatch.setattr(growth, "write_report", full)
    with pytest.raises(cp.ProbeError, match=r"cannot be written \(No space left on device\); free some space"):
        cp.report(wide(), out=tmp_path, **SMALL)  # type: ignore[arg-type]
    text = body(tmp_path / "report.html")
    assert "<h2>Layer main.3</h2>" in text
    assert "<h2>Layer main.1</h2>" not in text
    assert not list(tmp_path.glob("**/*.partial"))


def _no_space(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("undrawn")
def test_a_layer_without_modules_is_left_out_and_said(
    second_layer: Callable[[BaseException], None], tmp_path: Path
) -> None:
    second_layer(cp.ProbeError("all maps are flat"))
    report = cp.report(wide(), out=tmp_path, **SMALL)  # type: ignore[arg-type]
    assert "Layer main.1 has no modules: all maps are flat." in body(report.page)


def grey(size: int) -> cp.GeneratorAdapter:
    """One layer of five channels, and grey images of this size."""
    with seeded(2):
        module = nn.Sequential(
            nn.ConvTranspose2d(4, 5, 8), nn.ReLU(), nn.Conv2d(5, 1, 3, padding=1), nn.Upsample(scale_factor=size // 8)
        )
        return cp.wrap(module, lambda n, rng: torch.randn(n, 4, 1, 1, generator=rng), layers=["1"], name="grey")


@pytest.mark.parametrize("size", [16, 128, pytest.param(1024, marks=pytest.mark.long)])
def test_one_layer_and_grey_images_of_any_size(size: int, tmp_path: Path) -> None:
    report = cp.report(grey(size), "1", out=tmp_path, **SMALL)  # type: ignore[arg-type]
    assert "channels of layer 1 form" in body(report.page)
    assert report.page.stat().st_size < 1e6
    maps = cp.InfluenceMaps.load(tmp_path / "maps-1.safetensors")
    assert maps.maps.shape[1:] == (min(size, 64), min(size, 64))


def test_only_the_fonts_that_come_with_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = font_manager.FontManager()
    fonts.ttflist = [font for font in fonts.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager, "fontManager", fonts)
    assert "channels of layer 1 form" in body(cp.report(grey(16), out=tmp_path, **SMALL).page)  # type: ignore[arg-type]


@pytest.mark.usefixtures("undrawn")
def test_regions_name_the_modules(tmp_path: Path) -> None:
    def halves(images: torch.Tensor) -> torch.Tensor:
        return (torch.arange(images.shape[-1]) >= images.shape[-1] // 2).long().expand(len(images), *images.shape[-2:])

    report = cp.report(wide(), "main.3", out=tmp_path, regions=halves, **SMALL)  # type: ignore[arg-type]
    assert "those that a given segmentation found" in body(report.page)
    with pytest.raises(cp.ProbeError, match="regions is 3"):
        cp.report(wide(), out=tmp_path, regions=3)  # type: ignore[arg-type]
