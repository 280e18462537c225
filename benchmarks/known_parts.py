"""Do modules of a decoder match the parts of the scene it was trained on? IoU and ARI by architecture, layer and K.

    python benchmarks/known_parts.py --train                              train the four models first; half an hour on
    one core python benchmarks/known_parts.py --folders sae=out/sae ae=out/ae      use existing folders python
    benchmarks/known_parts.py --folders sae=out/sae --layers decoder.block10 --modules 3 --by-image

Latents are codes of rendered images, chosen with another seed than any training; pairs of them give the influence maps,
and the masks of the same images are the ground truth. 64 pairs are enough: with 128, IoU changed by less than 0.05.
Each score is given with that of random groups of as many channels, and each model with the same decoder with random
weights, for the same codes. "majority" is the score of each pixel's most frequent part: about the most that templates
can reach. Writes known-parts.json, known-parts.md and, for each model, a picture of its best layer for K = 3.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.base.display.plot import png
from counterfactual_probe.data import Scene
from counterfactual_probe.data.scene import PARTS
from counterfactual_probe.modules.features import Kind

TRAINED = {"sae": "SAE-12", "ae": "AE", "betavae": "VAE", "vlae": "VLAE-12"}  # their names in S004 and its example
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SEED = 100  # for the images; training uses another, by default 0
SHOWN = 3  # number of modules in tables and pictures: as many as there are parts


def trained(name: str, folder: Path, *, steps: int) -> None:
    """Train one of the four models, unless its folder has one already."""
    if (folder / "model.safetensors").exists():
        return
    if name not in TRAINED:
        raise SystemExit(f"{folder} holds no model, and {name} is not one of {', '.join(TRAINED)}")
    sys.path.insert(0, str(EXAMPLES))
    from structural_models import MODELS, REDUCED

    size, model = dataclasses.replace(REDUCED, steps=steps), MODELS[TRAINED[name]]
    cp.train(
        model.command, "scene", out=folder, size=size.side, images=size.images, steps=steps, resume=True,
        show_progress=True, **size.settings(model),
    )  # fmt: skip


class Images:
    """Images of the scene, their masks, and a model's codes of them."""

    def __init__(self, gen: cp.GeneratorAdapter, n: int) -> None:
        scene = Scene(size=gen.image_size[1])
        labels = scene.sample(n, seed=SEED)
        images = scene.render(labels).float() / 255
        self.masks = scene.masks(labels)
        self.codes: Tensor = gen.encode(images)  # type: ignore[attr-defined]
        self.error = float((gen(self.codes) - images).abs().mean())
        self.spread = float((images - images.mean(0)).abs().mean())


def untrained(gen: cp.GeneratorAdapter) -> cp.GeneratorAdapter:
    """The same decoder with random weights."""
    module = copy.deepcopy(gen.module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part in module.modules():
            if hasattr(part, "reset_parameters"):
                cast("nn.Linear", part).reset_parameters()
            root = getattr(part, "root", None)
            if isinstance(root, nn.Parameter):
                nn.init.normal_(root)
    z = gen.sample(1)
    if not isinstance(z, Tensor):
        raise SystemExit(f"{gen.name} has latents of several tensors, so it is not an autoencoder; leave it out")
    size = z.shape[1]
    return cp.wrap(
        module,
        lambda n, rng: torch.randn(n, size, generator=rng),
        layers=list(gen.layers),
        image_range=gen.image_range,
        name=f"{gen.name}, untrained",
    )


def rows(
    gen: cp.GeneratorAdapter, images: Images, layers: Sequence[str] | None, options: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], cp.PartsAgreement]]:
    """One row for each layer, kind of features and K; combinations that cannot be grouped are reported and left out."""
    z = images.codes
    for layer in layers or list(gen.layers):
        start = time.perf_counter()
        maps = cp.InfluenceMap(gen, layer).attribute(z[: options.pairs], z[options.pairs :], normalise="pair")
        seconds = time.perf_counter() - start
        about = {"layer": layer, "channels": gen.layers[layer].channels, "map_seconds": seconds}
        for kind in options.features:
            for k in options.modules:
                try:
                    finder = cp.ModuleFinder(k, features=cast("Kind", kind)).fit(maps)
                except cp.ProbeError as error:
                    print(f"  {layer} {kind} K={k} is left out: {error}", flush=True)
                    continue
                found = cp.parts_agreement(finder, images.masks, maps=maps, names=PARTS, controls=options.controls)
                row = about | {"features": kind, "k": k, "sizes": np.bincount(finder.labels_ + 1)[1:].tolist()}
                row |= numbers(found)
                if options.by_image:
                    row["by image"] = numbers(by_image(gen, finder, images, options))
                yield row, found


