"""The kit's tolerances follow the rounding that a forward magnifies, and no further; and it blames none for its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.testing import check_adapter
from counterfactual_probe.testing.bench import Bench
from support.toys import seeded


class Deep(nn.Module):
    """Sines of a gain, ten times over, that magnify rounding; samples of batches of four and more may be mixed."""

    def __init__(self, gain: float, mixed: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with seeded(0):
            self.first, self.last = nn.Linear(8, 64), nn.Linear(64, 48)
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(10))
        self.gain, self.mixed = gain, mixed
        self.to(dtype)

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z)
        for layer in self.layers:
            h = h + torch.sin(self.gain * layer(h))
        images = torch.tanh(self.last(h)).view(-1, 3, 4, 4)
        if len(z) > 3:  # more than wrap has seen
            images = images + self.mixed * images.mean(0, keepdim=True)
        return images


def deep(gain: float, mixed: float = 0.0, dtype: torch.dtype = torch.float32) -> cp.GeneratorAdapter:
    module = Deep(gain, mixed, dtype).eval()
    return cp.wrap(module, lambda n, rng: torch.randn(n, 8, generator=rng), layers=["first", "layers.3"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gain", [1, 4])
def test_a_forward_that_magnifies_rounding_passes(gain: float, dtype: torch.dtype) -> None:
    report = check_adapter(deep(gain, dtype=dtype), raise_on_failure=False)
    assert {check.name for check in report.failures} <= {"bfloat16 works or says why"}, "which is too coarse for it"


def test_tolerances_are_the_usual_ones_where_rounding_is() -> None:
    usual, magnifying = Bench(deep(0.5), 0, None), Bench(deep(4), 0, None)
    assert (usual.exact, usual.batched) == (1e-5, 1e-4)
    assert magnifying.magnified > 3e-5
    assert 1e-5 < magnifying.exact <= 1e-2
    assert 1e-4 < magnifying.batched <= 1e-2
    assert magnifying.sensitivity > 10 * usual.sensitivity


@pytest.mark.parametrize(("gain", "mixed"), [(0.5, 3e-3), (3, 3e-2)])
def test_samples_that_are_mixed_fail_all_the_same(gain: float, mixed: float) -> None:
    """Negative control: in proportion to what is measured, a true fault is still one."""
    report = check_adapter(deep(gain, mixed), raise_on_failure=False)
    assert "an image does not depend on its batch" in [check.name for check in report.failures]


class Rounded(Deep):
    """Depends on the precision of its input: coarser, in single precision alone."""

    def forward(self, z: Tensor) -> Tensor:
        images = super().forward(z)
        return images if images.dtype == torch.float64 else (images * 20).round() / 20


def test_a_forward_that_depends_on_the_precision_still_fails() -> None:
    gen = cp.wrap(Rounded(0.5).eval(), lambda n, rng: torch.randn(n, 8, generator=rng), layers=["first"])
    report = check_adapter(gen, raise_on_failure=False)
    assert "float64 agrees with float32" in [check.name for check in report.failures]


class DrawsOnTheCPU(Deep):
    """Noise of the CPU, moved to where the input is: also when the kit runs a copy on the meta device."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + 0.1 * torch.randn(len(z), 3, 4, 4).to(z.device, z.dtype)

    def __deepcopy__(self, memo: dict[int, object]) -> DrawsOnTheCPU:
        copied = DrawsOnTheCPU(self.gain)
        copied.first.reset_parameters()  # and when it is copied
        copied.load_state_dict(self.state_dict())
        return copied


def test_random_state_that_the_kit_moves_is_not_blamed_on_the_module() -> None:
    gen = cp.wrap(DrawsOnTheCPU(1).eval(), lambda n, rng: torch.randn(n, 8, generator=rng), layers=["first"])
    before = torch.get_rng_state()
    report = check_adapter(gen, raise_on_failure=False)
    assert "the module is left as it was found" not in [check.name for check in report.failures]
    assert torch.equal(torch.get_rng_state(), before)
