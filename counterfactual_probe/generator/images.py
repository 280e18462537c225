"""Images: finding them in a module's output, checking them for NaN, and displaying them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..base.caller import blamed_on
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import ProbeError
from ..base.formats.elsewhere import require_dense

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_THUMBNAIL = 128  # pixels of the longer side
_IMAGE_KEYS = ("sample", "images", "image", "x", "out", "output")


def all_finite(images: Tensor) -> bool:
    """Whether all values are finite, in one pass: a NaN or an infinity makes the sum one, too."""
    # A sum in the images' own dtype is ten times as fast, but may overflow although every value is finite.
    return bool(torch.isfinite(images.sum())) or bool(torch.isfinite(images.sum(dtype=torch.float64)))


def require_finite(images: Tensor, where: Callable[[int], str], dtype: torch.dtype | None) -> None:
    """Raise a ProbeError that names the first image with a NaN or an infinity."""
    if all_finite(images):
        return
    first = int((~torch.isfinite(images).flatten(1).all(1)).nonzero()[0, 0])
    raise ProbeError(
        f"the image {where(first)} holds NaN or infinite values; check the latents' range and the weights"
        + (", or run the generator in float32" if dtype in (torch.float16, torch.bfloat16) else "")
    )


def default_image(output: Any) -> Tensor:
    """The image tensor of a module's output, for the forms that generators commonly return."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        candidates = [output[key] for key in _IMAGE_KEYS if key in output] or list(output.values())
    elif isinstance(output, (tuple, list)):
        candidates = list(output)
    else:
        candidates = [getattr(output, key) for key in _IMAGE_KEYS if hasattr(output, key)]
    for candidate in candidates:
        if isinstance(candidate, Tensor) and candidate.dim() == 4:
            return candidate
    raise ProbeError(
        f"no 4-D image tensor was found in the module's output, a {type(output).__name__}; pass image=..., "
        "a function from that output to a tensor (n, C, H, W)"
    )


def require_images(images: Any, size: tuple[int, ...], image_range: tuple[float, float], device: torch.device) -> None:
    """Raise a ProbeError unless these are images (n, *size) such as the generator makes."""
    low, high = image_range
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise ProbeError(f"the images are {kind}; give a tensor of floats from {low:g} to {high:g}")
    require_dense(images, "the images")
    if images.dim() == len(size) + 1 and images.shape[2:] == size[1:] and images.shape[1] != size[0]:
        given = counted(images.shape[1], "colour")
        cure = f"repeat it, .expand(-1, {size[0]}, -1, -1)" if images.shape[1] == 1 else "convert them"
        raise ProbeError(f"the images have {given} and this generator's {size[0]}; {cure}")
    if tuple(images.shape[1:]) != size:
        raise ProbeError(
            f"the images are {tuple(images.shape)} and this generator's are (n, {', '.join(map(str, size))}); resize "
            "them, and add a first dimension to a single one"
        )
    if len(images) == 0:
        raise ProbeError("the images hold 0 samples; give at least one")
    if images.device != device:
        raise ProbeError(f"the images are on {images.device} and the generator on {device}; move them there")
    if not all_finite(images):
        raise ProbeError("the images hold NaN or infinite values; give pixels")
    least, largest, slack = float(images.min()), float(images.max()), 0.01 * (high - low)
    if least < low - slack or largest > high + slack:
        raise ProbeError(
            f"the images range from {least:.3g} to {largest:.3g} and this generator's from {low:g} to {high:g}; "
            "scale them"
        )


def read_image(read: Callable[[Any], Tensor], output: Any, n: int, name: str) -> Tensor:
    """The images of an output, (n, C, H, W): as ``read`` says, also sound (n, C, L) and volumes."""
    with blamed_on("image=...", f"give a function from a {type(output).__name__} to a tensor (n, C, H, W)"):
        image = read(output)
    # Others than pictures only where the user says so: three dimensions may be tokens.
    fits = isinstance(image, Tensor) and (image.dim() == 4 if read is default_image else image.dim() > 2)
    if not fits or len(image) != n:
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        if shape == ():
            raise ProbeError(
                f"{name} gives one number for {n} latents, as a training step gives a loss, where images (n, C, H, W) "
                f"are needed; wrap a torch.nn.Module whose forward samples images, with this one as its submodule"
            )
        raise ProbeError(
            f"{name} gives {shape} for {n} latents where images (n, C, H, W) are needed; pass "
            "image=..., a function from the module's output to such a tensor, or to sound (n, C, L) or volumes"
        )
    if image.is_complex():
        raise ProbeError(
            f"{name} gives complex images; pass image=..., a function from the module's output to real ones, "
            "such as lambda output: output.real"
        )
    return image if image.dtype in (torch.float32, torch.float64) else image.float()


def require_pictures(size: tuple[int, ...], what: str) -> tuple[int, int, int]:
    """(C, H, W); a ProbeError says that ``what`` needs two dimensions if the output has others."""
    if len(size) != 3:
        raise ProbeError(
            f"{what} needs pictures of two dimensions and this generator's output is {'×'.join(map(str, size))}; read "
            "two dimensions of it, with image=, or use analyses that take any number"
        )
    channels, height, width = size
    return channels, height, width


def thumbnails(images: Tensor) -> Tensor:
    """Small copies (n, C, h, w) on the CPU, of at most 128 pixels a side; what is no picture as it is."""
    if images.dim() != 4:
        return torch.nan_to_num(images.detach().float()).cpu()
    height, width = images.shape[2:]
    scale = max(1.0, max(height, width) / _THUMBNAIL)
    size = max(1, round(height / scale)), max(1, round(width / scale))
    return torch.nan_to_num(adaptive_avg_pool2d(images.detach().float(), size)).cpu()


def plot_samples(images: Tensor, image_range: tuple[float, float], *, ax: Axes | None = None) -> Plot[Axes]:
    """Images (n, C, …) as a sheet of up to eight in a row."""
    from ..base.drawing import plot_images

    n = len(images)
    across = min(n, 8)
    down = -(-n // across)
    blank = torch.full((down * across, *images.shape[1:]), image_range[1])
    blank[:n] = images.detach().float().cpu()
    return plot_images(blank.view(down, across, *images.shape[1:]).numpy(), [""] * down, image_range, ax=ax)
