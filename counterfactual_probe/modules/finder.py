"""Modules: channels grouped by where in the image they act (S001 §3.3, S003 §3.4)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
import torch

from ..base.display.described import Described, Tabulated
from ..base.display.description import Description, Picture
from ..base.display.flat import as_pictures
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import ProbeError, one_of, required, share, strings, whole
from ..base.files import load_tensors, save_tensors
from ..base.formats.schema import conform
from ..generator.results import Saved, kind_of, origin, units_from_json, units_to_json
from ..generator.units import UnitSet, titles, union
from ..influence.components import COMPONENTS
from ..influence.influence_map import InfluenceMap
from ..influence.maps import InfluenceMaps
from ..registry.naming import module_names
from ..registry.regions import Regions
from .clustering import (
    NO_MODULE,
    FinderHeader,
    Floats,
    Labels,
    Method,
    factorise,
    factorising,
    live_rows,
    not_fitted,
    variance_explained,
)
from .confidence import (
    ENOUGH,
    Confidence,
    Confident,
    ExpectedDisagreement,
    Module,
    advice,
    module_table,
    unit_records,
)
from .evidence.gaps import Gaps
from .features import Kind, MapFeatures, Maps
from .quality import CONTROLS, ModuleQuality, measure_quality
from .selection import Selection, compare_finders
from .stability import Stability, measure_stability, numbers_of_modules

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAMPLES_PAIRS = "give an InfluenceMap(generator, layer), which samples pairs"
_ARRAYS = ("labels_", "templates_", "weights_")
_FITTED = (*_ARRAYS, "modules_", "names_", "provenance_", "variance_explained_")
_PARAMETERS = ("n_modules", "method", "features", "window", "percentile", "seed")


class ModuleFinder(Confident, Described, Tabulated, Saved):
    """Groups channels into modules by factorising their influence maps.

    >>> finder = cp.ModuleFinder(n_modules=3).fit(maps)  # doctest: +SKIP
    >>> cp.Hybridizer(gen, "main.8").hybridize(z1, z2, units=finder.modules_)  # doctest: +SKIP

    Maps are smoothed by a box mean and binarised at a percentile of their own values, and the
    resulting (channels × pixels) matrix is factorised, S ≈ W H; a channel belongs to the template that
    contributes most to it (S003 §3.4).

    Args:
        n_modules: number of modules K.
        method: "nmf", or "kmeans" on the same features.
        features: "bits", binarised maps as in the papers, or "l2", which is reproducible with fewer pairs: rows
            of unit L2 norm, without a threshold, of maps made with ``normalise="pair"``. It finds different modules.
            "pca" compares what channels change, not where, on maps made with ``components=64``: for images
            without spatial alignment (S001 §5).
        window: side of the smoothing box, odd; by default the largest odd number up to
            3 · (shorter side) / 64, at least 3 (conventions 8).
        percentile: of a smoothed map's values; strictly larger ones count (conventions 9).
        seed: of the clustering and of the subsets of :meth:`stability`.

    Attributes:
        labels_: (channels,) module of each channel, −1 for a dead one, whose map is flat. Like all of these, set by
            :meth:`fit`.
        templates_: (K, H, W) rows of H of unit L2 norm; for k-means the centroids.
        weights_: (channels, K) rows of W on that scale; for k-means minus the distances.
        modules_: K unit sets, as :class:`Hybridizer` takes them. Of an array, K tuples of row numbers:
            if row i is channel i of a layer, these are unit sets of that layer.
        names_: what figures and tables call them: "module 1" and so on, until :meth:`name_modules`.
        provenance_: how the modules were found, and where their maps are from.
        variance_explained_: share of the features' variance between the modules.
        confidence_, expected_ari_: how reproducible they are, for maps with blocks; computed on first access.
    """

    templates_: Floats
    weights_: Floats
    modules_: tuple[Module, ...]
    names_: tuple[str, ...]
    provenance_: dict[str, Any]
    variance_explained_: float

    def __init__(
        self,
        n_modules: int = 3,
        method: Method = "nmf",
        *,
        features: Kind = "bits",
        window: int | None = None,
        percentile: float = 75.0,
        seed: int = 0,
    ) -> None:
        self.n_modules = whole(n_modules, "n_modules", 1)
        self.seed = whole(seed, "the seed", 0)
        one_of(method, "method", get_args(Method))
        self._features = MapFeatures(features, window, percentile)
        self.method: Method = method
        self.features: Kind = features
        self.window, self.percentile = self._features.window, self._features.percentile
        self._units: tuple[UnitSet, ...] | None = None
        self._blocks = self._confidence = self._gaps = None
        self._pairs = 0

    def fit(self, maps: Maps) -> ModuleFinder:
        """Find the modules of influence maps: an :class:`InfluenceMaps` or an array (channels, H, W)."""
        values = self._features.values(maps)
        rows = self._features.rows(values)
        alive = live_rows(rows, self.n_modules, kind_of(self._about(maps)))
        with factorising():
            labels, templates, weights = factorise(rows[alive], self.n_modules, self.method, self.seed)
        self.labels_ = np.full(len(rows), NO_MODULE, dtype=np.int64)
        self.labels_[alive] = labels
        self.weights_ = np.zeros((len(rows), self.n_modules))
        self.weights_[alive] = weights
        self.templates_ = self._features.images(templates, maps)
        self.variance_explained_ = variance_explained(rows[alive], labels)
        self._units = maps.units if isinstance(maps, InfluenceMaps) else None
        self.names_ = self._numbered()
        self.modules_ = self.grouped(self.labels_)
        self.provenance_ = self._about(maps)
        self._blocks, self._confidence, self._gaps = self._features.blocks(maps), None, None
        self._pairs = int(maps.n_pairs.median()) if isinstance(maps, InfluenceMaps) else 0
        return self

    def grouped(self, labels: Labels) -> tuple[Module, ...]:
        """Channels by label: unit sets, or row numbers where maps named no layer."""
        rows = [np.flatnonzero(labels == k).tolist() for k in range(self.n_modules)]
        if self._units is None:
            return tuple(map(tuple, rows))
        units = self._units
        layers = [layer for item in units for layer in item]
        named, kind = zip(self.names_, rows, strict=True), units[0].kind
        return tuple(union((units[row] for row in members), layers, kind).named(name) for name, members in named)

    def name_modules(self, names: Sequence[str] | Regions) -> ModuleFinder:
        """Name the modules for figures and tables: one by one, or by the part of the image that each template shows.

        >>> finder.name_modules(["eyes and mouth", "frame", "cheeks"])  # doctest: +SKIP
        >>> finder.name_modules(cp.pretrained("dcgan-faces").regions())  # doctest: +SKIP
        """
        self.require_fit()
        given = module_names(self.templates_, names) if isinstance(names, Regions) else strings(names, "names")
        if len(given) != self.n_modules:
            raise ProbeError(f"{counted(len(given), 'name')} given for {self.n_modules} modules; give one each")
        self.names_ = tuple(given)
        self.modules_ = self.grouped(self.labels_)
        return self

    def _numbered(self) -> tuple[str, ...]:
        return tuple(map(module_name, range(self.n_modules)))

    def stability(
        self,
        maps: Maps,
        *,
        n_modules: int | np.integer[Any] | Iterable[int] | None = None,
        repetitions: int = 20,
        other: Maps | None = None,
    ) -> Stability:
        """How reproducible modules are: between subsets of channels, and between samples of latents.

        >>> finder.stability(maps, n_modules=range(2, 7), other=maps_of_other_latents).ari  # doctest: +SKIP

        Channels are split at random into thirds A, B, C; A∪B and B∪C are clustered; labels are
        matched on B (conventions 12). ``other``, maps of the same channels from independent pairs,
        adds the agreement between samples, which the subsets say nothing about (conventions 13).
        ``n_modules`` is 2…6 by default; with ``repetitions=0`` only the samples are compared.
        """
        numbers = numbers_of_modules(range(2, 7) if n_modules is None else n_modules)
        repetitions = whole(repetitions, "repetitions", 0)
        comparable = other is None or self._features.comparable(maps, other)
        one = self._features.rows(self._features.values(maps))
        two = None if other is None else self._features.rows(self._features.values(other))
        with factorising():
            return measure_stability(
                one,
                two,
                comparable=comparable,
                numbers=numbers,
                repetitions=repetitions,
                method=self.method,
                seed=self.seed,
                provenance=self._about(maps),
            )

    def fit_until(
        self,
        influence: InfluenceMap,
        *,
        expected_ari: float = 0.9,
        max_pairs: int = 4096,
        seed: int = 0,
        blocks: int = 32,
        show_progress: bool = False,
        **options: Any,
    ) -> ModuleFinder:
        """Sample pairs until the modules are reproducible enough, or the limit is reached; ``stopped_`` says which.

        >>> finder = cp.ModuleFinder(3, features="l2").fit_until(cp.InfluenceMap(gen, "main.8"))  # doctest: +SKIP
        >>> finder.stopped_, finder.maps_.n_pairs  # doctest: +SKIP

        The number of pairs doubles, from two per block, and no pair runs twice; ``maps_`` are the maps of all of them.

        Args:
            influence: of the generator and the layer.
            expected_ari: stop when ``expected_ari_`` is at least this.
            max_pairs: stop here in any case.
            options: of :meth:`InfluenceMap.attribute`, such as ``units`` or ``map_size``. With a ``checkpoint``, every
                round writes its own file, PATH.64, PATH.128, …, with all sums over blocks.
        """
        required(influence, InfluenceMap, "influence", _SAMPLES_PAIRS)
        enough_ari = share(expected_ari, "expected_ari")
        if self.features == "l2":
            options["normalise"] = "pair"
        if self.features == "pca":
            options.setdefault("components", COMPONENTS)
        growing = influence.growing(
            whole(max_pairs, "max_pairs", 1), seed=seed, blocks=blocks, show_progress=show_progress, **options
        )
        for maps in growing:
            self.fit(maps)
            self.maps_ = maps
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExpectedDisagreement)
                reached_ari = self.expected_ari_
            pairs = maps.provenance["n_pairs"]
            enough = reached_ari >= enough_ari
            reached = f"the limit of {max_pairs} pairs was reached"
            self.stopped_ = (
                f"{reached if not enough else f'{pairs} pairs were enough'}: expected ARI {reached_ari:.2f}, "
                f"{'of' if enough else 'short of'} {enough_ari:g}"
            )
            if enough:
                break
        return self

    @classmethod
    def choose(
        cls, maps: Maps, n_modules: Iterable[int] = range(2, 9), *, repetitions: int = 20, **parameters: Any
    ) -> Selection:
        """Measures for each number of modules: stability between subsets, expected ARI, evidence, variance explained.

        >>> selection = cp.ModuleFinder.choose(maps, range(2, 9), features="l2")  # doctest: +SKIP
        >>> selection.apart, selection.suggested, selection.plot()  # doctest: +SKIP

        ``maps`` must hold blocks; ``parameters`` are those of the class.
        """
        numbers = numbers_of_modules(n_modules)
        finders = [cls(k, **parameters).fit(maps) for k in numbers]
        stability = finders[0].stability(maps, n_modules=numbers, repetitions=repetitions)
        return compare_finders(finders, stability)

    def quality(
        self, influence: InfluenceMap, *, n_pairs: int = 64, controls: int = CONTROLS, seed: int = 1
    ) -> ModuleQuality:
        """Whether each module acts in its own region, more than ``controls`` random sets of as many channels do.

        >>> finder.quality(cp.InfluenceMap(gen, "main.8")).p_value  # doctest: +SKIP
        """
        required(influence, InfluenceMap, "influence", _SAMPLES_PAIRS)
        return measure_quality(
            self.unit_sets(), self.templates_, influence, n_pairs=n_pairs, controls=controls, seed=seed
        )

    def _write(self, path: str | os.PathLike[str]) -> Path:
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        if self._confidence is not None:
            arrays |= {"kept": self._confidence.stability, "ari": self._confidence.ari}
        if self._gaps is not None:
            arrays |= {"gap": self._gaps.ratio, "gap_p_values": self._gaps.p_values}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
        header = {
            "parameters": {name: getattr(self, name) for name in _PARAMETERS},
            "units": None if self._units is None else units_to_json(self._units),
            "provenance": self.provenance_,
            "variance_explained": self.variance_explained_,
        }
        names = {} if self.names_ == self._numbered() else {"names": list(self.names_)}
        return save_tensors(path, type(self).__name__, tensors, header | names)

    @classmethod
    def _read(cls, path: str | os.PathLike[str]) -> Self:
        tensors, header = load_tensors(path, cls.__name__)
        kept = conform(header, FinderHeader)
        finder = cls(**header["parameters"])
        kept.require(tensors, finder.n_modules)
        for name in _ARRAYS:
            setattr(finder, name, tensors[name].numpy())
        kind = kind_of(header["provenance"])
        finder._units = None if kept.units is None else units_from_json(kept.units, kind=kind)
        finder.names_ = finder._numbered() if kept.names is None else tuple(kept.names)
        finder.modules_ = finder.grouped(finder.labels_)
        finder.provenance_ = dict(header["provenance"])
        finder.variance_explained_ = kept.variance_explained
        if "kept" in tensors:
            finder._pairs = 0 if kept.provenance.maps is None else kept.provenance.maps.n_pairs or 0
            finder._confidence = Confidence(tensors["kept"].numpy(), tensors["ari"].numpy())
        if "gap" in tensors:
            finder._gaps = Gaps(tensors["gap"].numpy(), tensors["gap_p_values"].numpy())
        return finder

    def unit_sets(self) -> tuple[UnitSet, ...]:
        """The modules, where their maps named the layers."""
        self.require_fit()
        sets = tuple(module for module in self.modules_ if isinstance(module, UnitSet))
        if len(sets) < len(self.modules_):
            raise ProbeError("these modules are rows of an array, which names no layer; fit an InfluenceMaps instead")
        return sets

    def _about(self, maps: Maps) -> dict[str, Any]:
        """The parameters and the maps' provenance."""
        about = {name: getattr(self, name) for name in _PARAMETERS if name != "n_modules"}
        return about | ({"maps": maps.provenance} if isinstance(maps, InfluenceMaps) else {})

    def require_fit(self) -> None:
        """Raise a ProbeError if :meth:`fit` has not set the attributes."""
        if "modules_" not in vars(self):
            raise not_fitted(f"{self!r} has no modules yet; fit it first, with .fit(maps)")

    if not TYPE_CHECKING:  # which would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """Only what is not there, or a property that raised: of what fitting sets, the error says so."""
            if name in _FITTED or isinstance(getattr(type(self), name, None), property):
                self.require_fit()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def describe(self) -> Description:
        """The parameters and, once fitted, the modules and how reproducible they are."""
        about = f"n_modules={self.n_modules}, method={self.method!r}, features={self.features!r}"
        if "modules_" not in vars(self):
            return Description(type(self).__name__, about, page="modules")
        alive, known, kind = int((self.labels_ != NO_MODULE).sum()), self._confidence, kind_of(self.provenance_)
        facts = [(f"{kind}s", f"{alive} of {len(self.labels_)} in modules; {origin(self.provenance_)}")]
        facts.append(("variance explained", f"{self.variance_explained_:.2f}"))
        if known is not None:
            facts.append(("expected ARI", f"{self.expected_ari_:.2f} against another sample of latents"))
        if self._gaps is not None:
            facts.append(("all apart", f"p = {self.evidence_.p_value:.2g} (docs: evidence)"))
        return Description(
            type(self).__name__,
            about,
            facts=tuple(facts),
            table=module_table(self.names_, self.labels_, None if known is None else known.stability, kind),
            pictures=(Picture("Templates: where in the image each module acts.", self.plot),),
            warning=advice(self._pairs, self.expected_ari_, kind) if known and self.expected_ari_ < ENOUGH else "",
            page="modules",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each unit: its module and weight there, and its confidence where that was computed."""
        units = list(map(str, range(len(self.labels_)))) if self._units is None else titles(self._units)
        confidence = None if self._confidence is None else self._confidence.stability
        return unit_records(units, self.names_, self.labels_, self.weights_, confidence)

    def _json(self) -> dict[str, Any]:
        return {"rows": list(self.records()), "provenance": self.provenance_}

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """The templates side by side, with the number of units of each module."""
        from .plots import plot_templates

        self.require_fit()
        sizes = [module.size if isinstance(module, UnitSet) else len(module) for module in self.modules_]
        named = zip(self.names_, sizes, strict=True)
        shown = as_pictures(self.templates_, self.templates_.ndim - 1)
        titles = [f"{name}\n{counted(size, kind_of(self.provenance_))}" for name, size in named]
        return plot_templates(shown, titles, ax=ax)


def module_name(k: int) -> str:
    """What the module of this label is called while it has no name."""
    return f"module {k + 1}"
