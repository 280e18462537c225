"""Every method on every problem: rows of scores, or of what went wrong."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import ClusterMixin, clone
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits
from throughput import machine
from torch import Tensor

from .decoders import LAYERS, TRAINED, Decoder, Truth
from .leaderboard import leaderboard
from .methods import Labels
from .problem import Group, Problem, Sample, sampled, timed
from .scores import between_samples, in_place, of_exchange, of_scene
from .toys import LAYER, MODEL_1, toy_generator, toy_names

IN_PLACE = "every channel, in place"  # a reference for factors: what exchanges of places can reach
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


class Task(NamedTuple):
    """A problem that is made when a method meets it."""

    name: str
    layer: str
    seed: int
    make: Callable[[], Problem]


def tasks(settings: Settings) -> Iterator[Task]:
    """Toys of every kind, then the layers of the decoders."""
    for name in settings.kinds:
        for seed in range(settings.toys):
            yield Task(name, LAYER, seed, partial(toy_problem, name, seed, settings.pairs))
    for name in settings.models:
        for layer in settings.layers:
            yield Task(name, layer, 0, partial(decoder_problem, name, layer, settings))


def toy_problem(name: str, seed: int, pairs: int) -> Problem:
    generator, modules = toy_generator(name, seed)
    samples = []
    for draw in (0, 1):
        base, source = (generator.sample(pairs, seed=draw, stream=stream) for stream in (0, 1))
        samples.append(sampled(generator, LAYER, base, source))
    group: Group = "continuum" if modules is None else "planted"
    k = _CONTINUUM if modules is None else len(np.unique(modules))
    return Problem(group, name, LAYER, seed, k, generator, (samples[0], samples[1]), modules)


@lru_cache(maxsize=1)
def opened(name: str, settings: Settings) -> tuple[Decoder, Truth, list[tuple[Tensor, Tensor]]]:
    """A decoder, what is known of its images, and the codes of two samples."""
    decoder = Decoder(name, settings.folder / f"{name}-{settings.steps}", steps=settings.steps)
    return decoder, decoder.truth(settings.pairs), decoder.samples(settings.pairs)


def decoder_problem(name: str, layer: str, settings: Settings) -> Problem:
    decoder, truth, codes = opened(name, settings)
    first, second = (sampled(decoder.generator, layer, base, source) for base, source in codes)
    return Problem("decoder", name, layer, 0, _PARTS, decoder.generator, (first, second), scene=truth)


def measured(methods: Mapping[str, ClusterMixin], settings: Settings, kept: Path | None = None) -> dict[str, Any]:
    """What the rows say of each method, with the settings and the machine."""
    with threadpool_limits(1):
        rows = run(methods, settings, kept)
    about = {key: value for key, value in dataclasses.asdict(settings).items() if key != "folder"}
    return {"machine": machine(torch.device("cpu")), "settings": about, "leaderboard": leaderboard(rows)}


def run(methods: Mapping[str, ClusterMixin], settings: Settings, kept: Path | None = None) -> list[dict[str, Any]]:
    """A row for each method and problem; a method that fails is named in its row, and the others go on.

    Args:
        kept: a file of rows, as JSON, one in a line: those of the same settings are read, others measured and added.
            Failures are measured again.
    """
    found = {_key(row): row for row in _read(kept) if "failed" not in row}
    rows = []
    for task in tasks(settings):
        about = {"problem": task.name, "layer": task.layer, "seed": task.seed, "settings": _sizes(settings)}
        given: dict[str, ClusterMixin | None] = dict(methods)
        if task.name in settings.models:
            given[IN_PLACE] = None
        keys = {name: _key(about | {"method": name}) for name in given}
        missing = [name for name, key in keys.items() if key not in found]
        if missing:
            print(f"{task.name}, {task.layer}, {task.seed} …", file=sys.stderr)
            problem = task.make()
            for name in missing:
                found[keys[name]] = row = {"method": name} | about | scored(given[name], problem, settings)
                _add(kept, row)
        rows += [found[key] for key in keys.values()]
    return rows


def _sizes(settings: Settings) -> list[int]:
    """What scores depend on, other than the problem."""
    return [settings.pairs, settings.steps, settings.exchanged]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(row[name] for name in ("method", "problem", "layer", "seed")), *row["settings"])


def _read(kept: Path | None) -> list[dict[str, Any]]:
    if kept is None or not kept.exists():
        return []
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]


def _add(kept: Path | None, row: Mapping[str, Any]) -> None:
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def scored(method: ClusterMixin | None, problem: Problem, settings: Settings) -> dict[str, Any]:
    """All scores of a method's labels; without one, of every channel, exchanged in the parts' places."""
    row: dict[str, Any] = {"group": problem.group, "n_modules": problem.n_modules}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return row | (in_place(problem) if method is None else scores(method, problem, settings))
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
