"""Modules: channels grouped by where in the image they act (S001 §3.3, S003 §3.4)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .errors import ProbeError
from .influence import InfluenceMaps
from .results import Result
from .units import UnitSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.int64]
Maps: TypeAlias = "InfluenceMaps | Tensor | npt.ArrayLike"
Method: TypeAlias = Literal["nmf", "kmeans"]

NO_MODULE = -1


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Result):
    """How well modules come back, for several numbers of modules K.

    Attributes:
        n_modules: (K,) the numbers of modules tried.
        consistency: (K, repetitions) share of channels with the same label in two clusterings of
            overlapping thirds of the channels (S003 Fig. 9, left; CONVENTIONS 12).
        cosine: (K, repetitions) mean cosine of their matched templates (Fig. 9, right).
        ari: (K,) adjusted Rand index of the labels between two draws of latents (1: the same
            modules; 0: chance), and None without a second draw. The papers do not report it.
        draw_agreement: (K,) share of channels with the same label in both draws.
        draw_cosine: (K,) mean cosine of matched templates between the draws.
    """

    n_modules: Labels
    consistency: Array
    cosine: Array
    provenance: dict[str, Any]
    ari: Array | None = None
    draw_agreement: Array | None = None
    draw_cosine: Array | None = None

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Label consistency against K with its standard deviation, and the ARI between draws."""
        from .plots import plot_stability

        return plot_stability({self.provenance["method"]: self}, quantity="consistency", ax=ax)


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
            3 · (shorter side) / 64, at least 3 (CONVENTIONS 8).
        percentile: of a smoothed map's values; strictly larger ones count (CONVENTIONS 9).
        seed: of the clustering and of the subsets of :meth:`stability`.

    Attributes (after :meth:`fit`):
        labels_: (channels,) module of each channel, −1 for one whose map is flat (dead channel).
        templates_: (K, H, W) rows of H of unit L2 norm; for k-means the centroids.
        weights_: (channels, K) rows of W on that scale; for k-means minus the distances.
        modules_: K unit sets, as :class:`Hybridizer` takes them.
    """

    labels_: Labels
    templates_: Array
    weights_: Array
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
        if not isinstance(n_modules, (int, np.integer)) or n_modules < 1:
            raise ProbeError(f"n_modules is {n_modules!r}; give an integer of at least 1")
        if method not in ("nmf", "kmeans"):
            raise ProbeError(f"method is {method!r}; give 'nmf' or 'kmeans'")
        if features != "bits":
            raise ProbeError(f"features is {features!r}; this version has 'bits' (S003 §3.4)")
        if window is not None and (window < 1 or window % 2 == 0):
            raise ProbeError(f"window is {window}; give an odd number of at least 1")
        if not 0 <= percentile < 100:
            raise ProbeError(f"percentile is {percentile}; give at least 0 and less than 100")
        self.n_modules = int(n_modules)
        self.method: Method = method
        self.features = features
        self.window = window
        self.percentile = percentile
        self.seed = seed

    def __repr__(self) -> str:
        return f"ModuleFinder(n_modules={self.n_modules}, method={self.method!r}, features={self.features!r})"

    def fit(self, maps: Maps) -> ModuleFinder:
        """Find the modules of influence maps: an :class:`InfluenceMaps` or an array (channels, H, W)."""
        values = as_maps(maps)
        bits = binary_features(values, self.window, self.percentile)
        alive = live_rows(bits, self.n_modules)
        with _one_thread_each():
            labels, templates, weights = factorise(bits[alive], self.n_modules, self.method, self.seed)
        self.labels_ = np.full(len(bits), NO_MODULE, dtype=np.int64)
        self.labels_[alive] = labels
        self.weights_ = np.zeros((len(bits), self.n_modules))
        self.weights_[alive] = weights
        self.templates_ = templates.reshape(self.n_modules, *values.shape[1:])
        units = maps.units if isinstance(maps, InfluenceMaps) else [UnitSet({"": (i,)}) for i in range(len(bits))]
        self.modules_ = tuple(_union(units, self.labels_ == k) for k in range(self.n_modules))
        return self

    def stability(
        self,
        maps: Maps,
        *,
        n_modules: int | Iterable[int] | None = None,
        repetitions: int = 20,
        other: Maps | None = None,
    ) -> Stability:
        """How well modules come back: between subsets of channels, and between draws of latents.

        >>> finder.stability(maps, n_modules=range(2, 7), other=maps_of_another_draw).ari  # doctest: +SKIP

        Channels are split at random into thirds A, B, C; A∪B and B∪C are clustered; labels are
        matched on B (CONVENTIONS 12). ``other``, maps of the same channels from independent pairs,
        adds the agreement between draws, which the subsets say nothing about (CONVENTIONS 13).
        """
        numbers = [n_modules] if isinstance(n_modules, int) else list(range(2, 7) if n_modules is None else n_modules)
        if not numbers or repetitions < 1:
            raise ProbeError(f"n_modules is {numbers} and repetitions {repetitions}; give at least one of each")
        bits = binary_features(as_maps(maps), self.window, self.percentile)
        alive = np.flatnonzero(live_rows(bits, 1))
        smallest = 2 * (len(alive) // 3)
        if max(numbers) > smallest:
            raise ProbeError(
                f"{max(numbers)} modules asked of subsets of {smallest} live channels; ask for at most {smallest}"
            )
        thirds = []
        for repetition in range(repetitions):
            rng = np.random.default_rng([self.seed, repetition])
            thirds.append(np.array_split(rng.permutation(alive), 3))

        def score(k: int, repetition: int) -> tuple[float, float]:
            a, b, c = thirds[repetition]
            return self._overlap(bits[np.concatenate([b, a])], bits[np.concatenate([b, c])], len(b), k)

        tasks = [(k, repetition) for k in numbers for repetition in range(repetitions)]
        # Small factorisations are memory-bound: one thread each, side by side, is twice as fast.
        with _one_thread_each(), ThreadPoolExecutor(os.cpu_count()) as pool:
            scores = np.array(list(pool.map(lambda task: score(*task), tasks)))
        consistency, cosine = scores.reshape(len(numbers), repetitions, 2).transpose(2, 0, 1)
        provenance = {"method": self.method, "features": self.features, "seed": self.seed}
        provenance |= {"window": self.window, "percentile": self.percentile}
        if isinstance(maps, InfluenceMaps):
            provenance["maps"] = maps.provenance
        draws: tuple[Array | None, Array | None, Array | None] = (None, None, None)
        if other is not None:
            with _one_thread_each():
                draws = self._between_draws(bits, as_maps(other), numbers)
        return Stability(np.array(numbers), consistency.copy(), cosine.copy(), provenance, *draws)

    def _overlap(self, one: Array, two: Array, shared: int, k: int) -> tuple[float, float]:
        """Label consistency on the first ``shared`` rows of both, and cosine of matched templates."""
        labels_one, templates_one, _ = factorise(one, k, self.method, self.seed)
        labels_two, templates_two, _ = factorise(two, k, self.method, self.seed)
        order = match_labels(labels_one[:shared], labels_two[:shared], k)
        same = labels_one[:shared] == np.argsort(order)[labels_two[:shared]]
        cosines = cosine_matrix(templates_one, templates_two)[np.arange(k), order]
        return float(same.mean()), float(cosines.mean())

    def _between_draws(self, bits: Array, other: Array, numbers: Sequence[int]) -> tuple[Array, Array, Array]:
        from sklearn.metrics import adjusted_rand_score

        other_bits = binary_features(other, self.window, self.percentile)
        if len(other_bits) != len(bits):
            raise ProbeError(
                f"the maps hold {len(bits)} unit sets and the other draw {len(other_bits)}; give maps of the same ones"
            )
        alive = bits.any(1) & other_bits.any(1)
        if alive.sum() < max(numbers):
            raise ProbeError(f"{int(alive.sum())} channels live in both draws and {max(numbers)} modules are asked for")
        ari, agreement, cosine = (np.empty(len(numbers)) for _ in range(3))
        for row, k in enumerate(numbers):
            one, templates, _ = factorise(bits[alive], k, self.method, self.seed)
            two, other_templates, _ = factorise(other_bits[alive], k, self.method, self.seed)
            order = match_labels(one, two, k)
            ari[row] = adjusted_rand_score(one, two)
            agreement[row] = np.mean(one == np.argsort(order)[two])
            cosine[row] = cosine_matrix(templates, other_templates)[np.arange(k), order].mean()
        return ari, agreement, cosine


@dataclass(frozen=True)
class ModuleMatch:
    """Modules of one layer with their counterparts in another (CONVENTIONS 14).

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
    one, two = first.templates_, second.templates_
    if one.shape != two.shape:
        raise ProbeError(
            f"the templates have shapes {one.shape} and {two.shape}; fit both layers with the same number of modules"
        )
    cosines = cosine_matrix(one.reshape(len(one), -1), two.reshape(len(two), -1))
    order = assign(cosines)
    units = tuple(
        UnitSet({**first.modules_[k].channels, **second.modules_[j].channels}) for k, j in enumerate(order)
    )
    pairs = tuple((k, int(j)) for k, j in enumerate(order))
    return ModuleMatch(units, pairs, tuple(float(cosines[k, j]) for k, j in pairs))


