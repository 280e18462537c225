"""Names that no file can have, and a process without a file descriptor left, end in one sentence at every door."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.base.files import as_path
from counterfactual_probe.data.sources import open_images
from counterfactual_probe.fidelity.inception import Inception
from counterfactual_probe.registry.folders import load_folder, save_folder
from support.toy_training import Toy, squares
from support.toys import PLAIN

BAD: dict[str, Any] = {
    "a number": 5,
    "a list": ["a"],
    "bytes": b"a",
    "a null byte": "a\0b",
    "a surrogate": "\udcff",
    "a long name": "x" * 5000,
    "a long part": "d/" + "y" * 300,
    "a deep path": "/".join(["d" * 50] * 200),
    "nobody's home": "~nobody-of-this-name/x",
    "a Path with a null byte": Path("a\0b"),
    "a long Path": Path("x" * 5000),
}


@cache
def maps() -> cp.InfluenceMaps:
    return cp.InfluenceMap(PLAIN.generator(), "main.6").attribute(n_pairs=8, blocks=4)


@cache
def extractor() -> cp.Classifier:
    return cp.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), cp.Preprocessing((8, 8)))


DOORS: dict[str, Callable[[Any], Any]] = {
    "as_path": as_path,
    "load": cp.load,
    "load_folder": load_folder,
    "save_folder": lambda path: save_folder(path, "dcgan", {"a": torch.zeros(1)}),
    "save": lambda path: maps().save(path),
    "load a result": cp.InfluenceMaps.load,
    "to_csv": lambda path: maps().to_csv(path),
    "to_json": lambda path: maps().to_json(path),
    "checkpoint": lambda path: cp.InfluenceMap(PLAIN.generator(), "main.6").attribute(n_pairs=2, checkpoint=path),
    "growing": lambda path: next(cp.InfluenceMap(PLAIN.generator(), "main.6").growing(4, blocks=2, checkpoint=path)),
    "train": lambda path: cp.train(Toy(), squares(size=8), out=path, steps=1, device="cpu"),
    "train on": lambda path: cp.train("vae", path, steps=1, device="cpu", size=16, out="never"),
    "cache": lambda path: open_images(np.zeros((4, 8, 8, 3), np.uint8), size=8, cache=path),
    "open_images": lambda path: open_images(path, size=8),
    "load_classifier": cp.load_classifier,
    "weights of a classifier": lambda path: cp.load_classifier("test_resnet", checkpoint=path),
    "weights of Inception": lambda path: Inception(weights=path),
    "real images": lambda path: cp.FidelityTest(PLAIN.generator(), "main.6", features=extractor()).measure(
        [[0]], real=path, n_images=4
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_path_that_no_file_can_have_is_refused(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for what, path in BAD.items():
        with pytest.raises(cp.ProbeError) as caught:
            DOORS[door](path)
        assert len(str(caught.value)) < 1000, what
    assert list(tmp_path.iterdir()) == [], "and nothing was written"


def test_the_sentences_name_path_and_cure() -> None:
    for path, sentence in (
        (5, r"the path is 5, of type int; give a string or a Path"),
        ("a\0b", r"the path 'a\\x00b' cannot be a file's \(a null byte\); give another"),
        ("x" * 5000, r"the path 'x{60}'… cannot be a file's \(File name too long\); give another"),
    ):
        with pytest.raises(cp.ProbeError, match=sentence):
            as_path(path)
    assert as_path("a/b.c") == Path("a/b.c")
    assert as_path("~") == Path.home()


# --- no descriptor left ---------------------------------------------------------------------------------


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Takes all that are left; they come back after the test."""
    held: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                return

    yield take
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_descriptor_left_analyses_run_and_files_are_told(
    tmp_path: Path, descriptors: Callable[[], None]
) -> None:
    gen, saved = PLAIN.generator(), maps().save(tmp_path / "maps")
    influence, finder = cp.InfluenceMap(gen, "main.6"), cp.ModuleFinder(2).fit(maps())  # what is imported late
    expected = influence.attribute(n_pairs=2).maps
    descriptors()
    found, again = influence.attribute(n_pairs=2).maps, cp.ModuleFinder(2).fit(maps())
    told = {}
    for name, act in {
        "write": lambda: maps().save(tmp_path / "more"),
        "read": lambda: cp.InfluenceMaps.load(saved),
        "checkpoint": lambda: influence.attribute(n_pairs=2, checkpoint=tmp_path / "p"),
        "list": lambda: cp.load_classifier("efficientnet-lite0"),
    }.items():
        try:
            act()
        except cp.ProbeError as error:
            told[name] = str(error)
    assert torch.equal(found, expected)
    assert (again.labels_ == finder.labels_).all()
    assert told.keys() == {"write", "read", "checkpoint", "list"}
    assert all("allow more with ulimit -n" in sentence for sentence in told.values()), told
