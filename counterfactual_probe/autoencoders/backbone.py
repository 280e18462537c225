"""The convolutions that all of S004's autoencoders share (its appendix A.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from torch import nn

from ..base.errors import ProbeError, whole

GROUP = 8  # channels per group of a norm, at least
GROUPS = 8  # groups per norm, at most
START = 2  # side of the smallest maps


@dataclass(frozen=True)
class Backbone:
    """Sizes, and the convolutions (counted from 1) at which the size of the maps changes.

    Attributes:
        latent: dimensions of the code.
        image_size: side of the images: 4, 8, 16, …
        width: channels of every convolution: a multiple of 8.
        convolutions: their number in the encoder, and in the decoder.
        colours: of the images.
    """

    latent: int = 12
    image_size: int = 64
    width: int = 64
    convolutions: int = 12
    colours: int = 3

    def __post_init__(self) -> None:
        for name in ("latent", "image_size", "width", "convolutions", "colours"):
            whole(getattr(self, name), name, 1)
        if self.width % GROUP:
            raise ProbeError(f"width is {self.width}; give a multiple of the {GROUP} channels of a norm's group")
        if self.halvings < 1 or START * 2**self.halvings != self.image_size:
            raise ProbeError(f"images are {self.image_size}×{self.image_size}; give a size of 4, 8, 16, 32, …")
        if self.convolutions < max(2, self.halvings):
            raise ProbeError(
                f"convolutions is {self.convolutions} and images of {self.image_size}×{self.image_size} need at least "
                f"{max(2, self.halvings)} to reach {START}×{START}; give as many or more"
            )

    @property
    def groups(self) -> int:
        """Groups per norm: S004's 8 for 64 channels or more; fewer for fewer channels, so that a group keeps 8."""
        return min(GROUPS, self.width // GROUP)

    @property
    def halvings(self) -> int:
        """The number of times that maps are halved between the image's size and 2×2."""
        return (self.image_size // START).bit_length() - 1

    def pools(self) -> tuple[int, ...]:
        """The convolutions of the encoder that a max-pooling follows: spread evenly, from the first to the last."""
        last = max(1, self.halvings - 1)
        step = ceil((self.convolutions - 1) / last)  # 3 in all of S004's models
        if 1 + step * (last - 1) >= self.convolutions:
            step -= 1
        return tuple(min(1 + step * i, self.convolutions) for i in range(self.halvings))

    def doublings(self) -> tuple[int, ...]:
        """The convolutions of the decoder before which maps double: as ``pools``, but the second, not the first."""
        first, *others = self.pools()
        return (2 if 2 not in others else first, *others)

    def placed(self, variables: int) -> tuple[int, ...]:
        """The convolutions of the decoder before which the latent's variables enter: spread evenly, from the first."""
        whole(variables, "variables", 1)
        if variables > self.convolutions:
            raise ProbeError(
                f"{variables} variables are more than the decoder's {self.convolutions} convolutions; give at most "
                f"{self.convolutions}"
            )
        return tuple(1 + i * self.convolutions // variables for i in range(variables))

    def split(self, variables: int) -> int:
        """The number of dimensions of each variable."""
        whole(variables, "variables", 1)
        if self.latent % variables:
            lower = self.latent // variables * variables
            fitting = " or ".join(str(size) for size in (lower, lower + variables) if size)
            raise ProbeError(
                f"a latent of {self.latent} dimensions cannot be split evenly into {variables} variables; give a "
                f"number of variables that divides it, or give a latent of {fitting}"
            )
        return self.latent // variables


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with Mish between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Mish()]
    return nn.Sequential(*layers[:-1])


def encoder_blocks(backbone: Backbone) -> Iterator[nn.Sequential]:
    """Convolution (the first 5×5), max-pooling, group norm, Mish."""
    before = backbone.colours
    for number in range(1, backbone.convolutions + 1):
        kernel = 5 if number == 1 else 3
        layers: list[nn.Module] = [nn.Conv2d(before, backbone.width, kernel, padding=kernel // 2)]
        if number in backbone.pools():
            layers.append(nn.MaxPool2d(2))
        yield nn.Sequential(*layers, nn.GroupNorm(backbone.groups, backbone.width), nn.Mish())
        before = backbone.width


def decoder_block(backbone: Backbone, number: int, after: int) -> nn.Sequential:
    """Bilinear upsampling (in some blocks), convolution to ``after`` maps, group norm and Mish (except in the last)."""
    layers: list[nn.Module] = []
    if number in backbone.doublings():
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    layers.append(nn.Conv2d(backbone.width, after, 3, padding=1))
    if number < backbone.convolutions:
        layers += [nn.GroupNorm(backbone.groups, after), nn.Mish()]
    return nn.Sequential(*layers)
