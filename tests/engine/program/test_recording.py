"""What a recorded forward holds, what is refused, and what happens when a program is wrong later on."""

from __future__ import annotations

import gc
import random
import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine import FullForward, executor_for
from counterfactual_probe.engine import select as choice
from counterfactual_probe.engine.interception import NotReplayable
from counterfactual_probe.engine.prepared import cache as preparation
from counterfactual_probe.engine.prepared.executor import Prepared
from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.generator.units import parse_layers, parse_units
from support import toys
from support.programs import agrees, build, conv, hybrids
from support.toy_modules import vectors

N = 3


# --- recorded, and right for every batch ----------------------------------------------------------------------


def branches(m: Any, x: Tensor) -> Tensor:
    chosen = x.sum((1, 2, 3), keepdim=True) > 8
    image: Tensor = m.conv(torch.where(chosen, x, -2 * x))
    return image


RECORDED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a path for each sample, by where": branches,
    "zeros with a row for each sample": lambda m, x: m.conv(x) + torch.zeros(len(x), 3, 4, 4, dtype=x.dtype) + 1.0,
    "rows counted twice": lambda m, x: m.conv(torch.cat([x, x]).view(2, len(x), 8, 4, 4).sum(0)),
    "in place on a tensor of its own": lambda m, x: m.conv(x * 2).mul_(0.5).tanh_(),
    "pieces": lambda m, x: m.conv(torch.cat(x.chunk(2, 1)[::-1], 1)),
    "dropout in eval mode": lambda m, x: m.conv(m.drop(x)),
    "a number from a table": lambda m, x: m.conv(x) * torch.linspace(1, 2, 5).sqrt()[torch.tensor(3)].item(),
    "a path by a parameter": lambda m, x: m.conv(x if bool(m.conv.bias.sum() > 1e6) else 2 * x),
}


@pytest.mark.parametrize("name", RECORDED)
def test_these_are_recorded_and_right(name: str) -> None:
    generator = build(RECORDED[name], conv=conv(), drop=nn.Dropout(0.5))
    assert agrees(generator, "act") == "prepared"


def test_one_recording_serves_every_batch_size() -> None:
    generator = build(RECORDED["zeros with a row for each sample"], conv=conv())
    z1, z2 = generator.sample(9, seed=0), generator.sample(9, seed=1)
    assert isinstance(z1, Tensor)
    assert isinstance(z2, Tensor)
    hybridizer = cp.Hybridizer(generator, "act")
    units = [*([c] for c in range(8)), [1, 2]]
    whole = hybridizer.hybridize(z1, z2, units=units)
    for i in (0, 4, 8):
        alone = hybridizer.hybridize(z1[i : i + 1], z2[i : i + 1], units=units)
        assert alone.provenance["executor"] == whole.provenance["executor"] == "prepared"
        assert (whole.images[:, i : i + 1] - alone.images).abs().max() <= 1e-11


def test_recording_leaves_the_module_as_it_was() -> None:
    module = toys.SKIP_CROSSES.plain()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    attributes = {name: set(vars(part)) for name, part in module.named_modules()}
    hooks = sum(len(part._forward_hooks) for part in module.modules())
    generator = cp.wrap(module, vectors(5))
    assert agrees(generator, "middle") == "prepared"
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert {name: set(vars(part)) for name, part in module.named_modules()} == attributes
    assert sum(len(part._forward_hooks) for part in module.modules()) == hooks
    assert module.training


