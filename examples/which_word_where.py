"""Which word of a prompt acts where in the image: influence maps of the tokens of its embedding.

    python examples/which_word_where.py                          a tiny pipeline with random weights, in some seconds
    python examples/which_word_where.py --pipeline FOLDER        what pipeline.save_pretrained wrote, or hf:user/repo
    python examples/which_word_where.py --pipeline FOLDER --prompt "a red cat" --instead "a blue cat"

Each position of the prompt's embedding is a unit. In a hybrid, one of them takes the value that it has for another
prompt, by default the empty one, while the noise and all other positions stay: where the image changes, the word acts.
Unlike a map of attention, this is an effect, and it has a standard error. The tiny pipeline shows the mechanism alone:
where its words act means nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from saving import run, save_figure, save_rows, save_sentences
from tiny_pipeline import RANDOM, add_options, opened, words_of

import counterfactual_probe as cp
from counterfactual_probe.base.drawing import plot_images, plot_mosaic

LAYER = "prompt.prompt_embeds"
SHOWN = 4  # samples in the sheet


def pairs_of(gen: cp.GeneratorAdapter, prompt: str, instead: str, n: int) -> tuple[Any, Any]:
    """Samples of a prompt, and of another one from the same noise."""
    base: Any = gen.sample(n, seed=0, prompts=prompt)
    source: Any = gen.sample(n, seed=0, prompts=instead)
    if not torch.equal(base["noise"], source["noise"]):
        raise cp.ProbeError("samples of one seed differ in their noise; give a pipeline whose noise is its first draw")
    return base, source


def rows_of(maps: cp.InfluenceMaps, words: list[str]) -> list[dict[str, Any]]:
    return [
        {"position": place, "word": word, "influence": float(value), "standard_error": float(error)}
        for place, (word, value, error) in enumerate(
            zip(words, maps.influence, maps.influence_standard_error, strict=True)
        )
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--prompt", default="a red cat on the moon", help="(%(default)s)")
    parser.add_argument("--instead", default="", help="the prompt whose words are put in (default: the empty one)")
    parser.add_argument("--samples", type=int, default=8, help="noises to average over (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/which-word-where"))
    args = parser.parse_args(arguments)
    gen = opened(args, layers=[LAYER])
    words = words_of(gen, args.prompt)
    z1, z2 = pairs_of(gen, args.prompt, args.instead, args.samples)
    maps = cp.InfluenceMap(gen, LAYER, axis="token").attribute(z1, z2, show_progress=True)
    maps.save(args.out / "maps.safetensors")
    rows = rows_of(maps, words)
    save_rows(rows, args.out / "words")
    save_figure(
        plot_mosaic(maps.maps.numpy(), labels=words, across=min(8, len(words)), cell=1.2)[0], args.out / "words.png"
    )
    strongest = sorted(rows, key=lambda row: -row["influence"])[:3]
    tokens = [[row["position"]] for row in strongest]
    few = [{name: value[:SHOWN] for name, value in z.items()} for z in (z1, z2)]
    hybrids = cp.Hybridizer(gen, LAYER, axis="token").hybridize(*few, units=tokens)
    assert hybrids.source is not None
    images = torch.stack([hybrids.base, hybrids.source, *hybrids.images])
    labels = ["base", "source", *(f"the source's\n“{row['word']}”" for row in strongest)]
    sheet = plot_images(images.numpy(), labels, hybrids.provenance["image_range"])[0]
    save_figure(sheet, args.out / "hybrids.png", photographs=True)
    instead = f"“{args.instead}”" if args.instead else "the empty prompt"
    said = ", ".join(
        f"“{row['word']}” (position {row['position']}) by {row['influence']:.2g} ± {row['standard_error']:.1g}"
        for row in strongest
    )
    sentences = [] if args.pipeline else [f"This is {RANDOM}."]
    sentences.append(
        f"Of “{args.prompt}”, set to their values for {instead}, these words change the image most: {said}, of images "
        f"in {gen.image_range[0]:g}…{gen.image_range[1]:g} ({args.samples} noises)."
    )
    save_sentences(sentences, args.out / "findings.md")


if __name__ == "__main__":
    run(main)
