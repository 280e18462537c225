"""New codes of autoencoders: hybrids, draws from the prior, traversals, chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe import autoencoders as ae


def stored(n: int = 40, d: int = 6) -> Tensor:
    """Every value tells the row and the dimension that it is from."""
    return torch.arange(n)[:, None] * 100.0 + torch.arange(d)


def rows_of(new: Tensor) -> Tensor:
    assert torch.equal(new % 100, torch.arange(new.shape[1]).expand_as(new) * 1.0)
    return (new // 100).long()


def test_dimensions_come_from_rows_of_their_own() -> None:
    rows = rows_of(ae.hybrid_sample(stored(), 4000, seed=1))
    counts = torch.stack([torch.bincount(column, minlength=40) for column in rows.T])
    assert counts.min() > 60  # uniform: 100 each
    assert counts.max() < 150
    together = (rows[:, :1] == rows[:, 1:]).double().mean(0)
    assert (together - 1 / 40).abs().max() < 0.01  # independent
    assert torch.equal(ae.hybrid_sample(stored(), 4000, seed=1) // 100, rows)
    assert not torch.equal(ae.hybrid_sample(stored(), 4000, seed=2) // 100, rows)


@pytest.mark.parametrize("groups", [3, [[0, 1], [2, 3], [4, 5]], [[5, 0], [1, 2, 3, 4]]])
def test_groups_stay_together(groups: Any) -> None:
    rows = rows_of(ae.hybrid_sample(stored(), 300, groups=groups))
    members = [[0, 1], [2, 3], [4, 5]] if groups == 3 else groups
    for group in members:
        assert (rows[:, group] == rows[:, group[:1]]).all()
    assert (rows[:, members[0][0]] != rows[:, members[1][0]]).double().mean() > 0.9


def test_the_prior_is_standard_normal() -> None:
    drawn = ae.prior_sample(4000, 3, seed=5)
    assert drawn.mean(0).abs().max() < 0.06
    assert (drawn.std(0) - 1).abs().max() < 0.06
    assert torch.equal(ae.prior_sample(4000, 3, seed=5), drawn)


def test_a_traversal_moves_one_dimension_through_its_range() -> None:
    base = torch.full((6,), -7.0)
    made = ae.traversal_codes(base, stored(), steps=5, share=1.0)
    assert made.shape == (6, 5, 6)
    for i in range(6):
        others = [j for j in range(6) if j != i]
        assert (made[i][:, others] == -7).all()
        assert made[i, :, i].tolist() == pytest.approx([i + value for value in (0, 975, 1950, 2925, 3900)])
    assert ae.traversal_codes(base, stored(), share=0.5)[0, 0, 0] == pytest.approx(975)


def test_chunks_vary_one_at_a_time() -> None:
    base = torch.full((1, 6), -7.0)
    made = ae.chunk_codes(base, stored().numpy(), n=50, chunks=3, seed=1)
    assert made.shape == (3, 50, 6)
    for chunk in range(3):
        own = [2 * chunk, 2 * chunk + 1]
        assert (made[chunk][:, [j for j in range(6) if j not in own]] == -7).all()
        assert (made[chunk][:, own] >= 0).all()
        rows = made[chunk][:, own] // 100
        assert (rows[:, 0] != rows[:, 1]).double().mean() > 0.9
    assert not torch.equal(made[0, :, 0] // 100, made[1, :, 2] // 100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ae.hybrid_sample(stored(), 2, groups=4),
            r"codes of 6 dimensions cannot be split evenly into 4 groups",
        ),
        (
            lambda: ae.hybrid_sample(stored(), 2, groups=[[0, 6]]),
            r"group 0 has dimension 6, which is not in codes of 6 dimensions",
        ),
        (lambda: ae.hybrid_sample(stored(), 2, groups=[[0], [0]]), r"group 1 has dimension 0, .* or is listed twice"),
        (lambda: ae.hybrid_sample(stored(), 2, groups=[[0, 2]]), r"no group has dimensions \[1, 3, 4, 5\]"),
        (
            lambda: ae.hybrid_sample(stored()[0], 2),
            r"the codes are torch\.float32 \(6,\); give floats \(N, d\)",
        ),
        (lambda: ae.hybrid_sample(stored()[:0], 2), r"the codes are torch\.float32 \(0, 6\)"),
        (lambda: ae.hybrid_sample([[1.0]], 2), r"the codes are a list"),  # type: ignore[arg-type]
        (lambda: ae.hybrid_sample(np.ones((3, 4), int), 2), r"the codes are int64 \(3, 4\); give floats"),
        (lambda: ae.hybrid_sample(stored() / 0, 2), r"the codes hold (nan|inf|-inf) in row 0, column 0; give finite"),
        (lambda: ae.hybrid_sample(stored(), 2, groups=[0, 1, 2]), r"group 0 is 0; give the dimensions of each, such"),  # type: ignore[list-item]
        (lambda: ae.hybrid_sample(stored(), 2, groups=["ab"]), r"group 0 is 'ab'; give the dimensions"),  # type: ignore[list-item]
        (lambda: ae.traversal_codes(None, stored()), r"base is a NoneType and the codes are \(40, 6\)"),  # type: ignore[arg-type]
        (lambda: ae.traversal_codes(stored()[0], stored(), share="x"), r"share is 'x'; give a number"),  # type: ignore[arg-type]
        (lambda: ae.hybrid_sample(stored(), 0), r"n is 0; give an integer of at least 1"),
        (
            lambda: ae.traversal_codes(stored()[:2], stored()),
            r"base is torch\.float32 \(2, 6\) and the codes are \(40, 6\); give one code",
        ),
        (
            lambda: ae.traversal_codes(stored()[0], stored(), share=2.0),
            r"share is 2\.0; give a number above 0, up to 1",
        ),
    ],
)
def test_codes_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        call()
