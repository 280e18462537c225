"""Arrays as other libraries leave them: every function that takes arrays takes the same ones, with the same result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.autoencoders import hybrid_sample
from counterfactual_probe.base.formats.elsewhere import plain_array
from counterfactual_probe.data import Images
from support.toys import PLAIN, seeded

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(40, 3))
FACTORS = RNG.integers(0, 3, (40, 2))
MAPS = RNG.random((12, 8, 8))
PIXELS = RNG.random((4, 3, 8, 8)).astype(np.float32)
MASKS = (np.arange(64).reshape(1, 8, 8) % 2 == np.arange(2)[:, None, None]).astype(np.float64)


class Lazy:
    """An object that turns itself into an array, as a table or a picture does."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.values, dtype)


def inner_values(given: Any) -> float:
    gen = PLAIN.generator()
    value = cp.Hybridizer(gen, "main.2").intervene(gen.sample(1), units=[0, 1], value=given).images
    return float(value.double().sum())


# What each function makes of an array: a number that other forms of the same array must give as well.
TAKERS: dict[str, tuple[Any, Callable[[Any], float]]] = {
    "frechet_distance": (FEATURES, lambda given: cp.frechet_distance(given, FEATURES[::2] + 1)),
    "metrics' codes": (FEATURES, lambda given: cp.metrics.mig(given, FACTORS).score),
    "metrics' factors": (FACTORS.astype(np.float64), lambda given: cp.metrics.mig(FEATURES, given).score),
    "finder": (MAPS, lambda given: float(cp.ModuleFinder(2).fit(given).templates_.sum())),
    "parts' templates": (MAPS[:2], lambda given: cp.parts_agreement(given, MASKS, controls=2).mean_iou),
    "parts' masks": (MASKS, lambda given: cp.parts_agreement(MAPS[:2], given, controls=2).mean_iou),
}
# These take arrays and tensors, and no lists or other objects.
ARRAYS_ONLY: dict[str, tuple[Any, Callable[[Any], float]]] = {
    "data": (PIXELS, lambda given: float(Images(given).pixels.double().sum())),
    "codes": (FEATURES, lambda given: float(hybrid_sample(given, 5).double().sum())),
    "values": (np.array([0.5, 1.0]), inner_values),
}
ALL = TAKERS | ARRAYS_ONLY

TAKEN: dict[str, Callable[[Any], Any]] = {
    "negative strides": lambda a: a[::-1].copy()[::-1],
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "Fortran order": np.asfortranarray,
    "long double": lambda a: a.astype(np.longdouble),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "every second": lambda a: np.repeat(a, 2, 0)[::2],
    "masked nowhere": lambda a: np.ma.masked_array(a, np.zeros(a.shape, bool)),
    "tensor": torch.tensor,
    "tensor that needs a gradient": lambda a: torch.tensor(a, requires_grad=True),
    "transposed tensor": lambda a: torch.tensor(a.T.copy()).permute(*range(a.ndim - 1, -1, -1)),
}
OBJECTS: dict[str, Callable[[Any], Any]] = {"list": lambda a: a.tolist(), "object": Lazy, "list of arrays": list}
REFUSED: dict[str, Callable[[Any], Any]] = {
    "complex": lambda a: a + 1j,
    "masked": lambda a: np.ma.masked_array(a, np.ones(a.shape, bool)),
    "text": lambda a: a.astype(str),
    "objects": lambda a: np.full(a.shape, None),
    "dates": lambda a: a.astype("datetime64[s]"),
    "records": lambda a: np.zeros(a.shape, [("x", float)]),
    "complex tensor": lambda a: torch.tensor(a + 1j),
    "sparse tensor": lambda a: torch.tensor(a).to_sparse(),
    "meta tensor": lambda a: torch.tensor(a).to("meta"),
    "ragged": lambda a: [[1.0, 2.0], [3.0]],
    "None": lambda a: None,
    "an object": lambda a: object(),
    "a dict": lambda a: {"a": 1},
}


@pytest.mark.parametrize("form", TAKEN)
@pytest.mark.parametrize("taker", ALL)
def test_forms_of_the_same_array_give_the_same(taker: str, form: str) -> None:
    array, call = ALL[taker]
    with seeded(0):
        assert call(TAKEN[form](array)) == pytest.approx(call(array), rel=1e-6)


@pytest.mark.parametrize("form", OBJECTS)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_turns_itself_into_an_array_is_one(taker: str, form: str) -> None:
    array, call = TAKERS[taker]
    assert call(OBJECTS[form](array)) == pytest.approx(call(array), rel=1e-6)


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("taker", ALL)
def test_what_is_no_array_of_numbers_is_refused(taker: str, form: str) -> None:
    array, call = ALL[taker]
    with pytest.raises(cp.ProbeError, match=r"give|fill|nearest"):
        call(REFUSED[form](array))


@pytest.mark.parametrize("bad", ["complex tensor", "sparse tensor", "meta tensor"])
def test_images_and_latents_are_dense_and_real(bad: str) -> None:
    gen = PLAIN.generator()
    latents: Any = gen.sample(2)
    assert isinstance(latents, Tensor)
    with pytest.raises(cp.ProbeError, match="latents"):
        gen(REFUSED[bad](latents.numpy()))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    classifier = cp.Classifier(module, cp.Preprocessing((8, 8)))
    with pytest.raises(cp.ProbeError, match="the images are"):
        classifier.logits(REFUSED[bad](PIXELS))


def test_what_is_given_stays_as_it_was() -> None:
    given = np.arange(6.0).reshape(2, 3)[::-1]
    plain_array(given, "x")[:] = 7
    assert given.max() == 5


def test_half_precision_becomes_what_numpy_has() -> None:
    assert plain_array(torch.ones(2, dtype=torch.bfloat16), "x").dtype == np.float64
    assert plain_array(np.ones(2, np.float16), "x").dtype == np.float16
    assert plain_array(np.ones(2, np.longdouble), "x").dtype == np.float64