# --- refused ----------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "item": (lambda m, x: m.conv(x) * (1.0 if x.isfinite().all().item() else 0.0), "reads a value"),
    "a number of noise": (lambda m, x: m.conv(x) * torch.rand(1).item(), "reads a value"),
    "what latents were written to": (
        lambda m, x: m.conv(x) * torch.zeros(()).copy_(x.isfinite().all()).item(),
        "reads a value",
    ),
    "a view in place": (lambda m, x: (x[:, :1].mul_(2.0), m.conv(x))[1], "is a view, or that has views"),
    "a tensor that has views": (lambda m, x: (x.flatten(1), x.mul_(2.0), m.conv(x))[2], "is a view, or that has views"),
    "numpy": (lambda m, x: m.conv(torch.from_numpy(x.numpy() * 2)), "does not come from torch operations"),
    "numpy last": (lambda m, x: torch.from_numpy(m.conv(x).numpy() * 2), "does not come from torch operations"),
    "noise shared by a batch": (lambda m, x: m.conv(x) + torch.randn(1, 3, 4, 4), "not one for each sample"),
    "one number of noise": (lambda m, x: m.conv(x) + torch.randn(()), "not one for each sample"),
    "noise that hangs on values": (lambda m, x: m.conv(torch.normal(x, 0.1)), "depends on other values"),
    "a coin for each value": (lambda m, x: m.conv(torch.bernoulli(x.sigmoid())), "draws noise with"),
    "noise of numpy": (lambda m, x: m.conv(x) + float(np.random.rand()), "other arguments"),
    "noise of numpy, unread": (lambda m, x: [m.conv(x), np.random.rand()][0], "outside torch's operations"),
    "a buffer in place": (lambda m, x: m.conv(x + 0 * m.conv.calls.add_(1)), "was there before the forward"),
    "another path for more": (lambda m, x: m.conv(x if len(x) < N else x + 0), "another path for another batch"),
    "another number for more": (lambda m, x: m.conv(x).clamp(max=1e6 + len(x)), "other arguments for another batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_these_are_refused(name: str) -> None:
    rest, why = REFUSED[name]
    part = conv()
    part.register_buffer("calls", torch.zeros(()))
    generator = build(rest, conv=part)
    with generator.session(), pytest.raises(NotReplayable, match=re.escape(why)):
        record(generator)


# --- noise ------------------------------------------------------------------------------------------------------

NOISE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "like another": lambda m, x: m.conv(x + torch.randn_like(x) + torch.rand_like(x)),
    "by sizes": lambda m, x: m.conv(x + torch.randn(len(x), 1, 4, 4)) * torch.randint(1, 9, (len(x), 1, 1, 1)),
    "of a mean": lambda m, x: m.conv(x + torch.normal(0.5, 1.0, (len(x), 1, 4, 4))),
    "into new tensors": lambda m, x: m.conv(x + x.new_empty(len(x), 1, 4, 4).normal_().mul_(0.5)),
    "uniform": lambda m, x: m.conv(x + torch.empty_like(x).uniform_(-1, 2)),
    "dropout that is on": lambda m, x: m.conv(F.dropout(F.dropout2d(x, 0.5, True), 0.5, True)),
    "dropout in place": lambda m, x: m.conv(F.dropout(x * 1, 0.5, True, inplace=True)),
    "a mask": lambda m, x: m.conv(x * torch.empty_like(x).bernoulli_(0.5)),
    "drawn and not read": lambda m, x: m.conv(x + [torch.rand_like(x), torch.rand_like(x)][1]),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_is_that_of_each_sample_alone(name: str) -> None:
    generator = build(NOISE[name], conv=conv())
    assert not generator.batchable
    assert agrees(generator, "act") == "prepared"
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    hybridizer = cp.Hybridizer(generator, "act")
    found, same, other = (hybridizer.hybridize(z1, z2, units=[[0], [1, 2], [3]], seed=seed) for seed in (5, 5, 6))
    assert found.provenance["hybrids_per_eval"] > 1
    assert torch.equal(found.images, same.images)
    assert (found.images - other.images).abs().max() > 1e-3, "other noise must show"


def test_noise_that_torch_does_not_draw_is_found_out() -> None:
    """A coin of Python's decides the path: two recorded forwards may well have taken the same."""
    generator = build(
        lambda m, x: m.conv(x + torch.randn_like(x)) * (2.0 if random.random() < 0.9 else 1.0), conv=conv()
    )
    assert agrees(generator, "act").startswith("full forward")


def test_noise_of_samples_that_influence_one_another_is_found_out() -> None:
    """Run together they would not give what each gives alone, which is what a noisy forward is."""
    generator = build(lambda m, x: m.conv(x - x.mean(0) + torch.randn_like(x)), conv=conv())
    assert agrees(generator, "act").startswith("full forward (prepared disagreed: a difference of")


# --- made once --------------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many forwards are recorded from here on."""
    recorded: list[int] = []

    def counting(generator: cp.GeneratorAdapter) -> Any:
        recorded.append(1)
        return record(generator)

    monkeypatch.setattr(preparation, "record", counting)
    return recorded


def test_a_program_is_made_once_for_the_same_weights_and_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = counted(monkeypatch)
    generator = build(lambda m, x: m.conv(x), conv=conv())
    first = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    second = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    assert len(recorded) == 1
    assert torch.equal(first.maps, second.maps)
    with torch.no_grad():
        generator.module.get_submodule("conv").weight.data.mul_(2)  # .data: torch counts no version
    third = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    assert len(recorded) == 2
    torch.testing.assert_close(third.maps, 2 * first.maps)
    cp.InfluenceMap(generator, "first").attribute(n_pairs=3)
    assert len(recorded) == 3


def test_programs_of_both_precisions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "multiplies_bfloat16", lambda device: True)
    recorded = counted(monkeypatch)
    generator = build(lambda m, x: m.conv(x), conv=conv())
    found = []
    for precision in ("float32", "bf16-diff", "float32", "bf16-diff"):
        maps = cp.InfluenceMap(generator, "act").attribute(n_pairs=3, precision=precision)
        assert maps.provenance["precision"] == ("bf16-diff" if precision == "bf16-diff" else "float64")
        found.append(maps.maps)
    assert len(recorded) == 2
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_remembered_program_of_another_forward_is_made_again(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = counted(monkeypatch)
    generator, now = changing()
    first = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    now[where] = 2.0
    second = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    assert len(recorded) == 2
    assert second.provenance["executor"] == "prepared"
    fresh, now = changing()
    now[where] = 2.0
    torch.testing.assert_close(second.maps, cp.InfluenceMap(fresh, "act").attribute(n_pairs=3).maps)
    assert (second.maps - first.maps).abs().max() > 1e-3


def test_what_is_remembered_goes_with_the_generator() -> None:
    generator = build(lambda m, x: m.conv(x), conv=conv())
    cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    gone = weakref.ref(generator)
    before = len(preparation.Preparations._latest)
    del generator
    gc.collect()
    assert gone() is None
    assert len(preparation.Preparations._latest) < before


# --- wrong later on ---------------------------------------------------------------------------------------------


def changing() -> tuple[cp.GeneratorAdapter, dict[str, float]]:
    """A forward with Python numbers in it, before and after the layer ``act``."""
    now = {"before": 1.0, "after": 1.0}
    generator = build(lambda m, x: m.conv(x) * now["after"], conv=conv())
    generator.module.get_submodule("first").register_forward_pre_hook(lambda _, inputs: (inputs[0] * now["before"],))
    return generator, now


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_forward_that_changes_after_recording_is_found_out(where: str) -> None:
    """Whatever the program said, the source's values included, comes from the forward as it is now."""
    generator, now = changing()
    sets = parse_units(None, parse_layers(generator, "act"))
    executor = executor_for(generator, sets)
    now[where] = 2.0
    found, full = hybrids(generator, sets, executor), hybrids(generator, sets, FullForward(generator))
    assert executor.name.startswith("replay (prepared disagreed: a difference of")
    assert (found - full).abs().max() <= 1e-10


@pytest.mark.parametrize("replays", [True, False])
def test_wrong_images_are_never_handed_on(replays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = build(lambda m, x: m.conv(x), conv=conv())
    sets = parse_units(None, parse_layers(generator, "act"))
    executor = executor_for(generator, sets)
    assert isinstance(executor, Prepared)
    if not replays:
        executor.instead = FullForward(generator)
    ways = executor._preparation.ways
    for key, way in list(ways.items()):
        monkeypatch.setitem(ways, key, lambda batch, way=way: way(batch) + 0.01)
    found, full = hybrids(generator, sets, executor), hybrids(generator, sets, FullForward(generator))
    assert executor.name.startswith(
        f"{'replay' if replays else 'full forward'} (prepared disagreed: a difference of 0.01"
    )
    assert torch.equal(found, full) if not replays else (found - full).abs().max() <= 1e-10


# --- latents in other forms -------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.ConvTranspose2d(5, 6, 4), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        image: Tensor = self.last(torch.relu(self.first((a - 3 * b.abs())[:, :, None, None])))
        return image


def two_by_name(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    return {key: torch.randn(n, 5, generator=rng, dtype=torch.float64) for key in "ab"}


@pytest.mark.parametrize("reverse", ["base", "source", "both"])
def test_a_dict_of_latents_may_be_in_any_order(reverse: str) -> None:
    torch.manual_seed(0)
    generator = cp.wrap(Two().double(), two_by_name)
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    assert isinstance(z1, dict)
    assert isinstance(z2, dict)
    turned1 = dict(reversed(z1.items())) if reverse != "source" else z1
    turned2 = dict(reversed(z2.items())) if reverse != "base" else z2
    hybridizer = cp.Hybridizer(generator, "first")
    expected = hybridizer.hybridize(z1, z2, units=[[0], [1], [0, 1]])
    found = hybridizer.hybridize(turned1, turned2, units=[[0], [1], [0, 1]])
    assert expected.provenance["executor"] == found.provenance["executor"] == "prepared"
    assert torch.equal(found.images, expected.images)


def test_a_layer_that_hands_on_its_input_is_not_mixed_up_with_it() -> None:
    """Setting channels of its output must not change what else reads its input."""
    generator = build(lambda m, x: m.conv(m.same(x) * 0.5 + x), conv=conv(), same=nn.Identity())
    assert agrees(generator, "same").startswith(("prepared", "replay"))


# --- memory that is kept ----------------------------------------------------------------------------------------


def test_sessions_nest_and_numbers_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = build(lambda m, x: m.conv(x), conv=conv())
    z = generator.sample(N)
    kept = generator(z)
    with generator.session(), generator.session():
        assert torch.equal(generator(z), kept)
    assert torch.equal(generator(z), kept)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # the user's own settings are left alone
    assert torch.equal(generator(z), kept)
