"""Latents: a tensor, a tuple of tensors (``module(*t)``) or a dict of them (``module(**d)``).

Every tensor has the sample as its first dimension; classes and truncations are latents too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..base.formats.elsewhere import require_dense
from ..base.formats.schema import Schema
from ..base.formats.types import Name

Latents: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
PAIR_DIGESTS = 256  # of a sample of pairs, that results keep
NOISE = "noise"  # the key of the seeds of what a forward draws by itself


def named_tensors(latents: Latents) -> list[tuple[str, Tensor]]:
    """The tensors of the latents with the words that name them in an error."""
    if isinstance(latents, Tensor):
        return [("latents", latents)]
    if isinstance(latents, dict):
        return [(f"latents[{key!r}]", value) for key, value in latents.items()]
    if isinstance(latents, (tuple, list)):
        return [(f"latents[{i}]", value) for i, value in enumerate(latents)]
    raise ProbeError(f"latents are a {type(latents).__name__}; give a tensor, a tuple of tensors or a dict of tensors")


def apply(latents: Latents, function: Callable[[Tensor], Tensor]) -> Latents:
    """The same structure with ``function`` applied to every tensor."""
    if isinstance(latents, Tensor):
        return function(latents)
    if isinstance(latents, dict):
        return {key: function(value) for key, value in latents.items()}
    return tuple(function(value) for value in latents)


def take(latents: Latents, index: slice | Tensor) -> Latents:
    """Some of the samples: a slice, or a tensor of indices (which may repeat)."""
    return apply(latents, lambda value: value[index])


def join(parts: Sequence[Latents]) -> Latents:
    """Concatenate samples; all parts must have the structure of the first."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    if isinstance(first, dict):
        dicts = [part for part in parts if isinstance(part, dict)]
        return {key: torch.cat([part[key] for part in dicts]) for key in first}
    tuples = [part for part in parts if isinstance(part, (tuple, list))]
    return tuple(torch.cat(column) for column in zip(*tuples, strict=True))


def count(latents: Latents, what: str = "the latents") -> int:
    """How many samples the latents hold; every tensor must agree."""
    named = named_tensors(latents)
    if not named:
        raise ProbeError(f"{what} hold no tensor; give at least one, with the sample as first dimension")
    for label, value in named:
        if not isinstance(value, Tensor):
            raise ProbeError(
                f"{label} of {what} is a {type(value).__name__}; make it a tensor with the sample as its "
                "first dimension (a truncation of 0.5 for 8 samples is torch.full((8,), 0.5))"
            )
        if value.layout is not torch.strided:
            raise ProbeError(f"{label} of {what} is of layout {value.layout}; give a dense tensor, .to_dense()")
        require_dense(value, f"{label} of {what}")
        if value.dim() == 0:
            raise ProbeError(f"{label} of {what} has no sample dimension; make it batch-first, shape (n, …)")
    first_label, first = named[0]
    for label, value in named[1:]:
        if len(value) != len(first):
            raise ProbeError(
                f"{first_label} of {what} holds {len(first)} samples and {label} {len(value)}; "
                "give every tensor the same first dimension"
            )
    if len(first) == 0:
        raise ProbeError(f"{what} hold 0 samples; give at least one")
    return len(first)


def fingerprint(latents: Latents) -> str:
    """SHA-256 over the names, types, shapes and values of the tensors."""
    digest = hashlib.sha256()
    for label, value in sorted(named_tensors(latents), key=lambda item: item[0]):
        for name, part in _plain_parts(label, value):
            digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
            raw = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()


def pair_digests(base: Latents, source: Latents) -> list[str]:
    """The smallest digests of pairs: those of two samples of pairs show whether these overlap."""
    both = [*named_tensors(base), *((f"source {label}", value) for label, value in named_tensors(source))]
    named = {label: value.detach().cpu() for label, value in both}
    rows = range(count(base))
    return sorted({fingerprint({label: value[row] for label, value in named.items()})[:12] for row in rows})[
        :PAIR_DIGESTS
    ]


