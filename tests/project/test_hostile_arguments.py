"""Any value for any public argument: a result or one ProbeError, within a minute, and nothing disturbed."""

from __future__ import annotations

import contextlib
import random
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import counterfactual_probe as cp
from support import hostile

_SECONDS = 60  # of a call that takes milliseconds


def _cases() -> st.SearchStrategy[tuple[hostile.Call, dict[str, Any]]]:
    """A call, and hostile values for one or two of its arguments."""

    def changed(call: hostile.Call) -> st.SearchStrategy[tuple[hostile.Call, dict[str, Any]]]:
        names = st.lists(st.sampled_from(sorted(call.arguments)), min_size=1, max_size=2, unique=True)
        values = names.flatmap(lambda chosen: st.fixed_dictionaries({name: hostile.values() for name in chosen}))
        return st.tuples(st.just(call), values)

    return st.sampled_from(hostile.calls()).flatmap(changed)


def _too_many(name: str, value: Any) -> bool:
    return name in hostile.COUNTS and isinstance(value, (int, float)) and value > 50


@contextmanager
def _within_a_minute() -> Iterator[None]:
    def hangs(*_: Any) -> None:
        raise AssertionError(f"still running after {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _state() -> list[Any]:
    module = hostile.generator().module
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) + int(part.training) for part in module.modules()]
    randomness = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
    values = [value.sum().item() for value in module.state_dict().values()]
    return [hooks, randomness, values, torch.get_default_dtype(), torch.is_grad_enabled()]


def _try(case: tuple[hostile.Call, dict[str, Any]]) -> None:
    call, changes = case
    changes = {name: value for name, value in changes.items() if not _too_many(name, value)}
    before = _state()
    with _within_a_minute(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(cp.ProbeError):
            call.function(**{**call.arguments, **changes})
        plt.close("all")
    assert _state() == before


_OPTIONS: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@settings(max_examples=250, **_OPTIONS)
@given(st.deferred(_cases))
def test_any_value_of_any_argument(case: tuple[hostile.Call, dict[str, Any]]) -> None:
    _try(case)


@pytest.mark.slow
@settings(max_examples=5000, **_OPTIONS)
@given(st.deferred(_cases))
def test_any_value_of_any_argument_at_length(case: tuple[hostile.Call, dict[str, Any]]) -> None:
    _try(case)


def test_the_arguments_that_are_changed_are_right(subtests: pytest.Subtests) -> None:
    """Otherwise every change would be refused for another reason."""
    for call in hostile.calls():
        with subtests.test(call.name):
            if call.name in ("load", "load_classifier"):  # of what is not there
                with pytest.raises(cp.ProbeError, match="no-such"):
                    call.function(**call.arguments)
            else:
                call.function(**call.arguments)
    plt.close("all")
