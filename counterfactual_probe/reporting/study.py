"""The study of a generator that a report shows: each layer's modules, how reproducible they are, and their hybrids."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..base.display.text import counted
from ..base.errors import Interrupted, ProbeError, share, whole
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..generator.layers import LayerInfo
from ..generator.units import UnitSet
from ..hybrids.hybridizer import Hybridizer
from ..hybrids.result import Hybrids
from ..influence.influence_map import InfluenceMap
from ..influence.maps import InfluenceMaps
from ..modules.confidence import ENOUGH
from ..modules.features import Kind, MapFeatures
from ..modules.finder import ModuleFinder
from ..modules.quality import ModuleQuality
from ..registry.naming import Evidence, Shown, numbered_names, shown_regions
from ..registry.regions import Regions
from .choice import map_size, study_layers

# Latents that are shown come from other streams than those that modules are found with.
SHOWN_BASE, SHOWN_SOURCE = 10, 11
BLOCKS = 16  # of pairs, resampled to measure confidence; 16 predict as well as 32, in half of the memory
_FEWEST_BLOCKS, _FEWEST_PAIRS = 8, 16  # in blocks of two: resampling fewer than 8 says little
_NUMBERS_IN_BLOCKS = 2**24  # 64 MiB for each of the two kinds of sums
_QUALITY_PAIRS = 32
_CONTROLS = 8  # of modules: a name needs no more than to be as specific as most
_LARGE, _FEW = 512, 2  # pixels of a side from which only a few hybrids are shown


@dataclass(frozen=True)
class Settings:
    """What a report depends on; two reports with the same settings give the same files.

    Attributes:
        n_modules: number of modules K.
        expected_ari: no more pairs are sampled in a layer once its modules are as reproducible.
        max_pairs, max_hybrids: nor above so many pairs, or hybrids in all: the cost of a layer is pairs × channels.
        shown: pairs of latents whose hybrids are shown.
        features: of :class:`ModuleFinder`; by default "l2" or "bits", in each layer those that are more reproducible.
    """

    n_modules: int = 3
    expected_ari: float = ENOUGH
    max_pairs: int = 256
    max_hybrids: int = 2**15
    seed: int = 0
    shown: int = 8
    features: Kind | None = None

    def require(self) -> None:
        """Raise a ProbeError for what no study can have."""
        whole(self.n_modules, "n_modules", 1)
        whole(self.seed, "the seed", 0)
        whole(self.max_hybrids, "max_hybrids", 1)
        whole(self.shown, "shown", 1)
        if self.features is not None:
            MapFeatures(self.features)
        share(self.expected_ari, "expected_ari")
        if self.max_pairs < _FEWEST_PAIRS:
            raise ProbeError(
                f"{counted(self.max_pairs, 'pair')} asked for; a report needs at least {_FEWEST_PAIRS}, to say how "
                "reproducible modules are"
            )

    def pairs(self, channels: int, pixels: int) -> tuple[int, int]:
        """The most pairs that a layer gets, and in how many blocks, whose maps must fit into memory."""
        most = min(self.max_pairs, max(2 * BLOCKS, self.max_hybrids // channels))
        fitting = _NUMBERS_IN_BLOCKS // (channels * pixels)
        return most, min(BLOCKS, most // 2, max(_FEWEST_BLOCKS, fitting))


@dataclass(frozen=True)
class LayerStudy:
    """One layer: its maps, the modules by the method that was asked for, or is more reproducible here, and by another.

    Attributes:
        maps: of all pairs, without sums over blocks.
        finder: of the method that the settings name, or whose modules another sample is expected to reproduce better.
        other: of the other method; None where that finds no modules.
        stopped: why no more pairs were sampled.
    """

    layer: LayerInfo
    maps: InfluenceMaps
    finder: ModuleFinder
    other: ModuleFinder | None
    hybrids: Hybrids
    quality: ModuleQuality | None
    stopped: str

    @property
    def modules(self) -> tuple[UnitSet, ...]:
        return self.finder.unit_sets()

    @property
    def expected_ari(self) -> float:
        """The expected adjusted Rand index against another sample of latents; NaN where all channels are in one module.

        Of one group, whose index would be 1, nothing can come back.
        """
        return expected_ari(self.finder)

    @property
    def kept(self) -> float:
        """Share of the channels that another sample of latents is expected to keep in their module."""
        return float(np.nanmean(self.finder.confidence_))

    @property
    def evidence(self) -> list[Evidence]:
        """What speaks for each module."""
        labels, confidence = self.finder.labels_, self.finder.confidence_
        specific: dict[int, float] = {}
        if self.quality is not None:
            numbers = self.quality.provenance["modules"]
            specific = {k - 1: float(share) for k, share in zip(numbers, self.quality.above_random, strict=True)}
        return [
            Evidence(
                self.expected_ari,
                float(confidence[labels == k].mean()) if (labels == k).any() else 0.0,
                specific.get(k),
            )
            for k in range(self.finder.n_modules)
        ]

    def order(self, regions: Regions) -> list[int]:
        """Modules with channels, those first whose templates show their region most clearly."""
        shown = self.shown(regions)
        order = sorted(range(len(shown)), key=lambda k: (shown[k].region is None, -shown[k].correlation))
        return [k for k in order if self.modules[k].size]

    def names(self, regions: Regions) -> list[str]:
        """What the modules are called: the parts of the image that they show, where the evidence bears it."""
        return numbered_names([found.name for found in self.shown(regions)])

    def shown(self, regions: Regions) -> list[Shown]:
        """What each module's template shows, where the evidence bears it."""
        templates = self.finder.templates_
        return shown_regions(templates, regions.resized(*templates.shape[1:]), self.evidence)


