"""Clustering of channels: from rows of features to labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..base.display.text import counted
from ..base.errors import ProbeError
from ..base.formats.arrays import require_agreement
from ..base.formats.provenance import Provenance
from ..base.formats.schema import Schema
from ..base.formats.types import Count, Name, Text, Units
from ..generator.state.randomness import fitting
from ..generator.state.settings import sklearn_defaults

Array: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Labels: TypeAlias = npt.NDArray[np.int64]
Method: TypeAlias = Literal["nmf", "kmeans"]

NO_MODULE = -1
_MOST_ITERATIONS = 1000  # of NMF (conventions 10)
TOLERANCE = 1e-4  # of NMF, likewise
_SMALLEST = 1e-6  # value that an NMF starts with


class ModulesProvenance(Provenance, kw_only=True):
    """What results about modules record: how they are found, and that of their maps."""

    method: Name
    maps: Provenance | None = None


class FinderParameters(Schema):
    """The arguments of a finder, which checks their values."""

    n_modules: Count
    method: Name
    features: Name
    window: int | None
    percentile: float
    seed: int


class FinderHeader(Schema):
    """Of a file of modules: the finder's arguments, the channels and what they are called."""

    parameters: FinderParameters
    units: Units | None
    provenance: ModulesProvenance
    variance_explained: float
    names: list[Text] | None = None

    def require(self, tensors: Mapping[str, Tensor], n_modules: int) -> None:
        """Raise a ValueError unless the arrays are there, and agree with each other and with the header."""
        if missing := [name for name in ("labels_", "templates_", "weights_") if name not in tensors]:
            raise ValueError(f"it lacks {missing[0]!r}")
        if ("kept" in tensors) != ("ari" in tensors):
            raise ValueError("it holds one of 'kept' and 'ari' without the other")
        if ("gap" in tensors) != ("gap_p_values" in tensors):
            raise ValueError("it holds one of 'gap' and 'gap_p_values' without the other")
        forms = {"labels_": "int channels", "templates_": "float K size*", "weights_": "float channels K"}
        forms |= {"gap": "float K", "gap_p_values": "float K"}
        forms |= {"kept": "float channels", "ari": "float resamples", "units": "list channels", "names": "list K"}
        sizes = require_agreement({**tensors, "units": self.units, "names": self.names}, forms)
        labels = tensors["labels_"]
        largest = max(labels.tolist(), default=NO_MODULE)
        if sizes["K"] != n_modules or largest >= n_modules or min(labels.tolist(), default=NO_MODULE) < NO_MODULE:
            raise ValueError(f"templates_ has {sizes['K']} modules, labels_ others, and n_modules is {n_modules}")


@cache
def _unfitted() -> type[ProbeError]:
    from sklearn.exceptions import NotFittedError

    class NotFitted(ProbeError, NotFittedError):  # type: ignore[misc]  # scikit-learn has no types
        """A finder is asked for what only :meth:`fit` sets."""

    return NotFitted


def not_fitted(sentence: str) -> ProbeError:
    """An error that is scikit-learn's ``NotFittedError`` as well."""
    return _unfitted()(sentence)


def live_rows(rows: Floats, needed: int, kind: str) -> npt.NDArray[np.bool_]:
    """Which rows are not all zeros; at least ``needed``, or a ProbeError."""
    alive: npt.NDArray[np.bool_] = np.asarray(rows.any(1))
    if not alive.any():
        raise ProbeError(f"every influence map is flat (all {kind}s dead); choose another layer or more pairs")
    if alive.sum() < needed:
        raise ProbeError(
            f"{counted(needed, 'module')} asked of {counted(int(alive.sum()), f'live {kind}')} "
            f"({len(rows)} in all); ask for fewer modules"
        )
    return alive


def factorise(rows: Floats, k: int, method: Method, seed: int) -> tuple[Labels, Floats, Floats]:
    """Labels (rows,), templates (k, pixels) and weights (rows, k) of live rows."""
    require_distinct_rows(rows, k, method)
    return _nmf(rows, k, seed) if method == "nmf" else _kmeans(rows, k, seed)


def most_modules(rows: Floats, method: Method) -> int:
    """The most modules that the rows can be grouped into."""
    different = len({row.tobytes() for row in rows})
    return min(different, rows.shape[1]) if method == "nmf" else different


def require_distinct_rows(rows: Floats, k: int, method: Method) -> None:
    pixels = rows.shape[1]
    if method == "nmf" and pixels < k:
        raise ProbeError(
            f"{counted(k, 'module')} asked of maps of {counted(pixels, 'pixel')}; ask for at most {pixels}"
        )
    if (different := most_modules(rows, "kmeans")) < k:
        raise ProbeError(
            f"{counted(k, 'module')} asked of {counted(different, 'different map')}; ask for at most {different}"
        )


@sklearn_defaults()
def _kmeans(rows: Floats, k: int, seed: int) -> tuple[Labels, Floats, Floats]:
    from sklearn.cluster import KMeans

    model = KMeans(k, n_init=10, random_state=fitting(seed, 32)).fit(rows)
    return model.labels_.astype(np.int64), model.cluster_centers_, -model.transform(rows)


