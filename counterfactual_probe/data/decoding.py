"""One picture, decoded: formats that are only pixels, of a size that memory has room for, upright and in one mode."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ..base.errors import first_line

Bytes = npt.NDArray[np.uint8]
# Whatever its name, a file is read as one of these: the decoders of others start programs (EPS) or read no pixels.
FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM")
SUFFIX = re.compile(
    r"\.(a?png|jpe?g|jpe|jfif|webp|avifs?|bmp|dib|gif|tiff?|p[bgnp]m|jp2|j2[ck]|jp[cfx])", re.IGNORECASE
)
# Of pictures too, which these decoders do not read.
OTHER_SUFFIX = re.compile(
    r"\.(hei[cf]|hif|jxl|svg|psd|tga|qoi|exr|hdr|ico|icns|eps|raw|dng|cr[23]|nef|arw|orf|rw2|pcx|dds|pfm)",
    re.IGNORECASE,
)
MOST_PIXELS = 100_000_000
MOST_BYTES = 2**28  # of one file
_LARGE = 10_000_000  # pixels; pictures of more are decoded one at a time
_one_large = threading.Lock()


@dataclass
class Decoded:
    """One file: its pixels, or the reason why it cannot be read.

    Attributes:
        more: whether the file has further pages or frames; the first is read.
        turned: whether what the file says of the camera's orientation could be read.
    """

    name: str
    pixels: Bytes | None = None
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    more: bool = False
    turned: bool = True
    reason: str = ""


def decoded(name: str, read: Callable[[str], bytes], size: int | None, colours: int) -> Decoded:
    """The picture of a name, as bytes (C, H, W)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower than Pillow's
            opened = Image.open(io.BytesIO(read(name)), formats=FORMATS)
        with opened as image:
            count = image.width * image.height
            if count > MOST_PIXELS:
                reason = f"{count / 1e6:.0f} megapixels, and at most {MOST_PIXELS / 1e6:.0f} are read"
                return Decoded(name, reason=reason)
            with _one_large if count > _LARGE else nullcontext():
                return _pixels(name, image, size, colours)
    except UnidentifiedImageError:  # its message has a memory address
        return Decoded(name, reason="not an image")
    except Exception as error:  # damaged files make decoders raise almost anything
        return Decoded(name, reason=f"{type(error).__name__}: {first_line(error)[:80]}")


def _pixels(name: str, image: Image.Image, size: int | None, colours: int) -> Decoded:
    mode = image.mode
    upright, turned = _upright(image)
    picture = _in_mode(upright, colours)
    if size is not None and picture.size != (size, size):
        picture = _square(picture, size)
    pixels = np.asarray(picture).reshape(picture.height, picture.width, colours)
    return Decoded(name, np.moveaxis(pixels, -1, 0), upright.size, mode, _has_more(image), turned)


def _has_more(image: Image.Image) -> bool:
    """Whether there is a second page or frame; counting all of them could take long."""
    try:
        image.seek(1)
    except Exception:  # EOFError where there is none, and almost anything from damaged files
        return False
    return True


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture as the camera was held, and whether that could be read; its pixels are the file's either way."""
    image.load()
    try:
        return ImageOps.exif_transpose(image), True
    except Exception:  # of damaged metadata, beside pixels that are whole
        return image, False


def _in_mode(image: Image.Image, colours: int) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no defined white level")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert("RGB" if colours == 3 else "L")


def _square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))  # resize(box=) would also use pixels outside
    return square.resize((size, size), Image.Resampling.LANCZOS)
