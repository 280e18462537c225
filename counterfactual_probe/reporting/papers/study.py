"""The papers' study of a generator: what they compute, layer by layer, ready to be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...base.display.text import counted
from ...base.errors import ProbeError, whole
from ...generator import latents as lt
from ...generator.adapter import GeneratorAdapter
from ...generator.layers import LayerInfo
from ...generator.units import UnitSet
from ...hybrids.hybridizer import Hybridizer
from ...hybrids.result import Hybrids
from ...influence.influence_map import InfluenceMap
from ...influence.maps import InfluenceMaps
from ...modules.clustering import Method
from ...modules.confidence import BLOCKS, CONFIDENT
from ...modules.finder import ModuleFinder
from ...modules.matching import ModuleMatch, match_modules
from ...modules.quality import ModuleQuality
from ...modules.selection import Selection, compare_finders
from ...modules.stability import Stability, smallest_subset
from ..choice import study_layers

# Latents that are shown come from other streams than those that modules are found with.
SHOWN_BASE, SHOWN_SOURCE = 10, 11
METHODS: tuple[Method, ...] = ("nmf", "kmeans")
_FEWEST_BLOCKS = 8  # of pairs; resampling fewer says little
_CONTROLS = 8  # random sets for each module, whose mean is told


@dataclass(frozen=True)
class PapersSettings:
    """What a study depends on; two studies with the same settings give the same files."""

    n_pairs: int = 64
    n_modules: int = 3
    seed: int = 0
    counts: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    repetitions: int = 10
    shown: int = 8

    def require(self) -> None:
        """Raise a ProbeError for what no study can have."""
        whole(self.n_modules, "n_modules", 1)
        whole(self.seed, "the seed", 0)
        whole(self.repetitions, "repetitions", 0)
        if self.n_pairs < 2:
            raise ProbeError(
                f"{counted(self.n_pairs, 'pair')} asked for; a study needs at least 2, for a standard error"
            )

    @property
    def seeds(self) -> tuple[int, int]:
        """Seeds of the two independent samples of pairs."""
        return self.seed, self.seed + 1

    @property
    def blocks(self) -> int | None:
        """Into how many blocks pairs are divided, to measure confidence; None if there are too few pairs."""
        number = min(BLOCKS, self.n_pairs // 2)
        return number if number >= _FEWEST_BLOCKS else None


class ModuleInfluences(NamedTuple):
    """Of each module that has channels: their number, and its influence."""

    sizes: list[int]
    influence: Tensor


@dataclass(frozen=True)
class PapersLayer:
    """One layer: maps of two samples of latents, modules, how reproducible they are, and hybrids by each."""

    layer: LayerInfo
    maps: tuple[InfluenceMaps, InfluenceMaps]
    finders: tuple[ModuleFinder, ModuleFinder]
    stability: dict[Method, Stability]
    influence_by_count: dict[int, ModuleInfluences]  # K -> those of the K modules
    hybrids: Hybrids
    one_source: Hybrids
    mixed: Tensor  # (K, n, C, H, W): the control of one_source
    confident_hybrids: (
        Hybrids | None
    )  # by the confident channels alone; None if there are none, or confidence is unknown
    selection: Selection | None
    quality: ModuleQuality | None

    @property
    def finder(self) -> ModuleFinder:
        return self.finders[0]

    @property
    def modules(self) -> tuple[UnitSet, ...]:
        return self.finder.unit_sets()

    @property
    def expected_ari(self) -> float:
        """The expected ARI against another sample of latents, from this one alone; NaN if there are too few pairs."""
        return self.finder.expected_ari_ if self.selection is not None else float("nan")

    @property
    def most_in_subsets(self) -> int:
        """The largest number of modules that subsets of the channels can be grouped into."""
        return smallest_subset(int((self.finder.labels_ >= 0).sum()))

    @property
    def relative_errors(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """‖standard error‖₂ / ‖map‖₂ of every channel that acts at all."""
        maps = self.maps[0]
        return np.asarray(maps.relative_error[maps.maps.flatten(1).any(1)].double().numpy())

    @property
    def why_no_subsets(self) -> str | None:
        """Why subsets of the channels were not compared; None if they were."""
        if self.stability["nmf"].consistency.size:
            return None
        return "not enough channels" if self.finder.n_modules > self.most_in_subsets else "no repetitions"

    def at(self, quantity: str, k: int, method: Method = "nmf") -> float:
        """A stability measure for K modules: its mean over repetitions if there are any; NaN if it was not measured."""
        stability = self.stability[method]
        row = np.flatnonzero(stability.n_modules == k)
        values = getattr(stability, quantity)
        measured = np.empty(0) if values is None else values[row]
        return float(measured.mean()) if measured.size else float("nan")


@dataclass(frozen=True)
class CrossLayer:
    """Hybrids of matched modules over two successive layers (S003 §4.1)."""

    layers: tuple[str, str]
    match: ModuleMatch
    hybrids: Hybrids


@dataclass(frozen=True)
class PapersStudy:
    """Everything that the papers' chapters of a report show."""

    generator: str
    provenance: dict[str, Any]
    settings: PapersSettings
    layers: tuple[PapersLayer, ...]
    successive: tuple[CrossLayer, ...]

    def parameters(self, layer: PapersLayer) -> str:
        """What figures of the layer were made with."""
        settings = self.settings
        return (
            f"{self.generator}, layer {layer.layer.name}, {counted(settings.n_pairs, 'pair')}, "
            f"seed {settings.seeds[0]}, K = {settings.n_modules}"
        )