@dataclass(frozen=True)
class Study:
    """Everything that a report shows, so far.

    Attributes:
        layers: those that are done, the most reproducible first.
        left_out: (layer, why) of those that have no modules.
        to_come: names of layers that are still to be done.
    """

    generator: str
    provenance: dict[str, Any]
    settings: Settings
    layers: tuple[LayerStudy, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    to_come: tuple[str, ...] = field(default=(), compare=False)

    def parameters(self, layer: LayerStudy) -> str:
        """What figures of the layer were made with."""
        pairs = int(layer.maps.n_pairs.max())
        return f"{self.generator}, layer {layer.layer.name}, {counted(pairs, 'pair')}, seed {self.settings.seed}"


def run_study(
    generator: GeneratorAdapter,
    layers: Sequence[str] | None = None,
    *,
    settings: Settings | None = None,
    show_progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Study:
    """The study of all layers.

    >>> study = run_study(cp.load("dcgan-faces"), ["main.8"])  # doctest: +SKIP
    """
    *_, study = growing_study(generator, layers, settings or Settings(), show_progress=show_progress, say=say)
    return study


def growing_study(
    generator: GeneratorAdapter,
    layers: Sequence[str] | None,
    settings: Settings,
    *,
    show_progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
    kept: Callable[[LayerInfo, Callable[[], LayerStudy]], LayerStudy] = lambda _, study: study(),
) -> Iterator[Study]:
    """The study after each layer, those of fewest channels first, since they are done soonest.

    ``kept`` is given each layer and what studies it, and may give the study of an earlier run instead.
    """
    require_pictures(generator.image_size, "a report")
    settings.require()
    infos = sorted(study_layers(generator, layers, settings.n_modules, say), key=lambda info: info.channels)
    done: list[LayerStudy] = []
    left_out: list[tuple[str, str]] = []
    for number, info in enumerate(infos, 1):
        say(f"layer {info.name} ({number} of {len(infos)}): {counted(info.channels, 'channel')}")
        try:
            done.append(kept(info, partial(_study_layer, generator, info, settings, show_progress)))
        except Interrupted:
            raise
        except ProbeError as error:
            if len(infos) == 1:
                raise
            say(f"layer {info.name} is left out: {error}")
            left_out.append((info.name, str(error)))
        done.sort(key=lambda layer: -np.nan_to_num(layer.expected_ari, nan=-1))  # one group is less than any two
        to_come = tuple(one.name for one in infos[number:])
        yield Study(generator.name, generator.provenance(), settings, tuple(done), tuple(left_out), to_come)


def _study_layer(generator: GeneratorAdapter, info: LayerInfo, settings: Settings, show_progress: bool) -> LayerStudy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of modules that are not reproducible, which the page says
        return _found(generator, info, settings, show_progress)


def _found(generator: GeneratorAdapter, info: LayerInfo, settings: Settings, show_progress: bool) -> LayerStudy:
    influence, size = InfluenceMap(generator, info.name), map_size(generator, info.channels)
    height, width = size or generator.image_size[1:]
    pairs, blocks = settings.pairs(info.channels, height * width)
    wanted = settings.features or "l2"
    grown = ModuleFinder(settings.n_modules, features=wanted, seed=settings.seed).fit_until(
        influence,
        expected_ari=settings.expected_ari,
        max_pairs=pairs,
        seed=settings.seed,
        blocks=blocks,
        map_size=size,
        normalise="pair",  # so that the other method can have its modules of the same maps
        show_progress=show_progress,
    )
    maps = grown.maps_
    second = _of_same_maps(settings, maps, "l2" if wanted == "bits" else "bits")
    finder, other = _better(grown, second) if settings.features is None else (grown, second)
    del grown.maps_  # its sums over blocks take many times the memory of all the rest
    base, source = shown_pairs(generator, settings)
    return LayerStudy(
        info,
        maps.without_blocks(),
        finder,
        other,
        Hybridizer(generator, info.name).hybridize(base, source, units=finder.modules_),
        _quality(finder, influence, settings),
        grown.stopped_.partition(":")[0],  # what follows is of this method, which may not be the better one
    )


def _of_same_maps(settings: Settings, maps: InfluenceMaps, features: Kind) -> ModuleFinder | None:
    """Modules by another method, with their confidence; None where it finds none."""
    try:
        finder = ModuleFinder(settings.n_modules, features=features, seed=settings.seed).fit(maps)
        finder.expected_ari_  # noqa: B018  # measured now, while there are sums over blocks
    except ProbeError:
        return None
    return finder


def _better(first: ModuleFinder, second: ModuleFinder | None) -> tuple[ModuleFinder, ModuleFinder | None]:
    if second is None:
        return first, None
    worth = [(_divided(finder), finder.expected_ari_) for finder in (first, second)]
    return (first, second) if worth[0] >= worth[1] else (second, first)


def expected_ari(finder: ModuleFinder) -> float:
    """The finder's own; NaN where all channels are in one module."""
    return finder.expected_ari_ if _divided(finder) else float("nan")


def _divided(finder: ModuleFinder) -> bool:
    """Whether the channels are in two modules or more."""
    return len({*finder.labels_[finder.labels_ >= 0].tolist()}) > 1


def _quality(finder: ModuleFinder, influence: InfluenceMap, settings: Settings) -> ModuleQuality | None:
    """On pairs of another seed, which the modules were not found with; None if there are not two to compare."""
    if not _divided(finder):
        return None
    return finder.quality(
        influence, n_pairs=min(_QUALITY_PAIRS, settings.max_pairs), controls=_CONTROLS, seed=settings.seed + 1
    )


def shown_pairs(generator: GeneratorAdapter, settings: Settings) -> tuple[lt.Latents, lt.Latents]:
    """The latents whose hybrids are shown."""
    large = max(generator.image_size[1:]) >= _LARGE
    n = min(settings.shown, _FEW) if large else settings.shown
    return tuple(  # type: ignore[return-value]
        generator.sample(n, seed=settings.seed, stream=stream) for stream in (SHOWN_BASE, SHOWN_SOURCE)
    )
