"""Latents in their three forms: taken apart, put together, counted, refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.generator import latents as lt

Z, Y = torch.arange(12.0).reshape(6, 2), torch.arange(6)
FORMS = {"tensor": Z, "tuple": (Z, Y), "list": [Z, Y], "dict": {"z": Z, "y": Y}}
every_form = pytest.mark.parametrize("latents", FORMS.values(), ids=FORMS.keys())


def tensors(latents: Any) -> list[Tensor]:
    return [value for _, value in lt.named_tensors(latents)]


@every_form
def test_take_and_join_are_inverse(latents: Any) -> None:
    parts = [lt.take(latents, slice(i, i + 1)) for i in range(6)]
    assert [lt.count(part) for part in parts] == [1] * 6
    again = lt.join(parts)
    assert isinstance(again, dict) == isinstance(latents, dict)
    for one, two in zip(tensors(again), tensors(latents), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(tensors(lt.join(parts[::-1]))[0], Z)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_take_by_indices_repeats(index: list[int]) -> None:
    taken = lt.take({"z": Z, "y": Y}, torch.tensor(index))
    assert isinstance(taken, dict)
    assert taken["y"].tolist() == index
    assert torch.equal(taken["z"], torch.stack([Z[i] for i in index]))


@every_form
def test_apply_keeps_the_form(latents: Any) -> None:
    doubled = lt.apply(latents, lambda value: value * 2)
    assert torch.equal(tensors(doubled)[0], 2 * Z)
    assert [label for label, _ in lt.named_tensors(doubled)] == [label for label, _ in lt.named_tensors(latents)]


def test_names_for_errors() -> None:
    assert [label for label, _ in lt.named_tensors((Z, Y))] == ["latents[0]", "latents[1]"]
    assert [label for label, _ in lt.named_tensors({"z": Z, "y": Y})] == ["latents['z']", "latents['y']"]


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ("text", "latents are a str; give a tensor, a tuple of tensors or a dict of tensors"),
        (None, "latents are a NoneType"),
        ((), "it hold no tensor; give at least one"),
        ({}, "it hold no tensor"),
        ((Z, 0.5), r"latents\[1\] of it is a float; make it a tensor .* torch\.full\(\(8,\), 0\.5\)"),
        ({"z": Z, "truncation": torch.tensor(0.5)}, r"latents\['truncation'\] of it has no sample dimension"),
        ((Z, Y[:5]), r"latents\[0\] of it holds 6 samples and latents\[1\] 5; give every tensor the same"),
        (Z[:0], "it hold 0 samples; give at least one"),
    ],
)
def test_refusals(latents: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        lt.count(latents, "it")


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_weights_of_other_layouts_have_a_fingerprint(layout: torch.layout) -> None:
    """Buffers of modules may be sparse; a large one is never made dense."""
    dense = torch.eye(3)
    one = lt.fingerprint(dense.to_sparse(layout=layout))
    assert one == lt.fingerprint(dense.clone().to_sparse(layout=layout))
    assert one != lt.fingerprint((2 * dense).to_sparse(layout=layout))
    assert one != lt.fingerprint(dense)
    large = torch.sparse_coo_tensor([[0], [1]], [1.0], (10**6, 10**6))
    assert lt.fingerprint(large) != lt.fingerprint(torch.sparse_coo_tensor([[0], [1]], [1.0], (10**6, 10**5)))
