"""Interventions by a value (S003 Def. 1 and 3): every accepted form against its literal twin."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import counterfactual_probe as cp
from support import twins
from support.devices.cases import on_devices
from support.toys import COUPLED, NOISY, PLAIN, SHARED, TOKENS, VECTOR, Toy
from support.twins import NOISE_STREAM, gap, seed_of

N = 3
# (activation of one sample, channels first; which sample) -> its new value
Change = Callable[[Tensor, int], Tensor]


def first(activation: Tensor) -> Tensor:
    """Channels first, without the batch of one: a view."""
    return activation[0].mT if activation.dim() == 3 else activation[0]


def expected(
    toy: Toy, z: Any, sets: Sequence[dict[str, list[int]]], change: dict[str, Change], seed: int = 0
) -> Tensor:
    """(sets, n, C, H, W): each listed channel set in its own loop step, in the base's run."""
    module, rows = toy.plain(), []
    for units in sets:
        row = []
        for i in range(twins.count(z)):
            actions = {}
            for layer, channels in units.items():

                def action(found: Tensor, channels: Any = channels, act: Any = change[layer], i: int = i) -> Tensor:
                    new, values = found.clone(), act(first(found)[channels].clone(), i)
                    for k, channel in enumerate(channels):
                        first(new)[channel] = values[k]
                    return new

                actions[layer] = action
            row.append(twins.image_of(toy, module, twins.one(z, i), actions, seed_of(seed, NOISE_STREAM, i)))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def test_zero_is_ablation_and_the_default(toy: Toy) -> None:
    generator = toy.generator()
    z, sets = generator.sample(N), [{toy.layer: [0]}, {toy.layer: [1, 2]}]
    found = cp.Hybridizer(generator, toy.layer).intervene(z, units=sets)
    twin = expected(toy, z, sets, {toy.layer: lambda x, _: torch.zeros_like(x)})
    assert gap(found.images, twin) <= toy.tolerance
    assert gap(found.base, twins.images(toy, z)) <= toy.tolerance
    assert found.source is None
    other = cp.Hybridizer(generator, toy.layer).intervene(z, units=sets, value=1.5)
    assert gap(other.images, expected(toy, z, sets, {toy.layer: lambda x, _: torch.full_like(x, 1.5)})) <= toy.tolerance
    assert gap(found.images, other.images) > 1e-3


@pytest.mark.parametrize("toy", on_devices([PLAIN, SHARED, NOISY, COUPLED, TOKENS, VECTOR]))
def test_mean_is_over_all_clean_runs_and_positions(toy: Toy) -> None:
    generator = toy.generator()
    z, units = generator.sample(5), {toy.layer: [2, 0]}
    module, clean = toy.plain(), []
    for i in range(5):
        seen: dict[str, Tensor] = {}
        twins.forward(module, twins.one(z, i), {toy.layer: twins.record(seen, toy.layer)}, seed_of(0, NOISE_STREAM, i))
        clean.append(first(seen[toy.layer])[[2, 0]].reshape(2, -1).mean(1))
    mean = torch.stack(clean).mean(0)
    twin = expected(toy, z, [units], {toy.layer: lambda x, _: mean.reshape(-1, *[1] * (x.dim() - 1)).expand_as(x)})
    for size in (None, 1, 2):
        found = cp.Hybridizer(generator, toy.layer).intervene(z, units=units, value="mean", hybrids_per_eval=size)
        assert gap(found.images, twin) <= toy.tolerance
    # The mean of all latents given, not of each alone.
    alone = cp.Hybridizer(generator, toy.layer).intervene(twins.one(z, 0), units=units, value="mean")
    assert gap(alone.images[:, 0], twin[:, 0]) > 1e-3


@pytest.mark.parametrize("toy", on_devices([PLAIN, TOKENS, VECTOR]))
def test_every_shape_of_tensor(toy: Toy) -> None:
    generator = toy.generator()
    z, channels = generator.sample(N), [2, 0]
    size = generator.layer(toy.layer).size
    rng = torch.Generator().manual_seed(4)
    shapes: list[tuple[int, ...]] = [(), (2,), (2, *size), (N, 2, *size)]
    results = []
    for shape in shapes:
        value = torch.randn(shape, generator=rng, dtype=torch.float64)

        def change(x: Tensor, i: int, value: Tensor = value) -> Tensor:
            value = value.to(x.device)
            if value.dim() == x.dim() + 1:
                return value[i]
            if value.dim() == x.dim():
                return value
            return value.reshape(-1, *[1] * (x.dim() - 1)).expand_as(x)

        found = cp.Hybridizer(generator, toy.layer).intervene(z, units=channels, value=value)
        assert gap(found.images, expected(toy, z, [{toy.layer: channels}], {toy.layer: change})) <= 1e-10
        results.append(found.images)
    assert all(gap(one, two) > 1e-3 for one, two in pairwise(results))
    half = cp.Hybridizer(generator, toy.layer).intervene(z, units=channels, value=torch.tensor(0.5).half())
    assert gap(half.images, cp.Hybridizer(generator, toy.layer).intervene(z, units=channels, value=0.5).images) == 0


