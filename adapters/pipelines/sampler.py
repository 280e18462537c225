"""A pipeline as a module: its networks are submodules, and its forward is its sampling loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .prompts import Encoding
from .runner import CLASSES, Runner

NOISE = "noise"


class Sampler(nn.Module):
    """All steps of a pipeline, from ``noise`` and what else its samples differ in to images in 0 … 1.

    The pipeline's networks are submodules by their names in the pipeline; ``prompt.NAME`` is the identity on an
    embedding of the prompt, so that its tokens can be intervened on.
    """

    def __init__(
        self, runner: Runner, *, encoded: Encoding | None, names: Sequence[str], per_sample: Sequence[str]
    ) -> None:
        super().__init__()
        self.runner = runner
        self.encoded = encoded
        self.names = tuple(names)
        for name, part in runner.pipeline.components.items():
            if isinstance(part, nn.Module) and name != "safety_checker":
                self.add_module(name, part)
        self.prompt = nn.ModuleDict({name: nn.Identity() for name in per_sample})

    def forward(self, **latents: Tensor) -> Any:
        noise, classes = latents[NOISE], latents.get(CLASSES)
        calls = None
        if self.encoded is not None:
            embedded = {name: identity(latents[name]) for name, identity in self.prompt.items()}
            constants = {
                name: value.to(noise.device)
                for name, value in self.encoded.tensors(self.names).items()
                if name not in embedded
            }
            calls = self.encoded.filled(self.names, constants | embedded)
        return self.runner.images(noise, calls, classes)


def first_images(returned: Any) -> Tensor:
    """The images of a pipeline's output; arrays of images N×H×W×C are turned."""
    if isinstance(returned, Tensor):
        return returned
    return torch.from_numpy(returned).movedim(-1, 1)
