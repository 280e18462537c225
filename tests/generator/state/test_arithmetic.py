"""A GPU's float32 is exact while a module is borrowed, rounded to TF32 where that is asked for, and as before after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator.state.arithmetic import (
    exact_arithmetic,
    is_tf32_allowed,
    multiplies_tf32,
    set_tf32_settings,
    tf32_allowed,
    tf32_settings,
)
from counterfactual_probe.generator.state.settings import process_settings_kept
from support.devices.cases import ACCELERATORS
from support.toys import FLOAT32, PLAIN

cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
HAS_NEW_NAMES = hasattr(cudnn, "conv")
new_names = pytest.mark.skipif(not HAS_NEW_NAMES, reason="this torch has the old names alone")


def nothing() -> None:
    """What torch allows by default: convolutions, and no matrix products."""


def old_off() -> None:
    cudnn.allow_tf32 = False


def old_on() -> None:
    torch.set_float32_matmul_precision("high")


def new_on() -> None:
    matmul.fp32_precision = "tf32"


def new_off() -> None:
    cudnn.conv.fp32_precision = "ieee"


CALLERS = [nothing, old_off, old_on, *(pytest.param(caller, marks=new_names) for caller in (new_on, new_off))]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = tf32_settings(), cudnn.deterministic, cudnn.benchmark
    yield
    set_tf32_settings(before[0])
    cudnn.deterministic, cudnn.benchmark = before[1:]
    assert tf32_settings() == before[0]


@pytest.mark.parametrize("caller", CALLERS)
def test_settings_inside_and_after(caller: Callable[[], None]) -> None:
    caller()
    before = tf32_settings(), cudnn.deterministic, cudnn.benchmark
    for allowed in (False, True):
        with exact_arithmetic({"cuda"}):
            assert not is_tf32_allowed()
            assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
            with tf32_allowed(allowed):
                assert is_tf32_allowed() is allowed
            assert not is_tf32_allowed()
        assert (tf32_settings(), cudnn.deterministic, cudnn.benchmark) == before
        with exact_arithmetic({"cpu"}):
            assert (tf32_settings(), cudnn.deterministic, cudnn.benchmark) == before


def test_each_setting_alone_is_seen() -> None:
    cudnn.allow_tf32 = False
    assert not is_tf32_allowed()
    torch.set_float32_matmul_precision("medium")
    assert is_tf32_allowed()
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = True
    assert is_tf32_allowed()


@new_names
def test_a_forward_runs_and_is_undone_whatever_the_caller_calls_it() -> None:
    """Once a setting was changed under its new name, torch refuses to read the old one."""
    new_on()
    with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
        torch.get_float32_matmul_precision()
    cp.InfluenceMap(FLOAT32.generator(), FLOAT32.layer).attribute(n_pairs=2)
    assert matmul.fp32_precision == "tf32"
    with process_settings_kept():
        matmul.fp32_precision = cudnn.conv.fp32_precision = "ieee"
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("tf32", "tf32")


def watched(toy: Any) -> tuple[cp.GeneratorAdapter, list[bool]]:
    """A generator, and whether TF32 was allowed each time its first part ran."""
    seen: list[bool] = []
    generator = toy.generator()

    def note(_part: nn.Module, _given: tuple[Tensor, ...]) -> None:
        seen.append(is_tf32_allowed())

    generator.module.get_submodule("main.0").register_forward_pre_hook(note)
    return generator, seen


@pytest.mark.parametrize("device", ACCELERATORS)
def test_maps_are_exact_unless_tf32_is_asked_for(device: str) -> None:
    toy = dataclasses.replace(FLOAT32, device=device)
    generator, seen = watched(toy)
    maps = cp.InfluenceMap(generator, toy.layer).attribute
    exact = maps(n_pairs=3)
    assert set(seen) == {False}
    seen.clear()
    rounded = maps(n_pairs=3, precision="tf32")
    assert True in seen
    assert (exact.provenance["precision"], rounded.provenance["precision"]) == ("float32", "tf32")
    assert rounded.provenance["executor"] == exact.provenance["executor"]
    assert (exact.maps - rounded.maps).abs().max() <= 0.05 * exact.maps.max()
    double = dataclasses.replace(PLAIN, device=device).generator()
    assert (
        cp.InfluenceMap(double, PLAIN.layer).attribute(n_pairs=3, precision="tf32").provenance["precision"] == "float64"
    )


def test_without_such_arithmetic_maps_are_exact() -> None:
    assert not multiplies_tf32(torch.device("cpu"))
    maps = cp.InfluenceMap(FLOAT32.generator(), FLOAT32.layer).attribute
    exact, asked = maps(n_pairs=3), maps(n_pairs=3, precision="tf32")
    assert torch.equal(exact.maps, asked.maps)
    assert asked.provenance["precision"] == "float32"


@pytest.mark.parametrize(
    ("capability", "hip", "has"), [((7, 5), None, False), ((8, 0), None, True), ((9, 4), "6.0", False)]
)
def test_devices_with_tf32(
    capability: tuple[int, int], hip: str | None, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert multiplies_tf32(torch.device("cuda", 0)) is has
