"""S001 §4.1, Fig. 5 and Fig. 3 (right): how stable modules are, by their number and method, and what they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import counterfactual_probe as cp
from counterfactual_probe.modules.clustering import Method

from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, Verdict, verdict

DRAWS = 5  # samples of pairs
SUBSETS = 20  # repetitions over subsets of the channels, as in the paper
NUMBERS = (2, 3, 4, 5, 6)
VAE = "vae-faces"
LAYERS = {VAE: ("decoder.level2", "decoder.level3")}
PAIRS = {VAE: 256}  # to find modules
LATER = 32  # other pairs, to measure what modules change
PAPER = 0.9
WEAK = 1.5  # what "only weakly" may mean: the larger of two influences over the smaller


def measure() -> Numbers:
    found: Numbers = {
        "draws": list(range(DRAWS)),
        "pairs": PAIRS,
        "later": LATER,
        "numbers": list(NUMBERS),
        "layers": [],
    }
    for name, layers in LAYERS.items():
        gen = cp.load(name)
        for layer in layers:
            draws = [_draw(gen, layer, seed, PAIRS[name]) for seed in range(DRAWS)]
            values = {what: [draw[what] for draw in draws] for what in draws[0]}
            found["layers"].append(
                {"generator": name, "layer": layer, "channels": gen.layers[layer].channels, **values}
            )
    return found


def _draw(gen: cp.GeneratorAdapter, layer: str, seed: int, pairs: int) -> Numbers:
    """Stability, and the influence and size of modules, of one sample of pairs."""
    influence = cp.InfluenceMap(gen, layer)
    maps = influence.attribute(n_pairs=pairs, seed=seed)
    found: Numbers = {}
    tried: tuple[tuple[Method, tuple[int, ...]], ...] = (("nmf", (2, 3, 4)), ("kmeans", (3,)))
    for method, modules in tried:
        stability = cp.ModuleFinder(method=method, seed=seed).stability(maps, n_modules=modules, repetitions=SUBSETS)
        found[method] = stability.consistency.mean(1).tolist()
        found[f"{method} cosine"] = stability.cosine.mean(1).tolist()
    found["influence"], found["sizes"] = [], []
    for number in NUMBERS:
        units = [unit for unit in cp.ModuleFinder(number, seed=seed).fit(maps).unit_sets() if unit.size]
        later = influence.attribute(n_pairs=LATER, units=units, seed=seed + 1000)
        found["influence"].append(later.influence.double().tolist())
        found["sizes"].append([unit.size for unit in units])
    return found


def of(numbers: Numbers, name: str) -> Iterator[Numbers]:
    return (layer for layer in numbers["layers"] if layer["generator"] == name)


def level(layer: Numbers) -> str:
    return f"`{layer['layer'].removeprefix('decoder.')}`"


def column(layer: Numbers, what: str, modules: int) -> list[float]:
    """One value for each draw; of the last of the numbers that were tried, where these are fewer."""
    return [draw[min(NUMBERS.index(modules), len(draw) - 1)] for draw in layer[what]]


def networks(numbers: Numbers, name: str) -> str:
    layers = [layer["layer"] for layer in of(numbers, name)]
    some = f"`{layers[0]}`" if len(layers) == 1 else f"{len(layers)} layers"
    return f"`{name}`, {some}, {len(numbers['draws'])} samples of {numbers['pairs'][name]} pairs"


# --- rows -------------------------------------------------------------------------------------------


def of_each(numbers: Numbers, said: Callable[[Numbers], tuple[list[int], str]], what: str) -> list[Line]:
    """A line for each network: signs and words of its layers."""
    lines = []
    for name in LAYERS:
        found = [said(layer) for layer in of(numbers, name)]
        signs = [sign for some, _ in found for sign in some]
        lines.append(Line(networks(numbers, name), verdict(signs), f"{what}: {'; '.join(words for _, words in found)}"))
    return lines


def three(numbers: Numbers) -> list[Line]:
    def said(layer: Numbers) -> tuple[list[int], str]:
        two, own, four = (column(layer, "nmf", k) for k in (2, 3, 4))
        before, after = Sampled.difference(own, two), Sampled.difference(own, four)
        words = f"{level(layer)} {Sampled.of(own):.3f} with three, {before:+.3f} against two, {after:+.3f} against four"
        return [before.sign, after.sign, Sampled.of(value - PAPER for value in own).sign], words

    return of_each(numbers, said, "consistency (differences are with three minus with the others)")


def nmf(numbers: Numbers) -> list[Line]:
    def said(layer: Numbers) -> tuple[list[int], str]:
        one, two = (column(layer, method, 3) for method in ("nmf", "kmeans"))
        better = Sampled.difference(one, two)
        return [better.sign], f"{level(layer)} {better:+.3f} ({np.mean(one):.2f} and {np.mean(two):.2f})"

    return of_each(numbers, said, "consistency with three modules, NMF − k-means")


def cosine(numbers: Numbers) -> list[Line]:
    def said(layer: Numbers) -> tuple[list[int], str]:
        found = Sampled.of(column(layer, "nmf cosine", 3))
        reached = 1 if found.mean + found.margin >= PAPER else -1
        return [reached], f"{level(layer)} {found:.3f}"

    return of_each(numbers, said, "cosine")


def decreases(numbers: Numbers) -> list[Line]:
    def said(layer: Numbers) -> tuple[list[int], str]:
        few, many = ([float(np.mean(draw[NUMBERS.index(k)])) for draw in layer["influence"]] for k in (2, 6))
        less = Sampled.difference(few, many)
        return [less.sign], f"{level(layer)} {np.mean(few):.3f} and {np.mean(many):.3f} (difference {less:.3f})"

    return of_each(numbers, said, "mean influence of a module (images in −1…1), of two and of six")


def _fits(layer: Numbers) -> list[float]:
    """R² of influence by number of channels, of all modules of a draw."""
    found = []
    for influence, sizes in zip(layer["influence"], layer["sizes"], strict=True):
        one, two = np.concatenate(sizes), np.concatenate(influence)
        found.append(float(np.corrcoef(one, two)[0, 1] ** 2))
    return found


def linear(numbers: Numbers) -> list[Line]:
    said, fits = [], []
    for layer in of(numbers, VAE):
        fits.append(_fits(layer))
        said.append(f"{level(layer)} {Sampled.of(fits[-1]):.2f}")
    later = Sampled.of(one[0] - one[-1] for one in zip(*fits, strict=True))
    good: list[int] = [1 if np.mean(fit) > 0.5 else -1 for fit in fits]
    said_: Verdict = verdict([*good, later.sign])
    text = f"R² of a linear fit to modules of two to six: {', '.join(said)}"
    return [Line(networks(numbers, VAE), said_, text)]


def weakly(numbers: Numbers) -> list[Line]:
    """§4.1: the magnitude is "only weakly influenced by the choice of the layer"."""
    layers = list(of(numbers, VAE))
    each = [[float(np.mean(draw[NUMBERS.index(3)])) for draw in layer["influence"]] for layer in layers]
    apart = Sampled.of(max(draw) / min(draw) for draw in zip(*each, strict=True))
    said = ", ".join(f"{level(layer)} {Sampled.of(values):.3f}" for layer, values in zip(layers, each, strict=True))
    text = f"mean influence of one of three modules: {said}; the larger is {apart:.2f} times the smaller"
    return [Line(networks(numbers, VAE), verdict([Sampled(WEAK - apart.mean, apart.margin, apart.n).sign]), text)]


def proportion(numbers: Numbers) -> list[Line]:
    """§4.1: "the influence of a given module reflects the proportion of channels belonging to this module"."""
    layers = list(of(numbers, VAE))
    fits, own = [], []
    for draw in range(len(numbers["draws"])):
        shares, influence, counts = [], [], []
        for layer in layers:
            sizes = np.concatenate(layer["sizes"][draw])
            shares.append(sizes / layer["channels"])
            counts.append(sizes)
            influence.append(np.concatenate(layer["influence"][draw]))
        everything = np.concatenate(influence)
        fits.append(float(np.corrcoef(np.concatenate(shares), everything)[0, 1] ** 2))
        own.append(float(np.corrcoef(np.concatenate(counts), everything)[0, 1] ** 2))
    better = Sampled.difference(fits, own)
    text = (
        f"R² of influence by a module's share of the layer's channels, over modules of all layers: "
        f"{Sampled.of(fits):.2f}; "
        f"by its number of channels {Sampled.of(own):.2f} (difference {better:+.2f})"
    )
    return [Line(networks(numbers, VAE), verdict([better.sign, 1 if np.mean(fits) > 0.5 else -1]), text)]


STUDY = Study(
    "clusters",
    measure,
    (
        Row("§4.1, Fig. 5: with three clusters consistency is above 90 %, and drops considerably with four", three),
        Row("§4.1, Fig. 5: NMF outperforms k-means", nmf),
        Row("§4.1, Fig. 5: with three clusters templates match with a cosine of 0.9", cosine),
        Row("§4.1, Fig. 3 right: the influence of a module decreases with the number of clusters", decreases),
        Row(
            "§4.1, Fig. 3 right: influence grows linearly with the number of channels, less regularly nearer to the "
            "output",
            linear,
        ),
        Row("§4.1: the influence of modules hardly depends on the layer", weakly),
        Row("§4.1: influence reflects the share of a layer's channels that belong to the module", proportion),
    ),
    repeats=DRAWS,
)