def run_papers_study(
    generator: GeneratorAdapter,
    layers: Sequence[str] | None = None,
    *,
    settings: PapersSettings | None = None,
    show_progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> PapersStudy:
    """Influence maps, modules, stability and hybrids for each layer, and for successive layers.

    >>> study = run_papers_study(cp.load("dcgan-faces"), ["main.8"])  # doctest: +SKIP
    """
    settings = settings or PapersSettings()
    if settings.n_modules not in settings.counts:
        settings = replace(settings, counts=tuple(sorted({*settings.counts, settings.n_modules})))
    settings.require()
    infos = study_layers(generator, layers, settings.n_modules, say)
    studies = []
    for number, info in enumerate(infos, 1):
        say(
            f"layer {info.name} ({number} of {len(infos)}): {counted(info.channels, 'channel')}, two samples of "
            f"{counted(settings.n_pairs, 'pair')}"
        )
        studies.append(_study_layer(generator, info, settings, show_progress, say))
    successive = []
    for first, second in pairwise(studies):
        say(f"matched modules over {first.layer.name} and {second.layer.name}")
        successive.append(_study_successive(generator, first, second, settings))
    return PapersStudy(generator.name, generator.provenance(), settings, tuple(studies), tuple(successive))


def _study_layer(
    generator: GeneratorAdapter,
    info: LayerInfo,
    settings: PapersSettings,
    show_progress: bool,
    say: Callable[[str], None],
) -> PapersLayer:
    influence = InfluenceMap(generator, info.name)
    first, second = (
        influence.attribute(n_pairs=settings.n_pairs, seed=seed, blocks=blocks, show_progress=show_progress)
        for seed, blocks in zip(settings.seeds, (settings.blocks, None), strict=True)
    )
    say(f"  modules of {info.name} and their stability")
    finder = ModuleFinder(settings.n_modules, seed=settings.seed).fit(first)
    other = ModuleFinder(settings.n_modules, seed=settings.seed).fit(second)
    counts, repetitions = _numbers_tried(finder, other, settings)
    if repetitions < settings.repetitions:
        say(f"  {info.name} has too few channels to compare subsets of them; only the two samples are compared")
    stability = {
        method: ModuleFinder(settings.n_modules, method, seed=settings.seed).stability(
            first, n_modules=counts, repetitions=repetitions, other=second
        )
        for method in METHODS
    }
    say(f"  hybrids of {info.name}")
    finders = {k: finder if k == settings.n_modules else ModuleFinder(k, seed=settings.seed).fit(first) for k in counts}
    modules = [[units for units in each.unit_sets() if units.size] for each in finders.values()]
    # Together, so that the latents of a pair run once, and hybrids from the layer on alone, as they do when many run.
    influences = influence.attribute(n_pairs=settings.n_pairs, seed=settings.seed, units=[*chain(*modules)]).influence
    by_count = {
        k: ModuleInfluences([units.size for units in some], found)
        for k, some, found in zip(finders, modules, torch.split(influences, [*map(len, modules)]), strict=True)
    }
    selection = None if first.block_sums is None else compare_finders(list(finders.values()), stability["nmf"])
    hybridizer = Hybridizer(generator, info.name)
    base, source = shown_pairs(generator, settings)
    one = lt.take(source, torch.zeros(settings.shown, dtype=torch.long, device=generator.device))
    mixed = []
    for units, seed in zip(finder.unit_sets(), _seeds(settings.seed, settings.n_modules), strict=True):
        mixed.append(generator(lt.mix(base, one, units.size / info.channels, seed)))
    return PapersLayer(
        info,
        (first.without_blocks(), second),
        (finder, other),
        stability,
        by_count,
        hybridizer.hybridize(base, source, units=finder.modules_),
        hybridizer.hybridize(base, one, units=finder.modules_),
        torch.stack(mixed),
        _confident_hybrids(finder, hybridizer, base, source) if selection is not None else None,
        selection,
        _quality(finder, influence, settings),
    )


def _confident_hybrids(
    finder: ModuleFinder, hybridizer: Hybridizer, base: lt.Latents, source: lt.Latents
) -> Hybrids | None:
    if not (finder.confidence_ >= CONFIDENT).any():
        return None
    return hybridizer.hybridize(base, source, units=finder.assigned(CONFIDENT).modules)


def _quality(finder: ModuleFinder, influence: InfluenceMap, settings: PapersSettings) -> ModuleQuality | None:
    """On the pairs of the second sample, which the modules were not found with."""
    if sum(units.size > 0 for units in finder.unit_sets()) < 2:
        return None
    return finder.quality(influence, n_pairs=settings.n_pairs, controls=_CONTROLS, seed=settings.seeds[1])


def _numbers_tried(finder: ModuleFinder, other: ModuleFinder, settings: PapersSettings) -> tuple[list[int], int]:
    """The numbers of modules whose stability can be measured, K among them, and how many repetitions.

    Subsets hold fewer channels than a layer. If K modules are too many for them, only the two samples are compared.
    """
    alive = finder.labels_ >= 0
    in_subsets, in_both = smallest_subset(int(alive.sum())), int((alive & (other.labels_ >= 0)).sum())
    compared = settings.n_modules <= in_subsets
    most = min(in_subsets, in_both) if compared else in_both
    counts = [k for k in settings.counts if k <= most or k == settings.n_modules]
    return counts, settings.repetitions if compared else 0


def _seeds(seed: int, n: int) -> list[int]:
    """A seed for each module, so that no two mix the same coordinates."""
    return [int(np.random.SeedSequence([seed, k]).generate_state(1)[0]) for k in range(n)]


def _study_successive(
    generator: GeneratorAdapter, first: PapersLayer, second: PapersLayer, settings: PapersSettings
) -> CrossLayer:
    names = (first.layer.name, second.layer.name)
    match = match_modules(first.finder, second.finder)
    base, source = shown_pairs(generator, settings)
    hybrids = Hybridizer(generator, names).hybridize(base, source, units=match.units)
    return CrossLayer(names, match, hybrids)


def shown_pairs(generator: GeneratorAdapter, settings: PapersSettings) -> tuple[lt.Latents, lt.Latents]:
    """The latents whose hybrids are shown."""
    return (
        generator.sample(settings.shown, seed=settings.seed, stream=SHOWN_BASE),
        generator.sample(settings.shown, seed=settings.seed, stream=SHOWN_SOURCE),
    )
