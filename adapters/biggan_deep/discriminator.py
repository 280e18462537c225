"""The discriminator of a BigGAN: residual blocks and a projection on the class (Brock et al. 2019, appendix B)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.registry.weights import built, first_names, tensors_only


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, at half the size if ``down``; the first block gets pixels, not features."""

    def __init__(self, before: int, after: int, *, down: bool, first: bool = False) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv_0 = spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.conv_1 = spectral_norm(nn.Conv2d(after, after, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(before, after, 1)) if first or before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv_1(F.relu(self.conv_0(x if self.first else F.relu(x))))
        # A 1×1 convolution and an average commute, and of fewer pixels it costs less.
        if self.down:
            x, inner = F.avg_pool2d(x, 2), F.avg_pool2d(inner, 2)
        out: Tensor = inner + self.shortcut(x)
        return out


class BigGANDiscriminator(nn.Module):
    """Images (n, C, H, W) in −1…1 and their classes (n,) to one number each.

    Blocks halve the size until it is 8 and two more keep it; channels are ``width`` in the first block and twice as
    many in all others. The number is h·(w + v(class)) of the sum h of the last features over the image (Miyato and
    Koyama 2018, eq. 4), every weight under spectral norm.
    """

    def __init__(self, width: int, classes: int, colours: int = 3, *, image_size: int = 32) -> None:
        super().__init__()
        halvings = (image_size // 8).bit_length() - 1
        blocks = [Block(colours, width, down=True, first=True)]
        blocks += [Block(width if i == 0 else 2 * width, 2 * width, down=True) for i in range(halvings - 1)]
        blocks += [Block(width if halvings == 1 and i == 0 else 2 * width, 2 * width, down=False) for i in range(2)]
        self.blocks = nn.Sequential(*blocks)
        self.linear = spectral_norm(nn.Linear(2 * width, 1))
        self.embedding = spectral_norm(nn.Embedding(classes, 2 * width))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        features = F.relu(self.blocks(images))
        features = features.sum((2, 3), dtype=torch.promote_types(features.dtype, torch.float32))
        logits: Tensor = self.linear(features)[:, 0] + (self.embedding(labels) * features).sum(1)
        return logits


@fresh_settings()
def biggan_discriminator(state_dict: Mapping[str, Any]) -> BigGANDiscriminator:
    """The discriminator of a state dict, such as ``discriminator.safetensors`` beside a trained BigGAN.

    >>> from counterfactual_probe.adapters.biggan_deep.discriminator import BigGANDiscriminator, biggan_discriminator
    >>> module = biggan_discriminator(BigGANDiscriminator(4, 10).state_dict())
    >>> module(torch.zeros(5, 3, 32, 32), torch.tensor([3, 3, 0, 9, 1])).shape
    torch.Size([5])

    Raises:
        ProbeError: the tensors are not those of such a discriminator.
    """
    state = tensors_only(state_dict)
    blocks = sum(re.fullmatch(r"blocks\.\d+\.conv_0\.bias", key) is not None for key in state)
    first, classes = (
        state.get(f"{name}.parametrizations.weight.original") for name in ("blocks.0.conv_0", "embedding")
    )
    if first is None or classes is None or first.dim() != 4 or blocks < 3:
        raise ProbeError(
            f"the state dict holds no blocks.0, blocks.1, … and embedding under spectral norms (its first keys: "
            f"{first_names(state)}); give that of a BigGAN's discriminator"
        )
    width, colours = first.shape[:2]
    return built(
        lambda: BigGANDiscriminator(width, len(classes), colours, image_size=8 * 2 ** (blocks - 2)),
        state,
        "a BigGAN's discriminator of its kernels' sizes",
    ).eval()


def start(module: nn.Module) -> None:
    """Weights with orthogonal rows or columns, and biases of 0 (Brock et al. 2019, section 3)."""
    for name, value in module.named_parameters():
        if value.dim() > 1:
            nn.init.orthogonal_(value)
        elif name.endswith("bias"):
            nn.init.zeros_(value)
