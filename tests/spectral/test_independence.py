"""The regulariser of independent filters, in loops of one's own: against literal twins, and where it must not work."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import counterfactual_probe as cp
from support.spectral import twins

FORMS = ["printed", "bartlett", "scalar"]


def seeded(module: nn.Module) -> nn.Module:
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=rng) * 0.3 + 0.1)
    return module.double()


def decoder() -> nn.Module:
    """Deconvolutions of strides 1 and 2, and a plain convolution after an interpolation."""
    return seeded(
        nn.Sequential(
            nn.ConvTranspose2d(3, 4, 3),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(4, 2, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(2, 3, 3, padding=1),
        )
    )


def latents(n: int = 4, size: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, size, 1, 1, generator=rng, dtype=torch.float64)


def read_by(module: Any, layer: str, z: Tensor) -> Tensor:
    """What a layer of a Sequential reads, without a hook."""
    with torch.no_grad():
        return module[: int(layer)](z)


def literal(module: Any, layer: str, z: Tensor, form: str, stride: int) -> float:
    weight = module[int(layer)].weight.detach()
    weight = weight if isinstance(module[int(layer)], nn.ConvTranspose2d) else weight.transpose(0, 1)
    return twins.loss(read_by(module, layer, z), weight, stride, form)


# --- what is computed -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_twin(form: Any) -> None:
    module, z = decoder(), latents()
    with cp.SpectralIndependence(module, form=form) as independence:
        module(z)
        assert independence.layers == ("2", "5")
        one, two = literal(module, "2", z, form, 2), literal(module, "5", z, form, 1)
        assert float(independence.loss("2").detach()) == pytest.approx(one, rel=1e-9)
        assert float(independence.loss("5").detach()) == pytest.approx(two, rel=1e-9)
        assert float(independence.loss().detach()) == pytest.approx(one + two, rel=1e-9)
    # Another stride, or what an earlier layer reads, would be another loss.
    assert abs(literal(module, "2", z, form, 1) - one) > 1e-3 * one
    assert abs(twins.loss(read_by(module, "2", z).relu() + 1, module[2].weight.detach(), 2, form) - one) > 1e-3 * one


def test_the_mean_is_over_all_pairs_of_a_map_and_a_filter() -> None:
    module, z = decoder(), latents()
    found = []
    for reduction in ("sum", "mean"):
        with cp.SpectralIndependence(module, reduction=reduction) as independence:  # type: ignore[arg-type]
            module(z)
            found.append(float(independence.loss().detach()))
    assert found[0] == pytest.approx(found[1] * (4 * 2 + 2 * 3), rel=1e-12)


@pytest.mark.parametrize("transposed", [True, False])
def test_twin_of_groups_and_dilation(transposed: bool) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    convolution = seeded(kind(4, 6, 3, stride=2, groups=2, dilation=2))
    maps = torch.randn(3, 4, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64).relu()
    with cp.SpectralIndependence(convolution, [""], form="scalar") as independence:
        convolution(maps)
        found = float(independence.loss().detach())
    total = 0.0
    for source, target in itertools.product(range(4), range(6)):
        try:
            kernel = twins.with_zeros(twins.kernel_in(convolution, source, target), 2)
        except LookupError:
            continue
        # A strided convolution filters on the grid of what it reads.
        total += twins.loss(maps[:, source : source + 1], kernel[None, None], 2 if transposed else 1, "scalar")
    assert found == pytest.approx(total, rel=1e-9)


def test_weights_are_those_of_when_it_is_asked_and_maps_those_of_the_pass() -> None:
    module, z = decoder(), latents()
    with cp.SpectralIndependence(module, ["2"], form="scalar") as independence:
        module(z)
        before = float(independence.loss().detach())
        with torch.no_grad():
            module[2].weight.mul_(2)
            module[0].weight.neg_()  # would change the maps of another pass
        assert float(independence.loss().detach()) == pytest.approx(before * 16, rel=1e-9)
        module(z)
        assert float(independence.loss().detach()) != pytest.approx(before * 16, rel=1e-3)


def test_it_moves_filters_alone_unless_asked() -> None:
    module, z = decoder(), latents()
    for detach in (True, False):
        module.zero_grad()
        with cp.SpectralIndependence(module, ["2"], detach=detach) as independence:
            module(z)
            independence.loss().backward()
        assert module[2].weight.grad is not None
        assert module[2].bias.grad is None
        assert (module[0].weight.grad is None) == detach


def test_beside_a_loss_of_ones_own_gradients_add_up() -> None:
    module, z = decoder(), latents()

    def gradient(own: float, weight: float) -> Tensor:
        module.zero_grad()
        with cp.SpectralIndependence(module, ["2"]) as independence:
            (own * module(z).square().mean() + weight * independence.loss()).backward()
        return module[2].weight.grad.clone()

    both, own, other = gradient(1, 0.1), gradient(1, 0), gradient(0, 1)
    assert torch.allclose(both, own + 0.1 * other, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(both, own, rtol=1e-3)


def test_ratios_go_to_one_in_a_loop_and_stay_without_it() -> None:
    def ratios(weight: float) -> list[float]:
        module, z = decoder(), latents()
        adam = torch.optim.Adam(module[2].parameters(), lr=0.02)
        losses = []
        for _ in range(120):
            with cp.SpectralIndependence(module, ["2"], form="scalar") as independence:
                images = module(z)
                loss = independence.loss()
            losses.append(float(loss.detach()))
            adam.zero_grad()
            (weight * loss + 1e-6 * images.square().mean()).backward()
            adam.step()
        assert (losses[-1] < losses[0] / 50) == (weight > 0)
        maps, kernel = read_by(module, "2", z), module[2].weight.detach()
        return [twins.activation_ratio(maps[:, i], kernel[i, o], 2) for i, o in itertools.product(range(4), range(2))]

    assert max(abs(ratio - 1) for ratio in ratios(1.0)) < 0.05
    assert max(abs(ratio - 1) for ratio in ratios(0.0)) > 0.2


def test_half_precision_and_autocast() -> None:
    module, z = decoder().float(), latents().float()
    with cp.SpectralIndependence(module) as independence:
        module(z)
        exact = float(independence.loss().detach())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(z)
            found = independence.loss()
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(exact, rel=0.05)
    found.backward()
    half = decoder().half()
    with cp.SpectralIndependence(half, ["2"]) as independence:
        half[2](read_by(decoder(), "2", latents()).half())  # a layer that is called by itself is watched, too
        assert float(independence.loss("2").detach()) == pytest.approx(
            literal(decoder(), "2", latents(), "printed", 2), rel=0.01
        )


def test_normalised_weights_and_the_parameters_behind_them() -> None:
    module, z = decoder(), latents()
    plain = list(cp.SpectralIndependence(module).filters)
    assert [id(value) for value in plain] == [id(module[2].weight), id(module[5].weight)]
    parametrizations.weight_norm(module[2])
    with torch.no_grad():
        module[2].parametrizations.weight.original0.mul_(3)
    with cp.SpectralIndependence(module, ["2"], form="scalar") as independence:
        module(z)
        loss = independence.loss()
        assert float(loss.detach()) == pytest.approx(literal(module, "2", z, "scalar", 2), rel=1e-9)
    loss.backward()
    assert len(independence.filters) == 2
    assert all(value.grad is not None for value in independence.filters)


def test_maps_of_other_processes_are_asked_for() -> None:
    module, z = decoder(), latents(6)
    with cp.SpectralIndependence(module) as independence:
        module(z)
        whole = float(independence.loss().detach())
        module(z[:3])
        part = float(independence.loss().detach())
    others = {maps.shape: maps for maps in (read_by(module, "2", z[3:]), read_by(module, "5", z[3:]))}
    with cp.SpectralIndependence(module, gather=lambda maps: torch.cat([maps, others[maps.shape]])) as independence:
        module(z[:3])
        assert float(independence.loss().detach()) == pytest.approx(whole, rel=1e-9)
    assert abs(part - whole) > 1e-3 * whole


# --- hooks and mistakes -----------------------------------------------------------------------------


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules())


def test_hooks_are_there_inside_alone() -> None:
    module = decoder()
    with cp.SpectralIndependence(module) as independence:
        assert hooks(module) == 3
        module(latents())
    assert hooks(module) == 0
    with pytest.raises(RuntimeError), independence:
        module(latents(size=5))
    assert hooks(module) == 0
    with pytest.raises(cp.ProbeError, match="the loss is asked for outside of `with`; ask inside"):
        independence.loss()
    with independence, pytest.raises(cp.ProbeError, match="is already entered"), independence:
        pass
    assert hooks(module) == 0
    assert repr(independence) == "SpectralIndependence(printed, of 2, 5)"


def test_a_pass_in_which_a_layer_does_not_run_forgets_it() -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, x: Tensor, both: bool) -> Tensor:
            return self.two(self.one(x)) if both else self.one(x)

    module, x = Either(), torch.randn(2, 2, 8, 8)
    with cp.SpectralIndependence(module, ["one", "two"]) as independence:
        with pytest.raises(cp.ProbeError, match="layer 'one' has not run in the last forward pass; call the module"):
            independence.loss()
        module(x, both=True)
        independence.loss()
        module(x, both=False)
        with pytest.raises(cp.ProbeError, match="layer 'two' has not run in the last forward pass; only 'one' did"):
            independence.loss()
        with pytest.raises(cp.ProbeError, match="layer 'three' is not watched; name one of 'one', 'two'"):
            independence.loss("three")


def test_maps_that_are_overwritten_are_noticed() -> None:
    module = decoder()
    maps = read_by(module, "2", latents())
    with cp.SpectralIndependence(module, ["2"]) as independence:
        module[2](maps)
        independence.loss()
        maps.mul_(2)
        with pytest.raises(cp.ProbeError, match="what layer '2' read was overwritten in place before the loss"):
            independence.loss()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": ["main.4"]}, r"layer 'main.4' is not in this Sequential; nearest: '0', '2', '5'"),
        ({"layers": ["1"]}, "layer '1' is a ReLU, and no Conv2d or ConvTranspose2d"),
        ({"layers": ["6.0"]}, "layer '6.0' has filters of 1×1, which treat all frequencies alike"),
        ({"layers": ["6"]}, "layer '6' is a Sequential, and no Conv2d or ConvTranspose2d; nearest: '6.1'"),
        ({"layers": []}, "layers is empty; name at least one"),
        ({"layers": "2"}, r"layers is '2'; give a list of names, such as \['2'\]"),
        ({"form": "bart"}, "form is 'bart'; give one of 'printed', 'bartlett', 'scalar'"),
        ({"reduction": "none"}, "reduction is 'none'; give one of 'sum', 'mean'"),
    ],
)
def test_mistakes(options: dict[str, Any], sentence: str) -> None:
    module = nn.Sequential(*decoder().children(), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3)))
    with pytest.raises(cp.ProbeError, match=sentence):
        cp.SpectralIndependence(module, **options)


def test_one_convolution_must_be_named() -> None:
    with pytest.raises(cp.ProbeError, match="the Sequential has 1 convolutions with kernels larger than 1×1"):
        cp.SpectralIndependence(nn.Sequential(nn.Conv2d(1, 1, 3)))
