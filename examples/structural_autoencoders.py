"""Reconstruction, sampling and disentanglement of structural and other autoencoders (S004 §4.1, Table 1, Figs 3–6).

    python examples/structural_autoencoders.py
    python examples/structural_autoencoders.py --steps 12000 --seeds 0 1 2
    python examples/structural_autoencoders.py --size paper --seeds 0 1 2 3 4 --device cuda
    python examples/structural_autoencoders.py --size paper-128 --data celeba.zip --seeds 0 1 2 3 4 --device cuda

Models are trained on renders of the procedural scene, or on your images, split 70 : 10 : 20. At the reduced size, the
first command takes a quarter of an hour on two cores and the second about 90 minutes; started again, they resume where
they stopped. Each model is evaluated several times during training. The example writes pictures of reconstructions,
samples, traversals and hybrids by chunks of the code, curves of the validation error, a table, and ``findings.md``:
what S004 says and what was measured. Models are compared at the end of training, and at equal validation error: each at
its first evaluation whose error is not above the worst model's final one. Without labels, codes have no metrics.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from saving import run, save_figure, save_rows, save_sentences
from structural_data import Split, split_data
from structural_models import (
    OURS,
    VARIATIONAL,
    Seen,
    Size,
    add_options,
    chosen_size,
    watched,
)
from structural_scores import Quality, images_of, matched, parameters, sampled, scores, shown, stored_codes, told

import counterfactual_probe as cp
from counterfactual_probe.base.drawing import canvas, plot_images

FINAL, EQUAL = "final", "equal error"


@dataclass(frozen=True)
class Trained:
    """One model of one seed, with its evaluations."""

    name: str
    seed: int
    folder: Path
    seen: list[Seen]

    def open(self, device: str | None) -> Any:
        return cp.load(self.folder, device=device)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    size = chosen_size(options)
    data = split_data(options.data, size)
    models = [_trained(name, seed, size, data, options) for seed in options.seeds for name in size.models]
    quality = Quality(data, options.features, options.quality)
    rows = []
    for seed in options.seeds:
        rows += _rows([model for model in models if model.seed == seed], data, size, quality, options.device)
    save_rows(rows, options.out / "table")
    save_figure(curves(models), options.out / "validation.png")
    _pictures([model for model in models if model.seed == options.seeds[0]], data, options)
    save_sentences(findings(rows), options.out / "findings.md")


def _trained(name: str, seed: int, size: Size, data: Split, options: argparse.Namespace) -> Trained:
    folder = options.out / f"{name}-{seed}"
    return Trained(name, seed, folder, watched(name, size, data, folder, seed=seed, device=options.device))


def _rows(
    models: Sequence[Trained], data: Split, size: Size, quality: Quality, device: str | None
) -> list[dict[str, Any]]:
    """Two rows for each model of a seed: at the end of training, and at the error that all models reach."""
    equal = matched({model.name: model.seen for model in models})
    rows = []
    for model in models:
        gen, kept = model.open(device), model.folder / "seen"
        distances = quality.distances(model.name, gen, kept)
        for when, seen in ((FINAL, model.seen[-1]), (EQUAL, equal[model.name])):
            row: dict[str, Any] = {"model": model.name, "seed": model.seed, "when": when, "steps": seen.steps}
            row |= {"parameters": parameters(gen), "validation error": seen.error, "test error": seen.reconstruction}
            if measured := scores(seen, data, size, kept):
                row |= measured | {"rows fitted": size.rows, "rows tested": len(seen.codes) - size.rows}
            if when == FINAL:
                row |= {f"Fréchet {way}": value for way, value in distances.items()}
                row |= {"Fréchet images": quality.n, "Fréchet features": quality.features.name}
            rows.append(row)
    return rows


def curves(models: Sequence[Trained]) -> Any:
    """Validation error over training steps, one line for each model and seed."""
    figure, ax = canvas(None, 6.0, 3.6)
    names = list(dict.fromkeys(model.name for model in models))
    for model in models:
        colour = f"C{names.index(model.name)}"
        label = model.name if model.seed == models[0].seed else None
        ax.plot(
            [s.steps for s in model.seen], [1000 * s.error for s in model.seen], "o-", ms=3, color=colour, label=label
        )
    ax.set_yscale("log")
    ax.set_xlabel("steps")
    ax.set_ylabel("squared error on validation images × 1000")
    ax.legend(frameon=False)
    return figure


def _pictures(models: Sequence[Trained], data: Split, options: argparse.Namespace) -> None:
    """Reconstructions and samples of all models side by side; traversals and chunks of each."""
    n = options.shown
    real = data.test[:n].float() / 255
    made, drawn = {"test images": real}, {"test images": data.test[n : 2 * n].float() / 255}
    for model in models:
        gen = model.open(options.device)
        made[model.name] = images_of(gen, gen.encode(real))
        drawn |= {f"{model.name}, {way}": images for way, images in sampled(model.name, gen, data, n).items()}
        codes = stored_codes(gen, data)
        base = codes[0]
        along = cp.autoencoders.traversal_codes(base, codes, steps=n)
        chunks = cp.autoencoders.chunk_codes(base, codes, n=n, chunks=4)
        for what, rows in (("traversals", along), ("chunks", chunks)):
            figure, ax = cp.autoencoders.plot_codes(gen, rows)
            ax.set_title(f"{model.name}, {what}")
            save_figure(figure, options.out / f"{what}-{model.name}.png", photographs=True)
    for file, groups in (("reconstructions", made), ("samples", drawn)):
        sheet = torch.stack(list(groups.values())).numpy()
        save_figure(plot_images(sheet, list(groups), (0, 1))[0], options.out / f"{file}.png", photographs=True)


# --- sentences --------------------------------------------------------------------------------------


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """S004's claims, and whether the numbers of all seeds support them."""
    found = []
    names = list(dict.fromkeys(str(row["model"]) for row in rows))
    for ours in [name for name in names if name.startswith(OURS)][:1]:
        others = [name for name in names if not name.startswith(OURS)]
        for other in others:
            found += _compared(rows, ours, other, "DCI-d", EQUAL, claim="is more disentangled than", higher=True)
        for other in others:
            if other.startswith(VARIATIONAL):
                found += _compared(
                    rows, ours, other, "test error", FINAL, claim="reconstructs better than", higher=False
                )
    for name in names:
        if name.startswith(VARIATIONAL):
            hybrid, prior = (_by_seed(rows, name, f"Fréchet {way}", FINAL) for way in ("hybrid", "prior"))
            found.append(
                f"“Hybrid samples of {name} are as good as those of its prior, or better” "
                f"{told([b - a for a, b in zip(hybrid, prior, strict=True)])}. Fréchet distances from test images are "
                f"{shown(hybrid)} and {shown(prior)}."
            )
    return found


