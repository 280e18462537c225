"""Bases are what they are called, fit every layer's layout, and say where they are from."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

import counterfactual_probe as cp
from support.state import fingerprint
from support.toys import CONDITIONAL, PLAIN, TOKENS, VECTOR, seeded
from support.twins import gap

N = 12
LAYERS = {
    "maps": (PLAIN, "main.2", (N, 6, 4, 4)),
    "tokens": (TOKENS, "mlp", (N, 16, 6)),
    "vectors": (VECTOR, "mapping.1", (N, 7)),
}
FITTED = {
    "PCA": cp.bases.PCA(3),
    "ICA": cp.bases.ICA(3),
    "NMF": cp.bases.NMF(3),
    "whole": cp.bases.PCA(3, over="layer"),
}


def activations(generator: cp.GeneratorAdapter, layer: str, n: int, **drawn: int) -> Tensor:
    """As the layer gives them."""
    seen: list[Tensor] = []
    handle = generator.module.get_submodule(layer).register_forward_hook(lambda _p, _g, out: seen.append(out.clone()))
    generator(generator.sample(n, **drawn))
    handle.remove()
    return torch.cat(seen)


def rows_of(values: Tensor, dim: int) -> Any:
    return values.movedim(dim, -1).reshape(-1, values.shape[dim]).numpy()


@pytest.mark.parametrize("form", LAYERS)
def test_complete_components_are_an_orthonormal_basis_in_every_layout(form: str) -> None:
    toy, layer, shape = LAYERS[form]
    generator = toy.generator()
    basis = cp.bases.PCA().fit(generator, layer, n_samples=60)
    h = activations(generator, layer, N)
    assert h.shape == shape
    assert basis.encode(h).shape == shape
    torch.testing.assert_close(basis.decode(basis.encode(h)), h, rtol=0, atol=1e-9)
    torch.testing.assert_close(basis.directions @ basis.directions.T, torch.eye(len(basis.directions)).double())
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    hybrids = cp.Hybridizer(generator, layer, features=basis).hybridize(z1, z2, units=range(basis.directions.shape[0]))
    channels = cp.Hybridizer(generator, layer).hybridize(z1, z2, units=range(basis.directions.shape[1]))
    assert gap(hybrids.images, channels.images) <= 1e-9
    some = cp.Hybridizer(generator, layer, features=basis).hybridize(z1, z2, units=range(2))
    assert gap(some.images, channels.images) > 1e-3


def test_components_are_those_of_all_rows_at_once() -> None:
    generator = TOKENS.generator()
    basis = cp.bases.PCA().fit(generator, "mlp", n_samples=300, seed=3)
    rows = rows_of(activations(generator, "mlp", 300, seed=3), 2)
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    np.testing.assert_allclose(basis.explained_variance_ratio_, variances / variances.sum(), rtol=1e-6)
    np.testing.assert_allclose(basis.mean, rows.mean(0), atol=1e-9)
    other = cp.bases.PCA().fit(generator, "mlp", n_samples=300, seed=4)
    assert gap(other.mean, basis.mean) > 1e-3


def test_independent_components_unmix_and_have_unit_variance() -> None:
    generator = TOKENS.generator()
    basis = cp.bases.ICA(4).fit(generator, "mlp", n_samples=300)
    assert basis.readers is not None
    torch.testing.assert_close(basis.directions @ basis.readers, torch.eye(4).double(), rtol=0, atol=1e-8)
    codes = rows_of(basis.encode(activations(generator, "mlp", 300)), 2)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(4), atol=0.02)


def test_non_negative_codes_are_least_squares() -> None:
    generator = PLAIN.generator()
    basis = cp.bases.NMF(4).fit(generator, "main.2", n_samples=200)
    assert float(basis.directions.min()) >= 0
    h = activations(generator, "main.2", 2)
    codes = rows_of(basis.encode(h), 1)
    expected = [nnls(basis.directions.numpy().T, row)[0] for row in rows_of(h, 1)]
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    with pytest.raises(cp.ProbeError, match=r"activations of layer 'mlp' go down to -.* and NMF needs them at least 0"):
        cp.bases.NMF(4).fit(TOKENS.generator(), "mlp", n_samples=10)


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_basis_runs_fast_saves_and_loads(name: str, tmp_path: Path) -> None:
    generator = PLAIN.generator()
    before = fingerprint(generator.module)
    basis: Any = type(FITTED[name])
    basis = (basis(3, over="layer") if name == "whole" else basis(3)).fit(generator, "main.2", n_samples=50)
    assert fingerprint(generator.module) == before
    loaded = type(basis).load(basis.save(tmp_path / "basis.safetensors"))
    assert loaded.provenance == basis.provenance
    assert str(loaded) == str(basis)
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    found, again = (cp.Hybridizer(generator, "main.2", features=one).hybridize(z1, z2) for one in (basis, loaded))
    assert torch.equal(found.images, again.images)
    assert found.provenance["executor"] == "prepared"
    assert found.provenance["first_linear_difference"]
    assert found.provenance["features"]["main.2"]["n_samples"] == 50
    alone = cp.Hybridizer(generator, "main.2", features=basis).hybridize(z1[:2], z2[:2])
    assert alone.provenance["executor"] == "full forward"
    assert not alone.provenance["first_linear_difference"]
    assert gap(found.images[:, :2], alone.images) <= 1e-10
    masked = [
        cp.Hybridizer(generator, "main.2", features=basis).hybridize(z1[:n], z2[:n], where=torch.eye(4)).images[:, :2]
        for n in (N, 2)
    ]
    assert gap(*masked) <= 1e-10
    assert gap(masked[0], alone.images) > 1e-4
    with pytest.raises(cp.ProbeError, match=r"features are of layer 'main.2' and asked of 'main.6'"):
        cp.Hybridizer(generator, "main.6", features=loaded)
    with torch.no_grad():
        generator.module.get_submodule("main.0").weight.mul_(2)
    with pytest.raises(cp.ProbeError, match="features are of a generator of weights"):
        cp.Hybridizer(generator, "main.2", features=loaded)


def test_blocks_do_not_depend_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = PLAIN.generator()
    one = cp.bases.PCA(4).fit(generator, "main.2", n_samples=70)
    monkeypatch.setattr(type(generator), "batch_limit", lambda _: 3)
    other = cp.bases.PCA(4).fit(generator, "main.2", n_samples=70)
    torch.testing.assert_close(one.directions, other.directions, rtol=0, atol=1e-10)


def test_what_a_basis_does_not_explain_stays_the_bases() -> None:
    """Hybrids of all features of an incomplete basis are the base plus the difference that it explains."""
    generator = TOKENS.generator()
    basis = cp.bases.PCA(2).fit(generator, "mlp", n_samples=50)
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    found = cp.Hybridizer(generator, "mlp", features=basis).hybridize(z1, z2, units=range(2)).images[0]
    projector = basis.directions.T @ basis.directions
    h1, h2 = (activations(generator, "mlp", N, seed=seed) for seed in (0, 1))
    part = generator.module.get_submodule("mlp")
    handle = part.register_forward_hook(lambda _p, _g, _out: h1 + (h2 - h1) @ projector)
    with torch.no_grad():
        expected = generator.module.eval()(z1)
    handle.remove()
    assert gap(found, expected) <= 1e-9


MATRICES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a vector": (torch.ones(3), {}, "the matrix of the basis has shape (3,); give (features, channels)"),
    "NaN": (torch.full((2, 2), float("nan")), {}, "the matrix of the basis holds NaN or infinite values"),
    "too few": (torch.eye(4)[:3], {"complete": True}, "the basis has rank 3 and there are 4 channels, so it is not"),
    "singular": (torch.ones(4, 4), {"complete": True}, "the basis has rank 1 and there are 4 channels, so it is not"),
    "text": ("eye", {}, "the matrix of the basis are of type <U3"),
}


@pytest.mark.parametrize("case", MATRICES)
def test_matrices_that_are_no_basis_are_refused(case: str) -> None:
    matrix, options, message = MATRICES[case]
    with pytest.raises(cp.ProbeError, match=re.escape(message)):
        cp.bases.Linear(matrix, **options)


def test_a_matrix_of_ones_own(tmp_path: Path) -> None:
    matrix = torch.randn(4, 6, dtype=torch.float64)
    basis = cp.bases.Linear(matrix)
    generator = PLAIN.generator()
    h = activations(generator, "main.2", 2)
    assert gap(basis.encode(basis.decode(basis.encode(h))), basis.encode(h)) <= 1e-9
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    found = cp.Hybridizer(generator, "main.2", features=basis).hybridize(z1, z2)
    loaded = cp.bases.Linear.load(basis.of(generator, "main.2").save(tmp_path / "basis.safetensors"))
    assert torch.equal(found.images, cp.Hybridizer(generator, "main.2", features=loaded).hybridize(z1, z2).images)
    assert isinstance(cp.bases.load(tmp_path / "basis.safetensors"), cp.bases.Linear)
    with pytest.raises(cp.ProbeError, match="holds no basis; give one made by"):
        cp.bases.load(found.save(tmp_path / "hybrids.safetensors"))
    with pytest.raises(cp.ProbeError, match=r"features are of layer 'main.2'"):
        cp.Hybridizer(generator, "main.6", features=loaded)
    with pytest.raises(cp.ProbeError, match="activations have 5 channels and the basis 6"):
        cp.Hybridizer(generator, "main.6", features=basis)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not fitted": (cp.bases.PCA(3), {}, "PCA is not fitted; call .fit(generator, layer) first"),
    "too many": (
        cp.bases.PCA(7),
        {"n_samples": 50},
        "7 features are asked of layer 'main.2', whose activations have 6",
    ),
    "too few rows": (cp.bases.PCA(4, over="layer"), {"n_samples": 3}, "3 samples of layer 'main.2' are 3 rows, fewer"),
    "no samples": (cp.bases.PCA(4), {"n_samples": 0}, "n_samples is 0; give an integer of at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_fitted_is_refused(case: str) -> None:
    basis, options, message = REFUSED[case]
    with pytest.raises(cp.ProbeError, match=re.escape(message)):
        if options:
            basis.fit(PLAIN.generator(), "main.2", **options)
        else:
            cp.Hybridizer(PLAIN.generator(), "main.2", features=basis)


def test_two_layers_each_have_their_basis() -> None:
    generator = CONDITIONAL.generator()
    bases = {name: cp.bases.PCA().fit(generator, name, n_samples=40) for name in ("first", "second")}
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    everything = {"first": range(6), "second": range(4)}
    found = cp.Hybridizer(generator, ["first", "second"], features=bases).hybridize(z1, z2, units=everything)
    channels = cp.Hybridizer(generator, ["first", "second"]).hybridize(z1, z2, units=everything)
    assert gap(found.images, channels.images) <= 1e-9


# --- dictionaries -------------------------------------------------------------------------------------------------


class TopK(nn.Module):
    """A sparse autoencoder in the form of the overcomplete package: codes before and after the two largest are kept."""

    def __init__(self, channels: int = 6, features: int = 9) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(channels, features), nn.Linear(features, channels)
        self.dropout = nn.Dropout(0.5)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.dropout(torch.relu(self.encoder(x)))
        largest = before.topk(2, -1)
        return before, torch.zeros_like(before).scatter(-1, largest.indices, largest.values)

    def decode(self, codes: Tensor) -> Tensor:
        out: Tensor = self.decoder(codes)
        return out


class Squashed(TopK):
    def decode(self, codes: Tensor) -> Tensor:
        return torch.tanh(super().decode(codes))


@pytest.mark.parametrize("kind", [TopK, Squashed])
@pytest.mark.parametrize("form", ["maps", "tokens"])
def test_a_dictionary_gives_features(kind: type[TopK], form: str, tmp_path: Path) -> None:
    toy, layer, _ = LAYERS[form]
    with seeded(2):
        sae = kind().double()
    generator, before = toy.generator(), fingerprint(sae)
    features = cp.bases.Dictionary(sae).of(generator, layer)
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    found = cp.Hybridizer(generator, layer, features=features).hybridize(z1, z2)
    assert fingerprint(sae) == before
    assert found.images.shape[0] == 9
    dim = 1 if form == "maps" else 2
    h1, h2 = (activations(generator, layer, N, seed=seed) for seed in (0, 1))

    def by_hand(feature: int) -> Tensor:
        sae.eval()
        rows1, rows2 = (h.movedim(dim, -1).reshape(-1, 6) for h in (h1, h2))
        codes, other = sae.encode(rows1)[1], sae.encode(rows2)[1]
        changed = codes.clone()
        changed[:, feature] = other[:, feature]
        change = (sae.decode(changed) - sae.decode(codes)).view(*h1.movedim(dim, -1).shape).movedim(-1, dim)
        handle = generator.module.get_submodule(layer).register_forward_hook(lambda _p, _g, _o: h1 + change)
        image: Tensor = generator.module.eval()(z1)
        handle.remove()
        return image

    with torch.no_grad():
        expected = torch.stack([by_hand(feature) for feature in range(9)])
    assert gap(found.images, expected) <= 1e-10
    assert gap(found.images, expected.flip(0)) > 1e-3
    assert found.provenance["first_linear_difference"] == (kind is TopK and form == "maps")
    path = features.save(tmp_path / "sae.safetensors")
    loaded = cp.bases.Dictionary.load(path, kind().double())
    assert torch.equal(cp.Hybridizer(generator, layer, features=loaded).hybridize(z1, z2).images, found.images)
    with pytest.raises(cp.ProbeError, match="give the module they are for, too"):
        cp.bases.Dictionary.load(path)
    with pytest.raises(cp.ProbeError, match="holds no weights of this dictionary"):
        cp.bases.Dictionary.load(path, kind(6, 8).double())


class Coupled(TopK):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.relu(self.encoder(x) - self.encoder(x).mean(0))


class Broken(TopK):
    def encode(self, x: Tensor) -> Any:
        raise ValueError("no such kernel")


def test_dictionaries_that_are_none_are_refused() -> None:
    generator = PLAIN.generator()
    with pytest.raises(cp.ProbeError, match=r"the dictionary is a Linear; give an nn.Module with encode\(rows\)"):
        cp.bases.Dictionary(nn.Linear(2, 2))
    for kind, message in ((Coupled, "another code for a sample of layer 'main.2' alone"), (Broken, "no such kernel")):
        with pytest.raises(cp.ProbeError, match=message):
            cp.Hybridizer(generator, "main.2", features=cp.bases.Dictionary(kind().double()))


@pytest.mark.parametrize("over", ["position", "layer"])
def test_a_file_whose_layer_has_other_channels_is_refused(over: Any, tmp_path: Path) -> None:
    basis = cp.bases.PCA(3, over=over).fit(PLAIN.generator(), "main.2", n_samples=10)
    path = basis.save(tmp_path / "basis")
    cp.bases.load(path)  # the control
    assert basis.layer is not None
    basis.layer = dataclasses.replace(basis.layer, channels=7)
    with pytest.raises(cp.ProbeError, match=r"directions are \(3, 6.*\) and its layer has 7 channels"):
        cp.bases.load(basis.save(path))
