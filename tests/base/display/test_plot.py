"""What plots return: figure and axes, shown once by a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from counterfactual_probe.base.display.plot import Plot, png


def made() -> Plot[object]:
    figure = Figure()
    return Plot(figure, figure.add_subplot())


def test_it_unpacks_into_figure_and_axes() -> None:
    plot = made()
    figure, ax = plot
    assert (plot.figure, plot.axes) == (figure, ax) == (plot[0], plot[1])


def test_it_is_written(tmp_path: Path) -> None:
    plot = made()
    assert plot.savefig(tmp_path / "a.png") == tmp_path / "a.png"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "6.4×4.8 inches" in repr(plot)


def test_a_notebook_shows_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plot = made()
    picture = plot._repr_png_()
    assert picture == png(plot.figure)
    # A figure of pyplot's is shown by the notebook itself as long as it is open.
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    own = Plot(figure, ax)
    try:
        assert own._repr_png_() is None
    finally:
        pyplot.close(figure)
    assert own._repr_png_() is not None
