"""The latents of a pipeline: noise, and the embedding of a prompt or a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from counterfactual_probe.base.errors import ProbeError, text, whole
from counterfactual_probe.generator.latents import Latents

from .runner import CLASSES, Runner
from .sampler import NOISE

_REMEMBERED = 256  # prompts, so that a long list of samples of a few prompts encodes each once


class PipelineLatents:
    """Samples the latents of a pipeline; ``prompts`` or ``classes`` say of what, and are drawn from otherwise.

    Args of a call:
        prompts: a text for each sample, or one for all.
        classes: the number of a class for each sample, or one for all.
    """

    def __init__(
        self,
        runner: Runner,
        size: tuple[int, ...],
        *,
        prompts: Sequence[str],
        n_classes: int | None,
        names: Sequence[str],
        per_sample: Sequence[str],
    ) -> None:
        self._runner = runner
        self._size = size
        self._prompts = tuple(prompts)
        self._n_classes = n_classes
        self._names = names
        self._per_sample = tuple(per_sample)
        self._known: dict[str, dict[str, Tensor]] = {}

    def __call__(self, n: int, rng: torch.Generator, *, prompts: Any = None, classes: Any = None) -> Latents:
        latents = {NOISE: torch.randn(n, *self._size, generator=rng)}
        if self._runner.takes_prompts:
            parts = [self._encoded(prompt) for prompt in self._asked_prompts(n, rng, prompts)]
            latents |= {name: torch.cat([part[name] for part in parts]) for name in self._per_sample}
        elif prompts is not None:
            raise ProbeError(f"{self._runner.name} takes no prompts; leave them out")
        if self._n_classes is not None:
            latents[CLASSES] = self._asked_classes(n, rng, classes)
        elif classes is not None:
            raise ProbeError(f"{self._runner.name} takes no classes; leave them out")
        return latents

    def _asked_prompts(self, n: int, rng: torch.Generator, prompts: Any) -> list[str]:
        if prompts is None:
            return [self._prompts[i] for i in torch.randint(len(self._prompts), (n,), generator=rng).tolist()]
        listed = list(prompts) if isinstance(prompts, (list, tuple)) else [prompts] * n
        if len(listed) != n:
            raise ProbeError(f"prompts hold {len(listed)} texts for {n} samples; give one each, or one for all")
        return [text(prompt, "a prompt") for prompt in listed]

    def _asked_classes(self, n: int, rng: torch.Generator, classes: Any) -> Tensor:
        count = self._n_classes or 0
        if classes is None:
            return torch.randint(count, (n,), generator=rng)
        listed = list(classes) if isinstance(classes, (list, tuple, Tensor)) else [classes] * n
        numbers = [whole(int(item) if isinstance(item, Tensor) else item, "a class", 0) for item in listed]
        if len(numbers) != n:
            raise ProbeError(f"classes hold {len(numbers)} numbers for {n} samples; give one each, or one for all")
        if beyond := [item for item in numbers if item >= count]:
            raise ProbeError(f"class {beyond[0]} is asked for and {self._runner.name} has {count}, from 0 on")
        return torch.tensor(numbers)

    def _encoded(self, prompt: str) -> dict[str, Tensor]:
        if prompt not in self._known:
            tensors = self._runner.start([prompt]).encoding.tensors(self._names)
            kept = {name: tensors[name].detach().cpu() for name in self._per_sample}
            for name, value in kept.items():
                other = next(iter(self._known.values()), {}).get(name, value)
                if other.shape != value.shape:
                    raise ProbeError(
                        f"the prompt {prompt!r:.60} is encoded to {name} of {tuple(value.shape[1:])} and another to "
                        f"{tuple(other.shape[1:])}; give prompts of one length, or a longest length that the pipeline "
                        "pads to"
                    )
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[prompt] = kept
        return self._known[prompt]
