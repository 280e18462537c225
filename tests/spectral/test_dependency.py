"""Results of spectral dependency: distributions, tables, figures, files, the command and the report's section."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator
from counterfactual_probe.adapters.vae import VAE
from matplotlib.figure import Figure
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.reporting.section import section_maker
from counterfactual_probe.reporting.study import Settings, run_study
from counterfactual_probe.spectral import plots as plots_spectral
from counterfactual_probe.spectral.distribution import BINS, EDGES, Gatherer, quantiles
from support.figures import SavedFigures, cells, displayed, row_names
from support.paths import DOCS, run_python
from support.spectral.networks import generator, small


@pytest.fixture(scope="module")
def sd() -> cp.SpectralDependency:
    return cp.SpectralDependency(generator())


# --- distributions ------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_array(sd: cp.SpectralDependency) -> None:
    ratio = sd.measure("0", "3").ratio.reshape(-1).numpy()
    row = sd.table([("0", "3")]).rows[0]
    assert row["mean"] == pytest.approx(ratio.mean(), abs=1e-12)
    assert row["std"] == pytest.approx(ratio.std(), abs=1e-9)
    assert row["share_below"] == pytest.approx((ratio < 0.9).mean())
    assert row["share_above"] == pytest.approx((ratio > 1.45).mean())
    assert (row["least"], row["largest"]) == (ratio.min(), ratio.max())
    for q in (5, 25, 50, 75, 95):
        assert row[f"q{q:02}"] == pytest.approx(np.percentile(ratio, q), abs=0.01)
    assert row["pathways"] == len(ratio)


def test_blocks_make_no_difference(sd: cp.SpectralDependency, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, ratio = sd.table(), sd.measure("0", "3").ratio
    sizes: list[int] = []
    add = Gatherer.add

    def noted(self: Gatherer, ratios: Tensor) -> None:
        sizes.append(ratios.numel())
        add(self, ratios)

    monkeypatch.setattr(Gatherer, "add", noted)
    monkeypatch.setattr("counterfactual_probe.spectral.tracing.pathways._AT_ONCE", 20)
    parts = sd.table()
    assert max(sizes) <= 20  # less than one channel between takes
    assert len(sizes) > 30
    assert torch.allclose(sd.measure("0", "3").ratio, ratio, rtol=0, atol=1e-14)
    assert torch.equal(parts.histograms, whole.histograms)
    assert parts.rows[0]["mean"] == pytest.approx(whole.rows[0]["mean"], abs=1e-14)


def test_bins_hold_what_lies_in_them() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0, 8, 500), rng.uniform(8, 300, 500), [0.0, 1.0, 5000.0]])
    gathered = Gatherer()
    gathered.add(torch.from_numpy(values))
    expected, _ = np.histogram(values[:-1], EDGES)
    expected[-1] += 1  # beyond the last edge
    # Rounding moves a value that lies on an edge, or within a few ulp of it, to the neighbour.
    assert np.abs(gathered.histogram.numpy() - expected).sum() <= 4
    assert gathered.histogram.sum() == len(values)
    assert gathered.histogram[400] == (np.floor(values * 400) == 400).sum()


def test_quantiles_of_a_known_histogram() -> None:
    histogram = torch.zeros(BINS, dtype=torch.int64)
    histogram[400:800] = 1  # uniform from 1 to 2
    assert quantiles(histogram, (0.25, 0.5, 1.0)) == pytest.approx([1.25, 1.5, 2.0], abs=0.003)
    assert math.isnan(quantiles(torch.zeros(BINS, dtype=torch.int64), (0.5,))[0])


def test_a_layer_of_dead_kernels_has_no_statistics() -> None:
    module = small()
    with torch.no_grad():
        module[3].weight.zero_()
    sd = cp.SpectralDependency(module)
    table = sd.table()
    assert [row["mean"] for row in table.rows] == [None, None]
    assert json.loads(json.dumps(table.rows))[0]["dead"] == table.rows[0]["pathways"]
    assert "–" in table.to_text()
    assert table.plot()[1]
    with pytest.raises(cp.ProbeError, match="every pathway from '0' to '3' is dead"):
        sd.plot_kernels("0", "3")


def test_more_ratios_than_an_array_holds(sd: cp.SpectralDependency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterfactual_probe.spectral.dependency.MOST_PATHWAYS", 300)
    with pytest.raises(cp.ProbeError, match=r"have 336 pathways .* at most 300; .*\.table\(\[\('0', '3'\)\]\)"):
        sd.measure("0", "3")
    assert sd.table([("0", "3")]).rows[0]["pathways"] == 336


# --- tables and files ---------------------------------------------------------------------------------


def test_the_table_prints_and_writes(sd: cp.SpectralDependency, tmp_path: Path) -> None:
    table = sd.table()
    lines = str(table).splitlines()
    assert lines[0] == "SpectralTable(small: spectral dependency ratios of 2 pairs of convolutions)"
    assert len({len(line) for line in lines[1:]}) == 1
    assert "0 → 3" in lines[2]
    rows = list(csv.DictReader(io.StringIO(table.write_csv(tmp_path / "t.csv").read_text())))
    assert float(rows[1]["mean"]) == table.rows[1]["mean"]
    assert rows[0]["stride"] == "2×2"
    content = json.loads(table.write_json(tmp_path / "t.json").read_text())
    assert content["pairs"] == table.rows
    assert content["provenance"]["generator"] == "small"
    loaded = cp.SpectralTable.load(table.save(tmp_path / "t.safetensors"))
    assert loaded.rows == table.rows
    assert torch.equal(loaded.histograms, table.histograms)


def test_ratios_come_back_from_files(sd: cp.SpectralDependency, tmp_path: Path) -> None:
    found = sd.measure("3", "5")
    loaded = cp.SpectralRatios.load(found.save(tmp_path / "r.safetensors"))
    assert torch.equal(loaded.ratio, found.ratio)
    assert loaded.provenance == found.provenance
    assert repr(loaded).splitlines()[0] == "SpectralRatios(small, 3 → 5: 168 pathways, 0 dead)"
    assert f"{found.mean:.3f} ± {float(found.alive.std(correction=0)):.3f}" in repr(loaded)
    maps = sd.measure_activations("2", generator().sample(3))
    assert torch.equal(cp.ActivationRatios.load(maps.save(tmp_path / "a.safetensors")).ratio, maps.ratio)
    with pytest.raises(cp.ProbeError, match="holds SpectralRatios and not ActivationRatios"):
        cp.ActivationRatios.load(tmp_path / "r.safetensors")


def test_fine_comes_before_coarse_whichever_way_a_network_runs(sd: cp.SpectralDependency) -> None:
    assert [name for name, _ in sd.table().panels()] == ["3 → 5", "0 → 3"]
    torch.manual_seed(0)
    other = cp.SpectralDependency(DCGANDiscriminator([4, 6, 8], 3)).table()
    assert [name for name, _ in other.panels()] == ["main.0 → main.2", "main.2 → main.5", "main.5 → main.8"]
    # Where the first convolution keeps the size, the second's own stride makes its pair no coarser.
    encoder = VAE(6, (5, 4, 3), 1, image_size=16, start=4).encoder
    first, second = (name for name, _ in cp.SpectralDependency(encoder).table().panels())
    assert (first, second) == ("convolutions.0 → convolutions.3", "convolutions.3 → convolutions.6")
    assert (sd.table().provenance["direction"], other.provenance["direction"]) == ("up", "down")


# --- figures ------------------------------------------------------------------------------------------


def test_histograms_show_every_ratio(sd: cp.SpectralDependency) -> None:
    figure, ax = sd.measure("0", "3").plot(label="mine")
    assert isinstance(figure, Figure)
    assert float(sum(ax.patches[0].get_data().values)) == pytest.approx(1)  # type: ignore[attr-defined]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mine"]  # type: ignore[union-attr]
    own = Figure().add_subplot()
    assert sd.measure_activations("2", generator().sample(2)).plot(own)[1] is own
    assert "activation maps" in own.get_ylabel()


def test_two_networks_are_superimposed_level_by_level(sd: cp.SpectralDependency) -> None:
    torch.manual_seed(0)
    other = cp.SpectralDependency(DCGANDiscriminator([4, 6, 8], 3), name="other").table()
    figure, axes = sd.table().plot(against=other)
    assert [len(ax.patches) for ax in axes] == [4, 4, 2]
    assert axes[0].get_title() == "3 → 5\nmain.0 → main.2"
    assert axes[2].get_title() == "main.5 → main.8"
    # The second network keeps its colour where the first has no such level.
    assert (
        axes[2].patches[1].get_edgecolor() == axes[0].patches[3].get_edgecolor() != axes[0].patches[1].get_edgecolor()
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["small", "other"]
    assert len(sd.table().plot(most=1)[1]) == 1
    assert len(sd.table().plot(against=[other, sd.table()], names=["one", "two", "three"])[1][0].patches) == 6
    with pytest.raises(cp.ProbeError, match="1 name given for 2 networks"):
        sd.table().plot(against=other, names=["one"])
    with pytest.raises(cp.ProbeError, match="most is 0"):
        sd.table().plot(most=0)


def test_kernels_and_their_transforms(sd: cp.SpectralDependency) -> None:
    figure, axes = sd.plot_kernels("0", "3", pathway=(1, 2, 3))
    expected = float(sd.measure("0", "3").ratio[1, 2, 3])
    assert figure.get_suptitle() == f"channels 1 → 2 → 3: spectral dependency ratio {expected:.2f}"
    joint, transform = (np.asarray(axes[i].images[0].get_array()) for i in (2, 5))
    g, h = sd.pathways("0", "3").earlier.weight[1, 2].detach(), sd.pathways("0", "3").later.weight[2, 3].detach()
    real = torch.nn.functional.conv_transpose2d(g[None, None], h[None, None], stride=2)[0, 0]
    assert np.allclose(joint, real.numpy(), atol=1e-6)
    assert (transform**2).mean() == pytest.approx((joint**2).sum(), rel=1e-6)  # Parseval
    nearest, _ = sd.plot_kernels("0", "3", near=1.0)
    assert nearest.get_suptitle().endswith("ratio 1.00")
    with pytest.raises(cp.ProbeError, match=r"pathway \(9, 0, 0\) asks for in channel 9 of 6"):
        sd.plot_kernels("0", "3", pathway=(9, 0, 0))
    with pytest.raises(cp.ProbeError, match="1 axes are given and 6 are drawn on"):
        sd.plot_kernels("0", "3", axes=[Figure().add_subplot()])


def test_a_histogram_of_nothing_says_so() -> None:
    _, ax = plots_spectral.plot_histograms({"empty": np.zeros(BINS, dtype=np.int64)})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["empty: all dead"]  # type: ignore[union-attr]


# --- the command and the report -----------------------------------------------------------------------

FACTORY = """
import torch
import counterfactual_probe as cp
from support.spectral.networks import generator, small
from torch import nn

