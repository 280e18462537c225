"""How reproducible modules are: agreement between independent samples of pairs, by number of pairs and seconds.

    python benchmarks/reproducibility.py                      the layers that reports show, for every generator, K = 2…5
    python benchmarks/reproducibility.py --bars               the project's goals for dcgan-faces, 8 samples
    python benchmarks/reproducibility.py --layers main.8 --pairs 64 256
    python benchmarks/reproducibility.py --features pca --pairs 64 --out benchmarks/measured/pca.json
            rows are added to those that are there; with --page docs/reproducibility.md, into the page

Three pipelines: the papers' (binarised mean maps); the more reproducible variant (L2 rows of maps in which every pair
has equal weight); and changes in terms of principal components, of which each sample has its own. Samples have
different seeds, and every two of them are compared. Each true agreement is given with the one that a single sample
expects (``expected_ari_``), the share of confident channels (confidence of at least 0.9), and how many of these keep
their module in another sample.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
from pages import markdown, write_into
from throughput import machine

import counterfactual_probe as cp
from counterfactual_probe.influence.components import COMPONENTS
from counterfactual_probe.modules import clustering
from counterfactual_probe.modules.confidence import BLOCKS, CONFIDENT, ExpectedDisagreement
from counterfactual_probe.modules.features import Kind
from counterfactual_probe.reporting.choice import default_layers

KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES = {"bits": "papers", "l2": "l2", "pca": "pca"}


def drawn(
    gen: cp.GeneratorAdapter, layer: str, pairs: int, draws: int, *, first: int, blocks: int, keep: Path | None
) -> tuple[list[cp.InfluenceMaps], float]:
    """Maps of several samples with everything that the pipelines need, and the median of the seconds for one."""
    influence = cp.InfluenceMap(gen, layer)
    maps: list[cp.InfluenceMaps] = []
    seconds = []
    for seed in range(first, first + draws):
        file = None if keep is None else keep / f"{gen.name}-{layer}-{pairs}-{blocks}-{seed}.progress"
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        maps.append(
            influence.attribute(
                n_pairs=pairs, seed=seed, blocks=blocks, normalise="pair", components=COMPONENTS, checkpoint=file
            )
        )
        seconds.append(time.perf_counter() - start)
    return maps, median(seconds)


def agreement(maps: Sequence[cp.InfluenceMaps], k: int, kind: Kind) -> dict[str, float]:
    """Means over all ordered pairs of samples."""
    finders = [cp.ModuleFinder(k, features=kind).fit(item) for item in maps]
    papers = finders if kind == "bits" else [cp.ModuleFinder(k).fit(item) for item in maps]
    same_draw = [clustering.compare_labels(*_placed(one, two), k)[1] for one, two in zip(finders, papers, strict=True)]
    start = time.perf_counter()
    expected = [finder.expected_ari_ for finder in finders]
    confidence_seconds = (time.perf_counter() - start) / len(finders)
    aris, kept, sure_kept = [], [], []
    for one, two in itertools.permutations(finders, 2):
        same, ari = clustering.compare_labels(*_placed(one, two), k)
        aris.append(ari)
        kept.append(same.mean())
        both = (one.labels_ >= 0) & (two.labels_ >= 0)
        if (confident := one.confidence_[both] >= CONFIDENT).any():
            sure_kept.append(same[confident].mean())
    return {
        "ari": float(np.mean(aris)),
        "worst_ari": float(np.min(aris)),
        "expected_ari": float(np.mean(expected)),
        "kept": float(np.mean(kept)),
        "coverage": float(np.mean([(finder.confidence_ >= CONFIDENT).mean() for finder in finders])),
        "sure_kept": float(np.mean(sure_kept)) if sure_kept else float("nan"),
        "confidence_seconds": confidence_seconds,
        "ari_to_papers": float(np.mean(same_draw)),
    }


def _placed(one: cp.ModuleFinder, two: cp.ModuleFinder) -> tuple[clustering.Labels, clustering.Labels]:
    """The labels in both samples of the channels that have one in both."""
    both = (one.labels_ >= 0) & (two.labels_ >= 0)
    return one.labels_[both], two.labels_[both]


def words(found: dict[str, float]) -> str:
    return (
        f"ARI {found['ari']:.2f} (worst {found['worst_ari']:.2f}, expected {found['expected_ari']:.2f})  "
        f"kept {found['kept']:.2f}  sure {found['coverage']:.2f}, of which kept {found['sure_kept']:.2f}  "
        f"to papers {found['ari_to_papers']:.2f}"
    )


def rows(
    name: str,
    layers: Sequence[str] | None,
    pairs: Sequence[int],
    counts: Sequence[int],
    *,
    draws: int,
    blocks: int,
    keep: Path | None,
    kinds: Sequence[Kind] = KINDS,
) -> Any:
    """One row for each layer, number of pairs, pipeline and K, printed when it is ready."""
    gen = cp.load(name)
    for layer in layers or default_layers(gen):
        for n in pairs:
            maps, seconds = drawn(gen, layer, n, draws, first=1000, blocks=blocks, keep=keep)
            for kind, k in itertools.product(kinds, counts):
                found = agreement(maps, k, kind)
                row = {"generator": name, "layer": layer, "pairs": n, "features": NAMES[kind], "k": k}
                print(
                    f"{name} {layer:8} {n:5} pairs {seconds:7.1f} s  {NAMES[kind]:6} K={k}  {words(found)}", flush=True
                )
                yield row | found | {"map_seconds": seconds, "draws": draws, "blocks": blocks}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The page's table of one pipeline, by the name of its place: a row for each layer."""
    lines: list[list[str]] = []
    places = list(dict.fromkeys((row["generator"], row["layer"], row["pairs"]) for row in result["rows"]))
    counts = sorted({row["k"] for row in result["rows"]})
    for name, layer, pairs in places:
        found = {
            row["k"]: row
            for row in result["rows"]
            if (row["generator"], row["layer"], row["pairs"]) == (name, layer, pairs)
        }
        aris = [f"{found[k]['ari']:.2f} ({found[k]['expected_ari']:.2f})" for k in counts]
        kept = np.nanmean([row["sure_kept"] for row in found.values()])
        confident = np.mean([row["coverage"] for row in found.values()])
        lines.append([f"`{name}`", f"`{layer}`", str(pairs), *aris, f"{confident:.0%}", f"{kept:.0%}"])
    bias = np.mean([row["expected_ari"] - row["ari"] for row in result["rows"]])
    kept = np.nanmean([row["sure_kept"] for row in result["rows"]])
    head = ["generator", "layer", "pairs", *(f"ARI, K = {k}" for k in counts), "confident", "of these reproduced"]
    mean = ["mean", "", "", *[""] * (len(counts) - 1), f"expected − true: {bias:+.2f}", "", f"{kept:.0%}"]
    return {"pca": markdown(head, [*lines, mean])}


