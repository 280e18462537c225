"""The package's own BigGAN-deep and ours with its weights; tests leave both as they found them."""

from __future__ import annotations

from typing import Any

import pytest
from counterfactual_probe.adapters.biggan_deep import BigGANDeep

from support.adapters.biggans import adapted, package_model


@pytest.fixture(scope="module")
def reference() -> Any:
    return package_model()


@pytest.fixture(scope="module")
def gen() -> BigGANDeep:
    return adapted()
