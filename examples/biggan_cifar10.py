"""Hybrids of two classes of photographs by modules of a BigGAN-deep of CIFAR-10 (as S003 Fig. 5, 13 and 15).

python examples/biggan_cifar10.py --classes horse automobile --out out/horse-automobile
python examples/biggan_cifar10.py --classes cat dog --out out/cat-dog
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import biggan_hybrids

GENERATOR, BLOCKS, TRUNCATION = "biggan-cifar10", (1, 2, 3, 4, 5, 6), 1.0


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--classes", nargs=2, default=["horse", "automobile"], metavar="CLASS", help="(horse automobile)"
    )
    biggan_hybrids.add_options(
        parser, out="out/biggan-cifar10", generator=GENERATOR, blocks=BLOCKS, truncation=TRUNCATION
    )
    biggan_hybrids.add_picture_options(parser)
    options = parser.parse_args(arguments)
    return biggan_hybrids.hybrids(tuple(options.classes), options)


if __name__ == "__main__":
    main()
