"""Score classifiers on hybrids of two classes, by layer and module (S003 §4.2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError, visible, whole
from ..base.progress import progress_bar
from ..classifiers import Classifier, SuspiciousClassifier, load_classifier, self_check
from ..engine import Pairs, Stream, Swap
from ..engine.pairs import given_pairs
from ..engine.stream import Effect
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..generator.latents import Latents
from ..generator.units import parse_layers
from .grid import class_numbers, module_grid, two_classes
from .result import Robustness
from .tally import Row, Tally


class RobustnessProbe:
    """Asks classifiers what they see in hybrids between two classes of a generator.

    >>> probe = cp.RobustnessProbe(gen, ["resnetv2_50", "efficientnet-lite0"])  # doctest: +SKIP
    >>> z1, z2 = gen.sample(64, classes="koala"), gen.sample(64, stream=1, classes="teddy")  # doctest: +SKIP
    >>> units = {"main.8": {"texture": [3, 17], "shape": [40]}}
    >>> print(probe.score(z1, z2, units_by_layer=units, classes=("koala", "teddy")))  # doctest: +SKIP

    Args:
        generator: from :func:`wrap` or :func:`load`.
        classifiers: of :class:`Classifier`, or names for :func:`load_classifier`. One with ImageNet's classes is shown
            a photograph first, with a warning if it does not know it.
    """

    def __init__(self, generator: GeneratorAdapter, classifiers: Classifier | str | Sequence[Classifier | str]) -> None:
        parse_layers(generator, list(getattr(generator, "layers", [])) or ["none"])
        self.generator = generator
        require_pictures(generator.image_size, "RobustnessProbe")
        given = [classifiers] if isinstance(classifiers, (Classifier, str)) else list(classifiers)
        if not given:
            raise ProbeError("no classifier is given; give a list of cp.Classifier or of names")
        self.classifiers = tuple(_open_classifier(item) for item in given)
        names = [classifier.name for classifier in self.classifiers]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ProbeError(f"two classifiers are named {twice!r}; give each a name of its own (name=)")
        for classifier in self.classifiers:
            check = self_check(classifier, warn=False)
            if check is not None and check.problem:
                warnings.warn(f"classifier {classifier.name!r} {check.problem}", SuspiciousClassifier, stacklevel=2)

    def __repr__(self) -> str:
        names = ", ".join(item.name for item in self.classifiers)
        return visible(f"RobustnessProbe({self.generator.name!r}, {names})")

    def score(
        self,
        z1: Latents,
        z2: Latents,
        *,
        units_by_layer: Mapping[str, Any],
        classes: Sequence[Any],
        class_map: Mapping[Any, Any] | None = None,
        seed: int = 0,
        shown: int = 6,
        hybrids_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Robustness:
        """What each classifier predicts for the hybrids of each module, and how far these are from their originals.

        Hybrids are scored as they are made; none is stored, except a few to be shown.

        Args:
            z1, z2: base latents of the first class and source latents of the second, in pairs.
            units_by_layer: {layer: {module: units}}, from early to late; units are channels of the layer, or a mapping
                over several layers, under any name. In a list of unit sets, modules are named 1, 2 and so on.
            classes: the generator's classes of the bases and of the sources.
            class_map: {generator's class: what the classifiers call it}, one or several, by name or number; under a
                classifier's name another such map, for that classifier alone. By default the names are the same.
            seed: of noise inside the forward, if any.
            shown: how many of the hybrids that classifiers disagree about most are kept.
            hybrids_per_eval: hybrids in one forward; by default from shapes and a memory limit.

        Raises:
            ProbeError: unknown layer, channel or class; a class that the map lacks; NaN images or logits.
        """
        grid = module_grid(self.generator, units_by_layer)
        both = two_classes(classes)
        numbers = class_numbers(self.classifiers, both, class_map)
        pairs = given_pairs(self.generator, z1, z2)
        seed, shown = whole(seed, "the seed", 0), whole(shown, "shown", 0)
        tally = Tally(self.classifiers, numbers, grid, pairs.n, image_range=self.generator.image_range, shown=shown)
        with self.generator.unchanged(), ExitStack() as stack:
            stack.callback(tally.close)
            stack.enter_context(self.generator.session())
            for classifier in self.classifiers:
                stack.enter_context(classifier.session())
            stream = Stream(self.generator, Swap(list(grid.sets)), pairs, seed=seed, hybrids_per_eval=hybrids_per_eval)
            self._run(stream, tally, show_progress)
            pooled = tally.finish()
            about = self._provenance(stream, both, tally, pooled) | {"seed": seed}
        return _result(tally, both, require_pictures(self.generator.image_size, "RobustnessProbe"), about)

    def require(self, classes: Sequence[Any], class_map: Mapping[Any, Any] | None = None) -> None:
        """Raise a ProbeError if a classifier lacks a class, before anything long is run.

        >>> probe.require(("koala", "teddy"))  # doctest: +SKIP
        """
        class_numbers(self.classifiers, two_classes(classes), class_map)

    def _run(self, stream: Stream, tally: Tally, show_progress: bool) -> None:
        sources = _SourceImages(self.generator, stream)
        total, scored = stream.pairs.n * len(tally.grid.sets), np.zeros(stream.pairs.n, np.bool_)
        with progress_bar(total, "robustness", "hybrid", show_progress) as bar:
            for effect in stream.run():
                source = sources.image(effect.pair)
                if not scored[effect.pair]:
                    scored[effect.pair] = True
                    tally.add(Row(effect.original, effect.pair, None, effect.original, source))
                    tally.add(Row(source, effect.pair, None, effect.original, source))
                for row in _rows(effect, source):
                    tally.add(row)
                self._measure(effect, source, tally)
                bar.update(len(effect.sets))

    def _measure(self, effect: Effect, source: Tensor, tally: Tally) -> None:
        """Write the mean |hybrid − original| for both originals (conventions 23)."""
        to_base = effect.of_sets(_distance(effect.hybrids, effect.original))
        # A set that changes nothing leaves the base.
        to_source = torch.full_like(to_base, float(_distance(effect.original[None], source)[0]))
        changed = [effect.sets.index(chosen) for chosen in effect.changed]
        to_source[changed] = _distance(effect.hybrids, source)
        values = torch.stack([to_base, to_source], 1).float().cpu().numpy()
        for chosen, value in zip(effect.sets, values, strict=True):
            tally.arrays.distances[(*tally.grid.places[chosen], effect.pair)] = value

    def _provenance(
        self, stream: Stream, classes: tuple[Any, Any], tally: Tally, pooled: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        described = []
        predicted = [np.unique(answers[answers >= 0]).tolist() for answers in tally.arrays.answers]
        for classifier, both, pool, answered in zip(self.classifiers, tally.numbers, pooled, predicted, strict=True):
            counted = {str(name): _names_of_classes(classifier, side) for name, side in zip(classes, both, strict=True)}
            described.append(
                classifier.provenance()
                | {
                    "counts_as": counted,
                    "pooled": _names_of_classes(classifier, pool),
                    "answered": _names_of_classes(classifier, answered),
                }
            )
        return self.generator.provenance() | {
            "classifiers": described,
            "layers": sorted({layer for units in stream.intervention.sets for layer in units}),
            "n_pairs": stream.pairs.n,
            "hybrids_per_eval": stream.hybrids_per_eval,
            "executor": str(stream.executor.choice),
        }


class _SourceImages:
    """Images of the sources, a window of pairs at a time: the stream visits a block once for each set of layers."""

    def __init__(self, generator: GeneratorAdapter, stream: Stream) -> None:
        self.generator, self.stream = generator, stream
        self.start, self.images = 0, torch.empty(0)

    def image(self, pair: int) -> Tensor:
        if not self.start <= pair < self.start + len(self.images):
            stop = min(self.stream.pairs.n, pair + self.stream.hybrids_per_eval)
            self.start, self.images = pair, torch.cat(list(self._parts(pair, stop)))
        return self.images[pair - self.start]

    def _parts(self, start: int, stop: int) -> Iterator[Tensor]:
        pairs: Pairs = self.stream.pairs
        if pairs.source is None:
            raise ProbeError("there are no source latents; give z2")
        latents, numbers = pairs.source(start, stop), range(start, stop)
        return self.generator.batches(
            stop - start,
            lambda index: self.generator.forward(lt.take(latents, index), noise=numbers[index], seed=self.stream.seed),
        )


def _names_of_classes(classifier: Classifier, numbers: Sequence[int]) -> dict[str, str]:
    return {str(number): classifier.class_name(number) for number in numbers}


def _open_classifier(item: Any) -> Classifier:
    if isinstance(item, Classifier):
        return item
    if isinstance(item, str):
        return load_classifier(item)
    raise ProbeError(
        f"a classifier is a {type(item).__name__}; give cp.Classifier(module, cp.Preprocessing((height, width))), or a "
        "name"
    )


def _rows(effect: Effect, source: Tensor) -> Iterator[Row]:
    """Every set's hybrid; a set that changes nothing gives the base."""
    hybrids = dict(zip(effect.changed, effect.hybrids, strict=True))
    for chosen in effect.sets:
        yield Row(hybrids.get(chosen, effect.original), effect.pair, chosen, effect.original, source)


def _distance(images: Tensor, original: Tensor) -> Tensor:
    return (images - original).abs_().flatten(1).mean(1)


def _result(
    tally: Tally, classes: tuple[Any, Any], image_size: tuple[int, int, int], about: dict[str, Any]
) -> Robustness:
    grid = tally.grid
    chosen = tally.sample.in_order()
    images = [images for _, _, images in chosen]
    return Robustness(
        **vars(tally.arrays),
        shown=torch.stack(images).clone() if images else torch.zeros(0, 3, *image_size),
        shown_at=np.array([[*grid.places[units], pair] for pair, units, _ in chosen], np.int64).reshape(-1, 3),
        classifiers=tuple(classifier.name for classifier in tally.classifiers),
        layers=grid.layers,
        modules=grid.modules,
        classes=(str(classes[0]), str(classes[1])),
        units=grid.sets,
        provenance=about,
    )
