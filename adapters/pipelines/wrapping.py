"""How a pipeline of diffusers becomes a generator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from counterfactual_probe.base.errors import ProbeError, nearest, number, strings, whole
from counterfactual_probe.generator.adapter import GeneratorAdapter

from .halves import halves_of
from .latents import PipelineLatents
from .prompts import ENCODE, returned_names
from .runner import CLASSES, Runner
from .sampler import Sampler, first_images

STEPS, GUIDANCE = "num_inference_steps", "guidance_scale"
# Where a network's configuration has the number of its classes.
_COUNTS = ("num_class_embeds", "num_embeds_ada_norm")


def wrap_pipeline(
    pipeline: Any,
    *,
    steps: int = 10,
    guidance: float | None = None,
    prompts: str | Sequence[str] = "",
    options: dict[str, Any] | None = None,
    **wrapping: Any,
) -> GeneratorAdapter:
    """The generator of a pipeline of diffusers; ``cp.wrap(pipeline)`` is the same.

    >>> gen = cp.wrap(pipeline, steps=10)  # doctest: +SKIP
    >>> gen.sample(2, seed=0, prompts=["a cat", "a dog"]).keys()  # doctest: +SKIP
    dict_keys(['noise', 'prompt_embeds', 'negative_prompt_embeds'])

    The images are those of the pipeline's own ``__call__``, in 0 … 1. Latents are a dict of the noise that it starts
    from and, where it takes them, the embedding of the prompt or the number of the class. Noise that the scheduler
    draws later is each sample's own, and the same in base, source and hybrid. The pipeline itself stays as it was.

    Args:
        pipeline: a pipeline from noise to images, with its networks and its scheduler.
        steps: denoising steps, from 1 to those that the scheduler was trained with.
        guidance: the guidance scale; by default the pipeline's own.
        prompts: what samples for which no prompt is given are made of: each sample's is drawn from these. By default
            the empty prompt.
        options: further arguments of its ``__call__``, such as ``{"height": 512}``.
        wrapping: what :func:`wrap` takes for any module: ``layers``, ``axes``, ``device``, ``name`` …

    Raises:
        ProbeError: steps or a guidance that the pipeline has no use for, an unknown option, a pipeline that needs more
            than noise, prompts and classes, or that draws no noise.
    """
    runner = Runner(pipeline, {})
    runner.settings |= _settings(runner, whole(steps, "steps", 1), guidance, options or {})
    listed = [prompts] if isinstance(prompts, str) else strings(prompts, "prompts")
    if not listed:
        raise ProbeError("prompts hold no text; give at least one, or '' for the empty prompt")
    classes = _number_of_classes(runner)
    two = runner.start([listed[0]] * 2, None if classes is None else torch.zeros(2, dtype=torch.int64))
    size = runner.noise_size(two, 2)
    names = returned_names(getattr(type(pipeline), ENCODE)) if runner.takes_prompts else []
    encoded = runner.start(listed[:1]).encoding if runner.takes_prompts else None
    per_sample = [] if encoded is None else _rows_of_samples(encoded.tensors(names), two.encoding.tensors(names))
    sampler = Sampler(runner, encoded=encoded, names=names, per_sample=per_sample)
    sample = PipelineLatents(runner, size, prompts=listed, n_classes=classes, names=names, per_sample=per_sample)
    tensors = {} if encoded is None else encoded.tensors(names)
    axes = {f"prompt.{name}": "n t c" if tensors[name].dim() == 3 else "n c" for name in per_sample}
    wrapping["axes"] = axes | dict(wrapping.get("axes") or {})
    given: dict[str, Any] = {"name": runner.name, "image": first_images, "image_range": (0.0, 1.0)}
    generator = GeneratorAdapter(sampler, sample, **given | wrapping)
    condition = CLASSES if classes else next((name for name in per_sample if "negative" not in name), None)
    generator.halves = halves_of(generator, condition)
    return generator


def _settings(runner: Runner, steps: int, guidance: float | None, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the pipeline's call that are the same for all samples."""
    accepted = runner.accepted
    if STEPS not in accepted:
        raise ProbeError(f"{runner.name} takes no {STEPS}; wrap a torch.nn.Module of your own that runs its steps")
    scheduler = getattr(runner.pipeline, "scheduler", None)
    most = getattr(getattr(scheduler, "config", None), "num_train_timesteps", None)
    if most is not None and steps > most:
        raise ProbeError(f"steps is {steps} and {type(scheduler).__name__} was made for {most}; give at most that")
    settings: dict[str, Any] = {STEPS: steps}
    if guidance is not None:
        if GUIDANCE not in accepted:
            raise ProbeError(f"guidance is {guidance!r} and {runner.name} has none; leave it out")
        settings[GUIDANCE] = _scale(guidance)
    for name, value in options.items():
        if name not in accepted or name in ("output_type", "return_dict", "generator"):
            raise ProbeError(f"{runner.name} takes no option {name!r}; nearest: {nearest(name, accepted)}")
        settings[name] = value
    known = {"prompt", CLASSES, "batch_size", *settings}
    needed = [name for name, required in accepted.items() if required and name not in known]
    if needed:
        raise ProbeError(
            f"{runner.name} needs {', '.join(needed)} beside noise, prompts and classes; give it in options={{…}}"
        )
    return settings


def _scale(guidance: float) -> float:
    scale = number(guidance, "guidance")
    if not math.isfinite(scale):
        raise ProbeError(f"guidance is {scale}; give a finite number")
    return scale


def _rows_of_samples(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> list[str]:
    """The tensors of one and of two encoded prompts that have a row for each."""
    return [name for name, value in one.items() if value.shape[:1] == (1,) and two[name].shape[:1] == (2,)]


def _number_of_classes(runner: Runner) -> int | None:
    if CLASSES not in runner.accepted:
        return None
    for part in runner.pipeline.components.values():
        for name in _COUNTS:
            count = getattr(getattr(part, "config", None), name, None)
            if isinstance(count, int):
                return count
    return None
