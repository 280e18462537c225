"""The example on the overcomplete package: features of its autoencoders against hooks by hand, and its files."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.figures import SavedFigures, row_names
from support.toys import PLAIN
from support.twins import gap

pytestmark = [
    pytest.mark.examples,
    pytest.mark.usefixtures("examples"),
    pytest.mark.skipif(find_spec("overcomplete") is None, reason="needs overcomplete"),
]
N, LAYER, CHANNELS, FEATURES = 12, "main.2", 6, 9
MODELS: dict[str, dict[str, Any]] = {"TopKSAE": {"top_k": 2}, "JumpSAE": {}, "SAE": {}}


@pytest.fixture
def example(examples: Path) -> Any:
    return importlib.import_module("sparse_autoencoder")


def made(example: Any, name: str) -> nn.Module:
    """An autoencoder of the package, whose statistics are not those it starts with."""
    model: nn.Module = getattr(example.autoencoders(), name)(CHANNELS, FEATURES, **MODELS[name])
    model.train()
    for _ in range(20):
        model(torch.randn(40, CHANNELS) + 1)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_features_of_the_package_equal_hooks_by_hand(name: str, example: Any) -> None:
    generator, model = PLAIN.generator(), made(example, name)
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    features = cp.bases.Dictionary(model).of(generator, LAYER)
    found = cp.Hybridizer(generator, LAYER, features=features).hybridize(z1, z2)
    assert found.images.shape[0] == FEATURES
    assert found.provenance["first_linear_difference"]  # by its linear dictionary
    layer, twin = generator.module.get_submodule(LAYER), model.double().eval()
    seen: list[Tensor] = []
    with layer.register_forward_hook(lambda _m, _i, output: seen.append(output.clone())), torch.no_grad():
        generator(z1), generator(z2)
    rows = [h.movedim(1, -1).reshape(-1, CHANNELS) for h in seen]

    def by_hand(feature: int) -> Tensor:
        before, other = (twin.encode(one)[1] for one in rows)  # type: ignore[operator]
        after = before.clone()
        after[:, feature] = other[:, feature]
        change = twin.decode(after) - twin.decode(before)  # type: ignore[operator]
        edited = seen[0] + change.view(*seen[0].movedim(1, -1).shape).movedim(-1, 1)
        with layer.register_forward_hook(lambda _m, _i, _o: edited):
            image: Tensor = generator.module.eval()(z1)
        return image

    with torch.no_grad():
        expected = torch.stack([by_hand(feature) for feature in range(FEATURES)])
    assert gap(found.images, expected) <= 1e-9
    assert gap(found.images, expected.flip(0)) > 1e-3


def test_the_example_trains_and_writes(
    example: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cp, "load", lambda name: PLAIN.generator())
    monkeypatch.setattr(example, "LAYER", LAYER)
    figures, before = SavedFigures(monkeypatch), torch.random.get_rng_state()
    few = ["--features", "12", "--at-once", "4", "--samples", "80", "--epochs", "60", "--pairs", "4"]
    example.main([*few, "--out", str(tmp_path)])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(row_names(figures(tmp_path / "hybrids.png").axes[0])) == 6
    figures(tmp_path / "features.png")
    generator = PLAIN.generator()
    rows = example.activations(generator, LAYER, 80)
    assert rows.shape == (80 * 16, CHANNELS)
    loaded = cp.bases.Dictionary.load(
        tmp_path / "features.safetensors", example.autoencoders().TopKSAE(CHANNELS, 12, top_k=4)
    )
    share, used = example.explained(rows, loaded)
    assert used.shape == (12,)
    assert 0.3 < share < 1
    untrained = cp.bases.Dictionary(example.autoencoders().TopKSAE(CHANNELS, 12, top_k=4))
    assert example.explained(rows, untrained)[0] < share - 0.2  # the control
    assert f"12 features of {LAYER}, 4 at each position, explain {share:.0%} of the variance" in capsys.readouterr().out


def test_without_the_package_it_says_what_to_install(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(example.sys.modules, "overcomplete", raising=False)
    monkeypatch.setattr(example.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(cp.ProbeError, match="overcomplete is missing; install it with: pip install --no-deps"):
        example.autoencoders()
