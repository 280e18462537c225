"""Scores of a model of S004: metrics of its codes, and Fréchet distances of its images from the test images."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from structural_data import Split
from structural_models import CHUNK, VARIATIONAL, Seen, Size
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.base.files import write_json
from counterfactual_probe.fidelity.frechet import FewSamples

STORED = 128  # codes for hybrids, as in S004


def scores(seen: Seen, data: Split, size: Size, kept: Path) -> dict[str, float]:
    """S004's metrics of the test images' codes, if factors are known; computed once for each evaluation."""
    factors = data.factors
    if factors is None:
        return {}

    def compute() -> dict[str, float]:
        fit, test = slice(None, size.rows), slice(size.rows, None)
        given = seen.codes[fit], factors[fit]
        held = seen.codes[test], factors[test]
        dci = cp.metrics.dci(*given, test=held)
        return {
            "DCI-d": dci.score,
            "DCI-c": dci.completeness,
            "informativeness": dci.informativeness,
            "MIG": cp.metrics.mig(*given).score,
            "SAP": cp.metrics.sap(*given, test=held).score,
            "IRS": cp.metrics.irs(*given).score,
            "ModExp": cp.metrics.modularity(*given).score,
        }

    return _once(kept / f"scores-{seen.steps:06d}-{size.rows}.json", compute)


def stored_codes(gen: Any, data: Split) -> Tensor:
    """Codes of training images, from which hybrids are made."""
    codes: Tensor = gen.encode(data.train.pixels[:STORED].float() / 255)
    return codes.float().cpu()


def sampled(name: str, gen: Any, data: Split, n: int) -> dict[str, Tensor]:
    """New images (n, 3, H, W), by each sampling method that the model supports."""
    made = {"hybrid": cp.autoencoders.hybrid_sample(stored_codes(gen, data), n)}
    if name.startswith(VARIATIONAL):
        made["prior"] = cp.autoencoders.prior_sample(n, gen.module.backbone.latent)
    return {way: images_of(gen, codes) for way, codes in made.items()}


def images_of(gen: Any, codes: Tensor) -> Tensor:
    return torch.cat([gen(part.to(gen.device, gen.dtype)).float().cpu() for part in torch.split(codes, CHUNK)])


class Quality:
    """Fréchet distances from n test images: of their reconstructions, and of n samples by each method."""

    def __init__(self, data: Split, features: str, n: int) -> None:
        self.data, self.n = data, n
        self.features = cp.load_classifier(features)
        self.real = data.test[:n].float() / 255

    @cached_property
    def truth(self) -> Tensor:
        found: Tensor = self.features.features(self.real)
        return found

    def distances(self, name: str, gen: Any, kept: Path) -> dict[str, float]:
        """Distances by kind of image; computed once for each model."""

        def compute() -> dict[str, float]:
            groups = {"reconstruction": images_of(gen, gen.encode(self.real))}
            groups |= sampled(name, gen, self.data, self.n)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FewSamples)  # the table says how many images there were
                return {
                    way: cp.frechet_distance(self.truth, self.features.features(each)) for way, each in groups.items()
                }

        return _once(kept / f"frechet-{self.features.name}-{self.n}.json", compute)


def matched(runs: Mapping[str, Sequence[Seen]]) -> dict[str, Seen]:
    """For each model the first evaluation whose validation error is not above the worst model's final one."""
    worst = max(seen[-1].error for seen in runs.values())
    return {name: next(look for look in seen if look.error <= worst) for name, seen in runs.items()}


def parameters(gen: Any) -> int:
    return sum(value.numel() for value in gen.module.parameters())


def told(differences: Sequence[float]) -> str:
    """Whether a claim holds, given differences that should be above 0 in every seed."""
    several = len(differences) > 1
    if min(differences) > 0:
        return "holds in every seed" if several else "holds"
    if max(differences) > 0:
        return "holds in some seeds"
    return "does not hold in any seed" if several else "does not hold"


def shown(values: Sequence[float]) -> str:
    """Mean and range over seeds."""
    return f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else f"{values[0]:.3g}"


def _once(path: Path, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    if path.exists():
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return found
    found = {name: float(value) for name, value in compute().items()}
    write_json(path, found)
    return found
