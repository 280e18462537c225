"""Disentanglement metrics on plain arrays: codes (n, d) and the factors of variation (n, f) of the images.

>>> import numpy as np, counterfactual_probe as cp
>>> factors = np.random.default_rng(0).integers(0, 4, (500, 2))
>>> cp.metrics.mig(factors + 0.0, factors)  # codes that are the factors
MIG(0.994; 500 rows, 2 codes, 2 factors, 20 bins; 0.004 with shuffled rows)
  entropies  1.38, 1.38
  gaps       0.994, 0.994

Definitions are those of ``google-research/disentanglement_lib``, which S004's tables use: see
docs/disentanglement.md.
"""

from .dci import DCI, dci
from .explicitness import Explicitness, explicitness
from .irs import IRS, irs
from .mutual import MIG, Modularity, mig, modularity
from .sap import SAP, sap
from .score import Score

__all__ = [
    "DCI",
    "IRS",
    "MIG",
    "SAP",
    "Explicitness",
    "Modularity",
    "Score",
    "dci",
    "explicitness",
    "irs",
    "mig",
    "modularity",
    "sap",
]