def as_maps(maps: Maps) -> Array:
    """Influence maps as a float64 array (channels, H, W), checked."""
    if isinstance(maps, InfluenceMaps):
        maps = maps.maps
    values = maps.detach().cpu().double().numpy() if isinstance(maps, Tensor) else np.asarray(maps, np.float64)
    if values.ndim != 3 or 0 in values.shape:
        raise ProbeError(f"influence maps have shape {values.shape}; give (channels, H, W)")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).all((1, 2)))[0])
        raise ProbeError(f"influence map {bad} holds NaN or infinite values; make the maps again from finite images")
    return values


def default_window(height: int, width: int) -> int:
    """The largest odd number up to 3 · (shorter side) / 64, at least 3 (CONVENTIONS 8)."""
    largest = 3 * min(height, width) // 64
    return max(3, largest - 1 + largest % 2)


def binary_features(maps: Array, window: int | None = None, percentile: float = 75.0) -> Array:
    """(channels, pixels) of 0 and 1: where a smoothed map exceeds a percentile of its values."""
    side = window or default_window(*maps.shape[1:])
    pooled = avg_pool2d(
        torch.from_numpy(maps)[:, None], side, stride=1, padding=side // 2, count_include_pad=False
    )
    smooth = pooled.flatten(1).numpy()
    threshold = np.percentile(smooth, percentile, axis=1, keepdims=True)
    return (smooth > threshold).astype(np.float64)


