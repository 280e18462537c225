"""New codes: hybrids of given codes (S004 §2.3), samples of the prior, traversals, and hybrids of single chunks."""

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
from ..base.formats.elsewhere import plain_tensor
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import stream_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Codes: TypeAlias = Tensor | npt.NDArray[Any]
# The number of parts of equal size, or the dimensions of each part.
Groups: TypeAlias = int | Sequence[Sequence[int]] | None
HYBRIDS, PRIOR = 14, 15  # random streams


def hybrid_sample(codes: Codes, n: int, *, groups: Groups = None, seed: int = 0) -> Tensor:
    """New codes (n, d): each dimension is taken from one of the given codes (N, d), chosen uniformly and independently.

    >>> import torch, counterfactual_probe as cp
    >>> codes = torch.arange(12.0).reshape(3, 4)
    >>> new = cp.autoencoders.hybrid_sample(codes, 5, groups=2)  # dimensions 0 and 1 together, and 2 and 3
    >>> new.shape, bool((new[:, 1] == new[:, 0] + 1).all())
    (torch.Size([5, 4]), True)

    Args:
        codes: of training images; S004 stores 128.
        groups: dimensions that stay together, such as those of a variable: the number of groups of equal size, or the
            dimensions of each group. By default each dimension is chosen by itself, as in the authors' code for all
            models.
    """
    rng = torch.Generator().manual_seed(stream_seed(seed, HYBRIDS, 0))
    return mixed(_checked_codes(codes), whole(n, "n", 1), groups, rng)


def mixed(codes: Tensor, n: int, groups: Groups, rng: torch.Generator) -> Tensor:
    """:func:`hybrid_sample` with a given random number generator."""
    owner = _owners(groups, codes.shape[1])
    chosen = torch.randint(len(codes), (n, int(owner.max()) + 1), generator=rng)
    return codes.gather(0, chosen[:, owner].to(codes.device))


def prior_sample(n: int, latent: int, *, seed: int = 0) -> Tensor:
    """Codes (n, latent) from N(0, 1); useful only for models whose codes were trained to match it."""
    rng = torch.Generator().manual_seed(stream_seed(seed, PRIOR, 0))
    return torch.randn(whole(n, "n", 1), whole(latent, "latent", 1), generator=rng)


def traversal_codes(base: Codes, codes: Codes, *, steps: int = 8, share: float = 0.9) -> Tensor:
    """Codes (d, steps, d): in row i, dimension i runs over its range in ``codes``, and the others stay (Fig. 4).

    Args:
        base: (d,) the code to vary.
        codes: (N, d) codes of training images.
        share: the share of ``codes`` that lies between the first step and the last.
    """
    sample, start = _checked_codes(codes), _one_code(base, codes)
    part = errors.share(share, "share")
    ends = torch.quantile(sample.double(), torch.tensor([(1 - part) / 2, (1 + part) / 2], dtype=torch.double), dim=0)
    along = torch.linspace(0, 1, whole(steps, "steps", 2), dtype=torch.double)
    values = (ends[0] + along[:, None] * (ends[1] - ends[0])).to(sample.dtype)
    made = start.expand(len(start), len(along), -1).clone()
    for i in range(len(start)):
        made[i, :, i] = values[:, i]
    return made


def chunk_codes(base: Codes, codes: Codes, *, n: int = 8, chunks: int | Groups = 4, seed: int = 0) -> Tensor:
    """Codes (chunks, n, d): in row c, the dimensions of chunk c are hybrids of ``codes``; the others stay (Fig. 6a).

    Args:
        base: (d,) the code to vary.
        codes: (N, d) codes of training images.
        chunks: the number of chunks of equal size, or the dimensions of each.
    """
    sample, start = _checked_codes(codes), _one_code(base, codes)
    owner = _owners(chunks, sample.shape[1])
    rows = []
    for chunk in range(int(owner.max()) + 1):
        rng = torch.Generator().manual_seed(stream_seed(seed, HYBRIDS, 1 + chunk))
        rows.append(torch.where(owner == chunk, mixed(sample, whole(n, "n", 1), None, rng), start))
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


def _checked_codes(codes: Any) -> Tensor:
    sample = _tensor(codes)
    if sample is None or sample.is_meta or sample.dim() != 2 or 0 in sample.shape:
        raise ProbeError(f"the codes are {_described(codes)}; give floats (N, d) of at least one image")
    if not sample.isfinite().all():
        row, column = (~sample.isfinite()).nonzero()[0].tolist()
        raise ProbeError(
            f"the codes hold {sample[row, column].item()} in row {row}, column {column}; give finite numbers"
        )
    return sample.detach()


def _one_code(base: Any, codes: Any) -> Tensor:
    code, wanted = _tensor(base), _checked_codes(codes)
    if code is None or tuple(code.shape) not in ((wanted.shape[1],), (1, wanted.shape[1])):
        raise ProbeError(
            f"base is {_described(base)} and the codes are {tuple(wanted.shape)}; give one code of floats, such as a "
            "row"
        )
    if not code.isfinite().all():
        raise ProbeError(f"base holds {code[~code.isfinite()][0].item()}; give finite numbers")
    return code.detach().reshape(-1).to(wanted)


def _tensor(given: Any) -> Tensor | None:
    """A tensor, if given floats of torch or NumPy; otherwise None."""
    if isinstance(given, (np.ndarray, Tensor)):
        tensor = plain_tensor(given, "the codes")
        return tensor if tensor.is_floating_point() else None
    return None


def _described(given: Any) -> str:
    known = isinstance(given, (Tensor, np.ndarray))
    return f"{given.dtype} {tuple(given.shape)}" if known else f"a {type(given).__name__}"


def _owners(groups: Groups, d: int) -> Tensor:
    """(d,) the group of each dimension."""
    if groups is None:
        return torch.arange(d)
    if not isinstance(groups, Sequence):
        count = whole(groups, "the number of groups", 1)
        if d % count:
            raise ProbeError(
                f"codes of {d} dimensions cannot be split evenly into {count} groups; list their dimensions"
            )
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
                    f"group {number} has dimension {dimension}, which is not in codes of {d} dimensions or is listed "
                    "twice; list each once"
                )
            owner[dimension] = number
    if (owner < 0).any():
        left = (owner < 0).nonzero()[:, 0].tolist()
        raise ProbeError(f"no group has dimensions {left}; list each once")
    return owner
