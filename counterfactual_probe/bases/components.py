"""Principal and independent components of a layer's activations."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch

from ..base.errors import ProbeError, one_of
from ..generator.state.randomness import fitting
from ..generator.state.settings import sklearn_defaults
from .fitted import FittedBasis
from .streaming import ActivationStream

Over = Literal["position", "layer"]

_BLOCK = 4096  # rows that scikit-learn's incremental forms get at a time, or twice as many as there are features
_ICA_ROWS, _ICA_STEPS = 20_000, 200


class PCA(FittedBasis):
    """The principal components of a layer's activations, orthonormal, of largest variance first; by scikit-learn's
    incremental PCA.

    >>> basis = cp.bases.PCA(64).fit(gen, "main.8")  # doctest: +SKIP
    >>> cp.InfluenceMap(gen, "main.8", features=basis).attribute(n_pairs=64)  # doctest: +SKIP

    Args:
        n_features: how many; None for as many as channels, which explain everything.
        over: the vectors of channels at each "position", or the activations of the whole "layer" as one vector each, as
            GANSpace (Härkönen et al. 2020) does it.

    Attributes:
        explained_variance_ratio_: (features,) each one's share of the variance; set by :meth:`fit`.
    """

    def __init__(self, n_features: int | None = None, *, over: Over = "position") -> None:
        super().__init__(n_features)
        one_of(over, "over", get_args(Over))
        self.over = over

    @property
    def of_layers(self) -> bool:
        return self.over == "layer"

    def _fit(self, stream: ActivationStream, *, show_progress: bool) -> dict[str, Any]:
        model = incremental_pca(stream, self.n_features, show_progress=show_progress)
        shape = (stream.info.channels, *(stream.info.size if stream.whole else ()))
        components = torch.from_numpy(model.components_)
        self._set(components.view(-1, *shape), components.T.contiguous(), torch.from_numpy(model.mean_).view(shape))
        self.explained_variance_ratio_ = model.explained_variance_ratio_
        return {"over": self.over, "explained": float(np.sum(model.explained_variance_ratio_))}


class ICA(FittedBasis):
    """Independent components of the channels at each position, of unit variance.

    Activations are whitened by the incremental PCA of all rows; FastICA, which has no incremental form, then turns the
    whitened rows, of which it sees at most 20 000, evenly spread.

    Args:
        n_features: how many; None for as many as channels.
    """

    def __init__(self, n_features: int | None = None) -> None:
        super().__init__(n_features)

    def _fit(self, stream: ActivationStream, *, show_progress: bool) -> dict[str, Any]:
        model = incremental_pca(stream, self.n_features, show_progress=show_progress)
        spread = np.sqrt(model.explained_variance_)
        if spread.min() <= 1e-9 * spread.max():
            alive = int((spread > 1e-9 * spread.max()).sum())
            raise ProbeError(
                f"the activations of layer {stream.info.name!r} vary in {alive} directions and {len(spread)} "
                f"components are asked for; ask for {alive}"
            )
        rows = (stream.sample(_ICA_ROWS) - model.mean_) @ model.components_.T / spread
        turned = _rotation(rows, stream.seed)
        mixing = (turned * spread) @ model.components_
        readers = (model.components_.T / spread) @ turned.T
        self._set(torch.from_numpy(mixing), torch.from_numpy(readers), torch.from_numpy(model.mean_))
        return {}


def incremental_pca(stream: ActivationStream, n_features: int | None, *, show_progress: bool) -> Any:
    """scikit-learn's, fitted on all rows of the stream."""
    from sklearn.decomposition import IncrementalPCA

    wanted = stream.width if n_features is None else n_features
    if wanted > stream.width:
        raise ProbeError(
            f"{wanted} features are asked of layer {stream.info.name!r}, whose activations have {stream.width} "
            f"numbers; ask for at most {stream.width}"
        )
    model = IncrementalPCA(wanted)
    with sklearn_defaults():
        for rows in stream.blocks(min(stream.rows, max(wanted, min(_BLOCK, 2 * wanted))), show_progress=show_progress):
            if len(rows) < wanted:
                raise ProbeError(
                    f"{stream.n_samples} samples of layer {stream.info.name!r} are {stream.rows} rows, fewer than the "
                    f"{wanted} features asked for; give more samples, or ask for fewer features"
                )
            model.partial_fit(rows)
    return model


def _rotation(rows: Any, seed: int) -> Any:
    """(features, features) how FastICA turns whitened rows; orthonormal."""
    from sklearn.decomposition import FastICA

    with sklearn_defaults():
        model = FastICA(whiten=False, random_state=fitting(seed, 32), max_iter=_ICA_STEPS, tol=1e-3).fit(rows)
    left, _, right = np.linalg.svd(model.components_)
    return left @ right
