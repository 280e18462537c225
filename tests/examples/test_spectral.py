"""The examples on spectral dependency: levels, claims, and from their command lines to their files, at toy size."""

from __future__ import annotations

import dataclasses
import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from counterfactual_probe.adapters.began import BEGANDiscriminator, BEGANGenerator
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator, DCGANGenerator
from counterfactual_probe.adapters.vae import VAE
from scipy.stats import t
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.registry.folders import save_folder
from support.figures import SavedFigures, cells, legend_names, row_names
from support.paths import EXAMPLES
from support.toy_training import squares

# Ratios close to 1, some of them with tails to either side, and most of them low.
NARROW = [0.98, 1.02, 1.01, 0.99]
WIDE = [0.8, 1.02, 1.01, 1.5]
LOW = [0.7, 0.72, 0.71, 1.3]
pytestmark = [pytest.mark.examples, pytest.mark.usefixtures("examples")]


def example(name: str) -> Any:
    return importlib.import_module(f"spectral_{name}")


# --- levels -----------------------------------------------------------------------------------------


def decoder() -> nn.Sequential:
    """Two pairs on 8×8, of different numbers of pathways, and one between 4×4 and 8×8."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 5, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(5, 2, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2, 3, 3, padding=1),
    )


def test_pairs_on_one_grid_are_one_level() -> None:
    sd = cp.SpectralDependency(decoder())
    fine, coarse = example("levels").levels(sd.table())
    assert [(level.size, level.rate, level.name) for level in (fine, coarse)] == [(8, 1, "8×8"), (8, 2, "4↔8")]
    assert fine.pairs == ("2 → 4", "4 → 6")
    one, two = (sd.measure(*pair).ratio.reshape(-1).numpy() for pair in (("2", "4"), ("4", "6")))
    both = np.concatenate([one, two])
    assert len(one) != len(two)
    assert fine.mean == pytest.approx(both.mean(), abs=1e-12)
    assert fine.std == pytest.approx(both.std(), abs=1e-12)
    assert fine.below == pytest.approx(np.mean(both < 0.9), abs=1e-12)
    assert fine.above == pytest.approx(np.mean(both > 1.45), abs=1e-12)
    assert fine.deviation == pytest.approx(np.sqrt(np.mean((both - 1) ** 2)), abs=1e-12)
    assert fine.histogram.sum() == len(both)
    # A mean of the pairs' means, or of their spreads, would not be that of all pathways.
    assert abs(fine.mean - (one.mean() + two.mean()) / 2) > 1e-4
    assert abs(fine.std - (one.std() + two.std()) / 2) > 1e-4


def test_an_encoder_has_the_levels_of_its_decoder() -> None:
    encoder = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 4, 4, 2, 1), nn.Conv2d(4, 3, 4)
    )
    module = example("levels")
    one = module.levels(cp.SpectralDependency(decoder()).table())
    two = module.levels(cp.SpectralDependency(encoder, example=torch.zeros(2, 3, 8, 8)).table())
    assert [level.name for level, _ in module.shared(one, two)] == ["8×8", "4↔8"]
    smaller = module.levels(cp.SpectralDependency(encoder, example=torch.zeros(2, 3, 16, 16)).table())
    assert module.shared(one, smaller) == []


def planted(ratios: Any, **changes: Any) -> Any:
    """A level with these ratios."""
    module = example("levels")
    values = np.asarray(ratios, np.float64)
    level = module.Level(
        size=8,
        rate=2,
        pairs=("a → b",),
        histogram=np.histogram(values, module.EDGES)[0],
        mean=float(values.mean()),
        std=float(values.std()),
        below=float(np.mean(values < 0.9)),
        above=float(np.mean(values > 1.45)),
    )
    return dataclasses.replace(level, **changes)


def test_the_distance_is_how_far_ratios_have_to_move() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.gamma(20, 0.05, 500), rng.gamma(9, 0.15, 500)
    twin = np.abs(np.sort(one) - np.sort(two)).mean()
    distance = example("levels").distance
    assert distance(planted(one), planted(two)) == pytest.approx(twin, abs=0.003)  # a bin is 1/400 wide
    assert distance(planted(one), planted(one)) == 0
    assert distance(planted(one), planted(one + 0.5)) == pytest.approx(0.5, abs=0.003)


def test_a_difference_that_chance_makes_too_says_nothing() -> None:
    module = example("levels")
    chance = [[planted(NARROW)], [planted(WIDE)], [planted(LOW, size=4)]]
    least = module.margin(planted(NARROW), chance)
    assert least == pytest.approx(planted(WIDE).std - planted(NARROW).std)
    assert module.margin(planted(NARROW, size=16), chance) == 0
    assert module.told(2 * least, least) == "holds here"
    assert module.told(-2 * least, least) == "does not hold here"
    assert module.told(0.0) == "is undecided here"
    assert module.told(least / 2, least).startswith("is undecided here")
    assert module.told(-least / 2, least).startswith("is undecided here")


@pytest.mark.parametrize(("ratios", "mode"), [([0.91, 0.93, 1.3], 0.925), ([1.01, 1.04, 1.02, 0.7, 0.8], 1.025)])
def test_the_mode_is_the_highest_bar(ratios: list[float], mode: float) -> None:
    assert planted(ratios).mode == pytest.approx(mode)


def test_random_kernels_differ_between_draws_and_leave_the_network_alone() -> None:
    module = decoder()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    example_input = torch.zeros(2, 3, 1, 1)
    one, two = example("levels").by_chance(module, example_input, draws=2)
    assert [level.name for level in one] == ["8×8", "4↔8"]
    assert one[0].std != two[0].std
    again = example("levels").by_chance(module, example_input, draws=1)
    assert again[0][0].std == one[0].std
    other = example("levels").by_chance(module, example_input, draws=1, seed=1)
    assert other[0][0].std != one[0].std
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


# --- claims -----------------------------------------------------------------------------------------


def drawn() -> list[list[Any]]:
    """Two draws."""
    return [[planted(NARROW)], [planted(np.array(NARROW) ** 2)]]


def compared(building: list[Any], extracting: list[Any], kind: str = "GAN", **changes: Any) -> Any:
    fields = {"chance": drawn(), "other_chance": drawn(), "opposite": "other", **changes}
    return example("claims").Compared(
        "toy", kind, [planted(values) for values in building], [planted(values) for values in extracting], **fields
    )


@pytest.mark.parametrize(
    ("claim", "kind", "own", "other", "said"),
    [
        ("concentrated", "GAN", NARROW, WIDE, "holds"),
        ("concentrated", "GAN", WIDE, NARROW, "does not hold"),
        ("broader", "GAN", NARROW, WIDE, "holds"),
        ("broader", "GAN", WIDE, NARROW, "does not hold"),
        ("broader", "GAN", NARROW, list(np.array(NARROW) * 1.01), "does not hold"),  # no more than chance
        ("negative_tail", "GAN", NARROW, LOW, "holds only in its first half"),
        ("negative_tail", "GAN", WIDE, LOW, "holds"),
        ("negative_tail", "GAN", WIDE, NARROW, "holds only in its second half"),
        ("negative_tail", "GAN", NARROW, NARROW, "does not hold"),
        ("modes", "VAE", NARROW, LOW, "holds"),
        ("modes", "VAE", LOW, NARROW, "does not hold"),
        ("modes", "VAE", NARROW, list(np.array(NARROW) + 0.1), "does not hold"),
    ],
)
def test_a_claim_is_read_off_the_numbers(claim: str, kind: str, own: Any, other: Any, said: str) -> None:
    verdict = getattr(example("claims"), claim)(compared([own], [other], kind))
    assert verdict.holds == said
    assert str(verdict).startswith(f"toy: “{verdict.claim}” {said}. ")


def test_a_claim_may_hold_at_some_levels() -> None:
    claims = example("claims")
    own = [planted(NARROW), planted(WIDE, size=4)]
    other = [planted(WIDE), planted(NARROW, size=4)]
    one = claims.Compared("toy", "GAN", own, other)
    assert claims.broader(one).holds == "holds at 4↔8 and nowhere else"
    assert claims.finest_depends_most(one).holds == "does not hold"
    assert claims.finest_depends_most(dataclasses.replace(one, building=own[::-1])).holds == "holds"


def test_a_spread_is_compared_with_what_random_kernels_spread() -> None:
    claims = example("claims")
    one = compared([NARROW], [WIDE])
    assert claims.broader(one).holds == "holds"
    wide_by_chance = dataclasses.replace(one, other_chance=[[planted(np.array(WIDE) * 100)]], chance=[])
    assert claims.broader(wide_by_chance).holds == "does not hold"
    finest = claims.Compared("toy", "GAN", [planted(WIDE), planted(NARROW, size=4)])
    assert claims.finest_depends_most(finest).holds == "holds"
    chance = [[planted(np.array(WIDE) * 100), planted(NARROW, size=4)]]
    assert claims.finest_depends_most(dataclasses.replace(finest, chance=chance)).holds == "does not hold"


def test_claims_across_networks() -> None:
    claims = example("claims")
    apart, close = compared([WIDE], [NARROW], "VAE"), compared([NARROW], [NARROW])
    assert [verdict.holds for verdict in claims.across(apart, close)] == ["holds", "holds"]
    assert [verdict.holds for verdict in claims.across(close, apart)] == ["does not hold", "does not hold"]
    alone = dataclasses.replace(close, extracting=[])
    assert len(claims.across(apart, alone)) == 1


def test_networks_are_compared_at_levels_that_both_have() -> None:
    claims = example("claims")
    vae = claims.Compared("vae", "VAE", [planted(np.array(WIDE) * 10, size=16), planted(NARROW)])
    gan = claims.Compared("gan", "GAN", [planted(WIDE), planted(NARROW, size=4)])
    (verdict,) = claims.across(vae, gan)  # the VAE's mean over levels is larger, by a level that the GAN lacks
    assert verdict.holds == "does not hold"
    assert verdict.numbers.count("↔") == 1
    assert claims.across(dataclasses.replace(vae, building=vae.building[:1]), gan) == []
    # No more than random kernels differ by between draws.
    chance = [[planted(WIDE)], [planted(np.array(WIDE) * 1.5)]]
    wider = dataclasses.replace(vae, building=[planted(np.array(WIDE) * 1.1)], chance=chance)
    assert claims.across(wider, dataclasses.replace(gan, chance=chance))[0].holds == "does not hold"
    sure = dataclasses.replace(wider, chance=chance[:1])
    assert claims.across(sure, dataclasses.replace(gan, chance=chance[:1]))[0].holds == "holds"


def test_each_kind_has_its_claims() -> None:
    verdicts = example("claims").verdicts
    assert len(verdicts(compared([NARROW], [WIDE]))) == 3
    assert len(verdicts(compared([NARROW], [WIDE], "VAE"))) == 2
    assert len(verdicts(compared([NARROW], [], chance=[]))) == 0


# --- networks ---------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    made = {name: tmp_path / name for name in ("vae", "dcgan", "began")}
    save_folder(made["vae"], "vae", VAE(3, (6, 4), 3, image_size=16, start=4).state_dict())
    save_folder(made["dcgan"], "dcgan", DCGANGenerator(3, [6, 4], 3).state_dict())
    began = {"width": 4, "image_size": 16}
    save_folder(made["began"], "began", BEGANGenerator(3, **began).state_dict())
    for name, opposite in (("dcgan", DCGANDiscriminator([4, 6], 3)), ("began", BEGANDiscriminator(3, **began))):
        safetensors.torch.save_file(opposite.state_dict(), made[name] / "discriminator.safetensors")
    return made


def test_networks_and_their_opposites(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = [word for name, path in folders.items() for word in ("--folder", f"{name}={path}")]
    example("networks").main(["--networks", "nobody", *given, "--draws", "2", "--out", str(out)])
    said = capsys.readouterr().out
    assert "left out: no generator named 'nobody' is in the registry" in said
    opposites = {"vae": "encoder", "dcgan": "discriminator", "began": "discriminator-encoder"}
    for name, opposite in opposites.items():
        held = {path.name for path in (out / name).iterdir()}
        assert {"histograms.png", "kernels.png", f"{name}.csv", f"{name}-{opposite}.csv"} <= held
    findings = (out / "findings.md").read_text()
    assert findings in said
    assert findings.count("“a rather good concentration around 1, which suggests independence”") == 3
    assert findings.count("“a mode around one for the decoder, below one for the encoder”") == 1
    assert findings.count("“the discriminator's distribution is broader, especially at fine scales”") == 2
    rows = json.loads((out / "table.json").read_text())
    assert {row["network"] for row in rows} == {
        "vae", "vae: encoder", "dcgan", "dcgan: discriminator", "began", "began: discriminator's encoder",
    }  # fmt: skip
    own = [row for row in rows if row["network"] == "dcgan"]
    assert [row["level"] for row in own] == ["8↔16", "4↔8"]
    measured = cp.SpectralDependency(cp.load(folders["dcgan"])).table().rows
    assert [row["std"] for row in own] == pytest.approx([row["std"] for row in measured[::-1]], abs=1e-12)
    assert own[0]["random_std_least"] < own[0]["random_std"] < own[0]["random_std_largest"]


def test_a_generator_alone_has_no_opposite(folders: dict[str, Path], tmp_path: Path) -> None:
    (folders["dcgan"] / "discriminator.safetensors").unlink()
    out = tmp_path / "out"
    example("networks").main(["--networks", "--folder", f"mine={folders['dcgan']}", "--draws", "1", "--out", str(out)])
    assert "discriminator" not in (out / "findings.md").read_text()
    assert {path.name for path in (out / "mine").glob("*.csv")} == {"mine.csv"}


def test_nothing_to_measure_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(EXAMPLES / "spectral_networks.py")
    monkeypatch.setattr(sys, "argv", [script, "--networks", "nobody", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="none of nobody can be loaded; name others with --networks or --folder"):
        runpy.run_path(script, run_name="__main__")
    monkeypatch.setattr(sys, "argv", [script, "--folder", "mine"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(script, run_name="__main__")


# --- sweeps -----------------------------------------------------------------------------------------


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    np.save(tmp_path / "squares.npy", squares())
    data = ["--data", str(tmp_path / "squares.npy"), "--size", "16", "--batch", "5", "--latent", "3", "--width", "4"]
    return [*data, "--precision", "float32", "--device", "cpu", "--shown", "2"]


def test_the_sweep_of_vaes(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    out = tmp_path / "out"
    arguments = [*quick, "--widths", "2", "3", "--betas", "0.1", "0.01", "--steps", "3", "--out", str(out)]
    example("vae_sweep").main(arguments)
    models = [f"{last} channels, β = {beta:g}" for last in (2, 3) for beta in (0.1, 0.01)]
    assert legend_names(figure_of(out / "decoders.png")) == legend_names(figure_of(out / "encoders.png")) == models
    assert legend_names(figure_of(out / "worst-best.png")) == [models[0], models[-1]]
    assert all(ax.has_data() for ax in figure_of(out / "worst-best.png").axes if ax.get_visible())
    (sheet,) = figure_of(out / "samples.png").axes
    assert cells(sheet, 4, 2).shape[2:4] == (16, 16)
    assert row_names(sheet) == models
    findings = (out / "findings.md").read_text()
    assert sum(findings.count(said) for said in ("holds here", "does not hold here", "is undecided here")) == 5
    assert "(2 channels, β = 0.1) and (3 channels, β = 0.01)" in findings
    rows = json.loads((out / "table.json").read_text())
    assert {(row["channels"], row["beta"], row["network"]) for row in rows} == {
        (last, beta, network) for last in (2, 3) for beta in (0.1, 0.01) for network in ("decoder", "encoder")
    }
    gen = cp.load(out / "vae-3-0.01-0")
    assert gen.module.decoder.image[0].in_channels == 3
    written = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    table = (out / "table.csv").read_text()
    example("vae_sweep").main(arguments)
    assert written == {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert (out / "table.csv").read_text() == table
    assert findings in capsys.readouterr().out
    example("vae_sweep").main([*arguments, "--seeds", "2"])  # trains the second seed alone
    assert all(path.read_bytes() == kept for path, kept in written.items())
    assert (out / "vae-3-0.01-1" / "model.safetensors").exists()
    rows = json.loads((out / "table.json").read_text())
    assert {row["seed"] for row in rows} == {0, 1}
    assert (out / "findings.md").read_text().count("over 2 seeds") == 5


def test_a_claim_of_the_sweep_has_its_interval() -> None:
    sweep = example("vae_sweep")
    claim = sweep.Claim("so", "It", "both", lambda value: value, sign=-1)
    worst = [1.0, 1.1, 0.9, 1.0, 1.05]
    assert claim.told(worst, [value - 0.1 for value in worst], 0.0).startswith("“so” holds here")
    assert claim.told(worst, [value + 0.1 for value in worst], 0.0).startswith("“so” does not hold here")
    apart = claim.told(worst, [1.1, 0.9, 1.0, 1.0, 1.0], 0.0)
    half = t.ppf(0.975, 4) * np.std([0.1, -0.2, 0.1, 0, -0.05], ddof=1) / 5**0.5
    assert "is undecided here (5 seeds differ by as much)" in apart
    assert f"± {half:.4f} over 5 seeds" in apart
    assert "is undecided here (random kernels" in claim.told([1.0], [0.9], 0.2)


def test_dropout_changes_training_alone() -> None:
    module = example("dcgan_dropout")
    dropping = module.DropoutGenerator(3, [6, 4], 3, rate=0.5)
    plain = DCGANGenerator(3, [6, 4], 3)
    plain.load_state_dict(dropping.state_dict())
    z = torch.randn(5, 3, 1, 1)
    assert torch.equal(dropping.eval()(z), plain.eval()(z))
    dropping.train()
    plain.train()
    assert not torch.equal(dropping(z), plain(z))
    dropping.dropout.p = 0.0
    assert torch.equal(dropping(z), plain(z))


def test_both_trainings_start_from_the_same_weights() -> None:
    recipe = example("dcgan_dropout").DropoutRecipe
    torch.manual_seed(0)
    one = recipe(width=6, dropout=0.5).networks((3, 16, 16))
    torch.manual_seed(0)
    two = recipe(width=6, dropout=0.0).networks((3, 16, 16))
    assert one["generator"].dropout.p == 0.5
    for name, network in one.items():
        other = two[name].state_dict()
        assert all(torch.equal(value, other[key]) for key, value in network.state_dict().items())
    with pytest.raises(cp.ProbeError, match=r"dropout is 1\.0; give a probability from 0 to below 1"):
        recipe(dropout=1.0)


def test_the_training_with_dropout(quick: list[str], tmp_path: Path, figure_of: SavedFigures) -> None:
    module = example("dcgan_dropout")
    out = tmp_path / "out"
    arguments = [*quick, "--first", "1", "--dropout", "0.4", "--out", str(out)]
    module.main([*arguments, "--steps", "3"])
    finest = figure_of(out / "finest.png")
    assert [name.partition(",")[0] for name in legend_names(finest)] == ["no dropout", "dropout 0.4"]
    assert [ax.get_title() for ax in finest.axes if ax.get_visible()] == ["step 1", "step 2", "step 3"]
    over_training = figure_of(out / "over-training.png")
    for ax in over_training.axes:
        assert len(ax.lines) == len(legend_names(over_training))
        assert all(line.get_xdata().tolist() == [1, 2, 3] for line in ax.lines)
    (sheet,) = figure_of(out / "samples.png").axes
    cells(sheet, 2 * 3, 2)
    assert row_names(sheet)[:2] == ["step 1\nno dropout", "step 1\ndropout 0.4"]
    assert (out / "findings.md").read_text().count(" here") >= 3
    rows = json.loads((out / "table.json").read_text())
    assert {(row["network"], row["step"]) for row in rows} == {
        (network, step) for network in ("no dropout", "dropout 0.4") for step in (1, 2, 3)
    }
    written = {path: path.read_bytes() for path in out.rglob("snapshots/*/model.safetensors")}
    assert len(set(written.values())) == 6
    module.main([*arguments, "--steps", "5"])  # longer: 4 and 5 are added, the others stay
    assert {path: path.read_bytes() for path in written} == written
    assert len(list(out.rglob("snapshots/*/model.safetensors"))) == 10
    # A training that is looked at on its way is the same training.
    recipe = module.DropoutRecipe(batch=5, latent=3, width=4, d_rate=0.5, dropout=0.4)
    cp.train(recipe, squares(), out=tmp_path / "whole", steps=5, device="cpu")
    last = out / "dropout-0.4" / "snapshots" / "step-000005" / "model.safetensors"
    assert last.read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_the_frechet_distance_of_known_gaussians() -> None:
    frechet = example("dcgan_dropout").frechet
    one = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet(one, one + torch.tensor([3.0, 0.0, 4.0])) == pytest.approx(25, abs=1e-6)
    # Of spreads alone, with the same axes: Σ (σ − τ)².
    assert frechet(one, 2 * (one - one.mean(0)) + one.mean(0)) == pytest.approx(float(one.var(0).sum()), abs=1e-6)


def test_a_mistake_in_a_sweep_is_one_sentence(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = str(EXAMPLES / "spectral_vae_sweep.py")
    monkeypatch.setattr(sys, "argv", [script, *quick, "--widths", "0", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="last is 0; give"):
        runpy.run_path(script, run_name="__main__")


def test_levels_that_one_network_lacks_are_left_empty() -> None:
    figure = example("levels").superimposed(
        [[planted(NARROW)], [planted(WIDE), planted(LOW, size=4)]], ["first", "second"]
    )
    assert [ax.get_title().strip() for ax in figure.axes] == ["a → b (4↔8)", "a → b (2↔4)"]