@sklearn_defaults()
def _nmf(rows: Floats, k: int, seed: int) -> tuple[Labels, Floats, Floats]:
    from sklearn.decomposition import NMF

    state = fitting(seed, 32)
    model = NMF(k, init="nndsvda", solver="cd", tol=TOLERANCE, max_iter=_MOST_ITERATIONS, random_state=state)
    return _scaled(model.fit_transform(rows), model.components_)


def _scaled(weights: Floats, templates: Floats) -> tuple[Labels, Floats, Floats]:
    """Labels, templates and weights; S = W H is unchanged when a row of H shrinks and W's column grows, so templates
    get unit norm (conventions 10)."""
    norms = np.linalg.norm(templates, axis=1)
    weights = weights * norms
    return weights.argmax(1).astype(np.int64), templates / np.where(norms > 0, norms, 1)[:, None], weights


def factorise_all(
    rows: Floats, numbers: Sequence[int], method: Method, seed: int, *, tolerance: float = TOLERANCE
) -> list[tuple[Labels, Floats]]:
    """Labels and templates for several numbers of modules: those of :func:`factorise`, but for rounding.

    NMFs run together, in the precision of the rows.
    """
    require_distinct_rows(rows, max(numbers), method)
    if method == "nmf" and _has_descent():
        return [_scaled(*factors)[:2] for factors in _nmfs(rows, numbers, seed, tolerance)]
    if method == "nmf":
        return [_nmf(rows, k, seed)[:2] for k in numbers]
    return [_kmeans(rows, k, seed)[:2] for k in numbers]


def factorise_quickly(
    rows: Floats, numbers: Sequence[int], method: Method, seed: int, *, tolerance: float = TOLERANCE
) -> list[tuple[Labels, Floats]]:
    """As :func:`factorise_all`, several times faster, for statistics over many runs.

    NMF runs in single precision, which is exact for binarised maps. k-means depends on distances alone, so rows are
    rotated into the space that they span, with as many coordinates as rows instead of pixels. Both end in the same
    local optimum as :func:`factorise` or, now and then, in another one as good.
    """
    count, pixels = rows.shape
    if method == "nmf" or count >= pixels:
        rows = rows.astype(np.float32) if method == "nmf" else rows
        return factorise_all(rows, numbers, method, seed, tolerance=tolerance)
    require_distinct_rows(rows, max(numbers), method)
    rotated = np.asarray(np.linalg.qr(rows.T, mode="r")).T
    found = []
    for k in numbers:
        labels = _kmeans(rotated, k, seed)[0]
        found.append((labels, np.stack([rows[labels == cluster].mean(0) for cluster in range(k)])))
    return found


@sklearn_defaults()
def _nmfs(rows: Floats, numbers: Sequence[int], seed: int, tolerance: float) -> list[tuple[Floats, Floats]]:
    """Weights and templates of several NMFs of the same rows, by scikit-learn's coordinate descent.

    They go on side by side, because nearly all of their time is spent in reading the rows for a product with a few
    columns: one product serves all that have not converged.
    """
    from sklearn.exceptions import ConvergenceWarning

    rows = np.ascontiguousarray(rows)
    fits = _starts(rows, numbers, seed)
    running, first = list(range(len(fits))), [0.0] * len(fits)
    for iteration in range(_MOST_ITERATIONS):
        weights, templates = zip(*(fits[fit] for fit in running), strict=True)
        changed = np.add(_descend(rows, weights, templates), _descend(rows.T, templates, weights)).tolist()
        if iteration == 0:
            first = changed
        running = [fit for fit, by in zip(running, changed, strict=True) if first[fit] and by / first[fit] > tolerance]
        if not running:
            break
    for _ in running:
        warnings.warn("an NMF has not converged", ConvergenceWarning, stacklevel=2)
    return [(weights, templates.T) for weights, templates in fits]


def _has_descent() -> bool:
    """Whether scikit-learn has its coordinate descent where it has long been; it is not a public part of it."""
    try:
        from sklearn.decomposition._cdnmf_fast import _update_cdnmf_fast
    except ImportError:
        return False
    return callable(_update_cdnmf_fast)


def _descend(rows: Floats, changing: Sequence[Floats], fixed: Sequence[Floats]) -> list[float]:
    """Pass over every coordinate of each changing factor once; returns by how much they violated the optimum."""
    from sklearn.decomposition._cdnmf_fast import _update_cdnmf_fast

    ends = np.cumsum([factor.shape[1] for factor in fixed])
    products = np.split(rows @ np.concatenate(fixed, axis=1), ends[:-1], axis=1)
    return [
        float(_update_cdnmf_fast(factor, other.T @ other, product, np.arange(other.shape[1], dtype=np.intp)))
        for factor, other, product in zip(changing, fixed, products, strict=True)
    ]


