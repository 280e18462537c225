"""Training of timm's classifiers on labelled images of one size, for the examples on robustness."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.classifiers.timm_models import save_classifier, timm_classifier
from counterfactual_probe.generator.device import multiplies_bfloat16


@dataclass(frozen=True)
class Kind:
    """A network and how it is trained.

    Attributes:
        architecture: its name in timm.
        arguments: for ``timm.create_model``.
        epochs: passes over the images.
        rate: the largest learning rate of AdamW.
        size: side of the network's input.
        start: a classifier of this architecture whose weights it begins with, but for the last layer.
        crop: share of an image's side that the network is given.
        shift: in training, images are moved by up to this many pixels.
        bf16: whether it is trained in bfloat16 where the processor multiplies it.
    """

    architecture: str
    epochs: int
    rate: float
    size: int
    arguments: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    crop: float = 1.0
    shift: int = 0
    batch: int = 32
    bf16: bool = False


@dataclass(frozen=True)
class Examples:
    """Images as bytes (n, 3, H, W), as they were decoded or sampled, and the numbers of their classes."""

    images: Tensor
    labels: Tensor
    classes: Sequence[str]


def trained(kind: Kind, folder: Path, training: Examples, *, seed: int, epochs: int = 1) -> cp.Classifier:
    """The network in the folder; it is trained and put there if there is none.

    Args:
        epochs: multiple of the usual number.
    """
    if not (folder / "model.safetensors").exists():
        with torch.random.fork_rng(devices=[]):  # the only use of torch's global generator
            torch.manual_seed(seed)
            made = timm_classifier(
                kind.architecture,
                pretrained=False,
                class_names=list(training.classes),
                size=kind.size,
                **kind.arguments,
            )
            assert isinstance(made.transform, cp.Preprocessing)
            made.transform = replace(made.transform, crop=kind.crop)
            if kind.start is not None:
                _begin_with(made.module, cp.load_classifier(kind.start).module)
            _learn(made, kind, training, epochs=kind.epochs * epochs, seed=seed, name=folder.name)
        save_classifier(made, folder)
    return cp.load_classifier(folder)


def told_accuracy(classifier: cp.Classifier, testing: Examples) -> float:
    """The share of other images that it knows; printed, class by class."""
    with classifier.session():
        answers = [
            classifier.forward(_normalised(classifier, part))
            for part in torch.split(_resized(classifier, testing), 256)
        ]
    right = (torch.cat(answers).argmax(1) == testing.labels).float()
    shares = [f"{name} {right[testing.labels == number].mean():.2f}" for number, name in enumerate(testing.classes)]
    print(f"{classifier.name}: accuracy {right.mean():.3f} on {len(right)} other images ({' '.join(shares)})")
    return float(right.mean())


def _learn(classifier: cp.Classifier, kind: Kind, training: Examples, *, epochs: int, seed: int, name: str) -> None:
    """Train with AdamW and a one-cycle learning rate, on randomly mirrored and shifted images."""
    module, images, labels = classifier.module, _resized(classifier, training), training.labels
    rng = torch.Generator().manual_seed(seed)
    per_epoch = len(images) // kind.batch
    optimiser = torch.optim.AdamW(module.parameters(), lr=kind.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, kind.rate, total_steps=max(2, epochs * per_epoch))
    in_bf16 = kind.bf16 and multiplies_bfloat16(torch.device("cpu"))
    start = time.monotonic()
    module.train()
    for epoch in range(epochs):
        losses = []
        for own in torch.randperm(len(images), generator=rng)[: per_epoch * kind.batch].reshape(-1, kind.batch):
            batch = _varied(_normalised(classifier, images[own]), kind.shift, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
                answers = module(batch)
            loss = F.cross_entropy(answers.float(), labels[own])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        done = f"{name}: epoch {epoch + 1} of {epochs}, loss {sum(losses) / len(losses):.3f}"
        print(f"{done}, {time.monotonic() - start:.0f} s", file=sys.stderr)
    module.eval()


def _varied(batch: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(batch), generator=rng) < 0.5
    batch[mirrored] = batch[mirrored].flip(-1)
    if not shift:
        return batch
    height, width = batch.shape[2:]
    padded = F.pad(batch, [shift] * 4, mode="reflect")
    places = torch.randint(2 * shift + 1, (len(batch), 2), generator=rng).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, places, strict=True)])


def _begin_with(module: nn.Module, known: nn.Module) -> None:
    """Take all weights but those of the last layer, whose classes are others."""
    own = module.state_dict()
    module.load_state_dict(
        {key: value if own[key].shape == value.shape else own[key] for key, value in known.state_dict().items()}
    )


def _resized(classifier: cp.Classifier, given: Examples) -> Tensor:
    """The images at the size of the network's input, as bytes."""
    preprocessing = classifier.transform
    assert isinstance(preprocessing, cp.Preprocessing)
    parts = [
        (preprocessing.resized(part.float() / 255).clamp(0, 1) * 255).round() for part in torch.split(given.images, 512)
    ]
    return torch.cat([part.to(torch.uint8) for part in parts])


def _normalised(classifier: cp.Classifier, images: Tensor) -> Tensor:
    preprocessing = classifier.transform
    assert isinstance(preprocessing, cp.Preprocessing)
    return preprocessing.normalised(images.float() / 255)
