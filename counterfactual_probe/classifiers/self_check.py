"""Checks that an ImageNet classifier recognises an easy picture, which detects wrong normalisations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .classifier import Classifier
from .preprocessing import Preprocessing

EXPECTED = "palace"
# Common normalisations of values 0…1; the last two are for values 0…255.
NORMALISATIONS = {
    "mean 0.5 and std 0.5": ((0.5,) * 3, (0.5,) * 3),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean 0 and std 1": ((0.0,) * 3, (1.0,) * 3),
    "mean 0 and std 1/255": ((0.0,) * 3, (1 / 255,) * 3),
}
_FAR, _SURE = (
    4.0,
    0.1,
)  # another normalisation is suggested if its probability is this many times larger, and this large


class SuspiciousClassifier(UserWarning):
    """A classifier does not recognise a picture that ImageNet classifiers recognise."""


@dataclass(frozen=True)
class SelfCheck:
    """A classifier's prediction for scikit-learn's photograph of a palace in China.

    Attributes:
        rank: the rank of "palace" among its classes, from 1.
        probability: the probability of "palace", with the classifier's own preprocessing.
        answer: the most likely class.
        others: the probability of "palace" with other normalisations, by their names.
    """

    rank: int
    probability: float
    answer: str
    others: dict[str, float]

    @property
    def problem(self) -> str | None:
        """What seems wrong and a likely cause; None if nothing does."""
        best = max(self.others, key=self.others.__getitem__, default=None)
        better = best is not None and self.others[best] > max(_FAR * self.probability, _SURE)
        if self.rank <= 5 and not better:
            return None
        said = (
            f"gives {EXPECTED!r} rank {self.rank} (probability {self.probability:.2g}) for a photograph of one, and "
            f"{self.answer!r} rank 1"
        )
        if better and best is not None:
            return f"{said}; with {best} the probability is {self.others[best]:.2f}: is its normalisation wrong?"
        return f"{said}; are its weights, its normalisation and the order of its classes right?"


def photograph() -> Tensor:
    """scikit-learn's sample photograph "china.jpg", (1, 3, H, W) with values 0…1."""
    from sklearn.datasets import load_sample_image

    picture = torch.from_numpy(load_sample_image("china.jpg").copy())
    return picture.permute(2, 0, 1)[None].float() / 255


def self_check(classifier: Classifier, *, warn: bool = True) -> SelfCheck | None:
    """An ImageNet classifier's prediction for a photograph of a palace; warns if it does not recognise it.

    >>> self_check(cp.load_classifier("efficientnet-lite0")).rank  # doctest: +SKIP
    1

    None for a classifier without a class "palace". Only gross mistakes are detected: networks are robust to small
    differences in mean and std.
    """
    names = classifier.class_names or ()
    numbers = [number for number, name in enumerate(names) if name.split(",")[0] == EXPECTED]
    if len(numbers) != 1:
        return None
    probabilities = classifier.logits(photograph()).softmax(1)[0]
    others: dict[str, float] = {}
    given = classifier.transform
    if isinstance(given, Preprocessing) and len(given.mean) == 3:
        others = {name: _with(classifier, given, *values)[numbers[0]] for name, values in NORMALISATIONS.items()}
    check = SelfCheck(
        int((probabilities > probabilities[numbers[0]]).sum()) + 1,
        float(probabilities[numbers[0]]),
        classifier.class_name(int(probabilities.argmax())),
        others,
    )
    if warn and check.problem:
        warnings.warn(f"classifier {classifier.name!r} {check.problem}", SuspiciousClassifier, stacklevel=3)
    return check


def _with(
    classifier: Classifier, preprocessing: Preprocessing, mean: tuple[float, ...], std: tuple[float, ...]
) -> list[float]:
    """Probabilities with another normalisation."""
    with classifier.session():
        unit = classifier.unit(photograph(), (0.0, 1.0))
        logits = classifier.forward(replace(preprocessing, mean=mean, std=std)(unit))
        probabilities: list[float] = logits.softmax(1)[0].tolist()
    return probabilities
