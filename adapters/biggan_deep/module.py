"""BigGAN-deep as a function of tensors alone: the latent, class and truncation of each sample.

The architecture is that of the package pytorch-pretrained-biggan, which takes a single truncation, a Python
number, for a whole batch. Here its batch norms are replaced by ones that look up their statistics for each sample,
and its spectral norms, which change with every forward in train mode, are folded into the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError

# The decimals that are exact in a truncation of this type: 0.4, and not float32's 0.4000000060.
_DECIMALS = {torch.float32: 7, torch.float16: 3, torch.bfloat16: 2}
_NUMBERS = ("output_dim", "z_dim", "class_embed_dim", "channel_width", "num_classes", "n_stats")


class Stored(NamedTuple):
    """How to interpolate each sample's statistics: ``share`` of those at ``first``, the rest of those at ``second``."""

    first: Tensor
    second: Tensor
    share: Tensor

    @classmethod
    def at(cls, truncation: Tensor, n_stats: int) -> Stored:
        """The positions of truncations (n,) among ``n_stats`` steps from 0 to 1.

        The arithmetic is the package's, in double precision, so that images are the package's too, with its two flaws:
        between two steps the weights of the lower and the upper one are swapped; and 0.14, 0.28, 0.56, 0.58 and 0.94,
        divided by the step, are rounded to a position beside the step that they name.
        """
        exact = truncation.double()
        if (decimals := _DECIMALS.get(truncation.dtype)) is not None:
            exact = torch.round(exact * 10**decimals) / 10**decimals
        position = exact / (1.0 / (n_stats - 1))
        first = torch.trunc(position)
        beyond = position - first
        share = torch.where(beyond == 0, 1.0, beyond)
        second = torch.clamp(first + 1, max=n_stats - 1)
        return cls(first.long(), second.long(), share.to(truncation.dtype)[:, None])

    def of(self, statistics: Tensor) -> Tensor:
        """Each sample's statistics (n, channels), from the stored ones (n_stats, channels)."""
        first, second = statistics.index_select(0, self.first), statistics.index_select(0, self.second)
        return first * self.share + second * (1 - self.share)


class StoredBatchNorm(nn.Module):
    """The package's batch norm, with statistics for the truncation of each sample."""

    running_means: Tensor
    running_vars: Tensor
    scale: Any
    offset: Any
    weight: Any
    bias: Any

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.eps, self.conditional = original.eps, original.conditional
        self.register_buffer("running_means", original.running_means)
        self.register_buffer("running_vars", original.running_vars)
        for name in ("scale", "offset") if self.conditional else ("weight", "bias"):
            setattr(self, name, getattr(original, name))

    def forward(self, x: Tensor, stored: Stored, condition: Tensor | None = None) -> Tensor:
        mean, variance = stored.of(self.running_means), stored.of(self.running_vars)
        if self.conditional:
            weight, bias = 1 + self.scale(condition), self.offset(condition)
        else:
            weight, bias = self.weight[None], self.bias[None]
        scale: Tensor = weight / torch.sqrt(variance + self.eps)
        shift: Tensor = bias - mean * scale
        return x * scale[:, :, None, None] + shift[:, :, None, None]


class BigGANDeepModule(nn.Module):
    """The generator. Submodules are named as in the package, for example ``generator.layers.3.conv_2``.

    ``forward(z, label, truncation)``: z is (n, z_dim), already scaled by the truncation; label (n,) holds class
    numbers and truncation (n,) numbers in (0, 1].
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.embeddings: nn.Linear = original.embeddings
        self.generator: nn.Module = original.generator
        self.n_stats: int = original.config.n_stats
        for part in list(self.modules()):
            if hasattr(part, "weight_orig"):
                nn.utils.remove_spectral_norm(part)
            for name, child in list(part.named_children()):
                if hasattr(child, "running_means"):
                    setattr(part, name, StoredBatchNorm(child))

    @property
    def z_dim(self) -> int:
        return self.embeddings.out_features

    @property
    def n_classes(self) -> int:
        return self.embeddings.in_features

    def forward(self, z: Tensor, label: Tensor, truncation: Tensor) -> Tensor:
        # A column of the embedding for each sample, as the product with a one-hot vector would be.
        embedded = F.embedding(label, self.embeddings.weight.t())
        condition = torch.cat((z, embedded), dim=1)
        images: Tensor = self.generator(condition, Stored.at(truncation, self.n_stats))
        return images


def original(config: Mapping[str, Any]) -> Any:
    """The package's own BigGAN for a configuration, with its initial weights."""
    try:
        from pytorch_pretrained_biggan import BigGAN, BigGANConfig
    except ImportError:
        raise ProbeError(
            "BigGAN-deep needs the package pytorch-pretrained-biggan, for its architecture; run: "
            'pip install "counterfactual-probe[biggan]"'
        ) from None
    checked = require_consistent(config)
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state as it was
        return BigGAN(BigGANConfig(**checked)).eval()


def require_consistent(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that define the module; a ProbeError about the first invalid one."""
    known = (*_NUMBERS, "layers", "attention_layer_position", "eps")
    if missing := [name for name in known if name not in config]:
        raise ProbeError(f"the configuration of BigGAN-deep lacks {', '.join(missing)}; give a complete one")
    for name in _NUMBERS:
        if type(config[name]) is not int or config[name] < 1:
            raise ProbeError(f"{name} of the configuration is {config[name]!r}; give an integer of at least 1")
    layers, position = config["layers"], config["attention_layer_position"]
    _require_chain(layers)
    if type(position) is not int or not 0 <= position < len(layers):
        raise ProbeError(
            f"attention_layer_position is {position!r} with {len(layers)} blocks; give 0 to {len(layers) - 1}"
        )
    if config["z_dim"] != config["class_embed_dim"]:
        raise ProbeError(
            f"z_dim is {config['z_dim']} and class_embed_dim {config['class_embed_dim']}; BigGAN-deep has one size for "
            "both"
        )
    if config["n_stats"] < 2:
        raise ProbeError("n_stats is 1; give at least 2, the statistics of truncations 0 and 1")
    size = 4 * 2 ** sum(bool(layer[0]) for layer in layers)
    if size != config["output_dim"]:
        raise ProbeError(f"output_dim is {config['output_dim']} and the layers give {size} pixels; make them agree")
    return {name: config[name] for name in known}


def _require_chain(layers: Any) -> None:
    """Check blocks (doubles the size, channels in, channels out): the outputs of each are the inputs of the next."""
    before = 16
    form = isinstance(layers, (list, tuple)) and all(
        isinstance(item, (list, tuple)) and len(item) == 3 for item in layers
    )
    if not form or not layers:
        raise ProbeError(f"layers of the configuration are {layers!r}; give a list of [doubles, in, out]")
    for number, (_, inputs, outputs) in enumerate(layers, 1):
        if inputs != before or outputs not in (inputs, inputs / 2):
            raise ProbeError(
                f"GenBlock {number} has {inputs!r} inputs and {outputs!r} outputs, in units of channel_width; it must "
                f"have {before} inputs, and as many or half as many outputs"
            )
        before = outputs
    if before != 1:
        raise ProbeError(f"the last GenBlock has {before} times channel_width outputs; it must have 1 times")
