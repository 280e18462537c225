"""Commands on tokens and features, in regions, are the Python calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.cli.entry import main
from support.unit_models import VIT

FACTORY = """
from support.unit_models import VIT

def decoder():
    return VIT.generator()
"""


@pytest.fixture
def folder(users_module: Callable[[str, str], Path]) -> Path:
    return users_module("of_a_user", FACTORY)


def test_tokens_in_a_region(folder: Path) -> None:
    mask = np.zeros((8, 8), bool)
    mask[:4] = True
    np.save(folder / "mask.npy", mask)
    where = ["--where", "mask.npy", "--strength", "0.5", "--no-progress", "--out", "out"]
    assert (
        main(["influence", "of_a_user:decoder", "--layer", "blocks.0", "--axis", "token", "--pairs", "4", *where]) == 0
    )
    generator = VIT.generator()
    maps = cp.InfluenceMaps.load(folder / "out" / "maps-blocks.0.safetensors")
    expected = cp.InfluenceMap(generator, "blocks.0", axis="token").attribute(n_pairs=4, where=mask, strength=0.5)
    assert torch.equal(maps.maps, expected.maps)
    assert maps.units[0].kind == "token"
    one = [
        "hybridize",
        "of_a_user:decoder",
        "--layer",
        "blocks.0",
        "--axis",
        "head",
        "--heads",
        "2",
        "--units",
        "0;1",
        "-n",
        "2",
    ]
    assert main([*one, "--no-progress", "--out", "out"]) == 0
    assert cp.Hybrids.load(folder / "out" / "hybrids-blocks.0.safetensors").units[1].kind == "head"


def test_features_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = VIT.generator()
    cp.bases.PCA(3).fit(generator, "blocks.0", n_samples=20).save(folder / "basis.safetensors")
    command = ["influence", "of_a_user:decoder", "--layer", "blocks.0", "--pairs", "2", "--no-progress", "--out", "out"]
    assert main([*command, "--basis", "basis.safetensors"]) == 0
    assert len(cp.InfluenceMaps.load(folder / "out" / "maps-blocks.0.safetensors")) == 3
    (folder / "text.npy").write_text("no mask")
    assert main([*command, "--where", "text.npy"]) == 2
    assert "text.npy holds no mask" in capsys.readouterr().err
