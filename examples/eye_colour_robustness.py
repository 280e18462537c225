"""Which kind of network still recognises the colour of an eye in a hybrid of two? A complete study (S003 §4.2, Fig. 6).

    python examples/eye_colour_robustness.py --base brown --source blue --out out/eye-robustness

Three networks of different kinds (a small ResNet, a MobileNet and a vision transformer) are trained from random weights
to classify the eight colours of labelled samples of ``cdcgan-eyes``, at 64 pixels. The example prints their accuracy on
other samples, and then what they see in hybrids of eyes of two colours, for each layer and module of the generator.

Training takes about seven minutes of one processor core, finding modules in all five layers two, and scoring one. The
early layers, ``main.2`` and ``main.6``, have most channels, and each of their hybrids costs nearly a whole forward:
they get only two and four pairs of latents for their maps, more with ``--hybrids``; ``--layers main.9 main.12 main.15``
leaves them out. Started again, the same command reuses the networks and influence maps in the folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import classifier_training
import torch
from classifier_training import Examples, Kind, told_accuracy
from counterfactual_probe.adapters.cdcgan import EYE_COLOURS
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.data.images import to_bytes
from counterfactual_probe.reporting.sections.robustness import write_robustness_page
from counterfactual_probe.robustness.finding import modules_by_layer

SIDE, CROP = 64, 0.875
# Small models of three kinds. The transformer has half of timm's depth, and smaller patches for smaller images.
KINDS = {
    "resnet": Kind("resnet10t", 4, 1e-3, SIDE, crop=CROP),
    "mobilenet": Kind("mobilenetv3_small_075", 16, 2e-3, SIDE, crop=CROP),
    "vit": Kind("vit_tiny_patch16_224", 6, 7e-4, SIDE, {"img_size": SIDE, "patch_size": 8, "depth": 6}, crop=CROP),
}
TRAINING, TESTING = 1000, 1001  # seeds of the samples; scoring uses smaller ones


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    gen = cp.load("cdcgan-eyes")
    classifiers = [trained(gen, kind, options) for kind in KINDS]
    layers = options.layers or list(gen.layers)
    for_modules = pairs(gen, options, max(2, options.hybrids // 64), options.seed + 1)
    units = modules_by_layer(
        gen,
        *for_modules,
        layers=layers,
        n_modules=options.modules,
        hybrids=options.hybrids,
        progress=options.out / f"maps-{options.base}-{options.source}-{options.seed}",
        show_progress=True,
    )
    result = cp.RobustnessProbe(gen, classifiers).score(
        *pairs(gen, options, options.pairs, options.seed),
        units_by_layer=units,
        classes=(options.base, options.source),
        show_progress=True,
    )
    print(result)
    print(result.ranking())
    print(write_robustness_page(result, options.out, card=cp.pretrained("cdcgan-eyes").card()))


def pairs(gen: cp.GeneratorAdapter, options: argparse.Namespace, n: int, seed: int) -> tuple[Any, Any]:
    """Bases of one colour and sources of the other."""
    return (
        gen.sample(n, seed=seed, stream=0, classes=options.base),
        gen.sample(n, seed=seed, stream=1, classes=options.source),
    )


def trained(gen: cp.GeneratorAdapter, name: str, options: argparse.Namespace) -> cp.Classifier:
    """A network trained on the colours, or taken from its folder if that exists."""
    training = samples(gen, options.images, TRAINING, options.out)
    classifier = classifier_training.trained(
        KINDS[name], options.out / name, training, seed=options.seed, epochs=options.epochs
    )
    told_accuracy(classifier, samples(gen, max(64, options.images // 4), TESTING, options.out))
    return classifier


def samples(gen: cp.GeneratorAdapter, n: int, seed: int, out: Path) -> Examples:
    """Labelled samples as bytes; kept in the folder."""
    labels = torch.arange(n) % len(EYE_COLOURS)
    path = out / f"samples-{seed}-{n}.pt"
    if path.exists():
        images: Tensor = torch.load(path, weights_only=True)
    else:
        print(f"sampling {n} labelled images", file=sys.stderr)
        parts = []
        for start in range(0, n, 64):
            own = labels[start : start + 64].tolist()
            drawn = gen(gen.sample(len(own), seed=seed, start=start, classes=own))
            parts.append(to_bytes(drawn, gen.image_range))
        images = torch.cat(parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(images, path)
    return Examples(images, labels, EYE_COLOURS)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="brown", choices=EYE_COLOURS, help="class of the bases (%(default)s)")
    parser.add_argument("--source", default="blue", choices=EYE_COLOURS, help="class of the sources (%(default)s)")
    parser.add_argument("--layers", nargs="+", help="layers, early to late (default: all five)")
    parser.add_argument("--modules", type=int, default=3, help="modules in each layer (%(default)s)")
    parser.add_argument("--pairs", type=int, default=64, help="pairs to score (%(default)s)")
    parser.add_argument("--hybrids", type=int, default=2048, help="hybrids for the maps of each layer (%(default)s)")
    parser.add_argument("--images", type=int, default=2048, help="labelled samples to train on (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="multiple of the usual number of epochs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/eye-robustness"), help="folder (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
