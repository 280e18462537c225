"""Influence maps of single channels as users make them today: hooks, nnsight, pyvene, captum.

Each maker takes (module, layer, z1, z2) and returns a function from a channel to its map, (H, W). Whatever does
not depend on the channel, such as the source's activation, is computed once, in the library's favour.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MapOf = Callable[[int], Any]
Maker = Callable[[nn.Module, str, Any, Any], MapOf]


def hooks(module: nn.Module, layer: str, z1: Any, z2: Any) -> MapOf:
    """A forward hook that swaps one channel."""
    part = module.get_submodule(layer)
    base, _ = _clean(module, part, z1)
    _, source = _clean(module, part, z2)

    def map_of(channel: int) -> Any:
        def swap(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, channel] = source[:, channel]
            return output

        handle = part.register_forward_hook(swap)
        image = _image(module, z1)
        handle.remove()
        return (image - base).abs().mean((0, 1))

    return map_of


def _clean(module: nn.Module, part: nn.Module, z: Any) -> tuple[Tensor, Tensor]:
    kept: list[Tensor] = []
    handle = part.register_forward_hook(lambda _module, _inputs, output: kept.append(output.clone()))
    image = _image(module, z)
    handle.remove()
    return image, kept[0]


def _image(module: nn.Module, z: Any) -> Tensor:
    image: Tensor = module(**z) if isinstance(z, dict) else module(z)
    return image


def nnsight(module: nn.Module, layer: str, z1: Any, z2: Any) -> MapOf:
    """One trace per channel."""
    model, part, base, _, source = _nnsight(module, layer, z1, z2)

    def map_of(channel: int) -> Any:
        with model.trace(z1):
            part.output[:, channel] = source[:, channel]
            image = model.output.save()
        return (image - base).abs().mean((0, 1))

    return map_of


def nnsight_skip(module: nn.Module, layer: str, z1: Any, z2: Any) -> MapOf:
    """As ``nnsight``, skipping every submodule up to the layer, which the user has to list by hand."""
    model, part, base, activation, source = _nnsight(module, layer, z1, z2)
    name, _, last = layer.rpartition(".")
    before = [_envoy(model, f"{name}.{i}") for i in range(int(last))]

    def map_of(channel: int) -> Any:
        edited = activation.clone()
        edited[:, channel] = source[:, channel]
        with model.trace(z1):
            for skipped in before:
                skipped.skip(z1)
            part.skip(edited)
            image = model.output.save()
        return (image - base).abs().mean((0, 1))

    return map_of


def _nnsight(module: nn.Module, layer: str, z1: Any, z2: Any) -> tuple[Any, Any, Tensor, Tensor, Tensor]:
    from nnsight import NNsight

    model: Any = NNsight(copy.deepcopy(module))  # it modifies the module that it wraps
    part = _envoy(model, layer)
    with model.trace(z2):
        source = part.output.clone().save()
    with model.trace(z1):
        activation = part.output.clone().save()
        base = model.output.save()
    return model, part, base, activation, source


def _envoy(model: Any, name: str) -> Any:
    for item in name.split("."):
        model = model[int(item)] if item.isdigit() else getattr(model, item)
    return model


def pyvene(module: nn.Module, layer: str, z1: Any, z2: Any) -> MapOf:
    """A function intervention on the layer's output, with the source's activation computed once."""
    import pyvene as pv

    own = copy.deepcopy(module)
    own.config = None  # type: ignore[assignment]  # it asks every model for one
    base, _ = _clean(own, own.get_submodule(layer), z1)
    _, source = _clean(own, own.get_submodule(layer), z2)
    name, _, last = layer.rpartition(".")

    def map_of(channel: int) -> Any:
        def swap(output: Tensor, _source: Any) -> Tensor:
            output = output.clone()
            output[:, channel] = source[:, channel]
            return output

        model = pv.IntervenableModel({"component": f"{name}[{last}].output", "intervention": swap}, model=own)
        _, image = model(base={"z": z1}, source_representations=source)
        return (image - base).abs().mean((0, 1))

    return map_of


def captum(module: nn.Module, layer: str, z1: Any, z2: Any) -> MapOf:
    """Feature ablation of the layer's channel, with the source's values as the baseline, for one pair.

    captum is designed for few outputs: for every pixel it computes an attribution of the size of the whole layer.
    Attributions are signed, and of the mean over colours, so these maps are not those of the other libraries.
    """
    from captum.attr import FeatureAblation

    part = module.get_submodule(layer)
    base, activation = _clean(module, part, z1[:1])
    _, source = _clean(module, part, z2[:1])
    size = base.shape[2:]

    def pixels(value: Tensor) -> Any:
        handle = part.register_forward_hook(lambda *_: value)
        image = module(z1[:1])
        handle.remove()
        return image.mean(1).flatten()

    ablation = FeatureAblation(pixels)

    def map_of(channel: int) -> Any:
        mask = torch.zeros_like(activation, dtype=torch.long)
        mask[:, channel] = 1
        changes = ablation.attribute(activation, baselines=source, feature_mask=mask)
        return changes[:, channel, 0, 0].abs().view(size)

    return map_of
