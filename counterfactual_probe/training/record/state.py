"""Networks and optimisers as flat tensors and plain values, and back again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from ...base.errors import ProbeError
from ...base.formats.schema import Schema
from ...base.formats.types import Count, Name
from ...registry.weights import load_state

Optimisers = Mapping[str, torch.optim.Optimizer]


class OptimiserState(Schema):
    """What a state holds of an optimiser beside tensors."""

    groups: list[dict[Name, Any]]
    plain: dict[Name, float | bool]


class Progress(Schema):
    """How far a training has come."""

    step: Count
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    optimisers: dict[Name, OptimiserState]
    losses: Name


def packed(
    networks: Mapping[str, nn.Module], optimisers: Optimisers, extra: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that the next step depends on: tensors by path, and the parameter groups of each optimiser."""
    tensors = {f"extra/{key}": value for key, value in extra.items()}
    groups: dict[str, Any] = {}
    for name, module in networks.items():
        tensors |= {f"network/{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimiser in optimisers.items():
        state = optimiser.state_dict()
        groups[name] = {"groups": state["param_groups"], "plain": {}}
        for number, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser/{name}/{number}/{key}"] = value
                elif value is not None:
                    groups[name]["plain"][f"{number}/{key}"] = value
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, groups


def unpack(
    tensors: Mapping[str, Tensor], groups: Mapping[str, Any], networks: Mapping[str, nn.Module], optimisers: Optimisers
) -> dict[str, Tensor]:
    """Restore networks and optimisers; returns the extra tensors."""
    for name, module in networks.items():
        load_state(module, _with_prefix(tensors, f"network/{name}/"), f"the network {name!r} of this training")
    for name, optimiser in optimisers.items():
        saved = groups.get(name)
        if saved is None:
            raise ProbeError(f"the checkpoint holds no optimiser {name!r}; give another folder, or start again")
        values: dict[int, dict[str, Any]] = {}
        for path, value in {**_with_prefix(tensors, f"optimiser/{name}/"), **saved["plain"]}.items():
            number, _, key = path.partition("/")
            values.setdefault(int(number) if number.isdecimal() else -1, {})[key] = value
        _require_fitting(name, optimiser, values, saved["groups"])
        optimiser.load_state_dict({"state": values, "param_groups": saved["groups"]})
        _in_layout(optimiser)
    return _with_prefix(tensors, "extra/")


def _require_fitting(
    name: str, optimiser: torch.optim.Optimizer, values: Mapping[int, Mapping[str, Any]], groups: Sequence[Any]
) -> None:
    """Raise a ProbeError where groups or moments are not those of this optimiser's parameters."""
    own = optimiser.state_dict()["param_groups"]
    parameters = [value for group in optimiser.param_groups for value in group["params"]]
    if [(group.keys(), group["params"]) for group in own] != [(each.keys(), each.get("params")) for each in groups]:
        raise ProbeError(f"the checkpoint's groups of optimiser {name!r} are not this training's; start again")
    for number, held in values.items():
        if not 0 <= number < len(parameters):
            raise ProbeError(f"the checkpoint's optimiser {name!r} has a parameter {number}; start again")
        shape = parameters[number].shape
        wrong = [key for key, value in held.items() if isinstance(value, Tensor) and value.shape not in ((), shape)]
        if wrong:
            has = tuple(held[wrong[0]].shape)
            raise ProbeError(
                f"{wrong[0]} of parameter {number} in the checkpoint's optimiser {name!r} is {has} and the parameter "
                f"{tuple(shape)}; start again"
            )


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _in_layout(optimiser: torch.optim.Optimizer) -> None:
    """Give moments the memory layout of their parameters, which fused optimisers assume."""
    for parameter, values in optimiser.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
