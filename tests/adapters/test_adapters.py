"""Every adapter of ours keeps every promise that the test kit checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from counterfactual_probe.adapters.autoencoder import autoencoder
from counterfactual_probe.adapters.began import BEGANGenerator, began
from counterfactual_probe.adapters.biggan_deep import random_biggan_deep
from counterfactual_probe.adapters.cdcgan import ConditionalDCGANGenerator, cdcgan
from counterfactual_probe.adapters.dcgan import DCGANGenerator, dcgan
from counterfactual_probe.adapters.vae import VAE, vae

import counterfactual_probe as cp
from counterfactual_probe.testing import check_adapter

ADAPTERS: dict[str, Callable[[], cp.GeneratorAdapter]] = {
    "dcgan": lambda: dcgan(DCGANGenerator(8, [16, 8], 1).state_dict()),
    "cdcgan": lambda: cdcgan(ConditionalDCGANGenerator(8, 3, [16, 8], 1).state_dict(), 3),
    "vae": lambda: vae(VAE(8, (8, 4), 3, image_size=16, start=4).state_dict()),
    "autoencoder": lambda: autoencoder(
        cp.autoencoders.StructuralAutoencoder(6, 3, image_size=16, width=8, convolutions=4).state_dict()
    ),
    "began": lambda: began(BEGANGenerator(8, 6, 3, image_size=16, start=4).state_dict()),
    "biggan-deep": lambda: random_biggan_deep("small"),
}
# Larger ones of the same; the face generator passes in the tests of the kit.
LARGE: dict[str, Any] = {"cdcgan-eyes": lambda: cp.load("cdcgan-eyes")}
# One of each generator's, where all would take long.
LAYERS: dict[str, Any] = {
    "cdcgan-eyes": ["main.15"],
    "biggan-deep": ["generator.layers.7", "generator.layers.7.conv_2"],
}


@pytest.mark.long
@pytest.mark.parametrize("name", [*ADAPTERS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_every_adapter_passes_the_test_kit(name: str) -> None:
    report = check_adapter((ADAPTERS | LARGE)[name](), layers=LAYERS.get(name), raise_on_failure=False)
    assert report.passed, report
    assert sum(check.outcome == "passed" for check in report.checks) >= 15
