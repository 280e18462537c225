"""Errors of stretched layers over trainings, without and with independence: figures, a table and findings.

This is the second half of ``spectral_training.py``: what it makes of its evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from counterfactual_probe import Invariance
from counterfactual_probe.base.drawing import PALETTE, plot_images

Floats: TypeAlias = npt.NDArray[np.float64]

FINEST = 2  # Haar scales that are not among S000's coarser ones
SURE = 0.95


@dataclass(frozen=True)
class Look:
    """An evaluation of a decoder after ``step`` steps.

    Attributes:
        stretch: the result of stretching one layer.
        ratios: by layer, the ratios of its maps and the filters that read them (S000 eq. 8), as a flat array.
        reconstruction: squared error of the training's last steps.
    """

    step: int
    stretch: Invariance
    ratios: Mapping[str, Floats]
    reconstruction: float

    @property
    def deviation(self) -> float:
        """√⟨(ρ − 1)²⟩ over the ratios of all layers: the distance from independence."""
        return float(np.sqrt(np.mean((np.concatenate(list(self.ratios.values())) - 1) ** 2)))

    @property
    def error(self) -> float:
        return float(self.stretch.mse)


@dataclass(frozen=True)
class Course:
    """The evaluations of one training."""

    seed: int
    looks: list[Look]

    @property
    def steps(self) -> list[int]:
        return [look.step for look in self.looks]

    def values(self, of: Callable[[Look], Any]) -> Floats:
        """(evaluations, …) the value of ``of`` at each evaluation."""
        return np.array([of(look) for look in self.looks], np.float64)


Courses: TypeAlias = Mapping[str, Sequence[Course]]


def scales(look: Look) -> Floats:
    """The error of each Haar scale, from coarse to fine."""
    found: Floats = look.stretch.mse_per_scale.numpy()
    return found


def _scale(number: int) -> Callable[[Look], float]:
    return lambda look: float(scales(look)[number])


# --- figures and table ------------------------------------------------------------------------------


def over_training(courses: Courses) -> Any:
    """S000 Fig. 4: errors by scale for each kind of training, and in total; ratios, and reconstruction errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 3)
    (first, *_), *_ = courses.values()
    stretch = first.looks[0].stretch
    names = [f"{pixels} px" for pixels in stretch.scales.pixels]
    names[0] += " means"
    for ax, (name, found) in zip(axes[0], courses.items(), strict=False):
        for i, label in enumerate(names):
            _banded(ax, found, _scale(i), PALETTE[i], label)
        ax.set_title(f"{name} independence", fontsize="medium")
        ax.set_yscale("log")
    axes[0, 1].sharey(axes[0, 0])
    panels: list[tuple[Any, str, Callable[[Look], float]]] = [
        (axes[0, 2], "all scales", lambda look: look.error),
        (axes[1, 0], "all scales, relative", lambda look: float(look.stretch.relative_mse)),
        (axes[1, 1], "ratios: root mean square of ρ − 1", lambda look: look.deviation),
        (axes[1, 2], "squared error of reconstructions", lambda look: look.reconstruction),
    ]
    for ax, title, of in panels:
        for (name, found), colour in zip(courses.items(), PALETTE, strict=False):
            _banded(ax, found, of, colour, name)
        ax.set_title(title, fontsize="medium")
    for ax in axes.flat:
        ax.set_xscale("log")
    for ax in axes[1]:
        ax.set_xlabel("training step")
    axes[0, 0].set_ylabel(f"MSE, {stretch.layer} stretched")
    axes[1, 0].set_ylim(bottom=0)
    axes[0, 2].legend(frameon=False, fontsize="small", title="independence")
    # The legend is outside the axes, where no lines are.
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, title="scale")
    return figure


def _banded(ax: Any, courses: Sequence[Course], of: Callable[[Look], Any], colour: str, label: str) -> None:
    """The mean over seeds, and the range from the smallest to the largest."""
    values = np.stack([course.values(of) for course in courses])
    ax.plot(courses[0].steps, values.mean(0), color=colour, label=label, marker=".")
    if len(courses) > 1:
        ax.fill_between(courses[0].steps, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)


def pictures(courses: Courses, shown: int) -> Any:
    """S000 Fig. 3, last evaluation of the first seed: images, images of the stretched layer, stretched images."""
    rows, labels = [], []
    for name, (course, *_) in courses.items():
        stretch = course.looks[-1].stretch
        for images, label in (
            (stretch.base, "image"),
            (stretch.images, f"{stretch.layer}\nstretched"),
            (stretch.transformed, "image\nstretched"),
        ):
            rows.append(images[:shown].numpy())
            labels.append(f"{name}: {label}")
    low, high = stretch.provenance["image_range"]
    return plot_images(np.stack(rows), labels, (low, high))[0]


def rows(courses: Courses) -> list[dict[str, Any]]:
    """A row of numbers for each evaluation."""
    listed = []
    for name, found in courses.items():
        for course in found:
            for look in course.looks:
                row: dict[str, Any] = {"independence": name, "seed": course.seed, "step": look.step}
                row |= {"layer": look.stretch.layer, "mse": look.error, "mse_error": float(look.stretch.standard_error)}
                row["relative_mse"] = float(look.stretch.relative_mse)
                row |= {f"mse_scale_{i}": float(value) for i, value in enumerate(scales(look), 1)}
                row |= {f"ratio_{layer}": float(values.mean()) for layer, values in look.ratios.items()}
                row |= {"ratio_deviation": look.deviation, "reconstruction": look.reconstruction}
                listed.append(row)
    return listed


