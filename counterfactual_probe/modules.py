"""Modules: channels grouped by where in the image they act (S001 §3.3, S003 §3.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .clustering import (
    NO_MODULE,
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
from .errors import ProbeError, whole
from .influence import InfluenceMaps
from .stability import Stability, measure
from .units import UnitSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        modules_: K unit sets, as :class:`Hybridizer` takes them.
    """

    labels_: Labels
    templates_: Floats
    weights_: Floats
    modules_: tuple[UnitSet, ...]

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
        if window is not None and (window < 1 or window % 2 == 0):
            raise ProbeError(f"window is {window}; give an odd number of at least 1")
        if not 0 <= percentile < 100:
            raise ProbeError(f"percentile is {percentile}; give at least 0 and less than 100")
        self.method: Method = method
        self.features = features
        self.window = window
        self.percentile = percentile

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
        units = maps.units if isinstance(maps, InfluenceMaps) else [UnitSet({"": (i,)}) for i in range(len(bits))]
        layers = [layer for item in units for layer in item]
        self.modules_ = tuple(
            _union((units[row] for row in np.flatnonzero(self.labels_ == k)), layers) for k in range(self.n_modules)
        )
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
        about: dict[str, Any] = {"method": self.method, "features": self.features, "seed": self.seed}
        about |= {"window": self.window, "percentile": self.percentile}
        if isinstance(maps, InfluenceMaps):
            about["maps"] = maps.provenance
        numbers = [int(n_modules)] if isinstance(n_modules, (int, np.integer)) else list(n_modules or range(2, 7))
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
                provenance=about,
            )

    def require_fit(self) -> None:
        """Raise a ProbeError before :meth:`fit` has set the attributes."""
        if not hasattr(self, "modules_"):
            raise ProbeError(f"{self!r} has no modules yet; fit it first, with .fit(maps)")

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The templates side by side, with the number of channels of each module."""
        from .plots import plot_templates

        self.require_fit()
        titles = [f"module {k + 1}\n{units.size} channels" for k, units in enumerate(self.modules_)]
        return plot_templates(self.templates_, titles, ax=ax)


@dataclass(frozen=True)
class ModuleMatch:
    """Modules of one layer with their counterparts in another (conventions 14).

    Attributes:
        units: one unit set per matched pair, over both layers.
        pairs: (module of the first, module of the second).
        cosines: of the matched templates.
    """

    units: tuple[UnitSet, ...]
    pairs: tuple[tuple[int, int], ...]
    cosines: tuple[float, ...]


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
    units = tuple(_union((first.modules_[k], second.modules_[j])) for k, j in enumerate(order))
    pairs = tuple((k, int(j)) for k, j in enumerate(order))
    return ModuleMatch(units, pairs, tuple(float(cosines[k, j]) for k, j in pairs))


def _union(sets: Iterable[UnitSet], layers: Iterable[str] = ()) -> UnitSet:
    """All channels of the sets, each once; ``layers`` are kept even without a channel."""
    channels: dict[str, dict[int, None]] = {layer: {} for layer in layers}
    for item in sets:
        for layer, numbers in item.items():
            channels.setdefault(layer, {}).update(dict.fromkeys(numbers))
    return UnitSet({layer: tuple(numbers) for layer, numbers in channels.items()})
