"""The invariance test: literal twins, exact identities, errors that add up over scales, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.invariance.scales import Scales
from counterfactual_probe.invariance.transformations import Transformation, flip, rotation, shift
from counterfactual_probe.reporting.sections.invariance import SECTION, as_csv
from counterfactual_probe.reporting.study import Settings, run_study
from support import twins
from support.figures import SavedFigures, cells, displayed, row_names
from support.paths import DOCS, run_python
from support.toys import NOISY, PLAIN, TOKENS, VECTOR, seeded, untrained, vectors
from support.twins import literal_stretch

IDENTITY = Transformation("nothing", ((1.0, 0.0), (0.0, 1.0)))


def literal_components(images: Tensor, levels: int) -> list[Tensor]:
    """Haar word by word: what a mean over 2^k × 2^k pixels has that one over twice as many has not."""

    def means(k: int) -> Tensor:
        found = torch.empty_like(images)
        for y in range(images.shape[-2]):
            for x in range(images.shape[-1]):
                top, left = y // 2**k * 2**k, x // 2**k * 2**k
                found[..., y, x] = images[..., top : top + 2**k, left : left + 2**k].mean((-2, -1))
        return found

    smooth = [means(k) for k in range(levels + 1)]
    return [smooth[levels], *(smooth[k - 1] - smooth[k] for k in range(levels, 0, -1))]


def pointwise(colours: int = 3) -> cp.GeneratorAdapter:
    """Layers after the first are 1×1 convolutions and nonlinearities: whatever moves pixels commutes with them."""
    module = untrained(
        lambda: nn.Sequential(
            nn.ConvTranspose2d(5, 6, 8), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Tanh(), nn.Conv2d(4, colours, 1), nn.Tanh()
        ),
        seed=2,
    )
    return cp.wrap(module, lambda n, rng: torch.randn(n, 5, 1, 1, generator=rng, dtype=torch.float64))


def test_haar_is_its_literal_twin() -> None:
    images = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scales = Scales((16, 32))
    assert len(scales) == 5
    found = scales.components(images.numpy())
    expected = literal_components(images, 4)
    for own, twin in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, twin.numpy(), atol=1e-13)
    energies = [float((twin**2).mean()) for twin in expected]
    np.testing.assert_allclose(scales.energies(images.numpy()), energies, rtol=1e-12)
    assert not np.allclose(found[0], Scales((16, 32), 3).components(images.numpy())[0])


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym3"])
def test_components_and_their_squares_add_up(wavelet: str) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32))
    scales = Scales((32, 32), wavelet=wavelet)
    assert len(scales) >= 3
    np.testing.assert_allclose(scales.components(images).sum(0), images, atol=1e-13)
    np.testing.assert_allclose(scales.energies(images).sum(), (images**2).mean(), rtol=1e-10)


def test_every_part_is_its_literal_twin() -> None:
    generator, module = PLAIN.generator(), PLAIN.plain()
    z = generator.sample(3, seed=4)
    result = cp.StretchTest(generator, "main.2").measure(z)
    assert len(result) == 3
    for i in range(3):
        base = twins.forward(module, twins.one(z, i), {})
        changed = twins.forward(module, twins.one(z, i), {"main.2": literal_stretch})
        target = literal_stretch(base)
        torch.testing.assert_close(result.images[i], changed[0].float(), rtol=0, atol=1e-6)
        torch.testing.assert_close(result.base[i], base[0].float(), rtol=0, atol=1e-6)
        torch.testing.assert_close(result.transformed[i], target[0].float(), rtol=0, atol=1e-6)
        error = changed - target
        assert float(result.image_mse[i]) == pytest.approx(float((error**2).mean()), rel=1e-9)
        per_scale = [float((part**2).mean()) for part in literal_components(error, 4)]
        np.testing.assert_allclose(result.image_mse_per_scale[i].numpy(), per_scale, rtol=1e-8)
        change = [float((part**2).mean()) for part in literal_components(base - target, 4)]
        np.testing.assert_allclose(result.image_change_per_scale[i].numpy(), change, rtol=1e-8)
    mse = result.image_mse.numpy()
    assert float(result.mse) == pytest.approx(mse.mean())
    assert float(result.standard_error) == pytest.approx(mse.std(ddof=1) / 3**0.5)
    assert float(result.mse) > 10 * 1e-6, "what is compared is not zero"


def test_the_errors_of_the_scales_add_up_to_the_error(faces: cp.GeneratorAdapter) -> None:
    result = cp.StretchTest(faces, "main.8").measure(faces.sample(6))
    assert result.mse_per_scale.shape == (5,)
    assert float(result.mse_per_scale.sum()) == pytest.approx(float(result.mse), rel=1e-12)
    np.testing.assert_allclose(result.image_mse_per_scale.sum(1).numpy(), result.image_mse.numpy(), rtol=1e-12)
    assert result.images.shape == (6, 3, 64, 64)
    # S000 §5.1.1: kernels after the layer are not stretched, so details suffer more than what is coarse.
    relative = result.relative_mse_per_scale
    assert relative[-1] > 3 * relative[0]
    deeper = cp.StretchTest(faces, "main.11").measure(faces.sample(6))
    assert deeper.mse < result.mse / 2


@pytest.mark.parametrize("layer", ["main.0", "main.3", "main.6"])
def test_nothing_done_changes_nothing(layer: str) -> None:
    generator = PLAIN.generator()
    result = cp.StretchTest(generator, layer, transformation=IDENTITY).measure(n_images=4)
    assert float(result.mse) == 0
    assert not result.mse_per_scale.any()
    assert torch.equal(result.images, result.base)
    assert cp.StretchTest(generator, layer).measure(n_images=4).mse > 0


def test_the_image_itself_is_a_layer_without_error() -> None:
    generator = pointwise()
    assert float(cp.StretchTest(generator, "5").measure(n_images=3).mse) == 0


@pytest.mark.parametrize(
    "transformation", [flip(), flip("vertical"), shift(0.25), shift(-0.125, 0.5), rotation(90)], ids=lambda t: t.name
)
def test_pixelwise_layers_commute_with_whatever_moves_pixels(transformation: Transformation) -> None:
    generator = pointwise()
    result = cp.StretchTest(generator, "1", transformation=transformation).measure(n_images=3)
    assert float(result.mse) < 1e-30
    assert result.image_change_per_scale.sum(1).min() > 1e-3, "the transformation does something"
    # A stretch mixes neighbours before the nonlinearity in one way and after it in the other.
    assert cp.StretchTest(generator, "1").measure(n_images=3).mse > 1e-6


def test_convolutions_commute_with_shifts_inside_and_with_no_flip() -> None:
    with seeded(3):
        module = nn.Sequential(nn.ConvTranspose2d(5, 6, 16), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)).double()
    generator = cp.wrap(module, lambda n, rng: torch.randn(n, 5, 1, 1, generator=rng, dtype=torch.float64))
    moved = cp.StretchTest(generator, "1", transformation=shift(0.25)).measure(n_images=3)
    inside = (..., slice(1, -1), slice(5, -1))
    assert torch.equal(moved.images[inside], moved.transformed[inside])
    assert not torch.equal(moved.images, moved.transformed), "zeros are padded where the edge goes on"
    mirrored = cp.StretchTest(generator, "1", transformation=flip()).measure(n_images=3)
    assert (mirrored.images - mirrored.transformed)[inside].abs().max() > 0.01


def test_a_function_of_ones_own() -> None:
    def upside_down(maps: Tensor) -> Tensor:
        return maps.flip(-2)

    generator = PLAIN.generator()
    own = cp.StretchTest(generator, "main.2", transformation=upside_down).measure(n_images=3)
    ours = cp.StretchTest(generator, "main.2", transformation=flip("vertical")).measure(n_images=3)
    assert torch.equal(own.image_mse, ours.image_mse)
    assert own.provenance["transformation"] == "upside_down"
    assert ours.provenance["transformation"] == "vertical flip"


def test_batches_and_what_is_kept_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = PLAIN.generator()
    test = cp.StretchTest(generator, "main.2")
    whole = test.measure(generator.sample(7, seed=3))
    assert test.measure(n_images=7, seed=3).image_mse.tolist() == whole.image_mse.tolist()
    assert test.measure(n_images=7, seed=4).image_mse.tolist() != whole.image_mse.tolist()
    few = test.measure(n_images=7, seed=3, keep=2)
    assert torch.equal(few.image_mse, whole.image_mse)
    assert torch.equal(few.images, whole.images[:2])
    monkeypatch.setattr(type(generator), "batch_limit", lambda self: 3)
    parts = test.measure(n_images=7, seed=3)
    np.testing.assert_allclose(parts.image_mse.numpy(), whole.image_mse.numpy(), rtol=1e-10)
    assert test.measure(n_images=1).standard_error.isnan()


def test_noise_in_the_forward_is_the_same_in_both_runs() -> None:
    generator = NOISY.generator()
    result = cp.StretchTest(generator, "main.2", transformation=IDENTITY).measure(n_images=3)
    assert float(result.mse) == 0


def test_the_module_is_left_as_it_was_found() -> None:
    generator = PLAIN.generator()
    module = generator.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def fails(maps: Tensor) -> Tensor:
        raise RuntimeError("no")

    cp.StretchTest(generator, "main.2").measure(n_images=2)
    with pytest.raises(cp.ProbeError, match=r"the transformation raised RuntimeError: no; call it on a tensor"):
        cp.StretchTest(generator, "main.2", transformation=fails).measure(n_images=2)
    assert module.training
    assert not any(part._forward_hooks for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: cp.StretchTest(VECTOR.generator(), "mapping.1"),
            r"layer 'mapping.1' has one number per channel, and no",
        ),
        (
            lambda: cp.StretchTest(TOKENS.generator(), "mlp"),
            r"layer 'mlp' has tokens in a row of \d+, and no height and",
        ),
        (lambda: cp.StretchTest(PLAIN.generator(), "main.22"), r"layer 'main.22' is not in this generator; nearest"),
        (lambda: cp.StretchTest(PLAIN.generator(), ["main.2", "main.3"]), r"2 layers are given to one test; make a"),
        (
            lambda: cp.StretchTest(PLAIN.generator(), "main.2", transformation=1.5),
            r"the transformation is 1.5; give one",
        ),
        (
            lambda: cp.StretchTest(PLAIN.generator(), "main.2", levels=9),
            r"9 levels asked of images of 16×16, which 'haar'",
        ),
        (
            lambda: cp.StretchTest(PLAIN.generator(), "main.2", wavelet="bior2.2"),
            r"'bior2.2' is not orthogonal, so err",
        ),
        (lambda: cp.StretchTest(PLAIN.generator(), "main.2", wavelet="hare"), r"PyWavelets knows no wavelet 'hare'"),
        (
            lambda: Scales((15, 16)),
            r"images of 15×16 cannot be halved by 'haar' wavelets, not even once; give levels=0",
        ),
        (
            lambda: Scales((12, 16), 3),
            r"3 levels asked of images of 12×16, .* can halve 2 times; give levels=2 or fewer",
        ),
    ],
)
def test_mistakes_are_sentences(make: Any, sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        make()


def test_mistakes_of_measuring_are_sentences() -> None:
    generator = PLAIN.generator()
    test = cp.StretchTest(generator, "main.2")
    with pytest.raises(cp.ProbeError, match="4 latents and n_images=4 are given; give one of the two"):
        test.measure(generator.sample(4), n_images=4)
    with pytest.raises(cp.ProbeError, match="n_images is 0"):
        test.measure(n_images=0)
    halved = cp.StretchTest(generator, "main.2", transformation=lambda maps: maps[..., ::2])
    with pytest.raises(cp.ProbeError, match=r"the transformation returned \(\d+, \d+, \d+\) for maps of"):
        halved.measure(n_images=2)


def test_odd_sizes_have_one_scale() -> None:
    result = cp.StretchTest(PLAIN.generator(), "main.2", levels=0).measure(n_images=3)
    assert result.mse_per_scale.shape == (1,)
    assert float(result.mse_per_scale[0]) == pytest.approx(float(result.mse), rel=1e-12)
    assert result.plot()[0] is not None


def test_it_prints_saves_and_loads(tmp_path: Path) -> None:
    result = cp.StretchTest(PLAIN.generator(), "main.2").measure(n_images=3, keep=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.images = result.base  # type: ignore[misc]
    text = repr(result)
    assert "layer main.2, stretch 1.5: MSE " in text
    assert f"{float(result.mse):.3g} ± {float(result.standard_error):.2g} over 3 images" in text
    again = cp.Invariance.load(result.save(tmp_path / "invariance.safetensors"))
    assert torch.equal(again.image_mse_per_scale, result.image_mse_per_scale)
    assert torch.equal(again.images, result.images)
    assert repr(again) == text
    with pytest.raises(cp.ProbeError, match="holds Invariance and not Hybrids"):
        cp.Hybrids.load(tmp_path / "invariance.safetensors")
    for levels, message in (
        (1, "errors of 5 scales and its provenance 1 levels, which are 2"),
        (9, "9 levels asked of"),
    ):
        other = dataclasses.replace(result, provenance=result.provenance | {"levels": levels})
        with pytest.raises(cp.ProbeError, match=message):
            cp.Invariance.load(other.save(tmp_path / "other.safetensors"))
    lines = as_csv([result]).splitlines()
    assert len(lines) == 1 + 1 + 5
    assert float(lines[1].split(",")[3]) == pytest.approx(float(result.mse), rel=1e-8)


def test_plots_show_what_they_are_given() -> None:
    generator = PLAIN.generator()
    results = [cp.StretchTest(generator, layer).measure(n_images=3) for layer in ("main.2", "main.6")]
    first, second = results
    for plot in (first.plot_images, first.plot_scales):
        ax = Figure().add_subplot()
        assert plot(ax, against=second)[1] is ax
    labels = [label.get_text() for label in first.plot_images(against=[second])[1].get_yticklabels()]
    assert labels == ["image", "main.2\ntransformed", "main.6\ntransformed", "image\ntransformed"]
    for relative in (False, True):
        _, ax = first.plot(against=second, relative=relative)
        heights = [bar.get_height() for container in ax.containers[1::2] for bar in container]
        expected = [r.relative_mse_per_scale if relative else r.mse_per_scale for r in results]
        np.testing.assert_allclose(sorted(heights), sorted(torch.cat(expected).tolist()))
    assert results[0].plot_images()[0] is not results[0].plot_scales()[0]
    other = cp.StretchTest(generator, "main.6").measure(n_images=3, seed=1)
    with pytest.raises(cp.ProbeError, match=r"'main.2' and 'main.6' differ in their seed \(0 and 1\)"):
        first.plot(against=other)
    with pytest.raises(cp.ProbeError, match="image 5 asked of a result that keeps 3"):
        first.plot_scales(image=5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["invariance", "dcgan-faces", "--layers", "main.11", "--images", "3", "--out", str(tmp_path)]
    assert cli.main([*arguments, "--transformation", "flip", "--no-progress"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "layer main.11, horizontal flip: MSE" in captured.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "images-main.11.png",
        "invariance-main.11.command.json",
        "invariance-main.11.csv",
        "invariance-main.11.safetensors",
        "mse-main.11.png",
        "relative-mse-main.11.png",
        "scales-main.11.png",
    ]
    faces = cp.load("dcgan-faces")
    direct = cp.StretchTest(faces, "main.11", transformation=flip()).measure(n_images=3)
    assert torch.equal(cp.Invariance.load(tmp_path / "invariance-main.11.safetensors").image_mse, direct.image_mse)
    assert cli.main([*arguments, "--transformation", "melt"]) == 2
    assert "the transformation is 'melt'" in capsys.readouterr().err


def test_its_section_of_the_report() -> None:
    generator = cp.wrap(PLAIN.plain().float(), vectors(5, torch.float32))
    study = run_study(generator, ["main.6"], settings=Settings(2, max_pairs=16, shown=2))
    said: list[str] = []
    section = SECTION.make(generator, study, said.append)
    assert said == ["stretching layer main.6"]
    result = cp.StretchTest(generator, "main.6").measure(keep=8)
    assert section.tables[0].rows[0][:2] == ("main.6", f"{float(result.mse):.3g}")
    assert section.results["mse.csv"] == as_csv([result])
    assert [figure.name for figure in section.figures] == ["images", "mse", "scales"]
    assert "1 layer." in section.sentences[0]


@pytest.mark.examples
def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(run_python(DOCS / "invariance.md", names)) == 2
    out = capsys.readouterr().out
    assert "MSE 0.00447 ± 0.00038 over 64 images" in out, "the page says so"
    (ax,) = figure_of("images.png").axes
    result: cp.Invariance = names["result"]
    rows = torch.stack([result.base[:8], result.images[:8], result.transformed[:8]])
    np.testing.assert_allclose(cells(ax, 3, 8), displayed(rows), atol=1e-6)
    assert "main.8" in row_names(ax)[1]