@pytest.mark.parametrize("toy", on_devices([PLAIN, SHARED, NOISY, TOKENS]))
@pytest.mark.parametrize("size", [None, 1, 2])
def test_function_of_the_activations(toy: Toy, size: int | None) -> None:
    """Def. 3. The function sees channels first, of one sample, and may work in place."""
    generator = toy.generator()
    z, sets = generator.sample(N), [{toy.layer: [0]}, {toy.layer: [2, 1]}]

    def amplify(x: Tensor) -> Tensor:
        return x.mul_(2).flip(0)

    found = cp.Hybridizer(generator, toy.layer).intervene(z, units=sets, value=amplify, hybrids_per_eval=size)
    assert gap(found.images, expected(toy, z, sets, {toy.layer: lambda x, _: 2 * x.flip(0)})) <= 1e-10
    assert gap(found.images[1], found.base) > 1e-3
    same = cp.Hybridizer(generator, toy.layer).intervene(z, units=sets, value=lambda x: x)
    assert gap(same.images, same.base.expand_as(same.images)) <= 1e-12


def test_a_function_downstream_sees_what_is_already_set_upstream() -> None:
    generator = PLAIN.generator()
    z, units = generator.sample(N), {"main.2": [0, 1], "main.6": [1, 2]}
    value: dict[str, Any] = {"main.2": 3.0, "main.6": lambda x: -x}
    found = cp.Hybridizer(generator, ["main.2", "main.6"]).intervene(z, units=units, value=value)
    change: dict[str, Change] = {"main.2": lambda x, _: torch.full_like(x, 3.0), "main.6": lambda x, _: -x}
    assert gap(found.images[0], expected(PLAIN, z, [units], change)[0]) <= 1e-10
    clean: dict[str, Tensor] = {}
    module, wrong = PLAIN.plain(), []
    for i in range(N):
        twins.forward(module, twins.one(z, i), {"main.6": twins.record(clean, "main.6")})
        actions = {
            "main.2": twins.put(torch.full((1, 6, 4, 4), 3.0), [0, 1]),
            "main.6": twins.put(-clean["main.6"], [1, 2]),
        }
        wrong.append(twins.image_of(PLAIN, module, twins.one(z, i), actions))
    assert gap(found.images[0], torch.stack(wrong)) > 1e-3


def test_every_kind_of_value_per_layer() -> None:
    generator = PLAIN.generator()
    z, sets = generator.sample(N), [{"main.2": [0]}, {"main.2": [1], "main.6": [0, 3]}]
    tensor = torch.tensor([0.5, -2.0])
    found = cp.Hybridizer(generator, ["main.2", "main.6"]).intervene(
        z, units=sets, value={"main.2": 1.0, "main.6": tensor}
    )
    change: dict[str, Change] = {
        "main.2": lambda x, _: torch.ones_like(x),
        "main.6": lambda x, _: tensor.to(x)[:, None, None].expand_as(x),
    }
    assert gap(found.images, expected(PLAIN, z, sets, change)) <= 1e-10


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sets=st.lists(st.lists(st.integers(0, 5), min_size=1, unique=True), min_size=1, max_size=4),
    value=st.floats(-5, 5),
    size=st.integers(1, 7),
)
def test_any_constant_in_any_batches(
    plain: cp.GeneratorAdapter, sets: list[list[int]], value: float, size: int
) -> None:
    z = plain.sample(2)
    found = cp.Hybridizer(plain, "main.2").intervene(z, units=sets, value=value, hybrids_per_eval=size)
    twin = expected(PLAIN, z, [{"main.2": item} for item in sets], {"main.2": lambda x, _: torch.full_like(x, value)})
    assert gap(found.images, twin) <= 1e-10


def test_no_channel_changes_nothing(plain: cp.GeneratorAdapter) -> None:
    found = cp.Hybridizer(plain, "main.2").intervene(plain.sample(2), units={"main.2": []}, value=7.0)
    assert torch.equal(found.images[0], found.base)


def test_noise_has_the_seed_given() -> None:
    generator = NOISY.generator()
    z, zero = generator.sample(N), {"main.2": lambda x, _: torch.zeros_like(x)}
    found = cp.Hybridizer(generator, "main.2").intervene(z, units=[0, 1], seed=5)
    assert gap(found.images, expected(NOISY, z, [{"main.2": [0, 1]}], zero, seed=5)) <= 1e-10
    assert gap(found.images, expected(NOISY, z, [{"main.2": [0, 1]}], zero, seed=6)) > 1e-3


