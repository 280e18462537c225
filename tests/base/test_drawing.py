"""Figures: onto the caller's axes, never shown, and showing what they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import counterfactual_probe as cp
from counterfactual_probe.base import drawing as plots
from counterfactual_probe.base.display.plot import png
from counterfactual_probe.modules.plots import plot_templates
from support import toys


def test_displayable_images_are_in_range_and_have_three_colours() -> None:
    images = np.linspace(-2, 2, 2 * 5 * 4 * 4).reshape(2, 5, 4, 4)
    shown = plots.displayable(images, (-1.0, 1.0))
    assert shown.shape == (2, 4, 4, 3)
    assert shown.min() == 0
    assert shown.max() == 1
    grey = plots.displayable(np.zeros((1, 4, 4)), (-1.0, 1.0))
    assert grey.shape == (4, 4, 3)
    assert (grey == 0.5).all()


def test_tile_puts_every_cell_where_it_belongs() -> None:
    cells = np.arange(6.0).reshape(2, 3, 1, 1, 1) * np.ones((2, 3, 4, 5, 3))
    sheet = plots.tile(cells, gap=1, background=-1.0)
    assert sheet.shape == (9, 17, 3)
    assert (sheet[0:4, 6:11] == 1).all()
    assert (sheet[5:9, 12:17] == 5).all()
    assert (sheet[4] == -1).all()


def test_figures_use_the_callers_axes_and_no_window() -> None:
    generator = toys.PLAIN.generator()
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    hybrids = cp.Hybridizer(generator, "main.6").hybridize(z1, z2, units=[[0], [1, 2]])
    maps = cp.InfluenceMap(generator, "main.6").attribute(z1, z2)
    stability = cp.ModuleFinder(2).stability(maps, n_modules=[2], repetitions=2, other=maps)
    for result in (hybrids, maps, stability):
        ax = Figure().add_subplot()
        figure, used = result.plot(ax)
        assert used is ax
        assert figure is ax.get_figure()
        own, _ = result.plot()
        assert own is not figure
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_a_sheet_of_hybrids_names_its_rows() -> None:
    generator = toys.PLAIN.generator()
    z1, z2 = generator.sample(2, seed=0), generator.sample(2, seed=1)
    hybridizer = cp.Hybridizer(generator, "main.6")
    hybrids = hybridizer.hybridize(z1, z2, units=[[0], [1, 2]])
    _, ax = hybrids.plot(labels=["one", "two"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "source", "one", "two"]
    sheet = np.asarray(ax.images[0].get_array())
    assert sheet.shape == (4 * 16 + 3 * 2, 2 * 16 + 2, 3)
    low, high = generator.image_range
    expected = ((hybrids.images[1, 0] - low) / (high - low)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(sheet[54:70, :16], expected, atol=1e-6)
    _, columns = hybrids.plot(layout="columns")
    assert [label.get_text() for label in columns.get_xticklabels()][:2] == ["base", "source"]
    alone = hybridizer.intervene(z1, units=[0], value=0.0)
    _, ax = alone.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "main.6: 0"]
    with pytest.raises(cp.ProbeError, match="1 labels are given for 2 unit sets"):
        hybrids.plot(labels=["one"])
    with pytest.raises(cp.ProbeError, match="layout is 'diagonal'"):
        hybrids.plot(layout="diagonal")  # type: ignore[arg-type]


def test_a_mosaic_frames_modules_and_scales_each_map() -> None:
    maps = np.zeros((3, 20, 20))
    maps[0, 5, 5], maps[1, 10, 10] = 1e-6, 5.0
    _, ax = plots.plot_mosaic(maps, modules=[0, 1, -1], across=3)
    sheet = np.asarray(ax.images[0].get_array())
    # A weak map and a strong one reach the same brightest colour; a dead one stays dark.
    cell = 20 + 2 + 1
    np.testing.assert_allclose(sheet[6, 6], sheet[11, cell + 11])
    assert not np.allclose(sheet[0, 0], sheet[0, cell])
    np.testing.assert_allclose(sheet[5, 2 * cell + 5], sheet[15, 2 * cell + 15])


def test_png_is_the_same_every_time() -> None:
    def picture() -> bytes:
        return png(plot_templates(np.eye(8).reshape(1, 8, 8), ["one"])[0])

    assert picture() == picture()
    assert picture().startswith(b"\x89PNG")


def test_colours_repeat_and_no_module_is_grey() -> None:
    assert plots.module_colour(0) == plots.module_colour(len(plots.PALETTE))
    assert plots.module_colour(-1) == plots.NO_MODULE_COLOUR


def test_images_of_results_need_no_gradient() -> None:
    generator = toys.PLAIN.generator()
    assert not generator(generator.sample(1)).requires_grad
    assert torch.is_inference_mode_enabled() is False
