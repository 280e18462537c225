"""Which of encoder and decoder extrapolates? One of them is updated on images of a new kind (S004 §4.2, Figs 7, 12).

    python examples/structural_extrapolation.py
    python examples/structural_extrapolation.py --new angle
    python examples/structural_extrapolation.py --size paper --seeds 0 1 2 3 4 --device cuda

A model is trained on the procedural scene, or on 3D-Shapes, without spheres or without the outer camera angles, for
four fifths of the steps. For the last fifth it is trained on all images, with new optimisers, and the encoder alone is
updated, or the decoder, or both. As a control, both are updated on images of the old kinds alone: what that gains needs
no new image. Errors are on test images of the new kind, which are in no training set, and on the others. The example
writes a table, pictures, and ``findings.md``. Started again, the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from saving import run, save_figure, save_rows, save_sentences
from structural_data import Split, split_data
from structural_models import MODELS, OURS, VARIATIONAL, Size, add_options, both_ways, chosen_size, recipe_of
from structural_scores import images_of, shown, told
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.base.drawing import plot_images
from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.data import Images
from counterfactual_probe.data.scene import SCENE
from counterfactual_probe.training import Networks, Recipe, Step, Update

NEITHER, ENCODER, DECODER, BOTH = "neither", "encoder", "decoder", "both"
UPDATES = (NEITHER, ENCODER, DECODER, BOTH)
CONTROL = "both, old images"
REDUCED_STEPS = 2000  # in total, including the last fifth
# Columns of the factors, and the values left out. The authors' code leaves out six angles of 15, their text says four.
NEW: dict[str, tuple[int, tuple[int, ...]]] = {"shape": (4, (2,)), "angle": (5, (0, 1, 2, 12, 13, 14))}


@dataclass
class Continued(Recipe):
    """A recipe that starts from the weights in a folder, and updates one of the two networks or both."""

    architecture: ClassVar[str] = "autoencoder"
    inner: Recipe = None  # type: ignore[assignment]
    start: str = ""
    update: str = BOTH

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inner.state = self.state

    def settings(self) -> dict[str, Any]:
        own = {"decay": self.decay, "start": self.start, "update": self.update}
        return {**self.inner.settings(), **own}

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        made, trained = self.inner.networks(image), cp.load(self.start, device="cpu").module
        for name, network in made.items():
            network.load_state_dict(trained.get_submodule(name).state_dict())
            network.requires_grad_(self.update in (name, BOTH))
        return made

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        return self.inner.optimisers({name: each for name, each in networks.items() if self.update in (name, BOTH)})

    def step(self, step: Step) -> Iterator[Update]:
        return self.inner.step(step)

    def samples(self, networks: Networks, step: Step) -> Tensor:
        return self.inner.samples(networks, step)

    def reconstructions(self, networks: Networks, images: Tensor) -> Tensor | None:
        return self.inner.reconstructions(networks, images)

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        return self.inner.files(networks)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    size = chosen_size(options)
    if options.size == "reduced" and options.steps is None:
        size = dataclasses.replace(size, steps=REDUCED_STEPS)
    if options.data != SCENE and not options.data.endswith(".h5"):
        raise ProbeError(f"new images are chosen by factors of 3D-Shapes, which {options.data} lacks; give 3dshapes.h5")
    data = split_data(options.data, size)
    assert data.factors is not None
    new = torch.from_numpy(is_new(data.factors, options.new))
    unseen, known = data.test[new], data.test[~new]
    rows, sheets = [], {}
    for name in size.models:
        for seed in options.seeds:
            made = {}
            for update, folder in variants(name, size, data, seed=seed, options=options).items():
                gen: Any = cp.load(folder, device=options.device)
                error, old = (1000 * both_ways(gen, images)[1] for images in (unseen, known))
                row = {"model": name, "seed": seed, "update": update, "error": error, "images": len(unseen)}
                rows.append(row | {"error of old kinds": old, "old images": len(known)})
                made[update] = images_of(gen, gen.encode(unseen[: options.shown].float() / 255))
            if seed == options.seeds[0]:
                sheets[name] = made
    save_rows(rows, options.out / f"table-{options.new}")
    for name, made in sheets.items():
        groups = {"input": unseen[: options.shown].float() / 255, **made}
        figure, ax = plot_images(torch.stack(list(groups.values())).numpy(), list(groups), (0, 1))
        ax.set_title(name)
        save_figure(figure, options.out / f"{options.new}-{name}.png", photographs=True)
    save_sentences(findings(rows), options.out / f"findings-{options.new}.md")


def is_new(labels: npt.NDArray[np.int64], kind: str) -> npt.NDArray[np.bool_]:
    """Which images are of the new kind, which is left out at first."""
    column, values = NEW[kind]
    return np.isin(labels[:, column], values)


def variants(name: str, size: Size, data: Split, *, seed: int, options: argparse.Namespace) -> dict[str, Path]:
    """The folders of one model: without an update, with each of the updates, and with that of the control."""
    folder = options.out / f"{name}-{seed}-{options.new}"
    assert data.labels is not None
    old = torch.from_numpy(~is_new(data.labels, options.new))
    known = Images(data.train.pixels[old], f"{data.train.source}, without the new {options.new}s", data.train.terms)
    last = size.steps // 5
    common: dict[str, Any] = {
        "seed": seed, "precision": size.precision, "device": options.device, "resume": True, "show_progress": True
    }  # fmt: skip
    folders = {NEITHER: folder / NEITHER}
    before, after = (dataclasses.replace(size, steps=steps) for steps in (size.steps - last, last))
    model = MODELS[name]
    settings = before.settings(model)
    cp.train(model.command, known, out=folders[NEITHER], steps=before.steps, **common, **settings)
    for update in (*UPDATES[1:], CONTROL):
        folders[update] = folder / update.replace(", ", "-").replace(" ", "-")
        inner = recipe_of(name, dataclasses.replace(after, warmup=0))  # the warm-up is over
        part, images = (BOTH, known) if update == CONTROL else (update, data.train)
        recipe = Continued(
            inner.batch, inner.lr, decay=after.schedule, inner=inner, start=str(folders[NEITHER]), update=part
        )
        cp.train(recipe, images, out=folders[update], steps=after.steps, **common)
    return folders


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """S004's claims, and whether the numbers of all seeds support them."""
    found = []
    names = list(dict.fromkeys(row["model"] for row in rows))
    errors = {
        name: {
            update: [row["error"] for row in rows if row["model"] == name and row["update"] == update]
            for update in (*UPDATES, CONTROL)
        }
        for name in names
    }
    for name, by_update in errors.items():
        before, encoder, decoder, both, control = by_update.values()
        shares = [(a - c) / (a - b) for a, b, c in zip(before, both, control, strict=True)]
        found.append(
            f"“Updating the decoder of {name} helps more than updating its encoder” "
            f"{told([a - b for a, b in zip(encoder, decoder, strict=True)])}. Squared errors × 1000 are "
            f"{shown(before)} before, {shown(encoder)} after updating the encoder, {shown(decoder)} the decoder, "
            f"{shown(both)} both."
        )
        found.append(
            f"Of what updating both gains {name}, {shown(shares)} needs no new image: after the same update on old "
            f"images the error is {shown(control)}."
        )
    for ours in [name for name in names if name.startswith(OURS)][:1]:
        for name in (name for name in names if name.startswith(VARIATIONAL)):
            one, other = errors[ours][DECODER], errors[name][DECODER]
            found.append(
                f"“{ours} is better than {name} after an update of the decoder” "
                f"{told([b - a for a, b in zip(one, other, strict=True)])}. Errors are {shown(one)} and {shown(other)}."
            )
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, out="out/extrapolation", data="scene, or 3dshapes.h5")
    parser.add_argument(
        "--new", choices=list(NEW), default="shape", help="the kind of images to leave out at first (%(default)s)"
    )
    parser.add_argument("--shown", type=int, default=8, help="pictures per row (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
