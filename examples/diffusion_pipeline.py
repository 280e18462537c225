"""A pipeline of diffusers, probed: which steps act, with and without the prompt, and whose noise and whose prompt.

    python examples/diffusion_pipeline.py                        a tiny pipeline with random weights, in half a minute
    python examples/diffusion_pipeline.py --pipeline FOLDER      what pipeline.save_pretrained wrote, or hf:user/repo
    python examples/diffusion_pipeline.py --pipeline hf:user/repo --steps 20 --layer unet.mid_block --pairs 2

Base and source differ in prompt and noise. The example lists the layers with their calls, finds how strongly some
channels of a layer act at each step, and swaps whole ranges of steps, for both halves of the guided batch and for one
of them. The tiny pipeline shows the mechanism alone: what its images show means nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from saving import run, save_figure, save_rows, save_sentences
from tiny_pipeline import RANDOM, add_options, opened

import counterfactual_probe as cp
from counterfactual_probe.base.drawing import plot_images

SHOWN = 4  # pairs in the sheet
DEEPEST = 2  # dots in the name of a layer that is listed


def by_step(gen: cp.GeneratorAdapter, layer: str, z: tuple[Any, Any], out: Path, *, channels: int) -> str:
    """How strongly some channels act at each call."""
    calls = gen.calls(layer)
    count = gen.layer(calls[0]).channels
    chosen = np.linspace(0, count - 1, min(channels, count)).astype(int).tolist()
    units = [{call: [channel]} for call in calls for channel in chosen]
    maps = cp.InfluenceMap(gen, calls).attribute(*z, units=units, show_progress=True)
    maps.save(out / "maps.safetensors")
    save_figure(maps.plot_calls()[0], out / "calls.png")
    means = maps.influence.view(len(calls), -1).mean(1)
    most, least = int(means.argmax()), int(means.argmin())
    return (
        f"{len(chosen)} channels of {layer} change the image most at call {most + 1} of {len(calls)} "
        f"({means[most]:.2g} on average) and least at call {least + 1} ({means[least]:.2g})."
    )


def addresses(layer: str, steps: int, *, guided: bool) -> dict[str, str]:
    """What is swapped, by what it is called in figures: ranges of steps and, under guidance, halves of the batch."""
    half = max(1, steps // 2)
    found = {"all steps": f"{layer}#*", f"steps 1–{half}": f"{layer}#1-{half}"}
    if half < steps:
        found[f"steps {half + 1}–{steps}"] = f"{layer}#{half + 1}-{steps}"
    if guided:
        found |= {"with the prompt": f"{layer}@conditional#*", "without it": f"{layer}@unconditional#*"}
    return found


def ranges(gen: cp.GeneratorAdapter, layers: dict[str, str], z: tuple[Any, Any], out: Path) -> list[str]:
    """How much of the way from base to source each range of steps goes, as the mean change of pixels."""
    rows: list[dict[str, Any]] = []
    images: list[Any] = []
    for name, layer in layers.items():
        hybrids = cp.Hybridizer(gen, layer).hybridize(*z, units=range(gen.layer(layer).channels))
        assert hybrids.source is not None
        images = images or [hybrids.base, hybrids.source]
        whole = (hybrids.source - hybrids.base).abs().mean((1, 2, 3))
        shares = ((hybrids.images[0] - hybrids.base).abs().mean((1, 2, 3)) / whole).double().numpy()
        error = float(shares.std(ddof=1) / np.sqrt(len(shares))) if len(shares) > 1 else float("nan")
        rows.append({"swapped": name, "layer": layer, "change": float(shares.mean()), "standard_error": error})
        images.append(hybrids.images[0])
    save_rows(rows, out / "ranges")
    sheet = np.stack([part[:SHOWN].numpy() for part in images])
    figure, _ = plot_images(sheet, ["base", "source", *layers], gen.image_range)
    save_figure(figure, out / "hybrids.png", photographs=True)
    said = "; ".join(f"{row['swapped']} {row['change']:.2f} ± {row['standard_error']:.2f}" for row in rows)
    return [f"All channels taken from the source, as a share of the change from base to source: {said}."]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--prompts", nargs=2, default=["a red cat on the moon", "a blue dog on the grass"])
    parser.add_argument("--same-noise", action="store_true", help="let base and source differ in the prompt alone")
    parser.add_argument("--layer", default="unet.mid_block", help="that runs at every step (%(default)s)")
    parser.add_argument("--channels", type=int, default=8, help="of the layer, evenly chosen (%(default)s)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of samples (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/diffusion-pipeline"))
    args = parser.parse_args(arguments)
    gen = opened(args)
    print("The outer layers that run several times:")
    for name, layer in gen.layers.items():
        if layer.calls > 1 and name.count(".") <= DEEPEST:
            print(f"  {name:32} {layer.channels:5} channels, {layer.calls} calls")
    base, source = args.prompts
    z = (
        gen.sample(args.pairs, seed=0, prompts=base),
        gen.sample(args.pairs, seed=0 if args.same_noise else 1, prompts=source),
    )
    sentences = [] if args.pipeline else [f"This is {RANDOM}."]
    sentences.append(by_step(gen, args.layer, z, args.out, channels=args.channels))
    layers = addresses(args.layer, len(gen.calls(args.layer)), guided=args.guidance > 1)
    sentences += ranges(gen, layers, z, args.out)
    save_sentences(sentences, args.out / "findings.md")


if __name__ == "__main__":
    run(main)
