"""Progress bars: drawn anew as time passes, in a terminal and in a notebook, and now and then in a log."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

import counterfactual_probe as cp
from counterfactual_probe.base import progress
from support.toys import PLAIN


class Notebook(io.StringIO):
    """A stream as the kernel of a notebook has it: no terminal."""


Notebook.__module__ = "ipykernel.iostream"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "moves"), [(Notebook, True), (Terminal, True), (io.StringIO, False)])
def test_a_bar_moves_where_it_replaces_itself(
    stream: type[io.StringIO], moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    with progress.progress_bar(100, "maps", "hybrid", True) as bar:
        bar.update(60)  # fast, which must not make it wait for as many again
        bar.update(1)
        drawn = sys.stderr.getvalue()  # type: ignore[attr-defined]
        assert ("61/100" in drawn) is moves


def test_a_bar_moves_within_a_block_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    made = progress.progress_bar

    def watched(*args: object, **options: object) -> object:
        bar = made(*args, **options)  # type: ignore[arg-type]
        update = bar.update
        bar.update = lambda n=1: (seen.append(n), update(n))[1]
        return bar

    monkeypatch.setattr("counterfactual_probe.influence.run.progress_bar", watched)
    generator = PLAIN.generator()
    maps = cp.InfluenceMap(generator, "main.2").attribute(n_pairs=6, hybrids_per_eval=8, show_progress=True)
    blocks = -(-6 // 8)
    assert len([n for n in seen if n]) > 2 * blocks
    assert sum(seen) == 6 * len(maps)


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_without_widgets_has_a_bar_of_text_and_no_warning(widgets: bool) -> None:
    code = f"""
import sys
from types import SimpleNamespace
shell = SimpleNamespace(config={{"IPKernelApp": {{}}}})
stands_in = SimpleNamespace(get_ipython=lambda: shell, HTML=str, display=str, FloatProgress=object, HBox=object)
stands_in.display = stands_in
for name in ("IPython", "IPython.display", "ipykernel.zmqshell"):
    sys.modules[name] = stands_in
sys.modules["ipywidgets"] = stands_in if {widgets} else None
sys.modules["IPython.html.widgets"] = None
from counterfactual_probe.base.progress import tqdm
print(tqdm.__mro__[1].__module__)
"""
    made = subprocess.run([sys.executable, "-W", "always", "-c", code], check=False, capture_output=True, text=True)
    assert made.stderr == ""
    assert made.stdout.strip() == ("tqdm.notebook" if widgets else "tqdm.std")
