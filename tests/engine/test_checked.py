"""Choosing an executor is safe: whatever goes wrong, hybrids are those of full forwards, and the reason is recorded."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.engine import Checked, Prepared, Rejection, Replay, Strategy, executor_for
from counterfactual_probe.engine.executors import Choice
from counterfactual_probe.engine.interception import NotReplayable
from counterfactual_probe.generator.examination import LatentsIgnored
from counterfactual_probe.generator.units import parse_layers, parse_units
from support.programs import build, conv

N = 3  # pairs: with eight channels, 24 hybrids, of which a handful would be run as full forwards
ERRORS = [
    ValueError("too many values"),
    TypeError("unhashable type"),
    NotImplementedError("'__eq__' is not implemented"),
    KeyError("a name"),
    AssertionError(),
    RecursionError("too deep"),
    NotReplayable("it cannot be"),
    cp.ProbeError("a sentence of ours"),
]


ALONE = "one sample at a time: the samples of a batch influence one another"


def generator() -> cp.GeneratorAdapter:
    return build(lambda m, x: m.conv(x), conv=conv())


def run(gen: cp.GeneratorAdapter, hybrids_per_eval: int | None = None) -> cp.Hybrids:
    """Hybrids of every channel alone."""
    z1, z2, units = gen.sample(N, seed=0), gen.sample(N, seed=1), [[c] for c in range(8)]
    return cp.Hybridizer(gen, "act").hybridize(z1, z2, units=units, hybrids_per_eval=hybrids_per_eval)


def by_full_forwards(gen: cp.GeneratorAdapter) -> Tensor:
    """The same, a handful at a time."""
    z1, z2 = gen.sample(N, seed=0), gen.sample(N, seed=1)
    found = [cp.Hybridizer(gen, "act").hybridize(z1, z2, units=[[c]]) for c in range(8)]
    assert {hybrids.provenance["executor"] for hybrids in found} == {"full forward"}
    return torch.cat([hybrids.images for hybrids in found])


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("where", ["__init__", "clean", "intervened"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_of_a_fast_executor_falls_back_and_is_recorded(
    error: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = generator()
    expected = by_full_forwards(gen)
    monkeypatch.setattr(Prepared, where, failing(error))
    found = run(gen)
    rejected = "not prepared" if where == "__init__" else "prepared disagreed"
    assert found.provenance["executor"].startswith(f"replay ({rejected}: ")
    assert " ".join(str(error).split()) in found.provenance["executor"]
    torch.testing.assert_close(found.images, expected, rtol=0, atol=1e-10)
    monkeypatch.setattr(Replay, where, failing(error))
    found = run(gen, hybrids_per_eval=1)  # a block for each pair: what fails in one is not used in the next
    rejected += ": .*; " + rejected.replace("prepared", "replayed" if where == "__init__" else "replay")
    assert re.match(rf"full forward \({rejected}: ", found.provenance["executor"])
    torch.testing.assert_close(found.images, expected, rtol=0, atol=1e-10)


def test_memory_that_runs_out_in_a_trial_run_is_no_end() -> None:
    gen = generator()
    candidates = {Strategy.PREPARED: failing(torch.OutOfMemoryError("Tried to allocate 123 bytes"))}
    assert str(Checked(gen, candidates).choice) == "full forward (not prepared: memory ran out)"


def wrong_by(amount: float) -> Callable[[Any], Any]:
    return lambda images: images + amount


def not_finite(images: Tensor) -> Tensor:
    images = images.clone()
    images[-1, 0, 0, 0] = float("inf")
    return images


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "other images": (wrong_by(0.01), "a difference of 0.01"),
    "no numbers": (wrong_by(float("nan")), "an image is not finite"),
    "no number at one pixel": (not_finite, "an image is not finite"),
    "one image for all": (lambda images: images[:1], "images of shape (1, 3, 4, 4)"),
    "smaller images": (lambda images: images[..., :2], "images of shape"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("fast", [Prepared, Replay])
def test_wrong_images_are_found_out(name: str, fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    change, problem = WRONG[name]
    gen = generator()
    expected = by_full_forwards(gen)
    right = fast.intervened
    monkeypatch.setattr(fast, "intervened", lambda self, base, runs: change(right(self, base, runs)))
    if fast is Replay:
        monkeypatch.setattr(Prepared, "__init__", failing(NotReplayable("not here")))
    found = run(gen)
    assert f"{'replay' if fast is Replay else 'prepared'} disagreed: {problem}" in found.provenance["executor"]
    torch.testing.assert_close(found.images, expected, rtol=0, atol=1e-10)


def test_images_that_go_wrong_in_a_later_batch_are_found_out_if_they_are_no_numbers() -> None:
    gen = generator()
    batches = 0

    def late(images: Tensor) -> Tensor:
        nonlocal batches
        batches += 1
        return images * (float("nan") if batches > 1 else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        right = Prepared.intervened
        patch.setattr(Prepared, "intervened", lambda self, base, runs: late(right(self, base, runs)))
        found = run(gen, hybrids_per_eval=8)
    assert batches > 1
    assert "prepared disagreed: an image is not finite" in found.provenance["executor"]
    torch.testing.assert_close(found.images, by_full_forwards(gen), rtol=0, atol=1e-10)


@pytest.mark.parametrize("where", ["__init__", "clean", "intervened"])
@pytest.mark.parametrize("fast", [Prepared, Replay])
def test_an_interrupt_is_no_reason_to_fall_back(fast: Any, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fast is Replay:
        monkeypatch.setattr(Prepared, "__init__", failing(NotReplayable("not here")))
    monkeypatch.setattr(fast, where, failing(cp.Interrupted("interrupted")))
    with pytest.raises(cp.Interrupted):
        run(generator())


@pytest.mark.parametrize("where", ["clean", "intervened"])
@pytest.mark.parametrize("stop", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_the_process_passes(where: str, stop: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prepared, where, failing(stop))
    with pytest.raises(type(stop)):
        run(generator())


def test_a_reason_is_the_same_in_every_run() -> None:
    reasons = []
    for _ in range(2):
        marker = object()
        failure = failing(ValueError(f"no room for {marker!r}\nand more"))
        reasons.append(str(Checked(generator(), {Strategy.PREPARED: failure}).choice))
    assert reasons[0] == reasons[1] == "full forward (not prepared: ValueError (no room for <object object> and more))"


def test_half_precision_noise_and_coupled_samples_say_why_they_are_not_prepared() -> None:
    half = generator()
    half = cp.wrap(half.module.to(torch.bfloat16), lambda n, rng: torch.randn(n, 5, generator=rng))
    reason = "parameters are torch.bfloat16, and are folded in float32 and float64 only"
    assert run(half).provenance["executor"] == f"replay (not prepared: {reason})"
    noisy = build(lambda m, x: m.conv(torch.bernoulli(x.sigmoid())), conv=conv())
    assert re.fullmatch(
        r"full forward \(not prepared: the forward draws noise with aten.bernoulli.default; "
        r"not replayed: noise is drawn in the order of the forward; one sample at a time: the forward draws noise\)",
        run(noisy).provenance["executor"],
    )
    with pytest.warns(LatentsIgnored):  # of one sample, whose mean it is
        coupled = build(lambda m, x: m.conv(x - x.mean(0)), conv=conv())
    assert run(coupled).provenance["executor"] == f"full forward ({ALONE})"


def test_a_choice_reads_as_the_results_record_it() -> None:
    assert str(Choice(Strategy.PREPARED)) == "prepared"
    rejected = Rejection(Strategy.PREPARED, "a difference of 0.5", disagreed=True)
    assert str(Choice(Strategy.REPLAY, (rejected,))) == "replay (prepared disagreed: a difference of 0.5)"
    both = (Rejection(Strategy.PREPARED, "one", disagreed=False), Rejection(Strategy.REPLAY, "two", disagreed=False))
    assert str(Choice(Strategy.FULL_FORWARD, both)) == "full forward (not prepared: one; not replayed: two)"


def test_a_failing_forward_still_says_so_in_its_own_words() -> None:
    """No executor can help: the error is the forward's."""

    def fails_on_one(m: Any, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            raise ValueError("no such latent")
        return m.conv(x)

    gen = build(fails_on_one, conv=conv())
    z1 = gen.sample(N, seed=0) * 1e12
    with pytest.raises(cp.ProbeError, match="raised ValueError: no such latent"):
        cp.Hybridizer(gen, "act").hybridize(z1, gen.sample(N, seed=1), units=[[c] for c in range(8)])


def test_every_executor_has_a_reason_when_it_is_not_the_fastest() -> None:
    gen = build(lambda m, x: m.conv(x) * (1.0 if x.isfinite().all().item() else 0.0), conv=conv())
    sets = parse_units(None, parse_layers(gen, "act"), gen)
    choice = executor_for(gen, sets).choice
    assert (choice.strategy, [rejection.strategy for rejection in choice.rejected]) == (
        Strategy.REPLAY,
        [Strategy.PREPARED],
    )
    assert "reads a value" in choice.rejected[0].reason
