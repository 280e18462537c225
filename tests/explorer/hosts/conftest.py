"""A generator of faces and its explorer, of few pairs, for tests of one host."""

from __future__ import annotations

from typing import Any

import pytest

import counterfactual_probe as cp
from support.explored import faces


@pytest.fixture(scope="module")
def gen() -> cp.GeneratorAdapter:
    return faces()


@pytest.fixture(scope="module")
def explorer(gen: cp.GeneratorAdapter) -> Any:
    return cp.explore(gen, n_pairs=2)
