"""Ratios of activation maps (S000 eq. 8) and the losses made of them (eq. 9), against sums over frequencies."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.spectral.loss import Form
from support import toys
from support.spectral import twins

FORMS = get_args(Form)


def maps_of(gen: cp.GeneratorAdapter, layer: str, z: Tensor) -> Tensor:
    """By an ordinary hook, in eval mode."""
    found: list[Tensor] = []
    module = gen.module.eval()
    handle = module.get_submodule(layer).register_forward_hook(lambda *a: found.append(a[2].detach().clone()))
    module(z)
    handle.remove()
    return found[0].double()


@pytest.fixture(scope="module")
def deconv() -> cp.GeneratorAdapter:
    """A generator of strided deconvolutions with a norm and an in-place ReLU between."""
    module = nn.Sequential(
        nn.ConvTranspose2d(5, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.ConvTranspose2d(4, 3, 4, 2, 1),
        nn.Tanh(),
    )  # fmt: skip
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=rng) + 0.3)
        module[1].bias.abs_()  # every map is alive
    return cp.wrap(module.double(), lambda n, rng: torch.randn(n, 5, 1, 1, generator=rng))


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_twin(deconv: cp.GeneratorAdapter, layer: str) -> None:
    z = deconv.sample(6)
    found = cp.SpectralDependency(deconv).measure_activations(layer, z)
    maps, later = maps_of(deconv, layer, z), deconv.module.get_submodule("3")
    assert found.ratio.shape == (4, 3)
    assert found.n_samples == 6
    assert found.provenance["layers"] == [layer, "3"]
    for c, o in itertools.product(range(4), range(3)):
        expected = twins.activation_ratio(maps[:, c], twins.kernel_in(later, c, o), 2)
        assert float(found.ratio[c, o]) == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(found.per_map, found.ratio.mean(1))


def test_the_mean_of_a_map_is_kept_and_each_sample_counts(deconv: cp.GeneratorAdapter) -> None:
    z = deconv.sample(6)
    found = cp.SpectralDependency(deconv).measure_activations("2", z).ratio
    maps, kernel = maps_of(deconv, "2", z)[:, 1], twins.kernel_in(deconv.module.get_submodule("3"), 1, 0)
    without = maps - maps.mean((-2, -1), keepdim=True)
    assert abs(twins.activation_ratio(without, kernel, 2) - float(found[1, 0])) > 1e-3
    assert abs(twins.activation_ratio(maps[:1], kernel, 2) - float(found[1, 0])) > 1e-3


def test_batches_make_no_difference(deconv: cp.GeneratorAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    sd, z = cp.SpectralDependency(deconv), deconv.sample(7)
    whole = sd.measure_activations("2", z).ratio
    monkeypatch.setattr(deconv, "batch_limit", lambda: 2)
    assert torch.allclose(sd.measure_activations("2", z).ratio, whole, rtol=0, atol=1e-12)
    assert not torch.allclose(sd.measure_activations("2", deconv.sample(7, seed=1)).ratio, whole, rtol=0, atol=1e-3)


def test_twin_through_an_interpolation_into_a_plain_convolution() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(2, 1, 3)
    ).double()
    inputs = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    ratio = cp.SpectralDependency(module).measure_activations("0", inputs).ratio
    maps, later = module[0](inputs).detach(), module[2]
    for c in range(2):
        kernel, above, below = twins.kernel_in(later, c, 0), 0.0, 0.0
        for one in maps[:, c]:
            cause = F.interpolate(F.pad(one, (4, 4, 4, 4))[None, None], scale_factor=2, mode="bilinear")[0, 0]
            above += twins.power(F.conv_transpose2d(cause[None, None], kernel[None, None]))
            below += twins.power(cause) * twins.power(kernel)
        assert float(ratio[c, 0]) == pytest.approx(above / below, abs=1e-9)


def test_dead_maps_are_not_one() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 2, 4, 2)).double()
    with torch.no_grad():
        module[0].weight[1] = 0
        module[0].bias[1] = -1
    found = cp.SpectralDependency(module).measure_activations("1", torch.randn(4, 1, 8, 8).double())
    assert torch.isnan(found.ratio[1]).all()
    assert found.dead == 1
    assert found.mean == pytest.approx(float(found.ratio[[0, 2]].mean()))
    assert found.summary()["dead"] == 1


def test_layers_that_go_nowhere_or_into_several(deconv: cp.GeneratorAdapter) -> None:
    sd = cp.SpectralDependency(deconv)
    with pytest.raises(cp.ProbeError, match="layer '4' goes into no convolution"):
        sd.measure_activations("4", deconv.sample(1))
    with pytest.raises(cp.ProbeError, match="layer '9' is not in this generator; nearest"):
        sd.measure_activations("9", deconv.sample(1))

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.two(x) + self.three(x)  # type: ignore[no-any-return]

    fork = cp.SpectralDependency(Fork())
    inputs = torch.randn(2, 1, 8, 8)
    with pytest.raises(cp.ProbeError, match=r"goes into 2 convolutions \('two', 'three'\); say which with later="):
        fork.measure_activations("one", inputs)
    two, three = (fork.measure_activations("one", inputs, later=name).ratio for name in ("two", "three"))
    assert not torch.equal(two, three)
    with pytest.raises(cp.ProbeError, match="layer 'on' is not in Fork; nearest: 'one'"):
        fork.measure_activations("on", inputs)


def test_inputs_that_are_no_numbers(deconv: cp.GeneratorAdapter) -> None:
    z = deconv.sample(2)
    z[1, 0] = math.nan
    with pytest.raises(cp.ProbeError, match="the maps of layer '2' hold NaN or infinite values"):
        cp.SpectralDependency(deconv).measure_activations("2", z)


def test_a_toy_that_runs_one_sample_at_a_time() -> None:
    gen = toys.NOISY.generator()
    sd = cp.SpectralDependency(gen)
    layer = sd.pairs()[0].earlier
    assert sd.measure_activations(layer, gen.sample(3)).n_samples == 3


# --- losses -------------------------------------------------------------------------------------------


def example(*, stride: int = 2, n: int = 5, k: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(7 * n + k + stride)
    activations = torch.randn(3, 2, n, n, generator=rng, dtype=torch.float64).relu()
    return activations, torch.randn(2, 3, k, k, generator=rng, dtype=torch.float64) + 0.2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("stride", "k", "n"), [(1, 3, 4), (2, 4, 5), (2, 5, 3), (3, 7, 4), (2, 2, 4)])
def test_loss_twin(form: Form, stride: int, k: int, n: int) -> None:
    activations, weight = example(stride=stride, n=n, k=k)
    found = float(cp.spectral_independence_loss(activations, weight, stride=stride, form=form))
    assert found == pytest.approx(twins.loss(activations, weight, stride, form), rel=1e-9, abs=1e-12)


def test_the_forms_differ() -> None:
    losses = [float(cp.spectral_independence_loss(*example(), form=form)) for form in FORMS]
    assert min(abs(a - b) for a, b in itertools.combinations(losses, 2)) > 1e-3
    assert float(cp.spectral_independence_loss(*example())) == losses[0]


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form: Form) -> None:
    activations, weight = (value.requires_grad_() for value in example(n=3))

    def loss(x: Tensor, w: Tensor) -> Tensor:
        return cp.spectral_independence_loss(x, w, form=form)

    assert torch.autograd.gradcheck(loss, (activations, weight))


def test_a_shorter_grid_gives_another_loss() -> None:
    # Conventions 20: M ≥ 2s(n − 1) + k. The twin on the grid that is enough for eq. 8 is wrong here.
    activations, weight = example()
    points, total = 2 * 4 + 4 + 1, 0.0
    for c, o in itertools.product(range(2), range(3)):
        spectrum = twins.grid_power(activations[:, c].mean(0), points, 2)
        gain = twins.grid_power(weight[c, o], points)
        total += float((gain * (spectrum / spectrum.mean() - 1) ** 2).mean())
    assert abs(total - float(cp.spectral_independence_loss(activations, weight))) > 1e-3


def test_the_scalar_form_is_least_where_the_ratio_is_one() -> None:
    activations, weight = example()
    weight.requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=0.03)
    energy = float((weight.detach() ** 2).sum())
    for _ in range(150):
        optimiser.zero_grad()
        cp.spectral_independence_loss(activations, weight, form="scalar").backward()
        optimiser.step()
    ratios = [
        twins.activation_ratio(activations[:, c], weight.detach()[c, o], 2)
        for c, o in itertools.product(range(2), range(3))
    ]
    assert max(abs(ratio - 1) for ratio in ratios) < 0.01
    assert float((weight.detach() ** 2).sum()) > energy / 3  # and not by filters that vanish


def test_dead_maps_add_nothing_and_no_nan() -> None:
    activations, weight = example()
    for form in FORMS:
        alone = cp.spectral_independence_loss(activations[:, 1:], weight[1:], form=form)
        dead = activations.clone()
        dead[:, 0] = 0
        dead.requires_grad_()
        own = weight.clone().requires_grad_()
        loss = cp.spectral_independence_loss(dead, own, form=form)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(alone))
        assert torch.isfinite(own.grad).all()  # type: ignore[arg-type]
        assert torch.isfinite(dead.grad).all()  # type: ignore[arg-type]


def test_half_precision_and_autocast() -> None:
    activations, weight = example()
    expected = float(cp.spectral_independence_loss(activations, weight))
    low = cp.spectral_independence_loss(activations.bfloat16(), weight.bfloat16())
    assert low.dtype == torch.float32
    assert float(low) == pytest.approx(expected, rel=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = cp.spectral_independence_loss(activations.float(), weight.float())
    assert float(mixed) == pytest.approx(expected, rel=1e-4)


def test_a_training_loop_lowers_it(deconv: cp.GeneratorAdapter) -> None:
    activations = maps_of(deconv, "2", deconv.sample(8))
    weight = deconv.module.get_submodule("3").weight.detach().clone().requires_grad_()
    optimiser = torch.optim.SGD([weight], lr=1e-4)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = cp.spectral_independence_loss(activations, weight, stride=2)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_arguments_of_the_loss() -> None:
    activations, weight = example()
    with pytest.raises(cp.ProbeError, match="form is 'bart'; give one of 'printed', 'bartlett', 'scalar'"):
        cp.spectral_independence_loss(activations, weight, form="bart")  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match=r"have 2 channels .* reads 3; .* weight.transpose\(0, 1\) of a Conv2d"):
        cp.spectral_independence_loss(activations, weight.transpose(0, 1))
    with pytest.raises(cp.ProbeError, match=r"activations are \(2, 5, 5\) and the weight \(2, 3, 4, 4\)"):
        cp.spectral_independence_loss(activations[0], weight)
    with pytest.raises(cp.ProbeError, match="stride is 0"):
        cp.spectral_independence_loss(activations, weight, stride=0)
