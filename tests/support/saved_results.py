"""One small result of every class that saves, with values that anybody can compute again.

``tests/generator/saved`` holds these as version 0.1.0 wrote them before the package was moved into rooms:
``python tests/support/saved_results.py FOLDER`` writes them anew with whatever version is installed.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.spectral import EDGES

UNITS = (cp.UnitSet({"main.2": (0, 3)}), cp.UnitSet({"main.2": (1,), "main.6": (2, 4)}))
ABOUT: dict[str, Any] = {
    "generator": 'a "quoted", name',
    "weights_sha256": "0" * 64,
    "layers": ["main.2", "main.6"],
    "image_range": [-1.0, 1.0],
    "seed": 0,
    "n_pairs": 3,
    "versions": {"counterfactual-probe": "0.1.0"},
}


def count(*shape: int, scale: float = 0.1) -> Tensor:
    return torch.arange(int(np.prod(shape))).reshape(shape) * scale


def array(*shape: int, scale: float = 0.1) -> npt.NDArray[np.float64]:
    return np.arange(int(np.prod(shape))).reshape(shape) * scale


def results() -> dict[str, Any]:
    """By the name of its file; tests leave them as they are, so one of each serves all."""
    return dict(_made())


@cache
def _made() -> dict[str, Any]:
    found = {**_of_generators(), **_of_modules(), **_of_spectra()}
    named = {f"{type(result).__name__}.safetensors": result for result in found.values()}
    named["Hybrids-without-source.safetensors"] = _hybrids(None)
    named["Inversion-of-classes.safetensors"] = _inversion({"z": count(3, 2), "classes": torch.tensor([1, 0, 1])})
    named["Edited-of-latents.safetensors"] = _edited(None)
    named["ModuleFinder.safetensors"] = finder()
    return named | {f"{type(score).__name__}.json": score for score in scores()}


def _hybrids(source: Tensor | None) -> cp.Hybrids:
    about = {**ABOUT, "intervention": "source"}
    return cp.Hybrids(count(2, 2, 3, 4, 4, scale=0.01), count(2, 3, 4, 4, scale=0.02), UNITS, about, source)


def _inversion(latents: Any) -> cp.Inversion:
    about = {**ABOUT, "inversion": {"starts": 2, "steps": 5, "seed": 0, "variance_of_own_images": 0.5}}
    pictures, error = count(3, 3, 4, 4, scale=0.01), count(3, scale=0.05)
    return cp.Inversion(latents, pictures, 2 * pictures, error, 2 * error, count(3, 2) + 0.1, about)


def _edited(pictures: Tensor | None) -> cp.Edited:
    given = "latents" if pictures is None else "inverted pictures"
    units = (cp.UnitSet({"main.2": (0, 3)}, "few, at the top"),)
    about = {**ABOUT, "edit": {"module": units[0].name, "given": given, "source": given}}
    images = [count(3, 3, 4, 4, scale=scale) for scale in (0.01, 0.02, 0.03)]
    if pictures is None:
        return cp.Edited(*images, units, about)
    return cp.Edited(*images, units, about, pictures, count(3, scale=0.05), count(3), count(3, scale=0.2))


def _of_generators() -> dict[str, Any]:
    maps = cp.InfluenceMaps(
        maps=count(2, 4, 4), standard_error=count(2, 4, 4, scale=0.01), influence=count(2) + 0.5,
        influence_standard_error=count(2) + 0.05, n_pairs=torch.tensor([3, 3]), zero_maps=torch.tensor([0, 1]),
        units=UNITS, provenance=ABOUT | {"tolerance": 0.05}, normalised=count(2, 4, 4, scale=0.2),
        block_sums=count(2, 2, 4, 4), components=count(2, 3, 4, 4), energy=count(2, 2),
        energy_block_sums=count(2, 2, 2),
    )  # fmt: skip
    about = {**ABOUT, "transformation": "stretch", "wavelet": "haar", "levels": 2, "n_images": 3}
    invariance = cp.Invariance(
        count(3).double() + 1, count(3, 3).double() + 1, count(3, 3).double() + 2, count(2, 3, 4, 4),
        count(2, 3, 4, 4, scale=0.2), count(2, 3, 4, 4, scale=0.3), about,
    )  # fmt: skip
    fidelity = cp.Fidelity(
        groups=("real", 'gen, "1"', "again"), distances=array(3, 3, scale=1.0), replicates=array(2, 3, 3, scale=1.5),
        realism=array(3, 4), inside=(array(3, 4) > 0.3).astype(np.float64), examples=count(3, 2, 3, 4, 4),
        units=UNITS, provenance=ABOUT | {"real": "a folder", "features": {"name": "pixels"}, "n_images": 4},
    )  # fmt: skip
    given = {"inverted": _inversion(count(3, 5)), "edited": _edited(count(3, 3, 4, 4, scale=0.015))}
    hybrids = _hybrids(count(2, 3, 4, 4, scale=0.03))
    named = {"hybrids": hybrids, "maps": maps, "inv": invariance, "fid": fidelity, "robustness": _robustness()}
    return named | given


def _robustness() -> cp.Robustness:
    hits = np.arange(2 * 2 * 2 * 3 * 2).reshape(2, 2, 2, 3, 2) % 3 == 0
    classifier = {"answered": {"0": "day", "1": "night"}, "pooled": ["day", "night"]}
    return cp.Robustness(
        answers=(np.arange(24).reshape(2, 2, 2, 3) % 2).astype(np.int32),
        confidence=array(2, 2, 2, 3).astype(np.float32), hits=hits, hits5=hits | True,
        probabilities=array(2, 2, 2, 3, 2, scale=0.01).astype(np.float32),
        entropies=array(2, 2, 2, 3, scale=0.02).astype(np.float32), distances=array(2, 2, 3, 2).astype(np.float32),
        original_hits=hits[:, 0, 0], disagreement=array(2, 2, 3, scale=0.03).astype(np.float32),
        shown=count(1, 3, 3, 4, 4, scale=0.01), shown_at=np.array([[0, 1, 2]]), classifiers=("few", 'ma"ny'),
        layers=("main.2", "main.6"), modules=("1", "2"), classes=("day", "night, dark"), units=(*UNITS, *UNITS),
        provenance=ABOUT | {"classifiers": [classifier, classifier]},
    )  # fmt: skip


def stability() -> cp.Stability:
    about = {"method": "nmf", "features": "bits", "seed": 0, "maps": ABOUT}
    return cp.Stability(
        np.array([2, 3]),
        array(2, 3) + 0.2,
        array(2, 3) + 0.4,
        about,
        np.array([0.9, 0.4]),
        np.array([0.8, 0.5]),
        np.array([1, 0.7]),
    )


def _of_modules() -> dict[str, Any]:
    about = {"method": "nmf", "features": "bits", "seed": 0, "maps": ABOUT}
    numbers = np.array([2, 3])
    selection = cp.Selection(numbers, array(2, 3), np.array([0.95, 0.5]), np.array([0.3, 0.6]), about)
    quality = cp.ModuleQuality(
        UNITS, np.array([0.2, 0.3]), np.array([2.0, 1.5]), array(2, 4), ABOUT | {"modules": [1, 3], "controls": 4}
    )
    match = cp.ModuleMatch(
        UNITS, np.array([[0, 1], [1, 0]]), np.array([0.9, 0.4]), array(2, 2, 4, 4),
        {"generator": "toy", "layers": ["main.2", "main.6"], "first": about, "second": about},
    )  # fmt: skip
    parts = cp.PartsAgreement(
        mean_iou=0.5, mean_ari=0.25, iou=array(2, 3), ari=np.array([0.2, 0.3]), pairs=np.array([[0, 2], [1, 1]]),
        chance_iou=np.array([0.1, 0.2]), chance_ari=np.array([0.0, 0.1]), majority_iou=0.75, majority_ari=0.5,
        templates=array(2, 4, 4), parts=array(3, 4, 4, scale=0.02),
        provenance={"regions": "templates", "parts": ["floor", "wall", 'the "shape"'], "seed": 0, "modules": about},
    )  # fmt: skip
    calls = cp.ModulesByCall(
        UNITS, np.array([1, 2, 4]), np.array([[0, 0, 1], [0, 1, 1], [0, 1, -1]]), array(3, 2, 4, 4), array(2, 2) + 0.4,
        np.array([0.75, 0.5]), array(2, 4), 0.25, array(4), about, np.array([0.125, 0.05]), np.array([0.9, 0.8, 0.7]),
    )  # fmt: skip
    of_layers = {"stability": stability(), "selection": selection, "quality": quality, "match": match}
    return of_layers | {"parts": parts, "calls": calls}


def exchanged() -> cp.Exchanged:
    """Of two modules, with three random sets each, and two images."""
    pairs = np.array([[np.nan, 0.2], [0.3, np.nan]])
    images, random = count(6, 2, 3, 4, 4, scale=0.002), np.full((2, 3, 2), 0.35)
    return cp.Exchanged(
        units=tuple(item.named(name) for item, name in zip(UNITS, ("few", "day"), strict=True)),
        regions=np.arange(32).reshape(2, 4, 4) % 3 == 0, influence=np.array([0.12, 0.3]),
        cause=np.array([0.9, 0.4]), cause_error=array(2) + 0.02, isolation=np.array([0.8, 0.5]),
        isolation_error=array(2) + 0.03, separation_error=array(2) + 0.04, interaction=pairs,
        interaction_error=pairs / 10, joint=3 * pairs, joint_error=pairs / 20, random_influence=random,
        random_cause=random + array(2, 3, 2, scale=0.01), random_isolation=random + array(2, 3, 2, scale=0.02),
        random_interaction=np.stack([[pairs] * 3] * 2) * 1.5, random_joint=np.stack([[pairs] * 3] * 2),
        provenance=ABOUT | {"axis": "channel", "reach": 0.98, "exchange": {"controls": 3, "images": 2, "steps": 5}},
        groups=("other samples", "mixed latents", "few", "day", "random sets", "collages"),
        faithfulness=1 - array(6, 2, scale=0.05), distances=array(6, 2, scale=0.01), images=images, nearest=2 * images,
    )  # fmt: skip


def _of_spectra() -> dict[str, Any]:
    ratio = count(2, 3, 2).double() + 0.5
    ratio[0, 0] = torch.nan
    row = {
        "earlier": "main.0", "later": 'main,"3', "direction": "up", "stride": [2, 2], "in": 2, "mid": 3, "out": 2,
        "size": [8, 8], "skip": False, "between": ["main.1", "main.2"], "pathways": 12, "alive": 10, "dead": 2,
        "mean": 1.25, "std": 0.5, "share_below": 0.1, "share_above": 0.2, "least": 0.5, "largest": 1.6,
        "q05": 0.55, "q25": 0.75, "q50": 1.0, "q75": 1.25, "q95": 1.5,
    }  # fmt: skip
    dead = {key: None if isinstance(value, float) else value for key, value in row.items()}
    about = {**ABOUT, "direction": "up"}
    histograms = torch.zeros(2, len(EDGES) - 1, dtype=torch.int64)
    histograms[0, 200:600:40] = 1
    removal = cp.FilterRemoval(
        names=("nothing", "low energy", "ratio < 0.9"), filters=torch.tensor([8, 6, 4]), energy=1 - count(3),
        images=count(3, 2, 3, 4, 4, scale=0.005), saturation=count(3, 2).double(),
        fine=count(3, 2, scale=0.01).double(),
        control_energy=count(1, 2), control_images=count(1, 2, 3, 4, 4, scale=0.01),
        control_saturation=count(1, 2, 2).double(), control_fine=count(1, 2, 2, scale=0.01).double(), provenance=ABOUT,
    )  # fmt: skip
    return {
        "ratios": cp.SpectralRatios(ratio, 12, ABOUT),
        "activations": cp.ActivationRatios(count(3, 2).double() + 0.5, 8, ABOUT),
        "table": cp.SpectralTable([row, dead], histograms, about),
        "removal": removal,
    }


def scores() -> list[cp.metrics.Score]:
    about = {
        "metric": "any", "rows": 90, "test_rows": 10, "codes": 3, "factors": 2, "continuous": [False, True], "bins": 20,
        "seed": 0, "versions": {"counterfactual-probe": "0.1.0", "scikit-learn": "1.5"},
    }  # fmt: skip
    matrix, of_codes, of_factors = array(3, 2), array(3), array(2) + 0.1
    m = cp.metrics
    return [
        m.MIG(0.5, matrix, about, chance=0.01, test_score=None, entropies=of_factors, gaps=of_factors),
        m.Modularity(0.625, matrix, about, chance=0.7, test_score=0.5, per_code=of_codes),
        m.SAP(0.25, matrix, about, gaps=of_factors),
        m.IRS(0.5, matrix, about, per_code=of_codes, deviations=of_codes, active=2, quantile=0.99, chance=0.25,
              test_score=None),
        m.Explicitness(0.75, matrix, about, per_factor=of_factors, train_score=0.875, left_out=of_factors),
        m.DCI(0.5, matrix, about, disentanglement=0.5, completeness=0.25, informativeness=0.75,
              informativeness_train=0.875, per_code=of_codes, per_factor=of_factors, accuracies=of_factors),
    ]  # fmt: skip


def finder() -> cp.ModuleFinder:
    """Of six channels: three act at the top of the image, two at the bottom, and one nowhere."""
    planted = torch.zeros(6, 8, 8)
    planted[[0, 2, 4], :4] = 1.0
    planted[[1, 3], 4:] = 1.0
    planted[[0, 2, 4], 0, 0] += torch.tensor([0.5, 0.25, 0.125])
    n = len(planted)
    maps = cp.InfluenceMaps(
        planted, 0.1 * planted, planted.mean((1, 2)), torch.full((n,), 0.01), torch.full((n,), 8), torch.zeros(n),
        tuple(cp.UnitSet({"main.2": (channel,)}) for channel in range(n)), ABOUT,
        block_sums=planted[:, None].expand(n, 4, 8, 8).contiguous(),
    )  # fmt: skip
    found = cp.ModuleFinder(2, window=1, percentile=40.0).fit(maps)
    if found.expected_ari_ != 1.0:
        raise ValueError(f"the planted modules have an expected ARI of {found.expected_ari_}")
    return found


if __name__ == "__main__":
    for name, result in results().items():
        result.save(Path(sys.argv[1]) / name)
