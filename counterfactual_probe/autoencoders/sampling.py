"""New codes from old ones: hybrids of their dimensions (S004 §2.3), the prior, traversals, and one chunk at a time."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base import errors
from ..base.display.plot import Plot
from ..base.errors import ProbeError, whole
from ..generator.adapter import GeneratorAdapter, stream_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Codes: TypeAlias = Tensor | npt.NDArray[Any]
# The number of parts of equal size, or the dimensions of each part.
Groups: TypeAlias = int | Sequence[Sequence[int]] | None
HYBRIDS, PRIOR = 14, 15  # streams of random numbers of their own


def hybrid_sample(codes: Codes, n: int, *, groups: Groups = None, seed: int = 0) -> Tensor:
    """New codes (n, d), each dimension taken from one of the given codes (N, d), drawn uniformly and by itself.

    >>> import torch, counterfactual_probe as cp
    >>> codes = torch.arange(12.0).reshape(3, 4)
    >>> new = cp.autoencoders.hybrid_sample(codes, 5, groups=2)  # dimensions 0 and 1 together, and 2 and 3
    >>> new.shape, bool((new[:, 1] == new[:, 0] + 1).all())
    (torch.Size([5, 4]), True)

    Args:
        codes: of training images; S004 keeps 128.
        groups: dimensions that stay together, such as a variable's: how many groups of equal size, or the dimensions
            of each. By default none do, which is what the authors' code does for all models.
    """
    rng = torch.Generator().manual_seed(stream_seed(seed, HYBRIDS, 0))
    return mixed(_checked(codes), whole(n, "n", 1), groups, rng)


def mixed(codes: Tensor, n: int, groups: Groups, rng: torch.Generator) -> Tensor:
    """:func:`hybrid_sample` from a generator of random numbers."""
    owner = _owners(groups, codes.shape[1])
    chosen = torch.randint(len(codes), (n, int(owner.max()) + 1), generator=rng)
    return codes.gather(0, chosen[:, owner].to(codes.device))


def prior_sample(n: int, latent: int, *, seed: int = 0) -> Tensor:
    """Codes (n, latent) from N(0, 1), which makes sense only for models that were trained to match it."""
    rng = torch.Generator().manual_seed(stream_seed(seed, PRIOR, 0))
    return torch.randn(whole(n, "n", 1), whole(latent, "latent", 1), generator=rng)


def traversal_codes(base: Codes, codes: Codes, *, steps: int = 8, share: float = 0.9) -> Tensor:
    """Codes (d, steps, d): in row i, dimension i goes through what it takes in ``codes``, the others stay (Fig. 4).

    Args:
        base: (d,) where to start.
        codes: (N, d) of training images.
        share: of the codes between the first step and the last.
    """
    found, start = _checked(codes), _one(base, codes)
    part = errors.share(share, "share")
    ends = torch.quantile(found.double(), torch.tensor([(1 - part) / 2, (1 + part) / 2], dtype=torch.double), dim=0)
    along = torch.linspace(0, 1, whole(steps, "steps", 2), dtype=torch.double)
    values = (ends[0] + along[:, None] * (ends[1] - ends[0])).to(found.dtype)
    made = start.expand(len(start), len(along), -1).clone()
    for i in range(len(start)):
        made[i, :, i] = values[:, i]
    return made


def chunk_codes(base: Codes, codes: Codes, *, n: int = 8, chunks: int | Groups = 4, seed: int = 0) -> Tensor:
    """Codes (chunks, n, d): in row c, the dimensions of chunk c are hybrids of ``codes``, the others stay (Fig. 6a).

    Args:
        base: (d,) which is to be varied.
        codes: (N, d) of training images.
        chunks: how many of equal size, or the dimensions of each.
    """
    found, start = _checked(codes), _one(base, codes)
    owner = _owners(chunks, found.shape[1])
    rows = []
    for chunk in range(int(owner.max()) + 1):
        rng = torch.Generator().manual_seed(stream_seed(seed, HYBRIDS, 1 + chunk))
        rows.append(torch.where(owner == chunk, mixed(found, whole(n, "n", 1), None, rng), start))
    return torch.stack(rows)


def plot_codes(
    generator: GeneratorAdapter, codes: Tensor, *, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Plot[Axes]:
    """The images of codes (rows, n, d), such as those of :func:`traversal_codes` and :func:`chunk_codes`."""
    from ..base.drawing import plot_images

    if not isinstance(codes, Tensor) or codes.dim() != 3:
        shown = tuple(codes.shape) if isinstance(codes, Tensor) else f"a {type(codes).__name__}"
        raise ProbeError(f"the codes are {shown}; give a tensor (rows, n, d)")
    names = list(labels) if labels is not None else [str(row + 1) for row in range(len(codes))]
    if len(names) != len(codes):
        raise ProbeError(f"{len(names)} labels are given for {len(codes)} rows; give one each")
    images = generator(codes.flatten(0, 1).to(generator.device, generator.dtype)).float().cpu()
    rows = images.reshape(*codes.shape[:2], *images.shape[1:]).numpy()
    return plot_images(rows, names, generator.image_range, ax=ax)


def _checked(codes: Any) -> Tensor:
    found = _tensor(codes)
    if found is None or found.dim() != 2 or 0 in found.shape:
        raise ProbeError(f"the codes are {_shown(codes)}; give floats (N, d) of at least one image")
    if not found.isfinite().all():
        row, column = (~found.isfinite()).nonzero()[0].tolist()
        raise ProbeError(
            f"the codes hold {found[row, column].item()} in row {row}, column {column}; give finite numbers"
        )
    return found.detach()


def _one(base: Any, codes: Any) -> Tensor:
    found, wanted = _tensor(base), _checked(codes)
    if found is None or tuple(found.shape) not in ((wanted.shape[1],), (1, wanted.shape[1])):
        raise ProbeError(
            f"base is {_shown(base)} and the codes are {tuple(wanted.shape)}; give one code of floats, a row"
        )
    if not found.isfinite().all():
        raise ProbeError(f"base holds {found[~found.isfinite()][0].item()}; give finite numbers")
    return found.detach().reshape(-1).to(wanted)


def _tensor(given: Any) -> Tensor | None:
    """Floats of torch or NumPy as a tensor; None of anything else."""
    if isinstance(given, np.ndarray) and given.dtype.kind == "f":
        return torch.from_numpy(given.copy())
    return given if isinstance(given, Tensor) and given.is_floating_point() else None


def _shown(given: Any) -> str:
    known = isinstance(given, (Tensor, np.ndarray))
    return f"{given.dtype} {tuple(given.shape)}" if known else f"a {type(given).__name__}"


def _owners(groups: Groups, d: int) -> Tensor:
    """(d,) the group of each dimension."""
    if groups is None:
        return torch.arange(d)
    if not isinstance(groups, Sequence):
        count = whole(groups, "the number of groups", 1)
        if d % count:
            raise ProbeError(f"codes of {d} dimensions cannot be split evenly into {count} groups; name their members")
        return torch.arange(d) // (d // count)
    owner = torch.full((d,), -1)
    for number, members in enumerate(groups):
        try:
            dimensions = [operator.index(dimension) for dimension in members]
        except TypeError:
            raise ProbeError(
                f"group {number} is {members!r}; give the dimensions of each, such as [[0, 1], [2]]"
            ) from None
        for dimension in dimensions:
            if not 0 <= dimension < d or owner[dimension] >= 0:
                raise ProbeError(
                    f"group {number} names dimension {dimension}, which codes of {d} lack or another has; name "
                    "each once"
                )
            owner[dimension] = number
    if (owner < 0).any():
        left = (owner < 0).nonzero()[:, 0].tolist()
        raise ProbeError(f"no group names dimensions {left}; name each once")
    return owner