def _starts(rows: Floats, numbers: Sequence[int], seed: int) -> list[tuple[Floats, Floats]]:
    """Weights (rows, k) and transposed templates (pixels, k) to start from: NNDSVDa (Boutsidis and Gallopoulos 2008).

    Randomised singular vectors are those of rows rotated into the space that they span, with the same draws.
    """
    from sklearn.utils.extmath import randomized_svd

    wide = rows.shape[0] < rows.shape[1]
    rotated, back = _rotated(rows.astype(np.float64)) if wide else (rows, None)
    starts = []
    for k in numbers:
        left, values, right = randomized_svd(rotated, k, random_state=fitting(seed, 32), transpose=wide)
        right = right.T if back is None else back(right.T)
        starts.append(_non_negative(left, values, right, rows))
    return starts


def _rotated(rows: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Rows in as many coordinates as there are rows, and how vectors of these coordinates are rotated back.

    Of the eigenvectors of all products of rows, because a QR decomposition takes ten times as long.
    """
    values, vectors = np.linalg.eigh(rows @ rows.T)
    lengths = np.sqrt(np.maximum(values, 0))
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > _SMALLEST * lengths.max())
    return vectors * lengths @ vectors.T, lambda found: rows.T @ (vectors * inverse @ (vectors.T @ found))


def _non_negative(left: Floats, values: Floats, right: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Of singular vectors (…, k) the parts of the sign that holds more; zeros become the rows' mean."""
    signs = []
    for sign in (1, -1):
        one, two = np.maximum(sign * left, 0), np.maximum(sign * right, 0)
        signs.append((one, two, np.linalg.norm(one, axis=0) * np.linalg.norm(two, axis=0)))
    (one, two, size), (other_one, other_two, other_size) = signs
    positive = size > other_size
    mean, factors = rows.mean(), []
    for vectors, negative in ((one, other_one), (two, other_two)):
        chosen = np.where(positive, vectors, negative)
        norms = np.linalg.norm(chosen, axis=0)
        chosen *= np.sqrt(values * np.maximum(size, other_size)) / np.where(norms > 0, norms, 1)
        factors.append(chosen)
    weights, templates = factors
    # The first pair of vectors has one sign, but for rounding.
    weights[:, 0], templates[:, 0] = (np.sqrt(values[0]) * np.abs(vectors[:, 0]) for vectors in (left, right))
    weights, templates = (np.where(factor < _SMALLEST, mean, factor).astype(rows.dtype) for factor in factors)
    return np.ascontiguousarray(weights), np.ascontiguousarray(templates)


def match_labels(one: Labels, two: Labels, k: int) -> Labels:
    """For each label of ``one`` the label of ``two`` that agrees with it most often, one to one."""
    table = np.zeros((k, k))
    np.add.at(table, (one, two), 1)
    return assign(table)


def compare_labels(one: Labels, two: Labels, k: int) -> tuple[npt.NDArray[np.bool_], float]:
    """Which rows have the same label in both once labels are matched, and the adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score

    return one == np.argsort(match_labels(one, two, k))[two], float(adjusted_rand_score(one, two))


def assign(score: Floats) -> Labels:
    """The one-to-one assignment of rows to columns with the largest total score (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(score, maximize=True)[1], dtype=np.int64)


def cosine_matrix(one: Floats, two: Floats) -> Floats:
    """Cosines between the rows of two arrays; 0 for a row of zeros."""
    return np.asarray(unit_rows(one) @ unit_rows(two).T)


def unit_rows(rows: Floats) -> Floats:
    """Each row scaled to unit L2 norm; rows of zeros stay zeros.

    Not by ``sklearn.preprocessing.normalize``, which takes twice as long and changes the last bit of templates.
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1))


def variance_explained(rows: Floats, labels: Labels) -> float:
    """Share of the variance between modules: 1 − Σ‖row − its module's mean‖² / Σ‖row − mean‖²."""
    rows = rows.astype(np.float64)
    total = float(((rows - rows.mean(0)) ** 2).sum())
    members = [rows[labels == k] for k in np.unique(labels)]
    within = sum(float(((module - module.mean(0)) ** 2).sum()) for module in members)
    return 1 - within / total if total > 0 else 0.0


@contextmanager
def factorising() -> Iterator[None]:
    """Around factorisations: one thread for each, and a single warning for all NMFs that stop at their limit.

    The warning names the line that called the function with this block. Warnings are caught here, around all threads,
    because catching them affects the whole process.
    """
    from sklearn.exceptions import ConvergenceWarning

    with _one_thread(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    others = [warning for warning in caught if not issubclass(warning.category, ConvergenceWarning)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if stopped := len(caught) - len(others):
        warnings.warn(
            f"NMF stopped {stopped} time{'s' * (stopped > 1)} at {_MOST_ITERATIONS} iterations, short of its "
            "tolerance; take channels with two close weights as undecided, or use method='kmeans'",
            stacklevel=4,  # this generator, contextlib, the function with the block, its caller
        )


def _one_thread() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    try:
        limits: AbstractContextManager[Any] = threadpool_limits(1)
    except OSError:  # no file descriptor is left to find the libraries with: slower, and the same results
        return nullcontext()
    return limits
