"""Influence maps of a whole layer on all devices that a launcher provides; the run can be interrupted and resumed.

    torchrun --nproc-per-node 2 examples/many_devices.py dcgan-faces main.8 --pairs 256 --out out/maps

The same file runs under ``accelerate launch``, on Slurm (see slurm.sh) and, as one process, under
``python``. Started again after an interruption, it resumes where it stopped.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

import counterfactual_probe as cp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator")
    parser.add_argument("layer")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--tolerance", type=float)
    parser.add_argument("--out", type=Path, default=Path("out/maps"))
    options = parser.parse_args()

    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    gen = cp.load(options.generator, device=device)
    maps = cp.InfluenceMap(gen, options.layer).attribute(
        n_pairs=options.pairs,
        tolerance=options.tolerance,
        checkpoint=options.out / f"{options.layer}.progress",
        show_progress=True,
    )
    if int(os.environ.get("RANK", "0")) == 0:  # every rank has the whole result; one writes it
        print(maps.save(options.out / f"{options.layer}.safetensors"))


if __name__ == "__main__":
    main()
