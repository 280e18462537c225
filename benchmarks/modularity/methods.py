"""Methods that group the channels of a layer, each a scikit-learn clusterer.

A method has ``n_clusters`` and ``fit``, which sets ``labels_``, the module of each channel, −1 for none. ``sees`` says
what it is given; without it, "maps". Where a method has ``expected_ari_`` and ``apart_``, these are scored too:
the adjusted Rand index that it expects against another sample, and whether it says that its modules are apart.
"""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.decomposition import NMF, PCA

import counterfactual_probe as cp
from counterfactual_probe.modules.clustering import Method
from counterfactual_probe.modules.features import Kind

# "influence": the InfluenceMaps of the channels; "maps": theirs as rows of unit norm, (channels, pixels);
# "activations": (channels, samples × positions) of the layer.
View: TypeAlias = Literal["influence", "maps", "activations"]
Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]


class Influence(ClusterMixin, BaseEstimator):
    """The library's own: factorised or clustered influence maps (S001 §3.3, S003 §3.4)."""

    sees: View = "influence"

    def __init__(self, n_clusters: int = 3, features: Kind = "bits", method: Method = "nmf") -> None:
        self.n_clusters, self.features, self.method = n_clusters, features, method

    def fit(self, influence: cp.InfluenceMaps) -> Self:
        self.finder_ = cp.ModuleFinder(self.n_clusters, self.method, features=self.features).fit(influence)
        self.labels_ = self.finder_.labels_
        return self

    @property
    def expected_ari_(self) -> float:
        return self.finder_.expected_ari_

    @property
    def apart_(self) -> bool:
        return self.finder_.evidence_.apart


class ActivationPCA(ClusterMixin, BaseEstimator):
    """Principal components of activations, as in GANSpace (Härkönen et al. 2020).

    A channel belongs to the component that makes most of its variance, of the first K.
    """

    sees: View = "activations"

    def __init__(self, n_clusters: int = 3) -> None:
        self.n_clusters = n_clusters

    def fit(self, activations: Floats) -> Self:
        model = PCA(self.n_clusters, svd_solver="covariance_eigh").fit(activations.T)
        share = model.explained_variance_[:, None] * np.square(model.components_)
        self.labels_ = strongest(share)
        return self


class ActivationNMF(ClusterMixin, BaseEstimator):
    """Non-negative factors of activations, as in deep feature factorisation (Collins et al. 2018).

    Negative activations count as 0. A channel belongs to the factor that contributes most to it.
    """

    sees: View = "activations"

    def __init__(self, n_clusters: int = 3) -> None:
        self.n_clusters = n_clusters

    def fit(self, activations: Floats) -> Self:
        model = NMF(self.n_clusters, init="nndsvda", max_iter=500)
        weights = model.fit_transform(np.maximum(activations.T, 0))
        self.labels_ = strongest(model.components_ * np.linalg.norm(weights, axis=0)[:, None])
        return self


class ActivationCorrelation(ClusterMixin, BaseEstimator):
    """Spectral clustering of channels by the absolute correlation of their activations."""

    sees: View = "activations"

    def __init__(self, n_clusters: int = 3, random_state: int = 0) -> None:
        self.n_clusters, self.random_state = n_clusters, random_state

    def fit(self, activations: Floats) -> Self:
        alive = activations.std(1) > 0
        affinity = np.abs(np.corrcoef(activations[alive]))
        model = SpectralClustering(self.n_clusters, affinity="precomputed", random_state=self.random_state)
        self.labels_ = np.full(len(activations), -1)
        self.labels_[alive] = model.fit_predict(affinity)
        return self


class SingleChannels(ClusterMixin, BaseEstimator):
    """A reference: each of the K channels of most influence is a module, and all others are none."""

    sees: View = "influence"

    def __init__(self, n_clusters: int = 3) -> None:
        self.n_clusters = n_clusters

    def fit(self, influence: cp.InfluenceMaps) -> Self:
        self.labels_ = np.full(len(influence), -1)
        self.labels_[influence.strongest[: self.n_clusters]] = np.arange(self.n_clusters)
        return self


class Random(ClusterMixin, BaseEstimator):
    """A reference: channels in modules of equal size, at random."""

    def __init__(self, n_clusters: int = 3, random_state: int = 0) -> None:
        self.n_clusters, self.random_state = n_clusters, random_state

    def fit(self, maps: Floats) -> Self:
        self.labels_ = np.random.default_rng(self.random_state).permutation(len(maps)) % self.n_clusters
        return self


def strongest(contributions: Floats) -> Labels:
    """(channels,) argmax of (K, channels) contributions; −1 where all are 0."""
    return np.where(contributions.max(0) > 0, contributions.argmax(0), -1)


METHODS: dict[str, ClusterMixin] = {
    "bits, NMF": Influence(),
    "bits, k-means": Influence(method="kmeans"),
    "l2, NMF": Influence(features="l2"),
    "l2, k-means": KMeans(n_init=10, random_state=0),
    "pca, NMF": Influence(features="pca"),
    "PCA of activations": ActivationPCA(),
    "NMF of activations": ActivationNMF(),
    "correlation of activations": ActivationCorrelation(),
    "single channels": SingleChannels(),
    "random": Random(),
}
