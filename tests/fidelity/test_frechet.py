"""Fréchet distance and realism: closed forms, literal twins, singular covariances, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

import counterfactual_probe as cp
from counterfactual_probe.fidelity.frechet import FewSamples
from counterfactual_probe.fidelity.realism import inside, realism
from support.planted import Array


def samples(n: int, d: int, seed: int = 0, scale: float = 1.0) -> Array:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) * scale + rng.standard_normal(d))


def whitened(n: int, d: int, seed: int = 0) -> Array:
    """Samples whose mean is 0 and whose unbiased covariance is the identity, exactly."""
    values = samples(n, d, seed)
    values -= values.mean(0)
    return np.asarray(values @ np.linalg.inv(np.linalg.cholesky(np.cov(values.T).reshape(d, d))).T)


def literal(a: Array, b: Array) -> float:
    """Conventions 26, word by word: unbiased covariances, roots by eigh with clipping."""
    one, two = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(one)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    common = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * common)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_literal_twin(seed: int) -> None:
    a, b = samples(60, 7, seed), samples(80, 7, seed + 10)
    assert cp.frechet_distance(a, b) == pytest.approx(literal(a, b), rel=1e-9)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    whole = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert cp.frechet_distance(a, b) == pytest.approx(whole, rel=1e-9)
    assert cp.frechet_distance(b, a) == pytest.approx(cp.frechet_distance(a, b), rel=1e-12)
    biased = literal(a, b) - (np.trace(np.cov(a.T) - np.cov(a.T, bias=True)))
    assert abs(biased - cp.frechet_distance(a, b)) > 0.01, "the covariance's divisor matters"


def test_closed_forms() -> None:
    a = whitened(50, 4)
    assert cp.frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert cp.frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)
    shift = np.array([1.0, -2.0, 0.5, 0.0])
    assert cp.frechet_distance(a, a + shift) == pytest.approx((shift**2).sum(), rel=1e-12)
    scale, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 0.5, 0.0])
    b = whitened(70, 4, seed=1)
    assert cp.frechet_distance(a * scale, b * other) == pytest.approx(((scale - other) ** 2).sum(), rel=1e-10)
    turned = np.linalg.qr(samples(4, 4, 5))[0]
    assert cp.frechet_distance(a * scale @ turned, b * other @ turned) == pytest.approx(((scale - other) ** 2).sum())


def test_one_feature() -> None:
    a, b = samples(40, 1)[:, 0], samples(30, 1, 1)[:, 0] * 3
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert cp.frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert cp.frechet_distance(a[:, None], torch.from_numpy(b)) == pytest.approx(expected, rel=1e-12)


def test_singular_covariances() -> None:
    a, b = samples(50, 3), samples(60, 3, 1)

    rows = np.linalg.qr(samples(20, 20, 2))[0][:3]  # three orthonormal directions of twenty
    assert cp.frechet_distance(a @ rows, b @ rows) == pytest.approx(cp.frechet_distance(a, b), rel=1e-12)
    constant = np.ones((10, 2))
    assert cp.frechet_distance(constant, constant + 1) == pytest.approx(2.0)
    assert cp.frechet_distance(a * 1e-8, a * 1e-8) >= 0


def test_fewer_samples_than_features_are_said_and_right() -> None:
    a, b = samples(6, 12), samples(8, 12, 1)
    with pytest.warns(FewSamples, match=r"6 samples of 12 features are few: .* give at least 13, and equally many"):
        found = cp.frechet_distance(a, b)
    assert found == pytest.approx(literal(a, b), rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cp.frechet_distance(samples(13, 12), samples(13, 12, 1))


def test_few_samples_give_larger_distances() -> None:
    rng = np.random.default_rng(0)
    few, many = (cp.frechet_distance(rng.standard_normal((n, 8)), rng.standard_normal((n, 8))) for n in (20, 2000))
    assert few > 10 * many


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "features_a hold 3 features and features_b 4; give features of one"),
        (
            np.zeros((1, 3)),
            np.zeros((5, 3)),
            "features_a hold 1 sample, which has no covariance",
        ),
        (np.zeros((5, 3)), np.zeros((5, 3, 2)), r"features_b have shape \(5, 3, 2\); give \(n, features\)"),
        (np.zeros((5, 1)), np.full((5, 1), np.nan), "features_b hold NaN or infinite values"),
    ],
)
def test_mistakes_are_sentences(a: Array, b: Array, sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        cp.frechet_distance(a, b)


# --- realism ------------------------------------------------------------------------------------------


def literal_radius(reference: Array, i: int, k: int) -> float:
    return float(sorted(np.linalg.norm(reference[i] - other) for other in reference)[k])


@pytest.mark.parametrize("k", [1, 3])
def test_realism_is_its_literal_twin(k: int) -> None:
    images, reference = samples(150, 3, 1, 0.9), samples(40, 3, 1)
    radii = np.array([literal_radius(reference, i, k) for i in range(40)])
    small = radii <= np.median(radii)
    expected, within = [], []
    for image in images:
        distances = np.array([np.linalg.norm(image - other) for other in reference])
        expected.append((radii[small] / distances[small]).max())
        within.append(bool((distances <= radii).any()))
    np.testing.assert_allclose(realism(images, reference, neighbours=k), expected, rtol=1e-9)
    assert inside(images, reference, neighbours=k).tolist() == within
    assert 0 < np.mean(within) < 1


def test_reference_images_are_as_real_as_can_be() -> None:
    reference = samples(20, 2)
    assert inside(reference, reference).all()
    radii = np.array([literal_radius(reference, i, 3) for i in range(20)])
    assert np.isinf(realism(reference, reference)[radii <= np.median(radii)]).all()
    far = reference + 1000
    assert not inside(far, reference).any()
    assert (realism(far, reference) < 0.05).all()
    same = np.zeros((10, 2))
    assert np.isinf(realism(same, same)).all(), "0 / 0"


def test_neighbours_must_be_there() -> None:
    with pytest.raises(cp.ProbeError, match="3 neighbours asked among 3 reference images; give at least 4 images"):
        inside(np.zeros((5, 2)), np.zeros((3, 2)))
    with pytest.raises(cp.ProbeError, match="the features are 2 and the reference's 3; give features of one"):
        realism(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(cp.ProbeError, match="neighbours is 0"):
        realism(np.zeros((5, 2)), np.zeros((5, 2)), neighbours=0)
