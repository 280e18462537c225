"""Non-negative factors of a layer's activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..generator.state.randomness import fitting
from ..generator.state.settings import sklearn_defaults
from .fitted import FittedBasis
from .streaming import ActivationStream

_ROWS = 1024  # of a block
_SWEEPS = 30  # of coordinate descent; fixed, so that no row's code depends on the others


class NMF(FittedBasis):
    """Non-negative factors of the channels at each position, of unit norm: a code says how much of each is there.

    For layers after a ReLU; fitted by scikit-learn's mini-batch NMF. Codes are non-negative least squares, by
    coordinate descent.

    Args:
        n_features: how many factors.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features, needed=True)

    def _fit(self, stream: ActivationStream, *, show_progress: bool) -> dict[str, Any]:
        from sklearn.decomposition import MiniBatchNMF

        model = MiniBatchNMF(self.n_features, random_state=fitting(stream.seed, 32), init="random", batch_size=_ROWS)
        with sklearn_defaults():
            for rows in stream.blocks(min(stream.rows, _ROWS), show_progress=show_progress):
                if (least := float(rows.min())) < 0:
                    raise ProbeError(
                        f"the activations of layer {stream.info.name!r} go down to {least:.3g} and NMF needs them at "
                        "least 0; choose a layer after a ReLU, or use PCA"
                    )
                for start in range(0, len(rows), _ROWS):
                    model.partial_fit(rows[start : start + _ROWS])
        norms = np.linalg.norm(model.components_, axis=1, keepdims=True)
        factors = torch.from_numpy(model.components_ / np.where(norms > 0, norms, 1))
        self._set(factors, None, torch.zeros(stream.width))
        return {}

    def _codes(self, rows: Tensor) -> Tensor:
        factors = self.directions.to(rows)
        gram, wanted = factors @ factors.T, (rows @ factors.T).T.contiguous()
        # Begun where unbounded least squares, cut off at zero, already are; (features, rows).
        codes: Tensor = (torch.linalg.pinv(gram, hermitian=True) @ wanted).clamp_(min=0)
        for _ in range(_SWEEPS):
            for k in range(len(codes)):
                if gram[k, k] > 0:
                    codes[k].add_((wanted[k] - gram[k] @ codes) / gram[k, k]).clamp_(min=0)
        return codes.T
