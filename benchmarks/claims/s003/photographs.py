"""S003 §4.2: hybrids of two classes of photographs, and what classifiers see in them, by depth of the GenBlock.

The networks are those of ``examples/biggan_cifar10_robustness.py``, which trains them; this study takes them from
``out/cifar10-networks``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import counterfactual_probe as cp
from counterfactual_probe.fidelity.realism import realism

from ..examples import example
from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, verdict

SEEDS, MAP_PAIRS, PAIRS, MODULES, SAMPLES = 5, 16, 100, 3, 500
CLASSES = (("horse", "automobile"), ("cat", "dog"))
NETWORKS = Path("out/cifar10-networks")
EARLY, LATE = slice(0, 2), slice(-2, None)  # GenBlocks that are compared


def measure() -> Numbers:
    """For each pair of classes and each sample of latents: rates, distances and entropies by GenBlock and module."""
    robustness, cifar = example("biggan_robustness"), example("biggan_cifar10")
    networks = [cp.load_classifier(NETWORKS / name) for name in example("biggan_cifar10_robustness").KINDS]
    gen = cp.load(cifar.GENERATOR)
    rows = []
    for names in CLASSES:
        own = _features(
            networks, gen, gen(gen.sample(SAMPLES, seed=99, classes=[names[k % 2] for k in range(SAMPLES)]))
        )
        for seed in range(SEEDS):
            options = argparse.Namespace(
                seed=seed,
                truncation=cifar.TRUNCATION,
                layers=["conv_2", "conv_3"],
                modules=MODULES,
                map_pairs=MAP_PAIRS,
                out=None,
            )
            units = {f"GenBlock {block}": robustness.modules(gen, block, names, options) for block in cifar.BLOCKS}
            z1, z2 = (gen.sample(PAIRS, seed=seed + 1000, stream=k, classes=name) for k, name in enumerate(names))
            found = cp.RobustnessProbe(gen, networks).score(z1, z2, units_by_layer=units, classes=names)
            real = np.full(found.present.shape, np.nan)
            real[found.present] = [
                np.median(realism(_features(networks, gen, images), own)) for images in _hybrids(gen, found, (z1, z2))
            ]
            rows.append({"classes": list(names), "seed": seed, "realism": _listed(real), **_numbers(found)})
    about = {"pairs": PAIRS, "map_pairs": MAP_PAIRS, "blocks": list(cifar.BLOCKS)}
    return about | {"networks": [network.name for network in networks], "samples": rows}


def _numbers(found: cp.Robustness) -> dict[str, Any]:
    """Rates, distances and entropies; None where a GenBlock has fewer modules."""
    rates = np.where(found.present, found.hits.any(-1).mean(-1), np.nan)
    agreed = (found.answers == found.answers[:1]).all(0).mean(-1)
    return {
        "original": found.original_hits.mean((1, 2)).tolist(),
        "curve": found.curve.tolist(),
        "either": _listed(rates),
        "distance": _listed(np.where(found.present, found.distances.mean(2).min(-1), np.nan)),
        "entropy": _listed(np.where(found.present, found.entropies.mean(-1), np.nan)),
        "agreed": _listed(np.where(found.present, agreed, np.nan)),
    }


def _hybrids(gen: cp.GeneratorAdapter, found: cp.Robustness, pairs: tuple[Any, Any]) -> Iterator[torch.Tensor]:
    """Of every module that there is, in the order of ``found.present``."""
    for units in found.units:
        yield cp.Hybridizer(gen, list(units)).hybridize(*pairs, units=[units]).images[0]


def _features(
    networks: Sequence[cp.Classifier], gen: cp.GeneratorAdapter, images: torch.Tensor
) -> np.ndarray[Any, Any]:
    """Of the last network, which knows ImageNet too."""
    features: np.ndarray[Any, Any] = networks[-1].features(images, image_range=gen.image_range).double().numpy()
    return features


def _listed(values: Any) -> list[Any]:
    return [_listed(value) if np.ndim(value) else (None if np.isnan(value) else float(value)) for value in values]


def _array(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values, np.float64)  # None becomes NaN


def by_classes(numbers: Numbers, of: Any) -> dict[str, Sampled]:
    """A number of each sample, by the two classes."""
    return {
        " and ".join(names): Sampled.of(of(row) for row in numbers["samples"] if row["classes"] == list(names))
        for names in CLASSES
    }


def later(values: Any) -> float:
    """The last two GenBlocks' mean minus the first two's; GenBlocks are the second axis from the end, or the last."""
    given = _array(values)
    return float(np.nanmean(given[LATE]) - np.nanmean(given[EARLY]))


def told(found: dict[str, Sampled], spec: str) -> str:
    """A number of each pair of classes, in words."""
    return "; ".join(f"{names}: {one:{spec}}" for names, one in found.items())


def rises(numbers: Numbers) -> list[Line]:
    found = by_classes(numbers, lambda row: later(_array(row["curve"]).T))
    first = by_classes(numbers, lambda row: np.nanmean(_array(row["curve"])[:, EARLY]))
    last = by_classes(numbers, lambda row: np.nanmean(_array(row["curve"])[:, LATE]))
    text = "; ".join(
        f"{names}: from {first[names]:.2f} at GenBlocks 1 and 2 to {last[names]:.2f} at 5 and 6 ({one:+.2f})"
        for names, one in found.items()
    )
    about = (
        f"`biggan-cifar10`, {MODULES} modules of each GenBlock, {SEEDS} samples of {numbers['pairs']} pairs, "
        "three classifiers of CIFAR-10, one training of each"
    )
    return [Line(about, verdict(one.sign for one in found.values()), f"rate of the most recognised original: {text}")]


def nearer(numbers: Numbers) -> list[Line]:
    found = by_classes(numbers, lambda row: -later(row["distance"]))
    text = told(found, "+.3f")
    return [
        Line(
            "the same",
            verdict(one.sign for one in found.values()),
            f"by how much the distance to the nearer original is smaller at GenBlocks 5 and 6 than at 1 and 2: {text}",
        )
    ]


def differ(numbers: Numbers) -> list[Line]:
    signs, said = [], []
    for names in CLASSES:
        rows = [row for row in numbers["samples"] if row["classes"] == list(names)]
        rates = {
            name: [float(np.nanmean(_array(row["either"])[k])) for row in rows]
            for k, name in enumerate(numbers["networks"])
        }
        means = {name: float(np.mean(of)) for name, of in rates.items()}
        order = sorted(means, key=means.__getitem__, reverse=True)
        gap = Sampled.difference(rates[order[0]], rates[order[-1]])
        signs.append(gap.sign)
        listed = ", ".join(f"{name} {means[name]:.3f}" for name in order)
        said.append(f"{' and '.join(names)}: {listed} (first − last {gap:+.3f})")
    return [Line("the same", verdict(signs), f"share of hybrids recognised as either original: {'; '.join(said)}")]


def entropies(numbers: Numbers) -> list[Line]:
    def against_realism(row: dict[str, Any]) -> float:
        entropy, real = _array(row["entropy"]).mean(0), _array(row["realism"])
        kept = np.isfinite(entropy) & np.isfinite(real)
        return -float(spearmanr(entropy[kept], real[kept]).statistic)

    quality = by_classes(numbers, against_realism)
    depth = by_classes(numbers, lambda row: later(_array(row["entropy"]).mean(0)))
    text = "; ".join(
        f"{names}: rank correlation of a module's entropy with how unrealistic its hybrids are {quality[names]:+.2f}, "
        f"entropy of GenBlocks 5 and 6 minus 1 and 2 {depth[names]:+.2f} nats"
        for names in quality
    )
    signs = [one.sign for one in (*quality.values(), *depth.values())]
    return [Line("the same", verdict(signs), text)]


def disagree(numbers: Numbers) -> list[Line]:
    hybrids = by_classes(numbers, lambda row: 1 - np.nanmean(_array(row["agreed"])))
    text = told(hybrids, ".3f")
    return [
        Line(
            "the same",
            verdict(one.sign for one in hybrids.values()),
            f"share of hybrids to which the three classifiers do not give one class: {text}",
        )
    ]


STUDY = Study(
    "photographs",
    measure,
    (
        Row("§4.2, Fig. 6: recognition of an original rises with the depth of the layer", rises),
        Row("§4.2, Fig. 6: for layers near the output, hybrids are closer to an original", nearer),
        Row("§4.2, Fig. 6: classifiers differ in how robust they are", differ),
        Row("Fig. 14, 16: modules of poorer quality have larger entropies; early blocks small ones", entropies),
        Row("Table 3, Fig. 17: classifiers disagree; nasnet_large is more robust", disagree),
    ),
    repeats=SEEDS,
)