_SPARSE = {
    torch.sparse_coo: ("indices", "values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def _plain_parts(label: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The tensors that hold the values: several behind one of a quantised type, which few operations know."""
    flatten = getattr(value, "__tensor_flatten__", None)
    if flatten is None and value.layout is torch.strided:
        yield label, value
        return
    if flatten is None:
        whole = value.coalesce() if value.layout is torch.sparse_coo else value
        parts = [(name, getattr(whole, name)()) for name in _SPARSE.get(value.layout, ("to_dense",))]
        for name, part in parts:
            yield from _plain_parts(f"{label}.{name} {tuple(value.shape)}", part)
        return
    for name in flatten()[0]:
        yield from _plain_parts(f"{label}.{name}", getattr(value, name))


def standard_normal(n: int, rng: torch.Generator, *, size: tuple[int, ...]) -> Tensor:
    """``n`` latents of this size. With ``partial`` it is a ``sample_latents`` that can be pickled, unlike a lambda."""
    return torch.randn(n, *size, generator=rng)


def mix(base: Latents, source: Latents, share: float, seed: int) -> Latents:
    """The base latents with a random share of their coordinates taken from the source.

    Every sample takes the same coordinates, so that the mixture still follows a prior with
    independent coordinates. Integer latents, such as classes, stay the base's. The control beside
    hybrids: what does mixing the input by as much do (S003 Fig. 12)?
    """
    rng = np.random.default_rng([seed, len(named_tensors(base))])
    others = iter(value for _, value in named_tensors(source))

    def mixed(value: Tensor) -> Tensor:
        other = next(others)
        if not value.is_floating_point():
            return value
        coordinates = value[0].numel()
        chosen = np.zeros(coordinates, dtype=bool)
        chosen[rng.permutation(coordinates)[: round(share * coordinates)]] = True
        mask = torch.from_numpy(chosen).to(value.device).reshape(value.shape[1:])
        return torch.where(mask, other, value)

    return apply(base, mixed)


def drawn_seeds(rng: torch.Generator, n: int = 1) -> Tensor:
    """Seeds of what a forward draws by itself, for so many samples."""
    return torch.randint(2**63 - 1, (n,), generator=rng)


def with_noise(latents: Latents, seeds: Tensor) -> Latents:
    """The latents with the seeds of what the forward draws by itself, one for each sample."""
    if isinstance(latents, Tensor):
        return latents, seeds
    if not isinstance(latents, dict):
        return *latents, seeds
    if NOISE in latents:
        raise ProbeError(f"the latents hold {NOISE!r} already; give it another name, for noise='latent' needs this one")
    return {**latents, NOISE: seeds}


def noise_of(latents: Latents) -> tuple[Latents, list[int]]:
    """What :func:`with_noise` joined: the latents, and the seeds."""
    if isinstance(latents, dict):
        return {name: value for name, value in latents.items() if name != NOISE}, latents[NOISE].tolist()
    *others, seeds = latents
    return others[0] if len(others) == 1 else tuple(others), seeds.tolist()


def one_each(value: Any) -> bool:
    """Whether a condition holds one value per sample."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim > 0
    return isinstance(value, (list, tuple))


def require_conditions(
    conditions: Mapping[str, Any], n: int, sample_latents: Callable[..., Latents], name: str
) -> None:
    """Raise a ProbeError for conditions of another number than n, or that the function has no arguments for."""
    for condition, value in conditions.items():
        if one_each(value) and len(value) != n:
            raise ProbeError(f"{condition} holds {len(value)} values for {n} samples; give one each, or one for all")
    try:
        taken = signature(sample_latents).parameters
    except ValueError:  # of a function that is not written in Python
        return
    unknown = [condition for condition in conditions if condition not in taken]
    if unknown and not any(argument.kind is Parameter.VAR_KEYWORD for argument in taken.values()):
        raise ProbeError(
            f"{name} takes no {unknown[0]}, since its sample_latents has no argument of that name; leave it out, or "
            f"give a conditional generator, wrapped with sample_latents(n, rng, {unknown[0]}=None)"
        )


def form(named: list[tuple[str, Tensor]]) -> str:
    """Names and shapes, for errors."""
    return ", ".join(f"{label} {tuple(value.shape)}" for label, value in named)


def stream_seed(seed: int, stream: int, index: int) -> int:
    """The seed of one sample. Through SeedSequence, so neighbouring seeds share no samples."""
    return int(np.random.SeedSequence([whole(seed, "the seed", 0), stream, index]).generate_state(1, np.uint64)[0])


class LatentsForm(Schema):
    """The structure of latents whose tensors a file of a result holds, as ``latents/NAME``."""

    kind: Literal["tensor", "tuple", "dict"]
    names: list[Name]

    @classmethod
    def of(cls, latents: Latents) -> LatentsForm:
        """The structure of these."""
        if isinstance(latents, Tensor):
            return cls("tensor", ["0"])
        if isinstance(latents, dict):
            return cls("dict", list(latents))
        return cls("tuple", [str(place) for place in range(len(latents))])

    def parts(self, latents: Latents) -> dict[str, Tensor]:
        """The tensors of such latents by their names in the file."""
        return {f"latents/{name}": value for name, (_, value) in zip(self.names, named_tensors(latents), strict=True)}

    def taken_from(self, tensors: dict[str, Tensor]) -> Latents:
        """The latents, whose tensors are taken out of a file's; a ValueError unless all hold as many samples."""
        values = [tensors.pop(f"latents/{name}") for name in self.names]
        if not values or any(value.dim() == 0 or len(value) != len(values[0]) for value in values):
            raise ValueError("its latents do not hold as many samples each")
        if self.kind == "tensor":
            return values[0]
        return dict(zip(self.names, values, strict=True)) if self.kind == "dict" else tuple(values)
