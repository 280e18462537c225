"""Scales add up, for every wavelet that is accepted."""

from __future__ import annotations

import numpy as np
import pytest
import pywt

import counterfactual_probe as cp
from counterfactual_probe.invariance.scales import Scales

NAMES = [name for name in pywt.wavelist(kind="discrete") if pywt.Wavelet(name).orthogonal]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dmey"])
def test_components_and_energies_of_every_orthogonal_wavelet_add_up(name: str) -> None:
    images = np.random.default_rng(0).standard_normal((2, 256, 256))
    scales = Scales((256, 256), levels=1, wavelet=name)
    assert scales.energies(images).sum() == pytest.approx((images**2).mean(), rel=1e-9)
    np.testing.assert_allclose(scales.components(images).sum(0), images, atol=1e-9)


@pytest.mark.parametrize("name", ["dmey", "bior2.2", "rbio3.1"])
def test_wavelets_whose_scales_do_not_add_up_are_refused(name: str) -> None:
    with pytest.raises(cp.ProbeError, match=f"the wavelet '{name}' is not orthogonal, so errors of its scales do not"):
        Scales((128, 128), wavelet=name)
