"""S000 §5.1.1, Fig. 3c and d: at which scales does a stretched layer not give a stretched image?"""

from __future__ import annotations

from pages import markdown

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, verdict

SEEDS, IMAGES = 5, 64
GENERATORS = ("vae-faces", "dcgan-faces")  # the paper's kind, and a GAN
FINER = 2  # scales of details of 4 and of 2 pixels


def measure() -> Numbers:
    """Errors by scale, of every layer and seed."""
    found: Numbers = {"images": IMAGES, "seeds": list(range(SEEDS)), "generators": {}}
    for name in GENERATORS:
        gen = cp.load(name)
        layers: Numbers = {}
        for layer in gen.layers:
            test = cp.StretchTest(gen, layer)
            results = [test.measure(n_images=IMAGES, seed=seed, keep=1) for seed in range(SEEDS)]
            layers[layer] = {
                "pixels": list(results[0].scales.pixels),
                "mse": [result.mse_per_scale.tolist() for result in results],
                "relative": [result.relative_mse_per_scale.tolist() for result in results],
            }
        found["generators"][name] = layers
    return found


def relative(layer: Numbers) -> str:
    """The relative error by scale, from coarse to fine."""
    return ", ".join(f"{Sampled.of(column):.3f}" for column in zip(*layer["relative"], strict=True))


def finer(numbers: Numbers) -> list[Line]:
    lines = []
    for name, layers in numbers["generators"].items():
        signs, said = [], []
        for layer, values in layers.items():
            signs.append(Sampled.of(seed[-1] - seed[0] for seed in values["relative"]).sign)
            said.append(f"`{layer}` {relative(values)}")
        text = f"error relative to a layer that ignores the stretch, from coarse to fine scales: {'; '.join(said)}"
        repeats = f"{len(numbers['seeds'])} samples of {numbers['images']} images"
        lines.append(Line(f"`{name}`, four layers, {repeats}", verdict(signs), text))
    return lines


def most(numbers: Numbers) -> list[Line]:
    lines = []
    for name, layers in numbers["generators"].items():
        signs, said = [], []
        for layer, values in layers.items():
            shares = Sampled.of(sum(seed[-FINER:]) / sum(seed) for seed in values["mse"])
            signs.append(Sampled(shares.mean - 0.5, shares.margin, shares.n).sign)
            said.append(f"`{layer}` {shares:.2f}")
        text = f"share of the two finest scales in the squared error: {', '.join(said)}"
        lines.append(Line(f"`{name}`, the same", verdict(signs), text))
    return lines


def table(numbers: Numbers) -> dict[str, str]:
    """The page's table of the paper's kind of network."""
    layers = numbers["generators"][GENERATORS[0]]
    pixels = next(iter(layers.values()))["pixels"]
    head = ["layer", "MSE", f"{pixels[0]} px means", *(f"{pixel} px" for pixel in pixels[1:])]
    rows = []
    for layer, values in layers.items():
        error = Sampled.of(sum(seed) for seed in values["mse"])
        scales = (Sampled.of(column) for column in zip(*values["relative"], strict=True))
        rows.append([f"`{layer}`", f"{error:.4f}", *(f"{scale:.2f}" for scale in scales)])
    return {"stretch": markdown(head, rows)}


STUDY = Study(
    "stretch",
    measure,
    (
        Row("§5.1.1, Fig. 3c–d: the mismatch is concentrated on the finer scales", finer),
        Row("§5.1.1, Fig. 3c–d: so is most of the plain squared error", most),
    ),
    repeats=SEEDS,
    tables={"invariance.md": table},
)