def make():
    return generator()

def with_partner():
    gen = generator()
    gen.make_partner = lambda: nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 5, 4, 2, 1))
    return gen
"""


@pytest.fixture
def folder(users_module: Callable[[str, str], Path]) -> Path:
    return users_module("users_spectral", FACTORY)


def run(*arguments: str) -> int:
    return cli.main(["spectral", *arguments, "--out", "out", "--no-progress"])


def test_the_command_writes_tables_and_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--against", "partner", "--activations", "2", "--remove", "3", "--draws", "5")
    assert run("users_spectral:with_partner", *asked) == 0
    assert json.loads((folder / "out" / "removal-3+5.json").read_text())["provenance"]["draws"] == 5
    names = {path.name for path in (folder / "out").iterdir()}
    assert {"table-small.csv", "table-small.json", "table-small.safetensors", "table-small-partner.csv"} <= names
    assert {"histograms.png", "kernels-3+5.png", "activations-2.png", "removal-3+5.png"} <= names
    assert {"removal-3+5.json", "removal-3+5.safetensors", "removal-measures-3+5.png"} <= names
    out = capsys.readouterr().out
    assert "SpectralTable(small's partner: spectral dependency ratios of 1 pair of convolutions)" in out
    assert "left out: layer '5' goes into no convolution" in out
    assert "FilterRemoval(small: filters of 3 removed, " in out


def test_the_commands_pair(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("users_spectral:make", "--pair", "0,3") == 0
    assert (folder / "out" / "kernels-0+3.png").exists()
    assert run("users_spectral:make", "--pair", "0,5") == 2
    assert "not successive convolutions" in capsys.readouterr().err
    assert run("users_spectral:make", "--pair", "0") == 2
    assert "--pair is '0'; give two convolutions" in capsys.readouterr().err
    assert run("users_spectral:make", "--against", "partner") == 2
    assert "small has no network that it was trained with" in capsys.readouterr().err
    assert run("users_spectral:make", "--draws", "16") == 2
    message = "--draws 16 is the number of controls for removed filters; give --remove N as well"
    assert message in capsys.readouterr().err


def test_the_reports_section() -> None:
    gen = generator()
    gen.make_partner = lambda: nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.Conv2d(4, 5, 4, 2, 1))
    study = run_study(gen, ["2"], settings=Settings(2, max_pairs=16, shown=2))
    said: list[str] = []
    section: Any = section_maker("spectral").make(gen, study, said.append)
    assert said == ["comparing the kernels of successive convolutions"]
    assert section.sentences[0].startswith("In small, ratios spread most from ")
    assert [len(table.rows) for table in section.tables] == [2, 1]
    assert set(section.results) == {"generator.safetensors", "generator.csv", "partner.safetensors", "partner.csv"}
    assert section.figures[0].content.startswith(b"<?xml")
    assert section.figures[0].suffix == ".svg"


@pytest.mark.examples
def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    page, names = DOCS / "spectral.md", dict[str, Any]()
    assert len(run_python(page, names)) == 5
    out = capsys.readouterr().out
    # The table that the page shows is what its code prints.
    shown = page.read_text().partition("```text\n")[2].partition("```")[0]
    assert shown in out
    assert "FilterRemoval(dcgan-faces: filters of main.9 removed, " in out
    removal = names["removal"]
    (ax,) = figure_of("removal.png").axes
    shown = cells(ax, len(removal.images) + len(removal.control_images), 4, differ=False)
    for row, images in ((0, removal.images[0]), (1, removal.images[1]), (-1, removal.control_images[-1])):
        np.testing.assert_allclose(shown[row], displayed(images), atol=1e-6)
    assert [name.partition("\n")[0] for name in row_names(ax)[:2]] == ["original", f"without {removal.names[1]}"]
    for file, panels in (("histograms", len(names["table"].rows)), ("kernels", 6), ("measures", 2)):
        axes = figure_of(f"{file}.png").axes
        assert len(axes) == panels
        assert all(drawn.has_data() for drawn in axes if drawn.get_visible())


@pytest.mark.parametrize("axis", ["token", "head"])
def test_units_of_convolutions_are_channels(axis: str) -> None:
    decoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with pytest.raises(cp.ProbeError, match=f"axis is '{axis}', and SpectralDependency compares kernels.*{axis}s act"):
        cp.SpectralDependency(decoder, axis=axis)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="axis is 'feature'; give one of 'channel', 'token', 'head'"):
        cp.SpectralDependency(decoder, axis="feature")  # type: ignore[arg-type]
    assert len(cp.SpectralDependency(decoder, axis="channel").pairs()) == 1
