"""Unmodified generators of other libraries: each wrapped in ten lines, hybrids exact, the test kit content.

The generators are those of ``examples/your_own_generator.py``; what is not installed is skipped.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.testing import check_adapter
from support import twins
from support.figures import SavedFigures, cells, row_names
from support.paths import EXAMPLES, module_of
from support.toys import seeded

N = 3


page = module_of(EXAMPLES / "your_own_generator.py")
Make = Callable[[], cp.GeneratorAdapter]
pytestmark = [pytest.mark.examples, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")]


@contextmanager
def weights_and_latents_of(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with seeded(3):
            yield
    finally:
        torch.set_default_dtype(before)


def installed(example: Make) -> Any:
    library, install, _ = page.EXAMPLES[example]
    missing = pytest.mark.skipif(find_spec(library) is None, reason=f"needs {library}: pip install {install}")
    return pytest.param(example, marks=missing, id=example.__name__)


@pytest.fixture(params=map(installed, page.EXAMPLES))
def make(request: pytest.FixtureRequest) -> Make:
    found: Make = request.param
    return found


def plain_hybrids(gen: cp.GeneratorAdapter, z1: Any, z2: Any, sets: Sequence[Mapping[str, Sequence[int]]]) -> Tensor:
    """(sets, n, C, H, W), one forward with plain hooks after the other."""
    rows = []
    for units in sets:
        row = []
        for i in range(N):
            donor: dict[str, Tensor] = {}
            twins.forward(gen.module, twins.one(z2, i), {layer: twins.record(donor, layer) for layer in units})
            actions = {layer: twins.put(donor[layer], channels) for layer, channels in units.items()}
            row.append(gen._read_image(twins.forward(gen.module, twins.one(z1, i), actions)))
        rows.append(torch.cat(row))
    return torch.stack(rows)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
def test_hybrids_are_those_of_plain_hooks(make: Make, dtype: torch.dtype, tolerance: float) -> None:
    with weights_and_latents_of(dtype):
        gen = make()
        z1, z2 = gen.sample(N, seed=0), gen.sample(N, seed=1)
        layer = page.EXAMPLES[make][2]
        channels = gen.layer(layer).channels
        other = [name for name in gen.layers if name != layer][-max(1, len(gen.layers) // 4)]
        single = [{layer: [c]} for c in (0, 1, channels - 1)] + [{layer: list(range(channels // 2))}]
        several = [{layer: [0, 2], other: [1]}, {other: [0], layer: list(range(channels // 2))}, {other: [0]}]
        # Where a chain of denoising steps magnifies rounding, in the clean images as well.
        allowed = tolerance * (10 if make.__name__ == "diffusion_chain" else 1)
        for layers, sets in ((layer, single), ([layer, other], several)):
            hybrids = cp.Hybridizer(gen, layers).hybridize(z1, z2, units=sets)
            expected = plain_hybrids(gen, z1, z2, sets)
            assert hybrids.images.dtype == dtype
            scale = max(1.0, float(expected.abs().max()))
            assert (hybrids.images - expected).abs().max() <= allowed * scale
            assert (hybrids.images - hybrids.base).abs().amax((1, 2, 3, 4)).min() > 100 * tolerance * scale
            assert hybrids.provenance["executor"] == "prepared"


def test_the_test_kit_passes(make: Make) -> None:
    with weights_and_latents_of(torch.float32):
        report = check_adapter(make())
    assert report.passed
    assert sum(check.outcome == "passed" for check in report.checks) >= len(report.checks) - 3


@pytest.mark.parametrize("example", page.EXAMPLES, ids=lambda make: make.__name__)
def test_each_is_wrapped_in_ten_lines(example: Make) -> None:
    (function,) = ast.parse(inspect.getsource(example)).body
    assert isinstance(function, ast.FunctionDef)
    docstring, *statements = function.body
    first, last = statements[0].lineno, function.end_lineno
    lines = [line for line in inspect.getsource(example).splitlines()[first - 1 : last] if line.strip()]
    assert ast.get_docstring(function)
    assert len(lines) <= 10, docstring


def test_libraries_that_are_missing_are_listed_with_their_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["your_own_generator.py", "--out", str(tmp_path)])
    page.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(page.EXAMPLES)
    assert "missing; install it with: pip install spandrel" in lines[1]


@pytest.mark.skipif(find_spec("diffusers") is None, reason="needs diffusers")
def test_the_page_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.setattr(sys, "argv", ["your_own_generator.py", "--out", str(tmp_path), "--only", "vit_decoder"])
    page.main()
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[0] == "vit_decoder"
    assert row[3] == "prepared"
    assert float(row[4]) <= 1e-5
    (ax,) = figure_of(tmp_path / "vit_decoder.png").axes
    cells(ax, 2 + 3, 8)
    assert row_names(ax) == ["base", "source", "module 0", "module 1", "module 2"]
