"""S002 §4.3, Figs 7 to 9: do ratios tell better VAEs from worse ones? Trainings of four models, over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..examples import example
from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, verdict

SEEDS = 5
OUT = Path("out/spectral-vae")  # the example's own, so that a run that was interrupted goes on


def measure() -> Numbers:
    """Train the models of all seeds, ten minutes of a core in all."""
    example("spectral_vae_sweep").main(["--seeds", str(SEEDS), "--out", str(OUT)])
    return numbers_of(json.loads((OUT / "table.json").read_text(encoding="utf-8")))


def numbers_of(table: Sequence[dict[str, Any]]) -> Numbers:
    """The example's table, model by model in S002's order, from worst to best, with a value for each seed."""
    found: dict[tuple[int, float], Numbers] = {}
    for row in sorted(table, key=lambda row: (row["channels"], -row["beta"], row["seed"])):
        name = row["channels"], row["beta"]
        model = found.setdefault(name, {"channels": name[0], "beta": name[1], "runs": {}, "decoder": {}, "encoder": {}})
        model["runs"][str(row["seed"])] = {"error": row["reconstruction"], "variety": row["variety"]}
        model[row["network"]].setdefault(row["level"], []).append(row["std"])  # from fine to coarse
    return {"seeds": sorted({row["seed"] for row in table}), "models": list(found.values())}


def value(name: str) -> Callable[[Numbers], list[float]]:
    return lambda model: [run[name] for run in model["runs"].values()]


def spread(network: str, place: int) -> Callable[[Numbers], list[float]]:
    """Spreads of the ratios at the finest level, 0, or at the coarsest, −1."""

    def of(model: Numbers) -> list[float]:
        found: list[float] = list(model[network].values())[place]
        return found

    return of


def compared(one: Numbers, two: Numbers, of: Callable[[Numbers], list[float]], spec: str) -> tuple[Sampled, str]:
    """One − two, over trainings of the same seed, and its words."""
    first, second = of(one), of(two)
    less = Sampled.difference(first, second)
    return less, f"{Sampled.of(first):{spec}} and {Sampled.of(second):{spec}} (difference {less:{'+' + spec}})"


def differences(
    ones: Sequence[Numbers], twos: Sequence[Numbers], of: Callable[[Numbers], list[float]], spec: str, name: str
) -> tuple[list[int], str]:
    """Signs of the differences of models from others that have the same ``name``, and their words."""
    found = [(one, *compared(one, two, of, spec)) for one, two in zip(ones, twos, strict=True)]
    said = "; ".join(f"{name.format_map(one)} {words}" for one, _, words in found)
    return [less.sign for _, less, _ in found], said


def networks(numbers: Numbers) -> str:
    return f"four VAEs at 32×32, 800 steps, {len(numbers['seeds'])} seeds"


def variety(numbers: Numbers) -> list[Line]:
    large, small = numbers["models"][::2], numbers["models"][1::2]
    signs, said = differences(small, large, value("variety"), ".3f", "with {channels} channels")
    text = "standard deviation of samples with a tenth of β and with the full one: "
    return [Line(networks(numbers), verdict(signs), text + said)]


def channels(numbers: Numbers) -> list[Line]:
    few, many = numbers["models"][:2], numbers["models"][2:]
    signs, said = differences(few, many, value("error"), ".4f", "with β {beta:g}")
    text = f"squared error with {few[0]['channels']} and {many[0]['channels']} channels: "
    return [Line("the same", verdict(signs), text + said)]


def encoder(numbers: Numbers) -> list[Line]:
    worst, best = numbers["models"][0], numbers["models"][-1]
    less, words = compared(worst, best, spread("encoder", -1), ".4f")
    text = f"spread of the first (worst) and of the last (best) model's encoder: {words}"
    return [Line("the same", verdict([less.sign]), text)]


def decoder(numbers: Numbers) -> list[Line]:
    worst, best = numbers["models"][0], numbers["models"][-1]
    coarse, first = compared(worst, best, spread("decoder", -1), ".4f")
    fine, second = compared(worst, best, spread("decoder", 0), ".4f")
    text = f"spread of the worst and of the best model's decoder: at the coarsest level {first}, at the finest {second}"
    return [Line("the same", verdict([coarse.sign, -fine.sign]), text)]


STUDY = Study(
    "sweep",
    measure,
    (
        Row("§4.3, Fig. 7: a smaller β gives samples more variety", variety),
        Row("§4.3, Fig. 7: more channels help slightly", channels),
        Row("§4.3, Fig. 8: at the coarsest level the better model's encoder has more concentrated ratios", encoder),
        Row(
            "§4.3, Fig. 9: at the coarsest level the better model's decoder has more concentrated ratios, and at the "
            "finest level the worse model's",
            decoder,
        ),
    ),
    repeats=SEEDS,
)
