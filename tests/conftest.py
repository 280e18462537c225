"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.engine.interception import NotReplayable
from support.devices.cases import device_of, on_devices
from support.devices.standin import StandIn
from support.figures import SavedFigures, not_drawn
from support.paths import EXAMPLES
from support.toys import PLAIN, TOYS, Toy

# Toys are too small to share: two threads spend their time waiting for each other, and on a busy machine
# the same tests were five times slower with two than with one.
torch.set_num_threads(1)

# What is imported and collected lasts to the end, and is half a second's work for whoever looks for garbage in it.
gc.disable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, since tests wait for programs and browsers in a quarter of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _what_lasts_is_not_looked_through() -> None:
    """What the files before have imported, too: Accelerate looks for garbage at the end of every training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn | None]:
    """The stand-in for a GPU, if a parameter of the test names it: ``device``, or the device of a toy."""
    params = getattr(getattr(request.node, "callspec", None), "params", {})
    with device_of(params, monkeypatch) as used:
        yield used


@pytest.fixture(params=on_devices(TOYS))
def toy(request: pytest.FixtureRequest) -> Toy:
    """Every toy of the table, on every device."""
    found: Toy = request.param
    return found


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the examples, whose files can be imported by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return EXAMPLES


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a module of a user's, by name and code, into a folder that is the working directory from then on."""

    def write(name: str, code: str) -> Path:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path

    return write


@pytest.fixture
def figure_of(monkeypatch: pytest.MonkeyPatch) -> SavedFigures:
    """The figure that a file shows, of those that the test saves."""
    return SavedFigures(monkeypatch)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without pictures, for tests of all else on their pages."""
    monkeypatch.setattr("counterfactual_probe.reporting.section.encoded", not_drawn)


@pytest.fixture(scope="session")
def plain() -> cp.GeneratorAdapter:
    """The plain toy, wrapped; tests leave it as they found it, so one serves all."""
    return PLAIN.generator()


@pytest.fixture(scope="session")
def faces() -> cp.GeneratorAdapter:
    """The pretrained face DCGAN."""
    return cp.load("dcgan-faces")


@pytest.fixture(autouse=True)
def _no_test_depends_on_those_before() -> None:
    """Weights that a test makes are the same, whichever tests have drawn numbers before it."""
    # Not by torch.manual_seed, which notes its caller for every kind of device that is not used, and takes long.
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(autouse=True)
def _compiled_code_is_forgotten() -> Iterator[None]:
    """Toys of one class are compiled many times, and Dynamo stops recompiling after a few."""
    yield
    if "torch._dynamo" in sys.modules:  # otherwise nothing has been compiled, and asking would import it
        torch.compiler.reset()


@pytest.fixture
def only_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """No generator can be written down as a program."""

    def refuse(*_: Any) -> None:
        raise NotReplayable("not in these tests")

    monkeypatch.setattr("counterfactual_probe.engine.select.Prepared", refuse)
