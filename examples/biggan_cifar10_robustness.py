"""Do classifiers of real photographs see horses or automobiles in hybrids of the two? S003 §4.2 (Fig. 6, 14, 17).

    python examples/biggan_cifar10_robustness.py --data cifar10-images.zip --classes horse automobile
    python examples/biggan_cifar10_robustness.py --data cifar10-images.zip --classes cat dog --out out/cat-dog

Three networks of different kinds (a ResNet and a MobileViT from random weights, and an EfficientNet-Lite that knows
ImageNet) are trained on the photographs of ``--data``: a folder or zip with ``train/`` and ``test/``, in each a folder
per class. The example prints their accuracy on the photographs of ``test/``, and then what they see in hybrids, for
each GenBlock and module of a BigGAN-deep of the same ten classes.

Training takes about 40 minutes of one processor core. The networks are kept in ``--networks`` and taken from there the
next time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import biggan_robustness
import classifier_training
from biggan_cifar10 import BLOCKS, GENERATOR, TRUNCATION
from biggan_hybrids import add_options
from classifier_training import Examples, Kind, told_accuracy

import counterfactual_probe as cp
from counterfactual_probe.data import open_images

SIDE = 32
KINDS = {
    "resnet": Kind("resnet10t", 8, 3e-3, 64, shift=8, batch=64, bf16=True),
    "mobilevit": Kind("mobilevit_xxs", 12, 3e-3, 64, shift=8, batch=64),
    "efficientnet": Kind("efficientnet_lite0", 3, 1e-3, 64, start="efficientnet-lite0", shift=8, batch=64),
}


def main(arguments: Sequence[str] | None = None) -> Path:
    options = _options(arguments)
    return biggan_robustness.run(tuple(options.classes), options, lambda: classifiers(options))


def classifiers(options: argparse.Namespace) -> list[cp.Classifier]:
    """The three networks; their accuracy on photographs that they were not trained on is printed."""
    training, testing = photographs(options.data / "train"), photographs(options.data / "test")
    found = []
    for name, kind in KINDS.items():
        found.append(
            classifier_training.trained(
                kind, options.networks / name, training, seed=options.seed, epochs=options.epochs
            )
        )
        told_accuracy(found[-1], testing)
    return found


def photographs(path: Path) -> Examples:
    """The labelled photographs of a folder, or of a folder inside a zip."""
    read = open_images(path, size=SIDE, colours=3)
    if read.labels is None:
        raise cp.ProbeError(f"{path} has no folders named after classes; give a folder with train/CLASS and test/CLASS")
    return Examples(read.pixels, read.labels, read.classes)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip with train/CLASS and test/CLASS")
    parser.add_argument(
        "--classes", nargs=2, default=["horse", "automobile"], metavar="CLASS", help="(horse automobile)"
    )
    parser.add_argument(
        "--networks", type=Path, default=Path("out/cifar10-networks"), help="folder of the networks (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=1, help="multiple of the usual number of epochs (%(default)s)")
    add_options(
        parser,
        out="out/horse-automobile-robustness",
        generator=GENERATOR,
        blocks=BLOCKS,
        truncation=TRUNCATION,
    )
    biggan_robustness.add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
