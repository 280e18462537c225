"""Pipelines of diffusers as generators: their own sampling loop, from noise and prompts to images."""

from .plugin import WRAPPER
from .wrapping import wrap_pipeline

__all__ = ["WRAPPER", "wrap_pipeline"]