def test_provenance_names_the_value(plain: cp.GeneratorAdapter) -> None:
    for value, said in (
        (0.5, 0.5),
        ("mean", "mean"),
        (torch.tensor(1.0), "Tensor"),
        (torch.relu, "builtin_function"),
    ):
        about = cp.Hybridizer(plain, "main.2").intervene(plain.sample(1), units=[0], value=value).provenance
        assert about["intervention"]["kind"] == "assignment"
        assert str(said) in str(about["intervention"]["value"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("median", "value is 'median'; give a number, 'mean', a tensor or a function"),
        (
            torch.zeros(3),
            r"has shape \(3,\) for 2 channels of layer 'main\.2'; give \(\), \(2,\), \(2, 4, 4\) or \(3, 2, 4, 4\)",
        ),
        (torch.zeros(2, 2, 4, 4), r"has shape \(2, 2, 4, 4\) for 2 channels"),
        (
            lambda x: x[:1],
            r"returned \(1, 4, 4\) for activations of shape \(2, 4, 4\); return a tensor of the same shape",
        ),
        (lambda x: 0.0, r"returned float for activations of shape \(2, 4, 4\)"),
        (lambda x: 1 / 0, "raised ZeroDivisionError"),
        ({"main.6": 0.0}, r"value names \['main\.6'\] and not layer 'main\.2', which units set"),
        ({"main.2": "median"}, "value is 'median'"),
        (float("nan"), r"with unit set \{main\.2: 0, 1\} holds NaN or infinite"),
    ],
)
def test_bad_values(plain: cp.GeneratorAdapter, value: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.Hybridizer(plain, "main.2").intervene(plain.sample(3), units=[0, 1], value=value)


@pytest.mark.parametrize("value", [None, [0.0, 1.0], {"main.2": None}, object()])
def test_values_of_no_known_kind(plain: cp.GeneratorAdapter, value: Any) -> None:
    with pytest.raises(cp.ProbeError, match="give a number, 'mean', a tensor or a function"):
        cp.Hybridizer(plain, "main.2").intervene(plain.sample(1), units=[0, 1], value=value)


def test_an_array_is_taken_as_a_tensor(plain: cp.GeneratorAdapter) -> None:
    z, hybridizer = plain.sample(1), cp.Hybridizer(plain, "main.2")
    expected = hybridizer.intervene(z, units=[0, 1], value=torch.tensor([1.0, 2.0])).images
    # A reversed array has a negative stride, which torch does not take.
    for value in (np.array([1.0, 2.0]), np.array([2, 1], np.int16)[::-1]):
        assert torch.equal(hybridizer.intervene(z, units=[0, 1], value=value).images, expected)
    single = hybridizer.intervene(z, units=[0, 1], value=np.array(0.5)).images
    assert torch.equal(single, hybridizer.intervene(z, units=[0, 1], value=np.float32(0.5)).images)
    with pytest.raises(cp.ProbeError, match="give a number, 'mean', a tensor or a function"):
        hybridizer.intervene(z, units=[0, 1], value=np.array([None, 1.0]))


def test_an_error_of_the_function_is_not_laid_on_the_forward(plain: cp.GeneratorAdapter) -> None:
    with pytest.raises(cp.ProbeError, match="the function given as value raised ZeroDivisionError"):
        cp.Hybridizer(plain, "main.2").intervene(plain.sample(1), units=[0], value=lambda x: x * (1 / 0))


def test_a_value_for_a_layer_that_is_not_given(plain: cp.GeneratorAdapter) -> None:
    for other in ("main.nowhere", "main.6"):
        value: Any = {"main.2": 0.0, other: "mean"}
        with pytest.raises(cp.ProbeError, match=re.escape(other)):
            cp.Hybridizer(plain, "main.2").intervene(plain.sample(1), units=[0], value=value)


def test_a_value_may_use_any_name_of_its_layer(plain: cp.GeneratorAdapter) -> None:
    z, hybridizer = plain.sample(1), cp.Hybridizer(plain, "main.2")
    one, two = (hybridizer.intervene(z, units=[0], value={name: 1.0}).images for name in ("main.2", "main.2#1"))
    assert torch.equal(one, two)
    with pytest.raises(cp.ProbeError, match=r"value's keys name layer 'main\.2' twice"):
        hybridizer.intervene(z, units=[0], value={"main.2": 1.0, "main.2#1": 2.0})


def test_hybridize_and_intervene_refuse_bad_latents(plain: cp.GeneratorAdapter) -> None:
    z = plain.sample(2)
    with pytest.raises(cp.ProbeError, match="z1 holds 2 latents and z2 holds 1"):
        cp.Hybridizer(plain, "main.2").hybridize(z, plain.sample(1), units=[0])
    with pytest.raises(cp.ProbeError, match="the base latents z1 hold 0 samples"):
        cp.Hybridizer(plain, "main.2").intervene(torch.zeros(0, 5), units=[0])
    with pytest.raises(cp.ProbeError, match="hybrids_per_eval is 0"):
        cp.Hybridizer(plain, "main.2").intervene(z, units=[0], hybrids_per_eval=0)
