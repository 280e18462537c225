"""What hybrids change, in its leading principal components: for images without spatial alignment (S001 §5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..base.errors import ProbeError
from ..engine import Effect, Pairs, Stream, Swap
from ..generator.adapter import GeneratorAdapter
from ..generator.units import UnitSet
from .ranks import Meeting

COMPONENTS = 64  # of which modules are made: with 32, in a pretrained DCGAN, they came back worse
_PILOT_PAIRS = 16
_MOST_CHANGES = 2048
_MOST_BYTES = 2**28


def changes(effect: Effect, cell: tuple[int, int]) -> Tensor:
    """(changed sets, C, h, w) hybrid − original, averaged over cells of pixels, each of unit L2 norm (or zero)."""
    found = effect.hybrids - effect.original
    if cell != (1, 1):
        found = avg_pool2d(found, cell)
    norms = found.flatten(1).norm(dim=1).clamp_min(torch.finfo(found.dtype).tiny)
    unit: Tensor = found / norms[:, None, None, None]
    return unit


def energy_shares(effect: Effect, components: Tensor, cell: tuple[int, int]) -> Tensor:
    """(sets, components) the share of a change's squared norm in each component; zeros for no change."""
    return effect.of_sets((changes(effect, cell).flatten(1) @ components.to(effect.hybrids).flatten(1).T).square())


def principal_components(
    generator: GeneratorAdapter,
    sets: list[UnitSet],
    pairs: Pairs,
    number: int,
    *,
    seed: int,
    cell: tuple[int, int],
) -> Tensor:
    """(number, C, h, w) of unit norm: the leading components of changes of unit norm, about no change.

    Of the first pairs, and of as many unit sets, evenly spread, as make enough changes.
    """
    from sklearn.utils.extmath import randomized_svd

    colours, height, width = generator.image_size
    pixels = colours * (height // cell[0]) * (width // cell[1])
    most = min(_MOST_CHANGES, _MOST_BYTES // (4 * pixels))
    n_pairs = min(_PILOT_PAIRS, pairs.n)
    some = np.unique(np.linspace(0, len(sets) - 1, min(len(sets), max(1, most // n_pairs))).round().astype(int))
    stream = Stream(generator, Swap([sets[chosen] for chosen in some]), pairs, seed=seed)
    with generator.session():
        found = torch.cat([changes(effect, cell).cpu() for effect in stream.run(0, n_pairs)])
        found = found[found.flatten(1).any(1)].float()
    if len(found) < number:
        raise ProbeError(
            f"{number} components asked of {len(found)} changes, of {n_pairs} pairs and {len(some)} unit sets; ask "
            f"for at most {len(found)}, or give more pairs"
        )
    basis = randomized_svd(found.flatten(1).numpy(), n_components=number, random_state=seed % 2**32)[2]
    return torch.from_numpy(np.ascontiguousarray(basis)).view(number, *found.shape[1:])


def components_for_all(
    generator: GeneratorAdapter,
    sets: list[UnitSet],
    pairs: Pairs,
    chosen: int | Tensor | None,
    *,
    seed: int,
    cell: tuple[int, int],
    meeting: Meeting,
) -> Tensor | None:
    """The components chosen, or so many of them, found on one rank for all."""
    if not isinstance(chosen, int):
        return chosen
    found = None
    if meeting.ranks.rank == 0:
        found = principal_components(generator, sets, pairs, chosen, seed=seed, cell=cell)
    shared: Tensor = meeting.from_first(found)
    return shared
