"""Which kind of network still recognises the colour of an eye in a hybrid of two? A complete study (S003 §4.2, Fig. 6).

    python examples/eye_colour_robustness.py --base brown --source blue --out out/eye-robustness

Three networks of different kinds (a small ResNet, a MobileNet and a vision transformer) are trained from random weights
to classify the eight colours of labelled samples of ``cdcgan-eyes``, at 64 pixels. The example prints their accuracy on
other samples, and then what they see in hybrids of eyes of two colours, for each layer and module of the generator.

Training takes about seven minutes of one processor core, finding modules in all five layers two, and scoring one. The
early layers, ``main.2`` and ``main.6``, have most channels, and each of their hybrids costs nearly a whole forward:
they get only two and four pairs of latents for their maps, more with ``--hybrids``; ``--layers main.9 main.12 main.15``
leaves them out. Started again, the same command reuses the networks and influence maps in the folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from counterfactual_probe.adapters.cdcgan import EYE_COLOURS
from torch import Tensor
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.classifiers.timm_models import save_classifier, timm_classifier
from counterfactual_probe.reporting.sections.robustness import write_robustness_page
from counterfactual_probe.robustness.finding import modules_by_layer

SIDE, CROP, BATCH = 64, 0.875, 32  # one crop for all, since samples are cropped once
# Small models of three kinds. The transformer has half of timm's depth, and smaller patches for smaller images.
KINDS: dict[str, tuple[str, dict[str, Any], int, float]] = {  # name: (timm's, its arguments, epochs, learning rate)
    "resnet": ("resnet10t", {}, 4, 1e-3),
    "mobilenet": ("mobilenetv3_small_075", {}, 16, 2e-3),
    "vit": ("vit_tiny_patch16_224", {"img_size": SIDE, "patch_size": 8, "depth": 6}, 6, 7e-4),
}
TRAINING, TESTING = 1000, 1001  # seeds of the samples; scoring uses smaller ones


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    gen = cp.load("cdcgan-eyes")
    classifiers = [trained(gen, kind, options) for kind in KINDS]
    layers = options.layers or list(gen.layers)
    for_modules = pairs(gen, options, max(2, options.hybrids // 64), options.seed + 1)
    units = modules_by_layer(
        gen,
        *for_modules,
        layers=layers,
        n_modules=options.modules,
        hybrids=options.hybrids,
        progress=options.out / f"maps-{options.base}-{options.source}-{options.seed}",
        show_progress=True,
    )
    result = cp.RobustnessProbe(gen, classifiers).score(
        *pairs(gen, options, options.pairs, options.seed),
        units_by_layer=units,
        classes=(options.base, options.source),
        show_progress=True,
    )
    print(result)
    print(result.ranking())
    print(write_robustness_page(result, options.out, card=cp.pretrained("cdcgan-eyes").card()))


def pairs(gen: cp.GeneratorAdapter, options: argparse.Namespace, n: int, seed: int) -> tuple[Any, Any]:
    """Bases of one colour and sources of the other."""
    return (
        gen.sample(n, seed=seed, stream=0, classes=options.base),
        gen.sample(n, seed=seed, stream=1, classes=options.source),
    )


def trained(gen: cp.GeneratorAdapter, kind: str, options: argparse.Namespace) -> cp.Classifier:
    """A network trained on the colours; loaded from its folder if that exists."""
    folder = options.out / kind
    if not (folder / "model.safetensors").exists():
        name, arguments, epochs, rate = KINDS[kind]
        with torch.random.fork_rng(devices=[]):  # the only use of torch's global generator
            torch.manual_seed(options.seed)
            made = timm_classifier(name, pretrained=False, class_names=EYE_COLOURS, size=SIDE, **arguments)
            assert isinstance(made.transform, cp.Preprocessing)
            made.transform = replace(made.transform, crop=CROP)
            images, labels = samples(gen, made, options.images, TRAINING, options.out)
            learn(made, images, labels, epochs=epochs * options.epochs, rate=rate, seed=options.seed, kind=kind)
        save_classifier(made, folder)
    classifier = cp.load_classifier(folder)
    images, labels = samples(gen, classifier, max(64, options.images // 4), TESTING, options.out)
    right = _answers(classifier, images) == labels
    per_class = " ".join(f"{EYE_COLOURS[k]} {right[labels == k].float().mean():.2f}" for k in range(len(EYE_COLOURS)))
    print(f"{kind}: accuracy {right.float().mean():.3f} on {len(labels)} other samples ({per_class})")
    return classifier


def samples(gen: cp.GeneratorAdapter, classifier: cp.Classifier, n: int, seed: int, out: Path) -> tuple[Tensor, Tensor]:
    """Labelled samples as input of a classifier: bytes, resized and cropped to 64 pixels, before normalisation."""
    labels = torch.arange(n) % len(EYE_COLOURS)
    path = out / f"samples-{seed}-{n}.pt"
    if path.exists():
        images: Tensor = torch.load(path, weights_only=True)
    else:
        print(f"sampling {n} labelled images", file=sys.stderr)
        preprocessing = classifier.transform
        assert isinstance(preprocessing, cp.Preprocessing)
        parts = []
        for start in range(0, n, 64):
            own = labels[start : start + 64].tolist()
            drawn = gen(gen.sample(len(own), seed=seed, start=start, classes=own))
            parts.append((preprocessing.resized(classifier.unit(drawn, gen.image_range)) * 255).round().to(torch.uint8))
        images = torch.cat(parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(images, path)
    return images, labels


def learn(
    classifier: cp.Classifier, images: Tensor, labels: Tensor, *, epochs: int, rate: float, seed: int, kind: str
) -> None:
    """Train with AdamW and a one-cycle learning rate, on randomly mirrored images."""
    module, preprocessing = classifier.module, classifier.transform
    assert isinstance(preprocessing, cp.Preprocessing)
    rng = torch.Generator().manual_seed(seed)
    steps = epochs * (len(images) // BATCH)
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(2, steps))
    start = time.monotonic()
    module.train()
    for epoch in range(epochs):
        losses = []
        for own in torch.randperm(len(images), generator=rng)[: len(images) // BATCH * BATCH].reshape(-1, BATCH):
            batch = images[own].float() / 255
            mirrored = torch.rand(len(own), generator=rng) < 0.5
            batch[mirrored] = batch[mirrored].flip(-1)
            loss = F.cross_entropy(module(preprocessing.normalised(batch)), labels[own])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        done = f"{kind}: epoch {epoch + 1} of {epochs}, loss {sum(losses) / len(losses):.3f}"
        print(f"{done}, {time.monotonic() - start:.0f} s", file=sys.stderr)
    module.eval()


def _answers(classifier: cp.Classifier, images: Tensor) -> Tensor:
    """Predicted classes of samples that are already resized and cropped."""
    preprocessing = classifier.transform
    assert isinstance(preprocessing, cp.Preprocessing)
    with classifier.session():
        parts = [preprocessing.normalised(part.float() / 255) for part in torch.split(images, 256)]
        return torch.cat([classifier.forward(part).argmax(1) for part in parts])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="brown", choices=EYE_COLOURS, help="class of the bases (%(default)s)")
    parser.add_argument("--source", default="blue", choices=EYE_COLOURS, help="class of the sources (%(default)s)")
    parser.add_argument("--layers", nargs="+", help="layers, early to late (default: all five)")
    parser.add_argument("--modules", type=int, default=3, help="modules in each layer (%(default)s)")
    parser.add_argument("--pairs", type=int, default=64, help="pairs to score (%(default)s)")
    parser.add_argument("--hybrids", type=int, default=2048, help="hybrids for the maps of each layer (%(default)s)")
    parser.add_argument("--images", type=int, default=2048, help="labelled samples to train on (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="multiple of the usual number of epochs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/eye-robustness"), help="folder (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
