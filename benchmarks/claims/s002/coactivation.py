"""S002 §3.2: "if kernels are not frequently coactivated, it is unlikely that their weights are related"."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, verdict

SEEDS, IMAGES, SHUFFLES = 5, 64, 20
# Maps after rectified units, the later ones of twice the side, and the convolutions that end in the two.
LAYERS = {
    "dcgan-faces-small": (("main.5", "main.8", "main.3", "main.6"), ("main.8", "main.11", "main.6", "main.9")),
    "vae-faces": (("decoder.level2", "decoder.level3", "decoder.level2.0", "decoder.level3.0"),),
}

Floats = npt.NDArray[np.float64]


def activity(gen: cp.GeneratorAdapter, layers: tuple[str, str], seed: int) -> list[torch.Tensor]:
    """Where the channels of two layers are active, (images, channels, H, W) of 0 and 1."""
    kept: dict[str, torch.Tensor] = {}

    def keep(layer: str) -> Any:
        return lambda _m, _i, output: kept.__setitem__(layer, (output.detach() > 0).float())

    hooks = [gen.module.get_submodule(layer).register_forward_hook(keep(layer)) for layer in layers]
    try:
        gen(gen.sample(IMAGES, seed=seed))
    finally:
        for hook in hooks:
            hook.remove()
    return [kept[layer] for layer in layers]


def together(earlier: torch.Tensor, later: torch.Tensor) -> tuple[Floats, Floats]:
    """(mid, out) how often a channel of each are active at one place, and the same over what chance would give."""
    one = earlier.repeat_interleave(2, -1).repeat_interleave(2, -2).permute(1, 0, 2, 3).flatten(1)
    two = later.permute(1, 0, 2, 3).flatten(1)
    often = (one @ two.T / one.shape[1]).double().numpy()
    chance = np.outer(one.mean(1).double().numpy(), two.mean(1).double().numpy())
    return often, often / np.maximum(chance, 1e-12)


def measure() -> Numbers:
    found: Numbers = {"seeds": list(range(SEEDS)), "images": IMAGES, "pairs": []}
    for name, pairs in LAYERS.items():
        gen = cp.load(name)
        sd = cp.SpectralDependency(gen)
        for earlier, later, first, second in pairs:
            deviation = (sd.measure(first, second).ratio - 1).abs().nanmean(0).numpy()  # (mid, out)
            rows = []
            for seed in range(SEEDS):
                often, lift = together(*activity(gen, (earlier, later), seed))
                live = (often > 0) & np.isfinite(deviation)
                rng = np.random.default_rng(seed)
                mids = [rng.permutation(len(often)) for _ in range(SHUFFLES)]
                rows.append({
                    "often": _rank(often, deviation, live),
                    "lift": _rank(lift, deviation, live),
                    "shuffled": float(np.std([_rank(lift[order], deviation, live) for order in mids])),
                })  # fmt: skip
            found["pairs"].append({"generator": name, "layers": [earlier, later], "seeds": rows})
    return found


def _rank(one: Floats, two: Floats, live: npt.NDArray[np.bool_]) -> float:
    return float(spearmanr(one[live], two[live]).statistic)


def related(numbers: Numbers) -> list[Line]:
    signs, said = [], []
    for pair in numbers["pairs"]:
        rows = pair["seeds"]
        lift, often = (Sampled.of(row[what] for row in rows) for what in ("lift", "often"))
        shuffled = float(np.mean([row["shuffled"] for row in rows]))
        # Error bars of samples know nothing of the channels, which are few: shuffling these does.
        signs.append(0 if abs(lift.mean) < 2 * shuffled else lift.sign)
        layers = " → ".join(f"`{layer}`" for layer in pair["layers"])
        said.append(
            f"`{pair['generator']}` {layers} {lift:+.3f} (of the frequency alone {often:+.3f}; with channels shuffled "
            f"± {2 * shuffled:.3f})"
        )
    text = (
        "rank correlation, over pairs of channels, of |ratio − 1| with how often both are active at one place relative "
        f"to chance: {'; '.join(said)}"
    )
    repeats = f"{len(numbers['seeds'])} samples of {numbers['images']} images, one training of each"
    return [Line(f"`dcgan-faces-small`, `vae-faces`, {repeats}", verdict(signs), text)]


STUDY = Study(
    "coactivation",
    measure,
    (Row("§3.2: kernels that are active together are those whose weights depend on each other", related),),
    repeats=SEEDS,
)
