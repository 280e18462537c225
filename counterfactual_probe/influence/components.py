"""What hybrids change, in its leading principal components: for images without spatial alignment (S001 §5)."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..distributed.exchange import Exchange
from ..engine import Effect, Stream
from ..generator.state.randomness import fitting
from ..generator.state.settings import sklearn_defaults
from .arrays import Components
from .request import MapRequest, averaged

COMPONENTS = 64  # of which modules are made: with 32, in a pretrained DCGAN, they were less reproducible
RESAMPLES = 6  # of the pilot's pairs: each costs as much as the components themselves
_PILOT_PAIRS = 64
_SPACE = 4  # dimensions of the space of resamples, of the number of components
_MOST_CHANGES = 2048
_MOST_BYTES = 2**28


def changes(effect: Effect, cell: tuple[int, ...]) -> Tensor:
    """(changed sets, C, h, w) hybrid − original, averaged over cells of pixels, each of unit L2 norm (or zero)."""
    differences = effect.hybrids - effect.original
    differences = averaged(differences, cell)
    norms = differences.flatten(1).norm(dim=1).clamp_min(torch.finfo(differences.dtype).tiny)
    unit: Tensor = differences / norms.view(-1, *[1] * (differences.dim() - 1))
    return unit


def energy_shares(effect: Effect, components: Tensor, cell: tuple[int, ...]) -> Tensor:
    """(sets, components) the share of a change's squared norm in each component; zeros for no change."""
    return effect.of_sets((changes(effect, cell).flatten(1) @ components.to(effect.hybrids).flatten(1).T).square())


@sklearn_defaults()
def principal_components(request: MapRequest, number: int) -> Components:
    """Of unit norm: the leading components of changes of unit norm, about no change.

    Of the first pairs, and of as many unit sets, evenly spread, as make enough changes. With blocks, which are there to
    be resampled, also those of random halves of these pairs.
    """
    from sklearn.utils.extmath import randomized_svd

    sample, pairs, n_sets = _pilot_changes(request)
    n_pairs = int(pairs.max()) + 1 if len(pairs) else 0
    if len(sample) < number:
        raise ProbeError(
            f"{number} components asked of {len(sample)} changes, of {n_pairs} pairs and {n_sets} unit sets; ask "
            f"for at most {len(sample)}, or give more pairs"
        )
    flat, shape = sample.flatten(1).numpy(), (-1, *sample.shape[1:])
    # Resamples vary little outside of a space of some more dimensions, in which their components cost nothing.
    space = randomized_svd(
        flat, n_components=min(_SPACE * number, *flat.shape), random_state=fitting(request.seed, 32)
    )[2]
    leading = torch.from_numpy(np.ascontiguousarray(space[:number])).view(shape)
    coordinates, resampled = flat @ space.T, []
    for resample in range(RESAMPLES if request.options.blocks else 0):
        rows = np.isin(pairs, _half(n_pairs, request.seed, resample))
        if rows.sum() < number:
            return Components(leading)  # too few changes for as many components
        directions = np.linalg.svd(coordinates[rows], full_matrices=False)[2][:number]
        resampled.append(torch.from_numpy(directions @ space).view(shape))
    return Components(leading, torch.stack(resampled) if resampled else None)


def _half(n_pairs: int, seed: int, resample: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Half of the pairs."""
    return np.random.default_rng([seed, resample, n_pairs]).permutation(n_pairs)[: max(1, n_pairs // 2)]


def components_on_all_ranks(request: MapRequest, exchange: Exchange) -> Components | None:
    """The given components, or the requested number of them, computed on rank 0 for all."""
    wanted = request.options.components
    if not isinstance(wanted, int):
        return wanted
    computed = principal_components(request, wanted) if exchange.ranks.rank == 0 else None
    shared: Components = exchange.from_first(computed)
    return shared


def _pilot_changes(request: MapRequest) -> tuple[Tensor, np.ndarray[Any, np.dtype[np.int64]], int]:
    """Changes of unit norm, leaving out sets that change nothing, the pair of each, and of how many unit sets."""
    sets, pairs, cell = request.sets, request.pairs, request.options.cell
    pixels = request.generator.image_size[0] * prod(request.options.size)
    most = min(_MOST_CHANGES, _MOST_BYTES // (4 * pixels))
    n_pairs = min(_PILOT_PAIRS, pairs.n)
    some = np.unique(np.linspace(0, len(sets) - 1, min(len(sets), max(1, most // n_pairs))).round().astype(int))
    stream = Stream(request.generator, request.swap([sets[chosen] for chosen in some]), pairs, seed=request.seed)
    with request.generator.session():
        made = [(effect.pair, changes(effect, cell).cpu()) for effect in stream.run(0, n_pairs)]
    sample = torch.cat([changed for _, changed in made])
    of_pair = np.concatenate([np.full(len(changed), pair) for pair, changed in made])
    alive = sample.flatten(1).any(1)
    return sample[alive].float(), of_pair[alive.numpy()], len(some)
