"""Hybrids of given pictures in the report: the right pictures, their latents, and generators that cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.vae import VAE, vae
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.registry.folders import save_folder
from counterfactual_probe.reporting.sections.pictures import TITLE, encoded_section
from counterfactual_probe.reporting.study import Settings, Study, run_study
from support.toys import PLAIN, untrained

SETTINGS = Settings(n_modules=2, max_pairs=16, shown=3)
LAYER = "decoder.level2"


@pytest.fixture(scope="module")
def gen() -> cp.GeneratorAdapter:
    module = untrained(lambda: VAE(6, (8, 6), 3, image_size=16, start=4), dtype=torch.float32)
    return vae(module.state_dict(), name="small")


@pytest.fixture(scope="module")
def study(gen: cp.GeneratorAdapter) -> Study:
    return run_study(gen, [LAYER], settings=SETTINGS)


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 16, 16), np.uint8)


def test_the_hybrids_are_of_the_pictures_latents(gen: cp.GeneratorAdapter, study: Study) -> None:
    given = pictures(6)
    section = encoded_section(gen, study, given)
    made = section.results[f"hybrids-{LAYER}.safetensors"]
    floats = torch.from_numpy(given).float() / 127.5 - 1
    latents = gen.encode(floats)
    images = gen(latents)
    # In an order that the seed decides: each base and each source is one of the six, and no two the same.
    shown = torch.cat([made.base, made.source])
    found = (shown[:, None] - images[None]).abs().flatten(2).amax(2).argmin(1)
    assert sorted(found.tolist()) == list(range(6))
    expected = cp.Hybridizer(gen, LAYER).hybridize(
        latents[found[:3]], latents[found[3:]], units=study.layers[0].finder.modules_
    )
    torch.testing.assert_close(made.images, expected.images, rtol=0, atol=1e-5)
    assert not torch.allclose(made.images[0], made.base, atol=1e-3)
    error = float((images - floats).abs().mean() / 2)
    assert f"differ from the pictures by {100 * error:.1f} % of the range" in section.sentences[0]


def test_fewer_pictures_than_the_study_shows(gen: cp.GeneratorAdapter, study: Study) -> None:
    made = encoded_section(gen, study, pictures(3)).results[f"hybrids-{LAYER}.safetensors"]
    assert len(made.base) == 1
    with pytest.raises(cp.ProbeError, match="1 picture given and a hybrid is of two; give at least two"):
        encoded_section(gen, study, pictures(1))


def test_pictures_of_a_generator_are_not_those_trained_on(gen: cp.GeneratorAdapter, study: Study) -> None:
    figure = encoded_section(gen, study, "generator:dcgan-faces").figures[0]
    assert "6 samples of the generator dcgan-faces (seed 1)" in figure.parameters  # the recipes take seed 0


def test_a_generator_without_an_encoder(study: Study) -> None:
    with pytest.raises(cp.ProbeError, match=r"cannot find the latents of given images.*such as a VAE's"):
        encoded_section(PLAIN.generator(), study, pictures(4))


def test_the_command(
    gen: cp.GeneratorAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_folder("mine", "vae", gen.module.state_dict(), config={"name": "mine"})
    Path("photos").mkdir()
    for i, pixels in enumerate(pictures(4)):
        Image.fromarray(pixels.transpose(1, 2, 0)).resize((20, 18)).save(f"photos/{i}.png")
    more = ["--pairs", "16", "--modules", "2", "--layers", LAYER, "--no-progress", "--out", "r"]
    assert cli.main(["report", "./mine", "--pictures", "photos", *more]) == 0
    page = Path("r/report.html").read_text()
    assert f">{TITLE}</h2>" in page
    assert Path(f"r/section-hybrids-of-given-pictures-hybrids-{LAYER}.safetensors").exists()
    capsys.readouterr()
    assert cli.main(["report", "dcgan-faces", "--pictures", "photos", "--out", "s"]) == 2
    assert "dcgan-faces cannot find the latents of given images" in capsys.readouterr().err
    assert not Path("s").exists()
