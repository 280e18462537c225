"""Training images: decoded once, from folders, zips, arrays or generators, or rendered."""

from .images import Images
from .labelled import Labelled, read_labelled
from .scene import Scene
from .sources import open_images

__all__ = ["Images", "Labelled", "Scene", "open_images", "read_labelled"]
