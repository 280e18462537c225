"""BigGAN-deep as it is trained: batch norms take the batch's own statistics, spectral norms follow the weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .discriminator import start
from .generator import truncated_normal
from .module import original

KNOT = 10  # statistics are taken at every so many of the stored truncations, and are linear between


class BatchNorm(nn.Module):
    """The package's batch norm, with the statistics of the batch in place of stored ones."""

    def __init__(self, stored: Any) -> None:
        super().__init__()
        self.eps, self.conditional = stored.eps, stored.conditional
        for name in ("scale", "offset") if self.conditional else ("weight", "bias"):
            setattr(self, name, getattr(stored, name))

    def forward(self, x: Tensor, _truncation: float, condition: Tensor | None = None) -> Tensor:
        if not self.conditional:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)  # type: ignore[arg-type]
        plain = F.batch_norm(x, None, None, training=True, eps=self.eps)
        scale: Tensor = 1 + self.scale(condition)  # type: ignore[operator]
        offset: Tensor = self.offset(condition)  # type: ignore[operator]
        return torch.addcmul(offset[:, :, None, None].to(x.dtype), plain, scale[:, :, None, None].to(x.dtype))


class TrainedBigGAN(nn.Module):
    """The generator of a configuration in training: latents (n, z_dim) and classes (n,) to images.

    Weights start orthogonal; the classes' vectors are as long as latents are.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.model = original(config).train()
        for part in list(self.model.modules()):
            for name, child in list(part.named_children()):
                if hasattr(child, "running_means"):
                    setattr(part, name, BatchNorm(child))
        start(self.model)
        nn.init.ones_(self.model.generator.bn.weight)  # the one that is not conditional: the package leaves it unset
        with torch.no_grad():
            self.model.embeddings.weight.mul_(float(config["z_dim"]) ** 0.5)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        embedded = F.embedding(labels, self.model.embeddings.weight.t())
        images: Tensor = self.model.generator(torch.cat((z, embedded), 1), 1.0)
        return images


@torch.no_grad()
def settled(module: TrainedBigGAN, rounds: int = 10) -> TrainedBigGAN:
    """A copy in eval mode, its spectral norms brought to where its weights' are."""
    settled_copy = copy.deepcopy(module).eval()
    parts: list[Any] = [part for part in settled_copy.modules() if hasattr(part, "weight_orig")]
    for part in parts:
        matrix = part.weight_orig.flatten(1)
        for _ in range(rounds):
            part.weight_v.copy_(F.normalize(matrix.t() @ part.weight_u, dim=0))
            part.weight_u.copy_(F.normalize(matrix @ part.weight_v, dim=0))
    return settled_copy


@torch.no_grad()
def stored(module: TrainedBigGAN, samples: int) -> dict[str, Tensor]:
    """The package's state dict: the same weights, and statistics of so many samples for each truncation."""
    module = settled(module)
    state: dict[str, Tensor] = {**original(module.config).state_dict(), **module.model.state_dict()}
    embeddings = module.model.embeddings.weight
    z = truncated_normal(samples, module.config["z_dim"], torch.Generator().manual_seed(0)).to(embeddings)
    labels = torch.arange(samples, device=embeddings.device) % module.config["num_classes"]
    last = module.config["n_stats"] - 1
    knots = sorted({*range(0, last, KNOT), last})
    rows = [_statistics(module, z * (knot / last), labels) for knot in knots]
    for name in rows[0]:
        state[name] = _between(torch.stack([row[name] for row in rows]), torch.tensor(knots), last + 1)
    return state


def _statistics(module: TrainedBigGAN, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Mean and variance of every batch norm's input in one batch, by the names of their stored forms."""
    statistics: dict[str, Tensor] = {}

    def take(part: BatchNorm, inputs: tuple[Any, ...]) -> None:
        statistics[f"{names[part]}.running_means"] = inputs[0].mean((0, 2, 3))
        statistics[f"{names[part]}.running_vars"] = inputs[0].var((0, 2, 3), correction=0)

    names = {part: name for name, part in module.model.named_modules() if isinstance(part, BatchNorm)}
    handles = [part.register_forward_pre_hook(take) for part in names]
    try:
        module(z, labels)
    finally:
        for handle in handles:
            handle.remove()
    return statistics


def _between(known: Tensor, at: Tensor, count: int) -> Tensor:
    """Rows known at some of ``count`` places, linear between them."""
    place = torch.arange(count)
    after = torch.searchsorted(at, place).clamp(min=1)  # at[after - 1] ≤ place ≤ at[after]
    low, high = at[after - 1], at[after]
    share = ((place - low) / (high - low)).to(known)[:, None]
    return torch.lerp(known[after - 1], known[after], share)
