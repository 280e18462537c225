"""Spectral dependency ratios of kernels: against real convolutions, what theory says, and where there is none."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.spectral.tracing.autocorrelation import autocorrelation, half_plane
from support.spectral import twins


def seeded(*parts: nn.Module, seed: int = 0) -> nn.Sequential:
    """Random kernels in float64, with a mean: real ones have one, and ratios are then far from 1."""
    rng = torch.Generator().manual_seed(seed)
    module = nn.Sequential(*parts).double()
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=rng, dtype=torch.float64) + 0.3)
    return module.eval()


def up(k: int, s: int, *, first: int = 3, channels: tuple[int, int, int] = (2, 3, 2)) -> nn.Sequential:
    a, b, c = channels
    return seeded(nn.ConvTranspose2d(a, b, first, s), nn.ReLU(), nn.ConvTranspose2d(b, c, k, s))


def down(k: int, s: int, *, later: int = 3, channels: tuple[int, int, int] = (2, 3, 2)) -> nn.Sequential:
    a, b, c = channels
    return seeded(nn.Conv2d(a, b, k, s), nn.LeakyReLU(0.2), nn.Conv2d(b, c, later, s))


def measured(module: nn.Module, earlier: str = "0", later: str = "2") -> Tensor:
    return cp.SpectralDependency(module).measure(earlier, later).ratio


def kernels(module: Any, i: int, j: int, o: int, earlier: str = "0", later: str = "2") -> tuple[Tensor, Tensor]:
    one, two = (module.get_submodule(name) for name in (earlier, later))
    return twins.kernel_in(one, i, j), twins.kernel_in(two, j, o)


def one_pathway(g: Tensor, h: Tensor, s: int) -> float:
    """Of a generator with these two kernels."""
    module = nn.Sequential(nn.ConvTranspose2d(1, 1, len(g), s), nn.ConvTranspose2d(1, 1, len(h), s)).double()
    with torch.no_grad():
        module[0].weight.copy_(g)
        module[1].weight.copy_(h)
    return float(measured(module, "0", "1"))


@pytest.mark.parametrize(("k", "s"), list(itertools.product(range(1, 8), (1, 2, 3))))
def test_twin_for_generators(k: int, s: int) -> None:
    module = up(k, s)
    ratio = measured(module)
    for i, j, o in itertools.product(*map(range, ratio.shape)):
        assert float(ratio[i, j, o]) == pytest.approx(twins.ratio_up(*kernels(module, i, j, o), s), abs=1e-9)


@pytest.mark.parametrize(("k", "s"), list(itertools.product(range(1, 8), (1, 2, 3))))
def test_twin_for_encoders(k: int, s: int) -> None:
    module = down(k, s)
    ratio = measured(module)
    for i, j, o in itertools.product(*map(range, ratio.shape)):
        assert float(ratio[i, j, o]) == pytest.approx(twins.ratio_down(*kernels(module, i, j, o), s), abs=1e-9)


def test_the_two_directions_are_not_the_same() -> None:
    g, h = torch.arange(16.0).view(4, 4).double(), CHECKERS + 0.5
    assert abs(twins.ratio_up(g, h, 2) - twins.ratio_down(g, h, 2)) > 0.05
    assert one_pathway(g, h, 2) == pytest.approx(twins.ratio_up(g, h, 2), abs=1e-12)


def test_twin_with_sides_and_strides_that_differ() -> None:
    module = seeded(nn.ConvTranspose2d(2, 2, (3, 5), (2, 1)), nn.ConvTranspose2d(2, 2, (2, 4), (1, 3)))
    ratio = measured(module, "0", "1")
    expected = twins.ratio_up(*kernels(module, 1, 0, 1, "0", "1"), (1, 3))
    assert float(ratio[1, 0, 1]) == pytest.approx(expected, abs=1e-12)
    assert twins.ratio_up(*kernels(module, 1, 0, 1, "0", "1"), (3, 1)) != pytest.approx(expected, abs=1e-3)
    module = seeded(nn.Conv2d(2, 2, (4, 3), (2, 3)), nn.Conv2d(2, 2, (3, 2)))
    expected = twins.ratio_down(*kernels(module, 1, 0, 1, "0", "1"), (2, 3))
    assert float(measured(module, "0", "1")[1, 0, 1]) == pytest.approx(expected, abs=1e-12)


def test_twin_with_dilation() -> None:
    module = seeded(nn.Conv2d(1, 2, 3, dilation=3), nn.ELU(), nn.Conv2d(2, 1, 4, dilation=2))
    ratio = measured(module)
    for j in range(2):
        g, h = kernels(module, 0, j, 0)
        wide = [
            F.conv_transpose2d(k[None, None], torch.ones(1, 1, 1, 1).double(), stride=d)[0, 0]
            for k, d in ((g, 3), (h, 2))
        ]
        assert float(ratio[0, j, 0]) == pytest.approx(twins.ratio_through(*wide), abs=1e-12)


def test_twin_with_groups() -> None:
    module = seeded(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3))
    found = cp.SpectralDependency(module).measure("0", "2")
    assert found.n_pathways == 2 * 6 * 3
    assert found.dead == 0
    for i, j, o in itertools.product(*map(range, found.ratio.shape)):
        try:
            g, h = kernels(module, i, j, o)
        except LookupError:
            assert math.isnan(found.ratio[i, j, o])
        else:
            assert float(found.ratio[i, j, o]) == pytest.approx(twins.ratio_up(g, h, 1), abs=1e-12)
    transposed = seeded(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 9, 4, 2, groups=3))
    ratio = measured(transposed, "0", "1")
    g, h = kernels(transposed, 3, 5, 8, "0", "1")
    assert float(ratio[3, 5, 8]) == pytest.approx(twins.ratio_up(g, h, 2), abs=1e-12)
    assert math.isnan(ratio[0, 5, 8])


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_twin_with_interpolation_which_belongs_to_the_cause(mode: str) -> None:
    module = seeded(nn.Conv2d(1, 1, 3), nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(1, 1, 3))
    g, h = kernels(module, 0, 0, 0)
    padded = F.pad(g, (6, 6, 6, 6))[None, None]
    cause = F.interpolate(padded, scale_factor=2, mode=mode)[0, 0]
    assert float(measured(module)) == pytest.approx(twins.ratio_through(cause, h), abs=1e-9)
    assert float(measured(module)) != pytest.approx(twins.ratio_up(g, h, 2), abs=1e-2)


def test_twin_with_interpolations_one_after_another_and_a_stride() -> None:
    twice = nn.Upsample(scale_factor=2, mode="nearest"), nn.Upsample(scale_factor=(2, 3), mode="bilinear")
    module = seeded(nn.Conv2d(1, 1, 3), *twice, nn.ConvTranspose2d(1, 1, 4, 2))
    g, h = kernels(module, 0, 0, 0, "0", "3")
    cause = F.pad(g, (6, 6, 6, 6))[None, None]
    for step in twice:
        cause = step(cause)
    assert float(measured(module, "0", "3")) == pytest.approx(twins.ratio_up(cause[0, 0], h, 2), abs=1e-9)


def test_twin_with_pooling() -> None:
    module = seeded(nn.Conv2d(1, 1, 4, 2), nn.AvgPool2d(3, 2), nn.ReLU(), nn.Conv2d(1, 1, 3))
    g, h = kernels(module, 0, 0, 0, "0", "3")
    box = torch.ones(3, 3).double()
    # The pooling works on the grid that the first stride leaves, and the last kernel on one coarser still.
    cause = F.conv_transpose2d(twins.with_zeros(box, 2)[None, None], g[None, None])[0, 0]
    wide = twins.with_zeros(h, 4)
    assert float(measured(module, "0", "3")) == pytest.approx(twins.ratio_through(cause, wide), abs=1e-9)


def test_max_pooling_counts_as_decimation_and_says_so() -> None:
    sd = cp.SpectralDependency(seeded(nn.Conv2d(1, 1, 4), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3)))
    (pair,) = sd.pairs()
    assert (pair.direction, pair.stride) == ("down", (2, 2))
    assert pair.between == ("max-pooling ÷2, counted as decimation",)
    assert sd.measure("0", "2").provenance["between"] == list(pair.between)
    strided = seeded(nn.Conv2d(1, 1, 4, 2), nn.ReLU(), nn.Conv2d(1, 1, 3))
    assert torch.equal(sd.measure("0", "2").ratio, measured(strided))


BOX = torch.ones(4, 4, dtype=torch.float64)
CHECKERS = BOX * torch.tensor([1.0, -1.0, 1.0, -1.0]) * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])


@pytest.mark.parametrize(
    ("g", "h", "expected"),
    [(BOX, BOX, 3.0625), (CHECKERS, BOX, 0.0625), (BOX, CHECKERS, 3.0625), (CHECKERS, CHECKERS, 0.0625)],
    ids=["boxes", "coarse checkerboard", "fine checkerboard", "checkerboards"],
)
def test_known_values(g: Tensor, h: Tensor, expected: float) -> None:
    assert one_pathway(g, h, 2) == pytest.approx(expected, abs=1e-12)


def test_a_delta_is_independent_of_everything() -> None:
    delta = torch.zeros(4, 4, dtype=torch.float64)
    delta[1, 2] = -7
    other = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert one_pathway(delta, other, 2) == pytest.approx(1, abs=1e-15)
    assert one_pathway(other, delta, 2) == pytest.approx(1, abs=1e-15)
    delta[1, 1] = 7  # two points are no delta
    assert abs(one_pathway(delta, BOX, 2) - 1) > 0.01


@pytest.mark.parametrize(("k", "s"), [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3)])
def test_a_fine_kernel_no_larger_than_the_stride_gives_exactly_one(k: int, s: int) -> None:
    assert (measured(up(k, s, first=5)) == 1).all()
    assert (measured(down(k, s, later=5)) == 1).all()
    assert (measured(up(s + 1, s, first=5)) != 1).all()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_scaling_and_turning_by_180_degrees_change_nothing(one: int, two: int, s: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    g, h = (torch.randn(k, k, generator=rng, dtype=torch.float64) for k in (one, two))
    expected = one_pathway(g, h, s)
    assert one_pathway(-3e5 * g, 1e-7 * h, s) == pytest.approx(expected, rel=1e-9)
    assert one_pathway(g.flip(0, 1), h, s) == pytest.approx(expected, rel=1e-9)
    assert one_pathway(g, h.flip(0, 1), s) == pytest.approx(expected, rel=1e-9)


def test_a_mirror_image_is_another_kernel() -> None:
    g, h = kernels(up(4, 2, first=4), 0, 0, 0)
    assert abs(one_pathway(g.flip(0), h, 2) - one_pathway(g, h, 2)) > 1e-3


def test_random_kernels_give_one_in_expectation_and_not_each() -> None:
    rng = torch.Generator().manual_seed(3)
    module = nn.Sequential(nn.ConvTranspose2d(40, 50, 4, 2), nn.ConvTranspose2d(50, 40, 4, 2)).double()
    with torch.no_grad():
        for value in module.parameters():
            value.normal_(generator=rng)
    ratio = measured(module, "0", "1")
    assert float(ratio.mean()) == pytest.approx(1, abs=0.01)
    assert float(ratio.std()) > 0.1


def test_the_mean_power_over_all_translations_of_the_inputs_frequencies() -> None:
    # The invariance behind the ratio (S000 §3.2): P(h ∗ x) = E_ν P(h ∗ τ_ν x), where the ratio is 1.
    g, h = torch.arange(16.0).view(4, 4).double(), CHECKERS + 0.5
    x = twins.with_zeros(g, 2)
    points = 16  # more than h ∗ x has: the mean over so many translations is that over all of them
    places = [torch.arange(n, dtype=torch.float64) for n in x.shape]
    powers = []
    for u, v in itertools.product(range(points), repeat=2):
        wave = torch.exp(2j * math.pi * (u * places[0][:, None] + v * places[1][None]) / points)
        moved = F.conv_transpose2d((x * wave)[None, None], h.to(torch.complex128)[None, None])
        powers.append(float(moved.abs().square().sum()))
    unmoved = twins.power(F.conv_transpose2d(x[None, None], h[None, None]))
    mean = sum(powers) / len(powers)
    assert powers[0] == pytest.approx(unmoved)
    assert unmoved / mean == pytest.approx(one_pathway(g, h, 2), rel=1e-10)
    assert abs(unmoved / mean - 1) > 0.05  # these kernels do depend on each other
    # And one that does not: with a delta, every translation has the same power.
    delta = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    delta[0, 0, 2, 1] = 1
    assert twins.power(F.conv_transpose2d(x[None, None], delta)) == pytest.approx(twins.power(x))


def test_a_grid_that_is_too_small_is_wrong() -> None:
    # Conventions 16: why this is done by autocorrelations.
    g, h = kernels(up(4, 2, first=4), 0, 0, 0)

    def on_grid(points: int) -> float:
        one, two = twins.grid_power(g, points, 2), twins.grid_power(h, points)
        return float((one * two).mean() / (one.mean() * two.mean()))

    assert on_grid(10) == pytest.approx(one_pathway(g, h, 2), abs=1e-12)
    assert abs(on_grid(8) - one_pathway(g, h, 2)) > 1e-4


def test_half_precision_weights_are_measured_in_double() -> None:
    module = up(4, 2).to(torch.bfloat16)
    expected = twins.ratio_up(*kernels(module, 0, 1, 1), 2)
    assert float(measured(module)[0, 1, 1]) == pytest.approx(expected, abs=1e-12)


def test_dead_kernels_have_no_ratio() -> None:
    module = up(4, 2, channels=(3, 4, 2))
    with torch.no_grad():
        module[0].weight[1, 2] = 0
        module[2].weight[3] = 0
    sd = cp.SpectralDependency(module)
    found = sd.measure("0", "2")
    dead = torch.isnan(found.ratio)
    assert dead[1, 2].all()
    assert dead[:, 3].all()
    assert found.dead == int(dead.sum()) == 2 + 3 * 2
    assert found.mean == pytest.approx(float(found.ratio[~dead].mean()))
    (row,) = sd.table().rows
    assert (row["dead"], row["alive"]) == (8, 16)
    assert row["mean"] == pytest.approx(found.mean)
    assert math.isnan(found.per_filter[1, 2])
    assert not math.isnan(found.per_filter[0, 2])


def test_dead_kernels_of_which_the_ratio_would_be_one() -> None:
    module = up(2, 2, channels=(3, 4, 2))
    with torch.no_grad():
        module[0].weight[1, 2] = 0
    sd = cp.SpectralDependency(module)
    assert (sd.table().rows[0]["dead"], sd.table().rows[0]["alive"]) == (2, 22)
    assert sd.measure("0", "2").dead == 2


def test_kernels_that_are_no_numbers() -> None:
    module = up(4, 2)
    with torch.no_grad():
        module[2].weight[0, 0, 0, 0] = math.nan
    with pytest.raises(cp.ProbeError, match="kernels of '2' hold NaN or infinite values"):
        measured(module)


def test_autocorrelation_is_its_definition() -> None:
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lags = half_plane((4, 6))
    found = autocorrelation(values, lags)
    for place, (y, x) in enumerate(lags):
        for n in range(3):
            total = 0.0
            for i, j in itertools.product(range(4), range(5)):
                if 0 <= i + y < 4 and 0 <= j + x < 5:
                    total += float(values[n, i, j] * values[n, i + y, j + x])
            assert float(found[n, place]) == pytest.approx(total, abs=1e-12)
    assert len(lags) == (9 * 13 + 1) // 2
    assert not {(-y, -x) for y, x in lags[1:]} & set(lags)