# --- findings ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A difference, measured once per seed, and whether it supports the claim that it is positive."""

    values: Floats

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def half(self) -> float:
        """Half the width of the 95 % confidence interval of the mean (Student's t); infinite for one seed."""
        from scipy.stats import t

        n = len(self.values)
        if n < 2:
            return float("inf")
        return float(t.ppf((1 + SURE) / 2, n - 1) * self.values.std(ddof=1) / np.sqrt(n))

    @property
    def told(self) -> str:
        if abs(self.mean) <= self.half:
            seeds = "one seed" if len(self.values) == 1 else f"{len(self.values)} seeds differ by as much"
            return f"is undecided here ({seeds})"
        return "holds here" if self.mean > 0 else "does not hold here"


def turn(courses: Sequence[Course]) -> int:
    """The number of the evaluation at which the mean error over seeds is smallest."""
    return int(np.mean([course.values(lambda look: look.error) for course in courses], 0).argmin())


def onset(course: Course) -> int:
    """The step at which a training's error is smallest, after which it rises."""
    return course.steps[int(course.values(lambda look: look.error).argmin())]


def rises(courses: Sequence[Course]) -> Floats:
    """(seeds, scales) the growth of the errors from ``turn`` to the end."""
    at = turn(courses)
    found = [course.values(scales) for course in courses]
    return np.stack([values[-1] - values[at] for values in found])


def findings(courses: Courses) -> list[str]:
    """S000's claims of §5.1.2 and 5.2, and whether the differences are significant over seeds."""
    plain, trained = courses["without"], courses["with"]
    return [*_growth(plain), *_delay(plain, trained), *_end(plain, trained)]


def _growth(plain: Sequence[Course]) -> list[str]:
    whole, last = Difference(rises(plain).sum(1)), plain[0].looks[-1]
    start = plain[0].steps[turn(plain)]
    if start == last.step:
        return [
            "“This difference clearly grows as the training progresses” does not hold here. Without independence the "
            f"error is smallest at the end, after {last.step} steps.",
            "“Mostly due to a progressive rise of the distance in coarser scales” cannot be tested here.",
        ]
    return [
        f"“This difference clearly grows as the training progresses” {whole.told}. Without independence the error of "
        f"{last.stretch.layer}, stretched, is smallest after {start} of {last.step} steps and {_shown(whole)} larger "
        f"at the end; {_relatively(plain)}.",
        _where(plain),
    ]


def _where(plain: Sequence[Course]) -> str:
    """The scales in which errors grow."""
    least = np.mean([course.values(scales)[turn(plain)] for course in plain], 0)
    grown, parts = rises(plain), (slice(None, -FINEST), slice(-FINEST, None))
    coarse, fine = (grown[:, part].sum(1) for part in parts)
    shares = [f"{grown[:, part].sum(1).mean() / least[part].sum():.0%}" for part in parts]
    return (
        f"“Mostly due to a progressive rise of the distance in coarser scales” {Difference(coarse - fine).told}. Of "
        f"that growth {coarse.mean():.3g} is in all scales but the {FINEST} finest, and {fine.mean():.3g} in these; "
        f"relative to their errors before, that is {shares[0]} and {shares[1]}."
    )


def _relatively(plain: Sequence[Course]) -> str:
    """The error relative to a layer that ignores the stretch: images with more content change more when stretched."""
    middle, end = (
        np.mean([course.values(lambda look: look.stretch.relative_mse)[at] for course in plain])
        for at in (turn(plain), -1)
    )
    return f"relative to a layer that ignores the stretch it goes from {middle:.3g} to {end:.3g}"


def _delay(plain: Sequence[Course], trained: Sequence[Course]) -> list[str]:
    starts = [[onset(course) for course in found] for found in (plain, trained)]
    last = plain[0].looks[-1].step
    never = [sum(start == last for start in found) for found in starts]
    later = Difference(np.log2(np.array(starts[1]) / np.array(starts[0]))).told
    seen = f"The error is smallest after {_listed(starts[0])} steps without and {_listed(starts[1])} with it, by seed"
    if any(never):
        seen += f"; in {sum(never)} of {2 * len(plain)} trainings that is the last evaluation, so no rise is seen"
    slower = Difference(rises(plain).sum(1) - rises(trained).sum(1)).told
    if sum(never) == 2 * len(plain):
        later = slower = "is undecided here (no error rises)"
    return [
        f"“A significant delay in the time at which the difference starts rising” {later}. {seen}.",
        f"“The increase, when it starts, seems slower” {slower}. From its smallest value to the end the error "
        f"grows by {rises(plain).sum(1).mean():.3g} without and {rises(trained).sum(1).mean():.3g} with it.",
    ]


def _end(plain: Sequence[Course], trained: Sequence[Course]) -> list[str]:
    def last(of: Callable[[Look], float]) -> tuple[Difference, str]:
        one, two = (np.array([of(course.looks[-1]) for course in found]) for found in (plain, trained))
        return Difference(one - two), f"{one.mean():.3g} without and {two.mean():.3g} with it"

    step = plain[0].looks[-1].step
    better, errors = last(lambda look: look.error)
    relative, shares = last(lambda look: float(look.stretch.relative_mse))
    nearer, deviations = last(lambda look: look.deviation)
    costs, squares = last(lambda look: look.reconstruction)
    free = Difference(-costs.values)
    return [
        f"“A better modularity” for the same number of steps {better.told}. After {step} the error is {errors}.",
        f"The same claim, relative to a layer that ignores the stretch, {relative.told}: {shares}.",
        f"That ratios are closer to 1 with it {nearer.told}. The root mean square of ρ − 1 is {deviations}.",
        f"That reconstructions are worse with it {free.told}. Their squared error is {squares}.",
    ]


def _shown(difference: Difference) -> str:
    return f"{difference.mean:.3g}" + (f" ± {difference.half:.2g}" if np.isfinite(difference.half) else "")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