def by_image(
    gen: cp.GeneratorAdapter, finder: cp.ModuleFinder, images: Images, options: argparse.Namespace
) -> cp.PartsAgreement:
    n = options.images
    return cp.parts_by_image(finder, images.masks[:n], generator=gen, latents=images.codes[:n], sources=4, names=PARTS)


def numbers(found: cp.PartsAgreement) -> dict[str, float]:
    return {
        "iou": found.mean_iou,
        "chance_iou": float(found.chance_iou.mean()),
        "above_chance": found.above_chance,
        "majority_iou": found.majority_iou,
        "ari": found.mean_ari,
        "chance_ari": float(found.chance_ari.mean()),
        "majority_ari": found.majority_ari,
    }


def words(row: dict[str, Any]) -> str:
    return (
        f"IoU {row['iou']:.2f} (chance {row['chance_iou']:.2f}, majority {row['majority_iou']:.2f})  "
        f"ARI {row['ari']:.2f} (chance {row['chance_ari']:.2f}, majority {row['majority_ari']:.2f})"
    )


def measured(name: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of a model and of its untrained counterpart; writes the picture of its best layer."""
    gen = cp.load(str(folder), device="cpu")
    images = Images(gen, 2 * options.pairs)
    print(f"{name}: images differ from their reconstructions by {images.error:.3f} on average, from their mean image")
    print(f"  by {images.spread:.3f}", flush=True)
    found: list[dict[str, Any]] = []
    best: cp.PartsAgreement | None = None
    for weights, model in (("trained", gen), ("untrained", untrained(gen))):
        for row, result in rows(model, images, options.layers, options):
            print(f"  {weights} {row['layer']} {row['features']} K={row['k']}  {words(row)}", flush=True)
            if "by image" in row:
                print(f"    image by image: {words(row['by image'])}", flush=True)
            found.append({"model": name, "weights": weights, "error": images.error, "spread": images.spread} | row)
            if weights == "trained" and row["k"] == SHOWN and (best is None or result.mean_iou > best.mean_iou):
                best = result
    if best is not None:
        (options.out / f"{name}.png").write_bytes(png(best.plot()[0]))
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: for each model, weights and features the layer of the largest IoU for K = 3, and means over layers."""
    lines = [
        f"K = {SHOWN}; chance in brackets.",
        "",
        "| model | weights | reconstruction error / spread | features | best layer | channels | IoU | ARI | "
        "IoU, mean over layers | ARI, mean over layers | majority IoU, ARI |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in found:
        if row["k"] == SHOWN:
            groups.setdefault((row["model"], row["weights"], row["features"]), []).append(row)
    for (name, weights, kind), own in groups.items():
        best = max(own, key=lambda row: float(row["iou"]))
        error = f"{best['error']:.3f} / {best['spread']:.3f}" if weights == "trained" else "–"
        mean = {key: float(np.mean([row[key] for row in own])) for key in numbers_of(own)}
        lines.append(
            f"| {name} | {weights} | {error} | {kind} | `{best['layer']}` | {best['channels']} | "
            f"{_pair(best, 'iou')} | {_pair(best, 'ari')} | {_pair(mean, 'iou')} | {_pair(mean, 'ari')} | "
            f"{best['majority_iou']:.2f}, {best['majority_ari']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def numbers_of(own: Sequence[dict[str, Any]]) -> list[str]:
    return [key for key in own[0] if key.endswith(("iou", "ari"))]


def _pair(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f} ({row[f'chance_{key}']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folders", nargs="+", metavar="NAME=PATH", help="folders of models; by default the four in OUT/models"
    )
    parser.add_argument(
        "--train", action="store_true", help="first train those of the four models whose folder is empty"
    )
    parser.add_argument("--steps", type=int, default=12_000, help="steps of this training (%(default)s)")
    parser.add_argument("--layers", nargs="+", help="layers; by default all")
    parser.add_argument("--features", nargs="+", default=["bits", "l2"])
    parser.add_argument("--modules", type=int, nargs="+", default=[2, 3, 4, 5])
    parser.add_argument("--pairs", type=int, default=64, help="pairs for influence maps (%(default)s)")
    parser.add_argument("--controls", type=int, default=50, help="random groupings of the channels (%(default)s)")
    parser.add_argument("--by-image", action="store_true", help="also the variant per image; takes minutes per model")
    parser.add_argument("--images", type=int, default=32, help="images for that (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/known-parts"))
    options = parser.parse_args()
    folders = dict(text.split("=", 1) for text in options.folders or ())
    folders = folders or {name: str(options.out / "models" / name) for name in TRAINED}
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", message="NMF stopped")
    found: list[dict[str, Any]] = []
    for name, folder in folders.items():
        if options.train:
            trained(name, Path(folder), steps=options.steps)
        found += measured(name, Path(folder), options)
        (options.out / "known-parts.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (options.out / "known-parts.md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
