"""Every method on every problem: rows of scores, or of what went wrong."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import ClusterMixin, clone
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits
from throughput import machine

from .decoders import LAYERS, TRAINED, Decoder
from .leaderboard import leaderboard
from .methods import Labels
from .problem import Group, Problem, Sample, sampled, timed
from .scores import between_samples, of_exchange, of_scene
from .toys import LAYER, MODEL_1, toy_generator, toy_names

_CONTINUUM = 3  # modules that are asked for where there are none
_PARTS = 3  # and in the scene: floor, wall and object


@dataclass(frozen=True)
class Settings:
    """How much is run.

    Attributes:
        toys: of each of the kinds.
        pairs: of latents, in each of the two samples.
        models: names of trained decoders; none for toys alone.
        steps: of their training.
        folder: where they are trained to, and found again.
        exchanged: toys of each kind whose modules are exchanged.
    """

    toys: int = 10
    kinds: tuple[str, ...] = toy_names()
    pairs: int = 64
    models: tuple[str, ...] = tuple(TRAINED)
    layers: tuple[str, ...] = LAYERS
    steps: int = 2000
    folder: Path = Path("out/modularity")
    exchanged: int = 2


SHORT = Settings(
    toys=1,
    kinds=(MODEL_1, "three modules", "at random on a line"),
    pairs=16,
    models=("sae",),
    layers=LAYERS[:1],
    steps=40,
    exchanged=1,
)


def measured(methods: Mapping[str, ClusterMixin], settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the rows say of each method, with the settings and the machine; and the rows."""
    with threadpool_limits(1):
        rows = run(methods, settings)
    about = {key: value for key, value in dataclasses.asdict(settings).items() if key != "folder"}
    return {"machine": machine(torch.device("cpu")), "settings": about, "leaderboard": leaderboard(rows)}, rows


def problems(settings: Settings) -> Iterator[Problem]:
    """Toys of every kind, then the layers of the decoders."""
    for name in settings.kinds:
        for seed in range(settings.toys):
            yield toy_problem(name, seed, settings.pairs)
    for name in settings.models:
        decoder = Decoder(name, settings.folder / f"{name}-{settings.steps}", steps=settings.steps)
        truth, codes = decoder.truth(settings.pairs), decoder.samples(settings.pairs)
        for layer in settings.layers:
            samples = [sampled(decoder.generator, layer, base, source) for base, source in codes]
            yield Problem(
                "decoder", name, layer, 0, _PARTS, decoder.generator, (samples[0], samples[1]), scene=truth
            )  # fmt: skip


def toy_problem(name: str, seed: int, pairs: int) -> Problem:
    generator, modules = toy_generator(name, seed)
    samples = []
    for draw in (0, 1):
        base, source = (generator.sample(pairs, seed=draw, stream=stream) for stream in (0, 1))
        samples.append(sampled(generator, LAYER, base, source))
    group: Group = "continuum" if modules is None else "planted"
    k = _CONTINUUM if modules is None else len(np.unique(modules))
    return Problem(group, name, LAYER, seed, k, generator, (samples[0], samples[1]), modules)


def run(methods: Mapping[str, ClusterMixin], settings: Settings) -> list[dict[str, Any]]:
    """A row for each method and problem; a method that fails is named in its row, and the others go on."""
    rows = []
    for problem in problems(settings):
        print(f"{problem.name}, {problem.layer}, {problem.seed} …", file=sys.stderr)
        rows += [scored(name, method, problem, settings) for name, method in methods.items()]
    return rows


def scored(name: str, method: ClusterMixin, problem: Problem, settings: Settings) -> dict[str, Any]:
    """All scores of a method's labels."""
    row: dict[str, Any] = {
        "method": name,
        "group": problem.group,
        "problem": problem.name,
        "layer": problem.layer,
        "seed": problem.seed,
        "n_modules": problem.n_modules,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return row | scores(method, problem, settings)
    except Exception as error:  # whatever the code of others raises
        return row | {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def scores(method: ClusterMixin, problem: Problem, settings: Settings) -> dict[str, Any]:
    fits = [fitted(method, sample, problem.n_modules, number) for number, sample in enumerate(problem.samples)]
    (first, labels, seconds), (_, other, more) = fits
    found: dict[str, Any] = {
        "seconds": (seconds + more) / 2,
        "input_seconds": problem.samples[0].seconds_of(sees(method)),
        "sizes": np.bincount(labels[labels >= 0], minlength=problem.n_modules).tolist(),
        **between_samples(problem.samples, (labels, other)),
    }
    if problem.modules is not None:
        found["truth"] = float(adjusted_rand_score(problem.modules, labels))
    for entry, attribute in (("expected_ari", "expected_ari_"), ("apart", "apart_")):
        if hasattr(first, attribute):
            found[entry] = getattr(first, attribute)
    found |= of_scene(problem, labels)
    if problem.group == "decoder" or (problem.group == "planted" and problem.seed < settings.exchanged):
        found |= of_exchange(problem, labels, settings.pairs)
    return found


def fitted(method: ClusterMixin, sample: Sample, k: int, seed: int) -> tuple[ClusterMixin, Labels, float]:
    """A copy of the method that was fitted, its labels (channels,) from 0, −1 for no module, and CPU-seconds."""
    own = clone(method)
    known = own.get_params()
    own.set_params(**{key: value for key, value in (("n_clusters", k), ("random_state", seed)) if key in known})
    given = sample.view(sees(method))
    labels, seconds = timed(lambda: np.asarray(own.fit_predict(given)))
    channels = len(sample.influence)
    if labels.shape != (channels,):
        raise ValueError(f"labels of shape {labels.shape} were given for {channels} channels")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}; they must be integers")
    if not (labels >= 0).any():
        raise ValueError("no channel is in a module")
    placed = labels >= 0
    numbered = np.full(channels, -1, dtype=np.int64)
    numbered[placed] = np.unique(labels[placed], return_inverse=True)[1]
    return own, numbered, seconds


def sees(method: ClusterMixin) -> Any:
    return getattr(method, "sees", "maps")
