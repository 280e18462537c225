"""Large generators take memory by the batch alone, and what is said of many ranks is the formula that is printed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import Any

import pytest

from counterfactual_probe.influence import estimate as estimation
from support.paths import benchmark

large, scaling = benchmark("large"), benchmark("scaling")


def test_working_memory_of_a_large_generator_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = large.stylegan2(32, 32)
    peak = partial(large.peak, gen, "blocks.1.second", sampled={})
    first = peak(pairs=2, units=6)["bytes"]
    few, pairs, units = (peak(pairs=a, units=b) for a, b in ((2, 6), (6, 6), (2, 18)))
    assert few["executor"] == "prepared"
    assert few["bytes"] < first  # which records the program
    for more in (pairs, units):
        assert more["bytes"] == pytest.approx(few["bytes"], rel=0.01)
    assert few["bytes"] < large.BOUND * large.largest_activation(gen, {})

    # The measure sees what is kept.
    run, kept = estimation.Stream.run, []

    def keeping(stream: estimation.Stream, *span: int) -> Iterator[Any]:
        for effect in run(stream, *span):
            kept.append(effect.hybrids.clone())
            yield effect

    monkeypatch.setattr(estimation.Stream, "run", keeping)
    assert peak(pairs=6, units=6)["bytes"] > 1.1 * few["bytes"]


def test_memory_that_grows_is_named() -> None:
    same = {"bytes": 100}
    memory = dict.fromkeys(("few", "more pairs", "more units"), same)
    chains = {f"steps, {n}": {"first": same, "late": same} for n in (5, 10)}
    assert large.growing({"memory, a": memory, **chains}) == []
    assert large.growing({"memory, a": memory | {"more units": {"bytes": 106}}}) == ["memory, a"]
    chains["steps, 10"] = {"first": same, "late": {"bytes": 106}}
    assert large.growing(chains) == ["chains at the late call"]


def test_slopes_of_powers() -> None:
    points = [(float(x), 3 * x**1.5) for x in (1, 2, 5, 9)]
    assert large.slope(points) == (pytest.approx(1.5), pytest.approx(0, abs=1e-7))
    assert scaling.slope(*map(list, zip(*points, strict=True))) == pytest.approx(1.5)


@pytest.mark.parametrize("ranks", [1, 2, 7, 64])
def test_the_prediction_is_the_formula_of_the_page(ranks: int) -> None:
    of = {"start": 2.0, "hybrid": 1e-3, "clean": 1e-2, "byte": 1e-9, "saved byte": 2e-9}
    size = 960 * 64 * 64 * 2 * 4
    busiest = max(len(range(rank, 960, ranks)) for rank in range(ranks))  # as sets are dealt
    assert busiest == ceil(960 / ranks)
    expected = 2 + 10 * (1e-2 + busiest * 1e-3) + size * (1 - 1 / ranks) * 1e-9 + size * 2e-9
    assert scaling.predicted(of, ranks, 10) == pytest.approx(expected)


def test_parts_are_recovered_from_calls_that_the_formula_makes() -> None:
    hybrid, clean = 2e-3, 3e-2
    alone = {
        "pairs": 4,
        "units": 960,
        "start": 2.5,
        "call": 4 * (clean + 960 * hybrid),
        "few units": [67, 4 * (clean + 67 * hybrid)],
        "exchange": [1000, 9.0],
        "save": [100, 1.0],
    }
    two = {"exchange": [1000, 0.5]}
    of = scaling.parts({"rows": {"strong": {"told": {"1": [alone] * 3, "2": [two] * 3}}}})
    expected = {"start": 2.5, "hybrid": hybrid, "clean": clean, "byte": 1e-3, "saved byte": 1e-2}
    assert of == pytest.approx(expected)
