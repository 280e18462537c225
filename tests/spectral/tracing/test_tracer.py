"""Which convolutions are successive: through what they are found, and what stands between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.began import BEGANGenerator
from counterfactual_probe.adapters.biggan_deep import random_biggan_deep
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator
from counterfactual_probe.adapters.vae import VAE
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

import counterfactual_probe as cp
from support import toys
from support.processes import imported_by
from support.spectral import twins


def names(module: Any, **options: Any) -> list[tuple[str, str]]:
    return [(pair.earlier, pair.later) for pair in cp.SpectralDependency(module, **options).pairs()]


def conv(before: int, after: int, *, k: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, k, stride, padding=k // 2)


def test_a_pretrained_generator(faces: cp.GeneratorAdapter) -> None:
    pairs = cp.SpectralDependency(faces).pairs()
    assert [(pair.earlier, pair.later) for pair in pairs] == [
        ("main.0", "main.3"),
        ("main.3", "main.6"),
        ("main.6", "main.9"),
        ("main.9", "main.12"),
    ]
    assert {(pair.direction, pair.stride) for pair in pairs} == {("up", (2, 2))}
    assert pairs[1].channels == (512, 256, 128)
    assert pairs[1].pathways == 512 * 256 * 128
    assert str(pairs[1]) == "main.3 → main.6: 512→256→128 channels, up 2"


def test_discriminators_and_encoders_infer_their_input() -> None:
    pairs = cp.SpectralDependency(DCGANDiscriminator([4, 6], 3)).pairs()
    assert [(pair.earlier, pair.later, pair.direction) for pair in pairs] == [
        ("main.0", "main.2", "down"),
        ("main.2", "main.5", "down"),
    ]
    model = VAE(6, (5, 4), 1, image_size=16, start=4)
    assert names(model.encoder) == [("convolutions.0", "convolutions.3")]
    assert names(model.decoder) == [("level2.0", "image.0")]


def test_norms_activations_dropout_and_padding_are_passed() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm = conv(3, 4), conv(4, 5), nn.InstanceNorm2d(4)
            self.prelu, self.gain = nn.PReLU(), nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout2d(F.gelu(self.prelu(self.norm(self.one(x)))), 0.5)
            x = 0.2 * (1 - x) / 2 + self.gain * x.clone().float()
            x = x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-8)
            x.relu_().add_(0.5)
            return torch.tanh(self.two(F.pad(x[:, :, 1:-1, :], (1, 1, 1, 1), mode="reflect")))

    (pair,) = cp.SpectralDependency(Bare()).pairs()
    assert (pair.earlier, pair.later, pair.direction, pair.between) == ("one", "two", "same", ())


def test_nothing_is_found_beyond_a_linear_layer_and_the_sentence_says_so() -> None:
    linear = nn.Flatten(2), nn.Linear(64, 64), nn.Unflatten(2, (8, 8))
    module = nn.Sequential(conv(1, 2), nn.ReLU(), *linear, conv(2, 1))
    example = torch.zeros(1, 1, 8, 8)
    with pytest.raises(cp.ProbeError, match=r"no two successive .*between '0' and '5' stands flatten in '2'"):
        cp.SpectralDependency(module, example=example)
    longer = nn.Sequential(*module, conv(1, 1))
    sd = cp.SpectralDependency(longer, example=example)
    assert [(pair.earlier, pair.later) for pair in sd.pairs()] == [("5", "6")]
    assert sd.blocked == [("0", "5", "flatten in '2'")]
    with pytest.raises(cp.ProbeError, match=r"'0' and '5' are not successive convolutions \(flatten in '2'\)"):
        sd.measure("0", "5")


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (nn.PixelShuffle(2), "pixel_shuffle in '1'"),
        (nn.Upsample(scale_factor=1.5), "nearest interpolation from 16 to 24, which is no whole factor"),
        (nn.UpsamplingBilinear2d(scale_factor=2), "bilinear interpolation with align_corners=True"),
        (nn.Softmax(1), "softmax in '1'"),
        (nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2)), "the resolution goes down and up again"),
        (nn.AdaptiveAvgPool2d(5), "adaptive average pooling from 16 to 5, which is no whole factor"),
    ],
)
def test_unsupported_layers_are_named(between: nn.Module, said: str) -> None:
    after = 1 if isinstance(between, nn.PixelShuffle) else 4
    with pytest.raises(cp.ProbeError, match=said):
        cp.SpectralDependency(nn.Sequential(conv(1, 4), between, conv(after, 1)), example=torch.zeros(1, 1, 16, 16))


def test_networks_without_two_convolutions() -> None:
    with pytest.raises(cp.ProbeError, match=r"has no two successive convolutions .*\(it has 1 2-D convolution\)"):
        cp.SpectralDependency(nn.Sequential(conv(1, 2), nn.ReLU()))
    with pytest.raises(cp.ProbeError, match=r"\(it has 0 2-D convolutions\)"):
        cp.SpectralDependency(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    with pytest.raises(cp.ProbeError, match="the network is a list"):
        cp.SpectralDependency([conv(1, 2), conv(2, 1)])  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "dimensions"), [(nn.Conv1d, 1), (nn.Conv3d, 3)])
def test_convolutions_of_other_dimensions_are_refused(kind: Any, dimensions: int) -> None:
    example = torch.zeros(2, 1, *[8] * dimensions)
    with pytest.raises(cp.ProbeError, match=f"it is a {dimensions}-D convolution, and only 2-D ones are compared"):
        cp.SpectralDependency(nn.Sequential(kind(1, 2, 3), kind(2, 1, 3)), example=example)


def test_an_input_that_cannot_be_told_is_asked_for() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = conv(3, 4), conv(4, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.two(self.one(x + y))  # type: ignore[no-any-return]

    with pytest.raises(cp.ProbeError, match=r"no input for Two could be told .*TypeError.*; give example=\.\.\."):
        cp.SpectralDependency(Two())
    pair = torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9)
    assert names(Two(), example=pair) == [("one", "two")]
    assert names(Two(), example=dict(zip("xy", pair, strict=True))) == [("one", "two")]
    with pytest.raises(cp.ProbeError, match="which samples its own latents; leave it out"):
        cp.SpectralDependency(toys.PLAIN.generator(), example=torch.zeros(1))
    with pytest.raises(cp.ProbeError, match="the forward of Two raised RuntimeError"):
        cp.SpectralDependency(Two(), example=(torch.zeros(1, 2, 9, 9), torch.zeros(1, 2, 9, 9)))


class Residual(nn.Module):
    """A residual block, whose input also goes around it; the first half of the channels on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b, self.last = conv(1, 4), conv(4, 4), conv(4, 4), conv(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.b(F.relu(self.a(x)))
        return self.last(F.interpolate(x, scale_factor=2)[:, 2:])  # type: ignore[no-any-return]


def test_skip_connections_are_reported() -> None:
    module = Residual().double()
    sd = cp.SpectralDependency(module)
    found = {(pair.earlier, pair.later): pair for pair in sd.pairs()}
    assert set(found) == {("first", "a"), ("a", "b"), ("first", "last"), ("b", "last")}
    assert [pair for pair, item in found.items() if item.skip] == [("first", "last")]
    assert str(found["first", "last"]).endswith("up 2 (nearest interpolation ×2, past other convolutions)")
    # Channels that were cut away are no pathways, and those left are the right ones.
    ratio = sd.measure("b", "last").ratio
    assert ratio.shape == (4, 2, 1)
    g, h = twins.kernel_in(module.b, 3, 2), twins.kernel_in(module.last, 0, 0)
    cause = F.interpolate(F.pad(g, (3, 3, 3, 3))[None, None], scale_factor=2)[0, 0]
    assert float(ratio[3, 0, 0]) == pytest.approx(twins.ratio_through(cause, h), abs=1e-9)
    wrong = F.interpolate(F.pad(twins.kernel_in(module.b, 3, 0), (3, 3, 3, 3))[None, None], scale_factor=2)[0, 0]
    assert float(ratio[3, 0, 0]) != pytest.approx(twins.ratio_through(wrong, h), abs=1e-6)


def test_concatenations_and_chunks_keep_channels_apart() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = conv(1, 3), conv(1, 4), conv(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            _, second = self.two(x).chunk(2, 1)
            return self.last(torch.cat([second, self.one(x)], dim=1))  # type: ignore[no-any-return]

    module = Joined().double()
    sd = cp.SpectralDependency(module, example=torch.zeros(1, 1, 8, 8))
    assert {(pair.earlier, pair.channels) for pair in sd.pairs()} == {("one", (1, 3, 2)), ("two", (1, 2, 2))}
    for earlier, out, place, mid in (("one", 2, 4, 2), ("two", 3, 1, 1)):
        g, h = twins.kernel_in(getattr(module, earlier), 0, out), twins.kernel_in(module.last, place, 1)
        assert float(sd.measure(earlier, "last").ratio[0, mid, 1]) == pytest.approx(twins.ratio_up(g, h, 1), abs=1e-12)


def test_gains_from_squeeze_and_excitation_are_no_pathways() -> None:
    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.gate, self.two = conv(1, 4), conv(4, 4, k=1), conv(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.two(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))  # type: ignore[no-any-return]

    sd = cp.SpectralDependency(Excited())
    assert [(pair.earlier, pair.later) for pair in sd.pairs()] == [("one", "two")]
    assert sd.blocked == [("one", "gate", "mean")]


def test_a_convolution_that_runs_twice_has_numbered_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = conv(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(F.relu(self.one(x)))  # type: ignore[no-any-return]

    sd = cp.SpectralDependency(Twice())
    assert [(pair.earlier, pair.later) for pair in sd.pairs()] == [("one#1", "one#2")]
    with pytest.raises(cp.ProbeError, match="'one' is no convolution of Twice; nearest: 'one#2', 'one#1'"):
        sd.measure("one", "one")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", ["spectral", "weight", "old spectral", "old weight"])
def test_normalised_weights_are_those_that_are_compared(norm: str) -> None:
    wrapped = {
        "spectral": parametrizations.spectral_norm,
        "weight": parametrizations.weight_norm,
        "old spectral": nn.utils.spectral_norm,
        "old weight": nn.utils.weight_norm,
    }[norm]
    torch.manual_seed(0)
    module = nn.Sequential(wrapped(nn.Conv2d(3, 4, 3)), nn.ReLU(), wrapped(nn.Conv2d(4, 2, 3)))
    if norm.endswith("weight"):  # its gains, one for each filter, change no ratio: add a mean to the direction
        with parametrize.cached(), torch.no_grad():
            for value in module.parameters():
                value.add_(0.1)
    sd = cp.SpectralDependency(module.eval())
    module(torch.zeros(1, 3, 8, 8))
    g, h = twins.kernel_in(module[0], 1, 2), twins.kernel_in(module[2], 2, 0)
    assert float(sd.measure("0", "2").ratio[1, 2, 0]) == pytest.approx(twins.ratio_up(g, h, 1), abs=1e-6)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.linspace(0, 1, value.numel()).view_as(value))
    module(torch.zeros(1, 3, 8, 8))
    changed = twins.ratio_up(twins.kernel_in(module[0], 1, 2), twins.kernel_in(module[2], 2, 0), 1)
    assert float(sd.measure("0", "2").ratio[1, 2, 0]) == pytest.approx(changed, abs=1e-6)
    assert abs(changed - twins.ratio_up(g, h, 1)) > 1e-3


def test_kernels_that_depend_on_the_input_are_refused() -> None:
    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = conv(2, 2), conv(2, 2), conv(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.three(self.two(F.conv2d(x, self.two.weight * x.mean())))  # type: ignore[no-any-return]

    sd = cp.SpectralDependency(Modulated())
    assert [(pair.earlier, pair.later) for pair in sd.pairs()] == [("two", "three")]
    with pytest.raises(cp.ProbeError, match="'the forward' cannot be measured: its kernels depend on the input"):
        sd.measure("the forward", "two")


def test_names_that_are_wrong(faces: cp.GeneratorAdapter) -> None:
    sd = cp.SpectralDependency(faces)
    with pytest.raises(cp.ProbeError, match=r"'main.33' is no convolution of dcgan-faces; nearest: 'main.3'"):
        sd.measure("main.33", "main.6")
    with pytest.raises(cp.ProbeError, match=r"not successive convolutions \('main.0' is followed by 'main.3'\)"):
        sd.measure("main.0", "main.6")
    with pytest.raises(cp.ProbeError, match=r"a pair is 'main.0'; give \(earlier, later\)"):
        sd.table(["main.0"])  # type: ignore[list-item]


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(conv(1, 2), nn.BatchNorm2d(2), nn.Dropout(), conv(2, 1)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    sd = cp.SpectralDependency(module)
    sd.measure("0", "3")
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or "_call_impl" in part.__dict__ for part in module.modules())
    with pytest.raises(cp.ProbeError):
        cp.SpectralDependency(nn.Sequential(conv(1, 2), nn.Linear(3, 3)))
    assert not any(part._forward_hooks or "_call_impl" in part.__dict__ for part in module.modules())


def test_lazy_and_inference_modules() -> None:
    with pytest.raises(cp.ProbeError, match="has lazy layers without weights yet"):
        cp.SpectralDependency(nn.Sequential(nn.LazyConv2d(2, 3), conv(2, 1)))
    with torch.inference_mode():
        module = nn.Sequential(conv(1, 2), conv(2, 1))
    assert cp.SpectralDependency(module).measure("0", "1").dead == 0


def test_a_first_layer_that_works_in_place_leaves_the_example_alone() -> None:
    example = torch.randn(2, 1, 8, 8)
    before = example.clone()
    sd = cp.SpectralDependency(nn.Sequential(nn.ReLU(inplace=True), conv(1, 2), conv(2, 1)), example=example)
    sd.measure_activations("1", example)
    assert torch.equal(example, before)


def test_weights_may_change_between_calls() -> None:
    module = nn.Sequential(conv(1, 2), conv(2, 1))
    sd = cp.SpectralDependency(module)
    before = sd.measure("0", "1").ratio
    module[0].weight.data.normal_()  # does not count as a change in torch's own books
    assert not torch.equal(sd.measure("0", "1").ratio, before)


@pytest.mark.parametrize(
    "toy", [toys.PLAIN, toys.SHARED, toys.SKIP_CROSSES, toys.NOISY, toys.FLOAT32], ids=lambda t: t.name
)
def test_toys_are_traced(toy: toys.Toy) -> None:
    table = cp.SpectralDependency(toy.generator()).table()
    assert all(0 < row["mean"] < 10 for row in table.rows)


def test_compiled_and_parallel_modules() -> None:
    plain = nn.Sequential(conv(1, 2), nn.ReLU(), conv(2, 1))
    expected = cp.SpectralDependency(plain).measure("0", "2").ratio
    for wrapped in (torch.compile(plain, backend="eager"), nn.DataParallel(plain)):
        assert torch.equal(cp.SpectralDependency(wrapped).measure("0", "2").ratio, expected)  # type: ignore[arg-type]


def test_began_goes_through_its_interpolations_and_concatenations() -> None:
    pairs = cp.SpectralDependency(BEGANGenerator(6, 4, 1, image_size=16, start=4, repeats=2)).pairs()
    found = {(pair.earlier, pair.later): pair for pair in pairs}
    assert found["blocks.0.2", "blocks.1.0"].between == ("nearest interpolation ×2",)
    assert found["blocks.0.2", "blocks.1.0"].channels == (4, 4, 4)
    assert not any(pair.skip for pair in pairs)  # h0 is made by a linear layer


def test_biggan_deep_is_a_stream_past_its_blocks() -> None:
    sd = cp.SpectralDependency(random_biggan_deep("small"))
    pairs = sd.pairs()
    within = [p for p in pairs if p.earlier.rpartition(".")[0] == p.later.rpartition(".")[0]]
    assert len([p for p in within if p.earlier.endswith("conv_0")]) == 8
    assert any(p.skip for p in pairs)
    assert any(p.between == ("nearest interpolation ×2",) for p in within)
    table = sd.table([p for p in pairs if not p.skip][:6])
    assert all(row["alive"] == row["pathways"] for row in table.rows)


def test_importing_stays_light() -> None:
    assert not {"matplotlib", "timm", "sklearn", "pywt"} & imported_by()
