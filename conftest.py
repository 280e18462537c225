"""What the examples in docstrings may use without importing it."""

from typing import Any

import pytest

import counterfactual_probe


@pytest.fixture(autouse=True)
def _names_in_docstrings(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["cp"] = counterfactual_probe
