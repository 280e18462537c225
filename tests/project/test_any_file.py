"""Files of every kind with anything in them changed: read, or refused by one ProbeError, soon and in little memory."""

from __future__ import annotations

import shutil
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import counterfactual_probe as cp
from support.files.kinds import Kind, kinds
from support.files.limits import TookTooLong, bounded

SECONDS, BYTES = 20.0, 2**29
_numbers = count()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return kinds(tmp_path_factory.mktemp("valid"))


def read(kind: Kind, folder: Path, content: bytes) -> None:
    """Whatever is not a ProbeError passes, and fails the test."""
    with warnings.catch_warnings(), bounded(SECONDS, BYTES):
        warnings.simplefilter("ignore")
        try:
            kind.try_in(folder, content)
        except cp.ProbeError as error:
            said = str(error)
            assert len(said) < 1500
            assert said.isprintable(), said  # one line, without codes of terminals


def try_many(found: dict[str, Kind], tmp_path: Path, examples: int) -> None:
    names = sorted(found)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def any_file(data: Any) -> None:
        name = data.draw(st.sampled_from(names), label="kind")
        content = data.draw(found[name].changed, label="content")
        folder = tmp_path / str(next(_numbers))
        try:
            read(found[name], folder, content)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    any_file()


def test_valid_files_are_read(found: dict[str, Kind], tmp_path: Path) -> None:
    """The control: unchanged, every one is read without an error, but for data sets that are too small."""
    for number, (name, kind) in enumerate(found.items()):
        if name == "labelled .npz":
            with pytest.raises(cp.ProbeError, match="uint8"):
                kind.try_in(tmp_path / str(number), kind.content)
        else:
            kind.try_in(tmp_path / str(number), kind.content)


def test_the_limits_are_limits(tmp_path: Path) -> None:
    with pytest.raises(TookTooLong), bounded(0.05, 2**30):
        while True:
            pass
    with pytest.raises(AssertionError, match="MiB were taken"), bounded(10.0, -1):
        pass
    with pytest.raises(ZeroDivisionError):
        read(Kind(b"", st.just(b""), lambda _: 1 // 0), tmp_path / "x", b"")


def test_any_file_is_read_or_refused(found: dict[str, Kind], tmp_path: Path) -> None:
    try_many(found, tmp_path, 250)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_any_of_many_files_is_read_or_refused(seed: int, found: dict[str, Kind], tmp_path: Path) -> None:
    del seed  # each run draws other files
    try_many(found, tmp_path, 600)