def _compared(
    rows: Sequence[Mapping[str, Any]], ours: str, other: str, column: str, when: str, *, claim: str, higher: bool
) -> list[str]:
    first, second = (_by_seed(rows, name, column, when) for name in (ours, other))
    if not first or not second:
        return []
    sign = 1 if higher else -1
    differences = [sign * (a - b) for a, b in zip(first, second, strict=True)]
    at = "at equal validation error" if when == EQUAL else "at the end of training"
    return [
        f"“{ours} {claim} {other}” {told(differences)}. {column} is {shown(first)} and {shown(second)}, {at}, for "
        f"{len(first)} seed{'s' * (len(first) > 1)}."
    ]


def _by_seed(rows: Sequence[Mapping[str, Any]], name: Any, column: str, when: str) -> list[float]:
    return [row[column] for row in rows if row["model"] == name and row["when"] == when and column in row]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(
        parser, out="out/structural", data="scene, 3dshapes.h5, an .npz of MPI3D, or a folder or zip of pictures"
    )
    parser.add_argument("--features", default="efficientnet-lite0", help="features for Fréchet distances (%(default)s)")
    parser.add_argument("--quality", type=int, default=512, help="images for each Fréchet distance (%(default)s)")
    parser.add_argument("--shown", type=int, default=8, help="pictures per row (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
