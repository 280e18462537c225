"""Training images: decoded once, from folders, zips, arrays or generators."""

from .images import Images
from .sources import open_images

__all__ = ["Images", "open_images"]
