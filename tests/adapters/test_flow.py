"""Rectified flows: literal twins of velocities, steps, hybrids and losses; sizes read off; training that resumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.flow import Flow, UNet, flow, sines
from counterfactual_probe.adapters.flow.recipe import FLOOR, FlowRecipe, velocity_loss
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.data import Images
from counterfactual_probe.data.order import epoch_order
from counterfactual_probe.distributed.ranks import Ranks
from counterfactual_probe.generator.state.randomness import seed_everything
from counterfactual_probe.registry import folders
from counterfactual_probe.training import Networks, Step, trainable
from counterfactual_probe.training.trainer import START, stream_seed
from support.adapters.states import spoiled_state
from support.toy_training import assert_same, squares, train
from support.toys import unlike_new

WIDTHS = (8, 16)
Put = Callable[[str, Tensor], Tensor]
SMALL: dict[str, Any] = {"width": 8, "levels": 2, "batch": 5, "steps": 3, "flip": True, "down": 2}


def small(seed: int = 3) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = UNet(WIDTHS, 3, time=6).double()
        unlike_new(module)
        for name, value in module.named_parameters():
            if "conv_1" in name:  # these start at 0
                nn.init.normal_(value, 0, 0.1)
    return module.eval()


def untouched(_name: str, x: Tensor) -> Tensor:
    return x


# --- literal twins --------------------------------------------------------------------------------


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Each group of 8 channels of each image to mean 0 and variance 1, then a scale and an offset a channel."""
    parts = []
    for group in x.split(8, 1):
        mean = group.mean((1, 2, 3), keepdim=True)
        variance = ((group - mean) ** 2).mean((1, 2, 3), keepdim=True)
        parts.append((group - mean) / torch.sqrt(variance + 1e-5))
    weight, bias = (state[f"{name}.{key}"][:, None, None] for key in ("weight", "bias"))
    return torch.cat(parts, 1) * weight + bias


def conv(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    kernel = state[f"{name}.weight"]
    return F.conv2d(x, kernel, state[f"{name}.bias"], padding=kernel.shape[-1] // 2)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def dense(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(x: Tensor, time: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    inner = conv(silu(normed(x, state, f"{name}.norm_0")), state, f"{name}.conv_0")
    inner = inner + dense(time, state, f"{name}.time")[:, :, None, None]
    inner = conv(silu(normed(inner, state, f"{name}.norm_1")), state, f"{name}.conv_1")
    return inner + (conv(x, state, f"{name}.shortcut") if f"{name}.shortcut.weight" in state else x)


def velocity(x: Tensor, t: float, state: dict[str, Tensor], seen: Put = untouched) -> Tensor:
    rates = [math.exp(math.log(1000.0) * i / 15) for i in range(16)]
    angles = [math.sin(t * rate) for rate in rates] + [math.cos(t * rate) for rate in rates]
    clock = torch.tensor([angles] * len(x), dtype=x.dtype)
    time = silu(dense(silu(dense(clock, state, "clock.0")), state, "clock.2"))
    first = seen("down.0", block(conv(x, state, "start"), time, state, "down.0"))
    n, c, h, w = first.shape
    second = seen("down.1", block(first.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)), time, state, "down.1"))
    n, c, h, w = second.shape
    x = seen("middle", block(second.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)), time, state, "middle"))
    for number, kept in enumerate((second, first)):
        x = torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), kept], 1)
        x = seen(f"up.{number}", block(x, time, state, f"up.{number}"))
    return conv(silu(normed(x, state, "end.0")), state, "end.2")


def literal(z: Tensor, state: dict[str, Tensor], steps: int, seen: Put = untouched) -> Tensor:
    x = z
    for step in range(steps):

        def of_this_step(name: str, value: Tensor, call: int = step + 1) -> Tensor:
            return seen(f"velocity.{name}#{call}", value)

        x = x + velocity(x, step / steps, state, of_this_step) / steps
    return x.clamp(-1, 1)


