"""The preprocessing of a classifier in plain torch: batched and differentiable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base.errors import ProbeError, brief, first_line, one_of, share

Mode: TypeAlias = Literal["center", "squash", "border"]
Interpolation: TypeAlias = Literal["bicubic", "bilinear", "nearest"]


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalise images (n, C, H, W) with values 0…1, as timm does for 8-bit pictures.

    >>> Preprocessing((224, 224), crop=0.875)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 3, 224, 224])

    timm's images are rounded to 1/255 after resizing; these are not, so that gradients pass, and so they differ from
    timm's by about that much.

    Attributes:
        size: (height, width) of the classifier's input.
        crop: share of the resized image's side that is kept (timm's ``crop_pct``).
        mode: "center" resizes the shorter side, "squash" both, "border" the longer one and pads with the mean.
        interpolation: antialiased, except "nearest".
        mean, std: for each colour, for values 0…1.
    """

    size: tuple[int, int]
    crop: float = 1.0
    mode: Mode = "center"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        size, mean, std = (_numbers(value) for value in (self.size, self.mean, self.std))
        if len(size) != 2 or min(size) < 1 or any(side % 1 for side in size):
            raise ProbeError(
                f"the classifier's input size is {brief(self.size)}; give (height, width) of at least 1, as integers"
            )
        share(self.crop, "the share of the side to keep, crop,")
        one_of(self.mode, "mode", get_args(Mode))
        one_of(self.interpolation, "interpolation", get_args(Interpolation))
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ProbeError(
                f"mean is {brief(self.mean)} and std {brief(self.std)}; give one of each per colour, std above 0"
            )

    @classmethod
    def of_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing of a timm configuration, from ``timm.data.resolve_model_data_config(model)``."""
        try:
            return cls(
                size=(int(config["input_size"][1]), int(config["input_size"][2])),
                crop=float(config["crop_pct"]),
                mode=config["crop_mode"],
                interpolation=config["interpolation"],
                mean=tuple(map(float, config["mean"])),
                std=tuple(map(float, config["std"])),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise ProbeError(
                f"the data configuration {dict(config)!r:.80} is not timm's ({type(error).__name__}: "
                f"{first_line(error)}); give what timm.data.resolve_model_data_config(model) returns"
            ) from error

    def __call__(self, images: Tensor) -> Tensor:
        return self.normalised(self.resized(images))

    @property
    def geometry(self) -> tuple[Any, ...]:
        """Classifiers with the same geometry can share the result of :meth:`resized`."""
        return self.size, self.crop, self.mode, self.interpolation, self._fill, len(self.mean)

    def resized(self, images: Tensor) -> Tensor:
        """Images resized and cropped, still with values 0…1."""
        images = self._coloured(images)
        height, width = self._resize_to(images.shape[-2], images.shape[-1])
        # Horizontally and then vertically, as Pillow does (in the other order if only the height shrinks), clamped
        # after each step: bicubic weights overshoot, and an 8-bit picture cannot.
        down_first = height < images.shape[-2] and width > images.shape[-1]
        half = (height, images.shape[-1]) if down_first else (images.shape[-2], width)
        return self._cropped(self._scaled(self._scaled(images, *half), height, width))

    def _scaled(self, images: Tensor, height: int, width: int) -> Tensor:
        if (height, width) == tuple(images.shape[-2:]):
            return images
        if self.interpolation == "nearest":
            return F.interpolate(images, (height, width), mode="nearest-exact")
        how = self.interpolation
        return F.interpolate(images, (height, width), mode=how, antialias=True, align_corners=False).clamp(0, 1)

    def normalised(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(value, dtype=images.dtype, device=images.device) for value in (self.mean, self.std))
        return (images - mean[:, None, None]) / std[:, None, None]

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def _fill(self) -> tuple[float, ...]:
        return tuple(round(255 * value) / 255 for value in self.mean) if self.mode == "border" else ()

    def _coloured(self, images: Tensor) -> Tensor:
        """Grey images with their channel repeated, if the classifier takes colours."""
        wanted, colours = len(self.mean), images.shape[1]
        if colours == wanted:
            return images
        if colours == 1:
            return images.expand(-1, wanted, -1, -1)
        raise ProbeError(
            f"images have {colours} colours and the classifier takes {wanted}; convert them first, or give a "
            f"classifier with a mean for each of {colours}"
        )

    def _resize_to(self, height: int, width: int) -> tuple[int, int]:
        wanted = tuple(math.floor(side / self.crop) for side in self.size)
        if self.mode == "squash":
            return wanted[0], wanted[1]
        if self.mode == "center" and wanted[0] == wanted[1]:  # torchvision's rule, which truncates
            short, long = min(height, width), max(height, width)
            other = int(wanted[0] * long / short)
            return (wanted[0], other) if height <= width else (other, wanted[0])
        ratios = height / wanted[0], width / wanted[1]
        ratio = max(ratios) if self.mode == "border" else min(ratios)
        return round(height / ratio), round(width / ratio)

    def _cropped(self, images: Tensor) -> Tensor:
        if self.mode == "border":
            images = self._padded(images)
        height, width = self.size
        top, left = round((images.shape[-2] - height) / 2), round((images.shape[-1] - width) / 2)
        return images[..., top : top + height, left : left + width]

    def _padded(self, images: Tensor) -> Tensor:
        """Images padded with the mean, as timm does, to at least the size of the classifier's input."""
        size = images.shape[-2:]
        missing = [max(0, side - have) for side, have in zip(self.size, size, strict=True)]
        if not any(missing):
            return images
        before = [
            max(0, -round((have - side) / 2)) if less else 0
            for side, have, less in zip(self.size, size, missing, strict=True)
        ]
        fill = torch.tensor(self._fill, dtype=images.dtype, device=images.device)[:, None, None]
        canvas = fill.expand(len(images), -1, size[0] + missing[0], size[1] + missing[1]).clone()
        canvas[..., before[0] : before[0] + size[0], before[1] : before[1] + size[1]] = images
        return canvas


def _numbers(values: Any) -> list[float]:
    """Finite numbers as a list; none if there is anything else among them."""
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, Real) for value in values):
        return []
    numbers = list(map(float, values))
    return numbers if all(map(math.isfinite, numbers)) else []
