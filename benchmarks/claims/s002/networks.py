"""S002 §4.1 and 4.2: ratios of the networks that ship, level by level, beside those of random kernels."""

from __future__ import annotations

from typing import Any

import torch
from pages import markdown

import counterfactual_probe as cp

from ..examples import example
from ..row import Line, Numbers, Row, Study
from ..sampled import FAILS, HOLDS, PART, Verdict, verdict

DRAWS = 5  # of random kernels, a reference whose kernels are independent
CLOSE = 1.5  # times the spread of random kernels
TRAINED = "one training of each"
# A VAE and a GAN of the same images, and what the page calls them.
TWINS = {
    "faces": ("vae-faces", "dcgan-faces-small"),
    "faces, a tenth of β": ("vae-faces-sharp", "dcgan-faces-small"),
    "CIFAR-10": ("vae-cifar10", "dcgan-cifar10"),
}


def measure() -> Numbers:
    """Levels of each network and of its opposite, from fine to coarse."""
    networks = example("spectral_networks")
    bar = example("spectral_levels").BAR
    return {"draws": DRAWS, "bar": bar, "networks": {name: _network(name, networks) for name in networks.NETWORKS}}


def _network(name: str, networks: Any) -> Numbers:
    levels = example("spectral_levels")
    gen = cp.load(name)
    building = levels.levels(cp.SpectralDependency(gen, name=name).table())
    found: Numbers = {"building": _levels(building, levels.by_chance(gen.module, gen.sample(2), draws=DRAWS))}
    opposite = networks._opposite(gen)
    found["kind"] = "VAE" if hasattr(gen, "encode") else "GAN"
    if opposite is not None:
        inputs = torch.zeros(2, *gen.image_size)
        extracting = levels.levels(cp.SpectralDependency(opposite[0], example=inputs, name=name).table())
        found["extracting"] = _levels(extracting, levels.by_chance(opposite[0], inputs, draws=DRAWS))
        found["opposite"] = opposite[1]
        found["distances"] = {one.name: levels.distance(one, two) for one, two in levels.shared(building, extracting)}
    return found


def _levels(found: Any, chance: Any) -> dict[str, Numbers]:
    return {
        level.name: {name: getattr(level, name) for name in ("mean", "std", "below", "above", "mode", "deviation")}
        | {"random": [draw[place].std for draw in chance]}
        for place, level in enumerate(found)
    }


# --- what is asked of a level -----------------------------------------------------------------------


def random(level: Numbers) -> float:
    """The spread of random kernels, mean over draws."""
    return float(sum(level["random"]) / len(level["random"]))


def times(level: Numbers) -> float:
    """The spread, relative to that of random kernels."""
    return float(level["std"] / random(level))


def margin(*levels: Numbers) -> float:
    """What random kernels' relative spread differs by between draws: smaller differences say nothing."""
    return float(max((max(level["random"]) - min(level["random"])) / random(level) for level in levels))


def sign(one: Numbers, two: Numbers) -> int:
    """1 where one is broader than two, −1 where it is narrower, 0 where random kernels differ as much."""
    difference = times(one) - times(two)
    return 0 if abs(difference) <= margin(one, two) else (1 if difference > 0 else -1)


def opposed(numbers: Numbers, kind: str) -> dict[str, Numbers]:
    return {name: one for name, one in numbers["networks"].items() if one["kind"] == kind and "extracting" in one}


def both(one: Numbers) -> list[tuple[str, Numbers, Numbers]]:
    """The levels that a network shares with its opposite: name, its own, the opposite's."""
    return [
        (name, level, one["extracting"][name]) for name, level in one["building"].items() if name in one["extracting"]
    ]


def twins(numbers: Numbers) -> dict[str, list[tuple[str, Numbers, Numbers]]]:
    """The levels that a VAE and a GAN share: name, the decoder's, the generator's."""
    networks = numbers["networks"]
    return {
        title: [
            (level, networks[vae]["building"][level], networks[gan]["building"][level])
            for level in networks[vae]["building"]
            if level in networks[gan]["building"]
        ]
        for title, (vae, gan) in TWINS.items()
    }