def _installed() -> list[str]:
    """The generators in the registry whose weights are installed; the others are reported."""
    names = []
    for name in cp.available():
        try:
            cp.load(name)
        except cp.ProbeError as error:
            print(f"{name} is left out: {error}")
        else:
            names.append(name)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generators", nargs="+", default=None, help="by default all in the registry")
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--pairs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--modules", type=int, nargs="+", default=[2, 3, 4, 5])
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--features", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument(
        "--blocks", type=int, default=BLOCKS, help="blocks of pairs, of at least two pairs each (%(default)s)"
    )
    parser.add_argument(
        "--bars", action="store_true", help="main.8 with 256 pairs and main.5 with 256 and 1024, K = 2, 3"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the maps, which another run reuses")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path, help="a page whose table is made anew from --out")
    args = parser.parse_args()
    if args.page is not None and args.out is not None and args.out.exists():
        write_into(args.page, tables(json.loads(args.out.read_text(encoding="utf-8"))))
        return
    warnings.simplefilter("ignore", ExpectedDisagreement)
    found = []
    if args.bars:
        for layer, pairs in (("main.8", 256), ("main.5", 256), ("main.5", 1024), ("main.8", 1024)):
            found += list(
                rows(
                    "dcgan-faces",
                    [layer],
                    [pairs],
                    [2, 3],
                    draws=max(8, args.draws),
                    blocks=args.blocks,
                    keep=args.keep,
                )
            )
    else:
        for name in args.generators or _installed():
            found += list(
                rows(
                    name,
                    args.layers,
                    args.pairs,
                    args.modules,
                    draws=args.draws,
                    blocks=args.blocks,
                    keep=args.keep,
                    kinds=args.features,
                )
            )
    if args.out:
        write(args.out, found)


def write(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """The rows, beside those of other layers that are in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("generator", "layer", "pairs", "features", "k")
    new = {tuple(row[name] for name in names) for row in found}
    there = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    others = [row for row in there if tuple(row[name] for name in names) not in new]
    content = {"machine": machine(cp.load("dcgan-faces").device), "rows": [*others, *found]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
