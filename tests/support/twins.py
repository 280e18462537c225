"""Literal twins: the definitions in plain loops, one sample at a time, without the library.

A hybrid is a forward of the base with a hook that overwrites channels by what another hook saw in
the clean forward of the source (conventions 2); everything faster must equal it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import NMF
from torch import Tensor, nn
from torch.nn import functional as F

from support.planted import Array
from support.toys import Toy

Action = Callable[[Tensor], Tensor | None]
NOISE_STREAM = 2


def one(latents: Any, i: int) -> Any:
    """Sample i, as a batch of one."""
    if isinstance(latents, dict):
        return {key: value[i : i + 1] for key, value in latents.items()}
    if isinstance(latents, tuple):
        return tuple(value[i : i + 1] for value in latents)
    return latents[i : i + 1]


def count(latents: Any) -> int:
    if isinstance(latents, dict):
        latents = tuple(latents.values())
    return len(latents[0]) if isinstance(latents, tuple) else len(latents)


def seed_of(seed: int, stream: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, stream, index]).generate_state(1, np.uint64)[0])


def forward(module: nn.Module, latents: Any, actions: Mapping[str, Action], noise: int = 0) -> Any:
    """One forward in eval mode, with a hook per layer; ``relu#2`` is the second call of ``relu``."""
    runs: Counter[str] = Counter()

    def hook_of(name: str) -> Callable[[Any, Any, Any], Any]:
        def hook(_part: Any, _inputs: Any, output: Any) -> Any:
            runs[name] += 1
            action = actions.get(f"{name}#{runs[name]}", actions.get(name))
            activation = output[0] if isinstance(output, tuple) else output
            new = action(activation) if action else None
            if new is None or not isinstance(output, tuple):
                return new
            return type(output)(new, *output[1:]) if hasattr(output, "_fields") else (new, *output[1:])

        return hook

    names = {layer.partition("#")[0] for layer in actions}
    handles = [module.get_submodule(name).register_forward_hook(hook_of(name)) for name in names]
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)
            if isinstance(latents, dict):
                return module(**latents)
            return module(*latents) if isinstance(latents, tuple) else module(latents)
    finally:
        for handle in handles:
            handle.remove()


def record(into: dict[str, Tensor], layer: str) -> Action:
    def action(activation: Tensor) -> None:
        into[layer] = activation.clone()

    return action


def put(values: Tensor, channels: Sequence[int]) -> Action:
    """Overwrite channels, one after the other; they are the last dimension of tokens."""

    def action(activation: Tensor) -> Tensor:
        new = activation.clone()
        for channel in channels:
            if new.dim() == 3:
                new[:, :, channel] = values[:, :, channel]
            else:
                new[:, channel] = values[:, channel]
        return new

    return action


def image_of(toy: Toy, module: nn.Module, latents: Any, actions: Mapping[str, Action], noise: int = 0) -> Tensor:
    image = toy.read(forward(module, latents, actions, noise))[0]
    return image if image.dtype in (torch.float32, torch.float64) else image.float()


def images(toy: Toy, latents: Any, seed: int = 0) -> Tensor:
    """Clean images, (n, C, H, W)."""
    module = toy.plain()
    runs = range(count(latents))
    return torch.stack([image_of(toy, module, one(latents, i), {}, seed_of(seed, NOISE_STREAM, i)) for i in runs])


def hybrids(toy: Toy, z1: Any, z2: Any, sets: Sequence[Mapping[str, Sequence[int]]], seed: int = 0) -> Tensor:
    """(sets, n, C, H, W): conventions 2, word by word."""
    module, rows = toy.plain(), []
    for units in sets:
        row = []
        for i in range(count(z1)):
            noise, donor = seed_of(seed, NOISE_STREAM, i), dict[str, Tensor]()
            forward(module, one(z2, i), {layer: record(donor, layer) for layer in units}, noise)
            actions = {layer: put(donor[layer], channels) for layer, channels in units.items()}
            row.append(image_of(toy, module, one(z1, i), actions, noise))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def maps(toy: Toy, z1: Any, z2: Any, sets: Sequence[Mapping[str, Sequence[int]]], seed: int = 0) -> list[Tensor]:
    """One (pairs, H, W) per unit set: |hybrid − original| averaged over colours, in float64."""
    originals = images(toy, z1, seed)
    found = []
    for row in hybrids(toy, z1, z2, sets, seed):
        per_pair = []
        for hybrid, original in zip(row, originals, strict=True):
            difference = (hybrid.double() - original.double()).abs()
            per_pair.append(sum(difference[colour] for colour in range(len(difference))) / len(difference))
        found.append(torch.stack(per_pair))
    return found


def literal_bits(maps: Array, window: int, percentile: float = 75.0) -> Array:
    """Conventions 8 and 9 pixel by pixel: the mean over the part of the box inside the image."""
    channels, height, width = maps.shape
    half, rows = window // 2, []
    for c in range(channels):
        smooth = np.empty((height, width))
        for y in range(height):
            for x in range(width):
                box = maps[c, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
                smooth[y, x] = box.mean()
        rows.append((smooth > np.percentile(smooth, percentile)).ravel())
    return np.array(rows, dtype=float)


def literal_nmf(bits: Array, k: int, seed: int = 0) -> tuple[Array, Array, Array]:
    model = NMF(
        n_components=k,
        init="nndsvda",
        solver="cd",
        beta_loss="frobenius",
        tol=1e-4,
        max_iter=1000,
        random_state=seed,
    )
    w, h = model.fit_transform(bits), model.components_
    for j in range(k):
        norm = np.sqrt((h[j] ** 2).sum())
        h[j], w[:, j] = h[j] / norm, w[:, j] * norm
    return np.array([int(np.argmax(row)) for row in w]), w, h


def literal_stretch(maps: Tensor) -> Tensor:
    """Conventions 22, word by word: bilinear to 1.5 times the width, then as much cut off at either side."""
    height, width = maps.shape[-2:]
    wide = F.interpolate(maps, (height, width * 3 // 2), mode="bilinear", align_corners=False)
    cut = (wide.shape[-1] - width) // 2
    return wide[..., cut : cut + width]


def gap(one: Tensor, two: Tensor) -> float:
    """The largest difference of two tensors of any precision."""
    return float((one.cpu().double() - two.cpu().double()).abs().max())