def names(found: Any) -> str:
    return ", ".join(f"`{name}`" for name in found)


# --- rows -------------------------------------------------------------------------------------------


def concentrated(numbers: Numbers) -> list[Line]:
    close: list[tuple[str, str, float]] = []
    far: list[tuple[str, str, float]] = []
    for name, one in numbers["networks"].items():
        for level, values in one["building"].items():
            (close if times(values) <= CLOSE else far).append((name, level, times(values)))
    said = PART if close and far else HOLDS if close else FAILS
    finest = [next(iter(one["building"].values())) for one in numbers["networks"].values()]
    least = min(value for _, _, value in close + far)
    text = (
        f"spread of the ratios within {CLOSE:g} times that of random kernels at {len(close)} of "
        f"{len(close) + len(far)} levels ({'; '.join(f'`{name}` {level}' for name, level, _ in close)}); at no "
        f"level as small as theirs (at least {least:.2f} times). At the finest level {min(map(times, finest)):.1f} "
        f"to {max(map(times, finest)):.1f} times, with means of {min(v['mean'] for v in finest):.2f} to "
        f"{max(v['mean'] for v in finest):.2f}"
    )
    return [Line(f"seven networks, {TRAINED}", said, text)]


def broader(numbers: Numbers) -> list[Line]:
    signs, said = [], []
    for name, one in opposed(numbers, "GAN").items():
        levels = both(one)
        signs += [sign(two, own) for _, own, two in levels]
        level, own, two = levels[0]
        wider = sum(sign(two, own) > 0 for _, own, two in levels)
        said.append(
            f"`{name}`: at {wider} of {len(levels)} levels; at {level} its spread is {two['std']:.3f} and the "
            f"generator's {own['std']:.3f} (random kernels {random(two):.3f} and {random(own):.3f})"
        )
    verdict_ = FAILS if all(value <= 0 for value in signs) else verdict(signs)
    return [Line(f"{names(opposed(numbers, 'GAN'))}, {TRAINED}", verdict_, "; ".join(said))]


def tails(numbers: Numbers) -> list[Line]:
    holds, said = [], []
    for name, one in opposed(numbers, "GAN").items():
        level, own, two = both(one)[0]
        holds.append(two["below"] > own["below"] and own["above"] > two["above"])
        said.append(
            f"`{name}` ({level}): below 0.9 {100 * two['below']:.0f} % of the discriminator's and "
            f"{100 * own['below']:.0f} % of the generator's ratios; above 1.45 "
            f"{100 * two['above']:.0f} % and {100 * own['above']:.0f} %"
        )
    return [Line(f"{names(opposed(numbers, 'GAN'))}, {TRAINED}", _all(holds), "; ".join(said))]


def finest(numbers: Numbers) -> list[Line]:
    holds, said = [], []
    for name, one in numbers["networks"].items():
        if one["kind"] == "GAN":
            values = {level: v["deviation"] / random(v) for level, v in one["building"].items()}
            first, *others = values.values()
            holds.append(first > max(others))
            said.append(f"`{name}` " + ", ".join(f"{value:.1f}" for value in values.values()))
    text = f"root mean square of ratio − 1 relative to random kernels' spread, from fine to coarse: {'; '.join(said)}"
    return [Line(f"three DCGANs, `began-faces`, {TRAINED}", _all(holds), text)]


def modes(numbers: Numbers) -> list[Line]:
    bar = numbers["bar"]
    holds, said = [], []
    for name, one in opposed(numbers, "VAE").items():
        levels = both(one)
        holds += [abs(own["mode"] - 1) <= bar and two["mode"] < 1 for _, own, two in levels]
        said.append(f"`{name}` " + ", ".join(f"{own['mode']:.3f} and {two['mode']:.3f}" for _, own, two in levels))
    text = f"modes of decoder and encoder from fine to coarse, to a resolution of {bar}: {'; '.join(said)}"
    return [Line(f"three VAEs, {TRAINED}", _all(holds), f"at {sum(holds)} of {len(holds)} levels; {text}")]