def noise(n: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_velocities_are_the_literal_ones(t: float) -> None:
    module, z = small(), noise(3)
    found = module(z, z.new_full((3,), t))
    torch.testing.assert_close(found, velocity(z, t, dict(module.state_dict())), rtol=1e-9, atol=1e-10)
    assert (found - module(z, z.new_full((3,), t + 0.1))).abs().max() > 1e-3, "time counts"


def test_a_sines_period_falls_from_long_to_short() -> None:
    found = sines(torch.tensor([0.25], dtype=torch.float64))[0]
    assert float(found[0]) == pytest.approx(math.sin(0.25))
    assert float(found[15]) == pytest.approx(math.sin(250.0))
    assert float(found[31]) == pytest.approx(math.cos(250.0))


@pytest.mark.parametrize("steps", [1, 4])
def test_images_are_those_of_literal_steps(steps: int) -> None:
    module, z = small(), noise(2)
    torch.testing.assert_close(
        Flow(module, steps)(z), literal(z, dict(module.state_dict()), steps), rtol=1e-9, atol=1e-10
    )


def test_steps_are_eulers() -> None:
    """Of v(x, t) = x + t, whose steps can be told in advance."""

    class Straight(nn.Module):
        def forward(self, x: Tensor, times: Tensor) -> Tensor:
            return x + times[:, None, None, None]

    straight: Any = Straight()
    found = Flow(straight, 4)(torch.full((1, 3, 2, 2), 0.1, dtype=torch.float64))
    x = 0.1
    for t in (0.0, 0.25, 0.5, 0.75):
        x += (x + t) / 4
    assert found.unique().tolist() == pytest.approx([x])


@pytest.mark.parametrize("layer", ["velocity.middle#2", "velocity.down.1#1", "velocity.up.1#3"])
def test_hybrids_of_one_call_are_the_literal_ones(layer: str) -> None:
    module, z1, z2 = small(), noise(2), noise(2, seed=1)
    state = dict(module.state_dict())
    gen = cp.wrap(Flow(module, 3), lambda n, rng: torch.randn(n, 3, 8, 8, generator=rng).double(), layers=layer)
    donor: dict[str, Tensor] = {}

    def record(name: str, value: Tensor) -> Tensor:
        donor[name] = value
        return value

    def put(name: str, value: Tensor) -> Tensor:
        if name == layer:
            value = value.clone()
            value[:, [0, 3]] = donor[name][:, [0, 3]]
        return value

    literal(z2, state, 3, record)
    expected = literal(z1, state, 3, put)
    found = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=[[0, 3]]).images[0]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    assert (expected - literal(z1, state, 3)).abs().max() > 1e-4


# --- loading --------------------------------------------------------------------------------------


def test_a_folder_tells_size_and_steps(tmp_path: Path) -> None:
    module = UNet(WIDTHS, 1, time=6)
    unlike_new(module)
    folders.save_folder(tmp_path, "flow", module.state_dict(), config={"image_size": 16, "steps": 2, "name": "mine"})
    gen = cp.load(tmp_path)
    assert (gen.name, gen.image_size) == ("mine", (1, 16, 16))
    assert list(gen.layers)[:3] == ["velocity.down.0#1", "velocity.down.0#2", "velocity.down.1#1"]
    assert gen.layers["velocity.middle#2"].size == (4, 4)
    z = gen.sample(2)
    torch.testing.assert_close(gen(z), Flow(module.eval(), 2)(z).detach(), rtol=1e-4, atol=1e-5)


def test_the_default_number_of_steps(tmp_path: Path) -> None:
    folders.save_folder(tmp_path, "flow", UNet(WIDTHS).state_dict(), config={"image_size": 8})
    assert "velocity.middle#8" in cp.load(tmp_path).layers


@pytest.mark.parametrize(
    ("config", "change", "sentence"),
    [
        ({}, {}, "the config.json of a flow names no image_size; add it, such as 32"),
        ({"image_size": 6}, {}, "image_size is 6 and the U-Net halves it 2 times; give a multiple of 4"),
        ({"image_size": "8"}, {}, "image_size is '8' and must be an integer"),
        ({"image_size": 8, "steps": 0}, {}, "steps is 0 and must be an integer >= 1"),
        ({"image_size": 8}, {"start__weight": None}, "holds no start.weight, clock.0.weight and down.0.conv_0.weight"),
        ({"image_size": 8}, {"up__0__conv_0__weight": torch.zeros(2, 2, 3, 3)}, "of another shape: up.0.conv_0.weight"),
        ({"image_size": 8}, {"middle__norm_1__bias": None}, "missing: middle.norm_1.bias"),
    ],
)
def test_what_makes_no_flow(tmp_path: Path, config: dict[str, Any], change: dict[str, Any], sentence: str) -> None:
    folders.save_folder(tmp_path, "flow", spoiled_state(UNet(WIDTHS), **change), config=config)
    with pytest.raises(cp.ProbeError, match=sentence):
        cp.load(tmp_path)


def test_widths_are_read_off() -> None:
    for widths in [(8,), (4, 8, 24), (16, 8)]:
        gen = flow(UNet(widths, 1).state_dict(), image_size=16, steps=2)
        assert gen.layers["velocity.middle#1"].channels == widths[-1]
        assert gen.layers[f"velocity.up.{len(widths) - 1}#1"].channels == widths[0]


# --- training -------------------------------------------------------------------------------------


