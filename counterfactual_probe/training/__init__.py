"""Training generators of one's own: a recipe says what is trained by which losses, the rest is here."""

from .recipe import Recipe, Trainable, Update, copied, recipes, trainable
from .result import Trained
from .step import Networks, Step
from .train import train

__all__ = ["Networks", "Recipe", "Step", "Trainable", "Trained", "Update", "copied", "recipes", "train", "trainable"]
