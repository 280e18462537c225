"""Image classifiers: a module, its preprocessing, and the names of its classes."""

from .classifier import Classifier
from .opening import PretrainedClassifier, load_classifier
from .preprocessing import Preprocessing
from .self_check import SelfCheck, SuspiciousClassifier, self_check

__all__ = [
    "Classifier",
    "Preprocessing",
    "PretrainedClassifier",
    "SelfCheck",
    "SuspiciousClassifier",
    "load_classifier",
    "self_check",
]