def test_the_loss_is_that_of_its_formula() -> None:
    v, z, x = noise(2, 4), noise(2, 4, 1), noise(2, 4, 2)
    total = sum((a - (c - b)) ** 2 for a, b, c in zip(*(t.flatten().tolist() for t in (v, z, x)), strict=True))
    assert float(velocity_loss(v, z, x)) == pytest.approx(total / v.numel(), rel=1e-12)
    assert float(velocity_loss(x - z, z, x)) == 0


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_losses_are_those_of_a_plain_loop(tmp_path: Path, precision: Any) -> None:
    trained = train(FlowRecipe(**SMALL, warmup=4), tmp_path, precision=precision)
    recipe, pixels = FlowRecipe(**SMALL), torch.from_numpy(squares().astype(np.float32) / 127.5 - 1)
    with torch.random.fork_rng(devices=[]):
        seed_everything(stream_seed(0, START, 0), nn.Module())
        network = recipe.networks((3, 16, 16))["velocity"].to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, betas=(0.9, 0.99))
    average = [value.detach().clone() for value in network.parameters()]
    wanted = []
    for number in range(12):
        epoch, position = divmod(number, 4)
        chosen = pixels[epoch_order(23, seed=0, epoch=epoch)[position * 5 :][:5]]
        draw = Step(number, Networks({}, {}), chosen, seed=0, ranks=Ranks())
        images = chosen.reshape(5, 3, 8, 2, 8, 2).mean((3, 5))
        images = torch.stack([x if u < 0 else x.flip(2) for x, u in zip(images, draw.uniform(), strict=True)])
        z = draw.normal(3, 8, 8)
        times = 1 / (1 + torch.exp(-draw.normal()))
        mixed = torch.stack([(1 - t) * a + t * b for t, a, b in zip(times, z, images, strict=True)])
        loss = ((network(mixed, times) - images + z) ** 2).mean()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (FLOOR + (1 - FLOOR) * min(1, (number + 1) / 4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        wanted.append(loss.item())
        decay = min(0.999, (1 + number) / (10 + number))
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, network.parameters(), strict=True)]
    close = {"float32": 2e-4, "bf16": 3e-2}[precision]
    np.testing.assert_allclose(trained.losses["velocity"], wanted, rtol=close)
    assert wanted[-1] < wanted[0]
    if precision == "float32":
        kept = dict(cp.load(tmp_path).module.named_parameters())
        for (name, value), mean in zip(network.named_parameters(), average, strict=True):
            torch.testing.assert_close(kept[f"velocity.{name}"], mean, rtol=0, atol=2e-4)
            assert value.dim() == 1 or (mean - value).abs().max() > 1e-3, "the average is kept, not the last weights"


def test_a_run_can_be_made_longer_with_the_same_bits(tmp_path: Path) -> None:
    whole = train(FlowRecipe(**SMALL), tmp_path / "whole", steps=13)
    train(FlowRecipe(**SMALL), tmp_path / "part", steps=6)
    part = train(FlowRecipe(**SMALL), tmp_path / "part", steps=13, resume=True)
    assert part.resumed_at == 6
    assert_same(whole, part)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "part/model.safetensors").read_bytes()
    gen = cp.load(tmp_path / "part")
    assert (gen.image_size, "velocity.middle#3" in gen.layers) == ((3, 8, 8), True)
    assert (tmp_path / "part/samples-0004.png").exists()


def test_the_learning_rate_decays_to_a_floor() -> None:
    recipe = FlowRecipe(warmup=10, decay=100)
    rates = [recipe.rate(number) for number in range(120)]
    assert max(rates) == pytest.approx(rates[10], rel=0.03)
    assert rates[0] == pytest.approx(FLOOR + (1 - FLOOR) / 10)
    assert rates[100:] == [FLOOR] * 20
    assert FlowRecipe().rate(10**6) == 1


def test_times_are_logistic_normal() -> None:
    draw = Step(0, Networks({}, {}), torch.zeros(4000, 3, 1, 1), seed=0, ranks=Ranks())
    logits = torch.logit(draw.normal().sigmoid())
    assert abs(float(logits.mean())) < 0.06
    assert abs(float(logits.std()) - 1) < 0.06


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"width": 0}, "width is 0"),
        ({"levels": 1.5}, "levels is 1.5"),
        ({"down": 0}, "down is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"levels": 4, "down": 2}, "averaged over 2 and then halved 4 times; give a size that is a multiple of 32"),
        ({"average": 1.0}, "average is 1.0; give a number from 0 to below 1"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        cp.train(trainable("flow").make(settings), Images(torch.zeros(70, 3, 16, 16)), out=tmp_path, steps=1)
