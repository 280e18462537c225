"""Which half of a batch that guidance folds is the conditional one: found by changing the condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from counterfactual_probe.generator.adapter import GeneratorAdapter

from .runner import CLASSES


class _Seen(BaseException):
    """Ends a run at the first call of a network with a folded batch."""


def halves_of(generator: GeneratorAdapter, condition: str | None) -> dict[str, int]:
    """``{"conditional": 1, "unconditional": 0}``, or the other way round; empty where the batch is not folded."""
    latents = generator.sample(1, seed=0)
    if condition is None or not isinstance(latents, dict):
        return {}
    changed = dict(latents)
    changed[condition] = (latents[condition] + 1) % 2 if condition == CLASSES else latents[condition] + 1
    one, two = _first_inputs(generator, latents), _first_inputs(generator, changed)
    differing = {
        int(row)
        for name in one.keys() & two.keys()
        for row in (one[name] != two[name]).reshape(2, -1).any(1).nonzero()[:, 0].tolist()
    }
    if len(differing) != 1:
        return {}
    (number,) = differing
    return {"conditional": number, "unconditional": 1 - number}


def _first_inputs(generator: GeneratorAdapter, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of two rows that a network of the pipeline is first given for one sample."""
    seen: dict[str, Tensor] = {}

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(enumerate(args)) | kwargs
        tensors = {str(key): item.clone() for key, item in given.items() if _is_folded(item)}
        if tensors:
            seen.update(tensors)
            raise _Seen

    networks = [part for name, part in generator.module.named_children() if name != "prompt"]
    handles = [part.register_forward_pre_hook(hook, with_kwargs=True) for part in networks]
    try:
        with generator.session(), torch.no_grad():
            generator.module(**latents)
    except _Seen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _is_folded(value: Any) -> bool:
    return isinstance(value, Tensor) and value.shape[:1] == (2,)
