"""Modules: channels grouped by where in the image they act (S001 §3.3, S003 §3.4)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
import torch

from .clustering import (
    NO_MODULE,
    Array,
    Floats,
    Labels,
    Maps,
    Method,
    as_maps,
    assign,
    binary_features,
    cosine_matrix,
    factorise,
    factorising,
    live_rows,
)
from .errors import ProbeError, first_line, whole
from .files import load_tensors, save_tensors
from .influence import InfluenceMaps
from .results import Result, units_from_json, units_to_json
from .stability import Stability, measure
from .units import UnitSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A module is a unit set or, of maps given as an array, which names no layer, the numbers of its rows.
Module: TypeAlias = "UnitSet | tuple[int, ...]"

_ARRAYS = ("labels_", "templates_", "weights_")
_PARAMETERS = ("n_modules", "method", "features", "window", "percentile", "seed")


class ModuleFinder:
    """Groups channels into modules by factorising their influence maps.

    >>> finder = cp.ModuleFinder(n_modules=3).fit(maps)  # doctest: +SKIP
    >>> cp.Hybridizer(gen, "main.8").hybridize(z1, z2, units=finder.modules_)  # doctest: +SKIP

    Maps are smoothed by a box mean, thresholded at a percentile of their own values, and the
    resulting (channels × pixels) bits factorised, S ≈ W H; a channel belongs to the template that
    contributes most to it (S003 §3.4).

    Args:
        n_modules: number of modules K.
        method: "nmf", or "kmeans" on the same bits.
        features: "bits".
        window: side of the smoothing box, odd; by default the largest odd number up to
            3 · (shorter side) / 64, at least 3 (conventions 8).
        percentile: of a smoothed map's values; strictly larger ones count (conventions 9).
        seed: of the clustering and of the subsets of :meth:`stability`.

    Attributes (after :meth:`fit`):
        labels_: (channels,) module of each channel, −1 for one whose map is flat (dead channel).
        templates_: (K, H, W) rows of H of unit L2 norm; for k-means the centroids.
        weights_: (channels, K) rows of W on that scale; for k-means minus the distances.
        modules_: K unit sets, as :class:`Hybridizer` takes them. Of an array, K tuples of row numbers:
            if row i is channel i of a layer, these are unit sets of that layer.
        provenance_: how the modules were found, and where their maps are from.
    """

    labels_: Labels
    templates_: Floats
    weights_: Floats
    modules_: tuple[Module, ...]
    provenance_: dict[str, Any]

    def __init__(
        self,
        n_modules: int = 3,
        method: Method = "nmf",
        *,
        features: Literal["bits"] = "bits",
        window: int | None = None,
        percentile: float = 75.0,
        seed: int = 0,
    ) -> None:
        self.n_modules = whole(n_modules, "n_modules", 1)
        self.seed = whole(seed, "the seed", 0)
        if method not in ("nmf", "kmeans"):
            raise ProbeError(f"method is {method!r}; give 'nmf' or 'kmeans'")
        if features != "bits":
            raise ProbeError(f"features is {features!r}; this version has 'bits' (S003 §3.4)")
        if window is not None:
            window = whole(window, "window", 1)
            if window % 2 == 0:
                raise ProbeError(f"window is {window}; give an odd number of at least 1")
        if not isinstance(percentile, (int, float, np.integer, np.floating)) or not 0 <= percentile < 100:
            raise ProbeError(f"percentile is {percentile!r}; give a number of at least 0 and less than 100")
        self.method: Method = method
        self.features = features
        self.window = window
        self.percentile = float(percentile)

    def __repr__(self) -> str:
        return f"ModuleFinder(n_modules={self.n_modules}, method={self.method!r}, features={self.features!r})"

    def fit(self, maps: Maps) -> ModuleFinder:
        """Find the modules of influence maps: an :class:`InfluenceMaps` or an array (channels, H, W)."""
        values = as_maps(maps)
        bits = binary_features(values, self.window, self.percentile)
        alive = live_rows(bits, self.n_modules)
        with factorising():
            labels, templates, weights = factorise(bits[alive], self.n_modules, self.method, self.seed)
        self.labels_ = np.full(len(bits), NO_MODULE, dtype=np.int64)
        self.labels_[alive] = labels
        self.weights_ = np.zeros((len(bits), self.n_modules))
        self.weights_[alive] = weights
        self.templates_ = templates.reshape(self.n_modules, *values.shape[1:])
        rows = [np.flatnonzero(self.labels_ == k).tolist() for k in range(self.n_modules)]
        if isinstance(maps, InfluenceMaps):
            units = maps.units
            layers = [layer for item in units for layer in item]
            self.modules_ = tuple(_union((units[row] for row in own), layers) for own in rows)
        else:
            self.modules_ = tuple(map(tuple, rows))
        self.provenance_ = self._about(maps)
        return self

    def stability(
        self,
        maps: Maps,
        *,
        n_modules: int | np.integer[Any] | Iterable[int] | None = None,
        repetitions: int = 20,
        other: Maps | None = None,
    ) -> Stability:
        """How well modules come back: between subsets of channels, and between draws of latents.

        >>> finder.stability(maps, n_modules=range(2, 7), other=maps_of_another_draw).ari  # doctest: +SKIP

        Channels are split at random into thirds A, B, C; A∪B and B∪C are clustered; labels are
        matched on B (conventions 12). ``other``, maps of the same channels from independent pairs,
        adds the agreement between draws, which the subsets say nothing about (conventions 13).
        ``n_modules`` is 2…6 by default; with ``repetitions=0`` only the draws are compared.
        """
        numbers = _numbers(range(2, 7) if n_modules is None else n_modules)
        repetitions = whole(repetitions, "repetitions", 0)
        one = binary_features(as_maps(maps), self.window, self.percentile)
        two = None if other is None else binary_features(as_maps(other), self.window, self.percentile)
        with factorising():
            return measure(
                one,
                two,
                numbers=numbers,
                repetitions=repetitions,
                method=self.method,
                seed=self.seed,
                provenance=self._about(maps),
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what was found, and the parameters it was found with, as a safetensors file."""
        self.require_fit()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
        by_layer = all(isinstance(module, UnitSet) for module in self.modules_)
        header = {
            "parameters": {name: getattr(self, name) for name in _PARAMETERS},
            "modules": units_to_json(self.unit_sets()) if by_layer else self.modules_,
            "provenance": self.provenance_,
        }
        return save_tensors(path, type(self).__name__, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """A fitted finder from a file written by :meth:`save`."""
        tensors, header = load_tensors(path, cls.__name__)
        try:
            finder = cls(**header["parameters"])
            for name in _ARRAYS:
                setattr(finder, name, tensors[name].numpy())
            modules = header["modules"]
            by_layer = all(isinstance(module, dict) for module in modules)
            finder.modules_ = units_from_json(modules) if by_layer else tuple(map(tuple, modules))
            finder.provenance_ = dict(header["provenance"])
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise ProbeError(
                f"{path} lacks a part of {cls.__name__} or holds one of another form ({first_line(error)}); "
                "make it again with .save()"
            ) from error
        return finder

    def unit_sets(self) -> tuple[UnitSet, ...]:
        """The modules, where their maps named the layers."""
        self.require_fit()
        found = tuple(module for module in self.modules_ if isinstance(module, UnitSet))
        if len(found) < len(self.modules_):
            raise ProbeError("these modules are rows of an array, which names no layer; fit an InfluenceMaps instead")
        return found

    def _about(self, maps: Maps) -> dict[str, Any]:
        """The parameters as provenance, beside that of the maps."""
        about = {name: getattr(self, name) for name in _PARAMETERS if name != "n_modules"}
        return about | ({"maps": maps.provenance} if isinstance(maps, InfluenceMaps) else {})

    def require_fit(self) -> None:
        """Raise a ProbeError before :meth:`fit` has set the attributes."""
        if not hasattr(self, "modules_"):
            raise ProbeError(f"{self!r} has no modules yet; fit it first, with .fit(maps)")

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The templates side by side, with the number of channels of each module."""
        from .plots import plot_templates

        self.require_fit()
        sizes = [module.size if isinstance(module, UnitSet) else len(module) for module in self.modules_]
        titles = [f"module {k}\n{size} channels" for k, size in enumerate(sizes, 1)]
        return plot_templates(self.templates_, titles, ax=ax)


@dataclass(frozen=True, eq=False, repr=False)
class ModuleMatch(Result):
    """Modules of one layer with their counterparts in another (conventions 14).

    Attributes:
        units: one unit set per matched pair, over both layers.
        pairs: (K, 2), module of the first and module of the second.
        cosines: (K,), of the matched templates.
        templates: (2, K, H, W), those of the first over the matched ones of the second.
        provenance: that of both finders.
    """

    units: tuple[UnitSet, ...]
    pairs: Labels
    cosines: Array
    templates: Floats
    provenance: dict[str, Any]

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The matched templates, one pair in a column."""
        from .plots import plot_templates

        pairs = zip(self.pairs + 1, self.cosines, strict=True)
        return plot_templates(self.templates, [f"{k} with {j}\ncos {cosine:.2f}" for (k, j), cosine in pairs], ax=ax)


def match_modules(first: ModuleFinder, second: ModuleFinder) -> ModuleMatch:
    """Match the modules of two layers by the cosine of their templates, one to one.

    >>> cp.match_modules(finder_of_main_5, finder_of_main_8).units  # doctest: +SKIP
    """
    for finder in (first, second):
        finder.require_fit()
    one, two = first.templates_, second.templates_
    if one.shape != two.shape:
        raise ProbeError(
            f"the templates have shapes {one.shape} and {two.shape}; fit both layers with the same number of modules"
        )
    cosines = cosine_matrix(one.reshape(len(one), -1), two.reshape(len(two), -1))
    order = assign(cosines)
    pairs = np.stack([np.arange(len(order)), order], axis=1)
    sets = first.unit_sets(), second.unit_sets()
    units = tuple(_union((sets[0][k], sets[1][j])) for k, j in pairs)
    about = {
        "generator": first.provenance_["maps"]["generator"],
        "layers": list(dict.fromkeys(layer for item in units for layer in item)),
        "first": first.provenance_,
        "second": second.provenance_,
    }
    return ModuleMatch(units, pairs, cosines[tuple(pairs.T)], np.stack([one, two[order]]), about)


def _numbers(n_modules: Any) -> list[int]:
    """One number of modules or several, as a list."""
    several = isinstance(n_modules, Iterable) and not isinstance(n_modules, str)
    return [whole(number, "n_modules", 1) for number in (n_modules if several else [n_modules])]


def _union(sets: Iterable[UnitSet], layers: Iterable[str] = ()) -> UnitSet:
    """All channels of the sets, each once; ``layers`` are kept even without a channel."""
    channels: dict[str, dict[int, None]] = {layer: {} for layer in layers}
    for item in sets:
        for layer, numbers in item.items():
            channels.setdefault(layer, {}).update(dict.fromkeys(numbers))
    return UnitSet({layer: tuple(numbers) for layer, numbers in channels.items()})