def sharper(numbers: Numbers) -> list[Line]:
    holds, said = [], []
    for title, (vae, gan) in TWINS.items():
        one, two = (numbers["networks"][name]["distances"] for name in (vae, gan))
        levels = [level for level in one if level in two]
        holds += [one[level] > two[level] for level in levels]
        said.append(f"{title}: " + ", ".join(f"{level} {one[level]:.3f} and {two[level]:.3f}" for level in levels))
    text = (
        "distance of the distributions of decoder and encoder, and of generator and discriminator, at the levels that "
        f"both have. {'; '.join(said)}"
    )
    return [Line(f"three VAEs, two DCGANs, {TRAINED}", _all(holds), text)]


def decoder(numbers: Numbers) -> list[Line]:
    lines = []
    for images in ("faces", "CIFAR-10"):
        signs, said, most = [], [], 0.0
        for title, levels in twins(numbers).items():
            if title.startswith(images):
                signs += [sign(own, other) for _, own, other in levels]
                most = max([most, *(margin(own, other) * random(own) for _, own, other in levels)])
                at = (f"{level} {own['std']:.3f} and {other['std']:.3f}" for level, own, other in levels)
                said.append(f"`{TWINS[title][0]}` {', '.join(at)}")
        text = (
            f"spread of the decoder's and of the generator's ratios at the levels that both have: {'; '.join(said)}. "
            f"The decoder's is narrower at {signs.count(-1)} of {len(signs)} levels and broader at {signs.count(1)}; "
            f"random kernels differ by up to {most:.3f} between draws"
        )
        lines.append(Line(f"{images}: {names(_of(images))}, {TRAINED}", verdict(signs), text))
    return lines


def _of(images: str) -> list[str]:
    """The networks of these images, each once."""
    return list(dict.fromkeys(name for title, pair in TWINS.items() if title.startswith(images) for name in pair))


def _all(holds: list[bool]) -> Verdict:
    return HOLDS if all(holds) else PART if any(holds) else FAILS


# --- the page's table -------------------------------------------------------------------------------


def table(numbers: Numbers) -> dict[str, str]:
    head = [
        "network", "level", "generator or decoder: mean ± spread", "< 0.9", "> 1.45",
        "discriminator or encoder: mean ± spread", "< 0.9", "> 1.45", "random kernels: spread",
    ]  # fmt: skip
    rows = []
    for name, one in numbers["networks"].items():
        for place, (level, values) in enumerate(one["building"].items()):
            other = one.get("extracting", {}).get(level)
            rows.append(
                [f"`{name}`" if not place else "", level, *_cells(values), *_cells(other), f"{random(values):.3f}"]
            )
    return {"networks": markdown(head, rows)}


def _cells(level: Numbers | None) -> list[str]:
    if level is None:
        return ["–"] * 3
    return [f"{level['mean']:.3f} ± {level['std']:.3f}", f"{level['below']:.3f}", f"{level['above']:.3f}"]


STUDY = Study(
    "networks",
    measure,
    (
        Row("§4.1, Fig. 4: a generator's ratios are concentrated around 1", concentrated),
        Row("§4.1, Fig. 4: the discriminator's ratios are broader, most at fine scales", broader),
        Row(
            "§4.2, Fig. 4: at the finest level the discriminator has more negative, the generator more positive "
            "correlations",
            tails,
        ),
        Row("§4.2: layers of a GAN depend more on each other at fine scales", finest),
        Row("§4.1, Fig. 5: a decoder's mode is around 1, its encoder's below", modes),
        Row("§4.1, Fig. 5: decoder and encoder differ more than generator and discriminator", sharper),
        Row("§4.1: a VAE's decoder has a broader distribution than a GAN's generator", decoder),
    ),
    repeats=DRAWS,
    tables={"spectral.md": table},
)