def live_rows(bits: Array, needed: int) -> npt.NDArray[np.bool_]:
    """Rows with a one in them; at least ``needed``, or a ProbeError."""
    alive = bits.any(1)
    if not alive.any():
        raise ProbeError("every influence map is flat (all channels dead); choose another layer or more pairs")
    if alive.sum() < needed:
        raise ProbeError(
            f"{needed} modules asked of {int(alive.sum())} live channels ({len(bits)} in all); ask for fewer modules"
        )
    return alive


def factorise(bits: Array, k: int, method: Method, seed: int) -> tuple[Labels, Array, Array]:
    """Labels (rows,), templates (k, pixels) and weights (rows, k) of live rows."""
    if method == "kmeans":
        from sklearn.cluster import KMeans

        model = KMeans(k, n_init=10, random_state=seed).fit(bits)
        return model.labels_.astype(np.int64), model.cluster_centers_, -model.transform(bits)
    from sklearn.decomposition import NMF

    model = NMF(k, init="nndsvda", solver="cd", tol=1e-4, max_iter=1000, random_state=seed)
    weights = model.fit_transform(bits)
    # S = W H is unchanged when a row of H shrinks and W's column grows: fix the scale (CONVENTIONS 10).
    norms = np.linalg.norm(model.components_, axis=1)
    templates = model.components_ / np.where(norms > 0, norms, 1)[:, None]
    weights = weights * norms
    return weights.argmax(1).astype(np.int64), templates, weights


def match_labels(one: Labels, two: Labels, k: int) -> Labels:
    """For each label of ``one`` the label of ``two`` that agrees with it most, one to one."""
    table = np.zeros((k, k))
    np.add.at(table, (one, two), 1)
    return assign(table)


def assign(score: Array) -> Labels:
    """The one-to-one assignment of rows to columns with the largest total score (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(score, maximize=True)[1], dtype=np.int64)


def cosine_matrix(one: Array, two: Array) -> Array:
    """Cosines between the rows of two arrays; 0 for a row of zeros."""

    def unit(rows: Array) -> Array:
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, 1)

    return np.asarray(unit(one) @ unit(two).T)


def _one_thread_each() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _union(units: Sequence[UnitSet], chosen: npt.NDArray[np.bool_]) -> UnitSet:
    """All channels of the chosen sets; layers without a channel are kept, empty."""
    channels: dict[str, list[int]] = {layer: [] for item in units for layer in item}
    for index in np.flatnonzero(chosen):
        for layer, numbers in units[index].items():
            channels[layer].extend(numbers)
    return UnitSet({layer: tuple(numbers) for layer, numbers in channels.items()})
