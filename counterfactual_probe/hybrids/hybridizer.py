"""Hybrids: the image of a base latent with some channels set to other values (S003 §3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from reprlib import repr as shortened
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.caller import blamed_on
from ..base.errors import ProbeError, whole
from ..base.formats.elsewhere import plain_tensor
from ..base.progress import progress_bar
from ..engine import Assignment, Intervention, Pairs, Stream, Swap
from ..engine.pairs import given_pairs
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from ..generator.units import (
    Basis,
    Features,
    Strength,
    UnitSet,
    UnitsLike,
    Where,
    by_layer,
    extent_of,
    unit_space,
)
from ..generator.units.axis import TOKEN
from .result import Hybrids

# A constant, "mean", a tensor or array, or a function of the activations; or one of these per layer.
Value: TypeAlias = "float | Literal['mean'] | Tensor | npt.NDArray[Any] | Callable[[Tensor], Tensor]"


class Hybridizer:
    """Runs a generator with units of a layer, or several, set to other values.

    >>> hybridizer = cp.Hybridizer(gen, "main.8")  # doctest: +SKIP
    >>> hybridizer.hybridize(z1, z2, units=[[3, 17], [40]]).images.shape  # doctest: +SKIP
    torch.Size([2, 8, 3, 64, 64])

    Args:
        generator: from :func:`wrap` or :func:`load`.
        layer: a layer's name, or several.
        axis: what the units of a layer are: its channels, its tokens (positions of a sequence), or the heads whose
            outputs its channels are.
        heads: how many heads; by default the attention around the layer says.
        features: units are features: an object with ``encode(activations) -> codes`` and ``decode(codes) ->
            activations``, such as one of :mod:`counterfactual_probe.bases`, or one for each layer. What it does not
            explain of an activation stays the base's.
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        layer: str | Sequence[str],
        *,
        axis: Literal["channel", "token", "head"] = "channel",
        heads: int | None = None,
        features: Basis | Mapping[str, Basis] | None = None,
    ) -> None:
        self.generator = generator
        self.space = unit_space(generator, layer, axis, heads=heads, features=features)
        self.layers = self.space.layers

    def hybridize(
        self,
        z1: Latents,
        z2: Latents,
        *,
        units: UnitsLike = None,
        where: Where = None,
        strength: Strength = 1.0,
        source_call: int | None = None,
        seed: int = 0,
        hybrids_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Hybrids:
        """Base runs with the units of ``units`` set to the source's values (S003 §3.2).

        Each listed unit takes, as soon as its layer is computed, the value of the clean run of
        z2; everything else, deeper conditions included, is the base's, recomputed from what is
        already hybrid (conventions 2 and 3).

        Args:
            z1, z2: base and source latents, in pairs.
            units: numbers of the layer's units | {layer: numbers} | a list of such sets; by default
                each unit alone.
            where: a mask of the layer's size or of the image's, or one for each pair: boolean, the swap happens inside
                alone; or from 0 to 1, the share of the source. A mask of the image's size is averaged over the part of
                the image that a position (or a token that stands for a patch) covers. A dict gives one per layer.
            strength: how far from base (0) to source (1), or beyond; one number, or one for each pair.
            source_call: of layers that run several times, the call of the source whose values are taken, from 1; by
                default the same as in the base.
            seed: of noise inside the forward, if any; pair i shares it in all runs.
        """
        sets, seed = self.space.parse(units), whole(seed, "the seed", 0)
        pairs = given_pairs(self.generator, z1, z2)
        extent, taken_from = extent_of(self.space, where, strength, pairs.n), self.space.taken_from(source_call)
        about = {"kind": "swap", **extent.about} | ({"source_call": source_call} if taken_from else {})
        with self.generator.unchanged(), self.generator.session():
            return self._run(
                Swap(*self.space.in_run(sets), extent.by_call(self.space), taken_from),
                sets,
                pairs,
                source=self.generator(z2, seed=seed),
                seed=seed,
                hybrids_per_eval=hybrids_per_eval,
                show_progress=show_progress,
                about=about,
            )

    def intervene(
        self,
        z1: Latents,
        *,
        units: UnitsLike = None,
        value: Value | Mapping[str, Value] = 0.0,
        where: Where = None,
        strength: Strength = 1.0,
        seed: int = 0,
        hybrids_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Hybrids:
        """Base runs with the units of ``units`` set to ``value`` (S003 Def. 1 and 3).

        >>> cp.Hybridizer(gen, "main.8").intervene(z1, units=[3], value=0.0)  # ablation  # doctest: +SKIP

        Args:
            z1: base latents.
            units: as in :meth:`hybridize`.
            value: a number; "mean", each channel's (or feature's) mean over the clean runs of all of z1 and over
                positions, but each token's own; a tensor or array, for k channels of size (H, W) any of (), (k,),
                (k, H, W) or (n, k, H, W); or a function of the units' activations (k, …) in one sample's
                run, whatever is upstream of them already set. A dict gives one of these per layer.
            where, strength: as in :meth:`hybridize`, towards ``value``.
        """
        sets, seed = self.space.parse(units), whole(seed, "the seed", 0)
        n = self.generator.check(z1, "the base latents z1")
        pairs = Pairs(n, lambda start, stop: lt.take(z1, slice(start, stop)))
        extent = extent_of(self.space, where, strength, n)
        with self.generator.unchanged(), self.generator.session():
            run, coordinates = self.space.in_run(sets)
            values = self._values(value, sets, z1, n, seed)
            described = value if isinstance(value, (int, float, str)) else type(value).__name__
            about = {"kind": "assignment", "value": described, **extent.about}
            return self._run(
                Assignment(run, values, coordinates, extent.by_call(self.space)),
                sets,
                pairs,
                seed=seed,
                hybrids_per_eval=hybrids_per_eval,
                show_progress=show_progress,
                about=about,
            )

    def _run(
        self,
        intervention: Intervention,
        sets: Sequence[UnitSet],
        pairs: Pairs,
        *,
        source: Tensor | None = None,
        seed: int,
        hybrids_per_eval: int | None,
        show_progress: bool,
        about: dict[str, Any],
    ) -> Hybrids:
        base = self.generator(pairs.base(0, pairs.n), seed=seed)
        with torch.inference_mode(False):  # an ordinary tensor, as all results
            images = base.expand(len(sets), *base.shape).clone()
        stream = Stream(self.generator, intervention, pairs, seed=seed, hybrids_per_eval=hybrids_per_eval)
        with progress_bar(pairs.n * len(sets), "hybrids", "hybrid", show_progress) as bar:
            for effect in stream.run():
                if effect.changed:
                    images[effect.changed, effect.pair] = effect.hybrids
                bar.update(len(effect.sets))
        provenance = self.generator.provenance() | {
            "layers": [layer.name for layer in self.layers],
            **self.space.provenance(),
            "intervention": about,
            "n_pairs": pairs.n,
            "precision": str(images.dtype).removeprefix("torch."),
            "hybrids_per_eval": stream.hybrids_per_eval,
            "executor": str(stream.executor.choice),
            "first_linear_difference": stream.executor.by_difference,
            "convolutions": stream.executor.convolutions,
        }
        return Hybrids(images, base, tuple(sets), provenance, source)

    def _values(
        self, value: Any, sets: Sequence[UnitSet], z1: Latents, n: int, seed: int
    ) -> Callable[[UnitSet, str, int, Tensor], Tensor]:
        chosen = self.space.by_call(self._chosen(value, {layer for units in sets for layer in units}))
        means = self._means(z1, n, [layer for layer, item in chosen.items() if isinstance(item, str)], seed)

        def assign(units: UnitSet, layer: str, sample: int, current: Tensor) -> Tensor:
            item = chosen[layer]
            if isinstance(item, str):
                return means[layer][list(units[layer])].expand_as(current)
            if isinstance(item, Tensor):
                return _shaped(item, current, sample, n, f"{units.kind}s of layer {layer!r}")
            if callable(item):
                cure = f"call it on a tensor of shape {tuple(current.shape)} by itself to see why"
                with blamed_on("the function given as value", cure):
                    result = item(current.clone())
                if not isinstance(result, Tensor) or result.shape != current.shape:
                    shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
                    raise ProbeError(
                        f"the function given as value returned {shape} for activations of shape "
                        f"{tuple(current.shape)}; return a tensor of the same shape"
                    )
                return result
            return torch.full_like(current, float(item))

        return assign

    def _chosen(self, value: Any, needed: set[str]) -> dict[str, Value]:
        """What each of the layers that units set is set to, checked."""
        if not isinstance(value, Mapping):
            return dict.fromkeys(needed, _checked_value(value))
        given = by_layer(value, self.generator, "value's keys")
        if missing := needed - given.keys():
            raise ProbeError(f"value names {list(value)} and not layer {min(missing)!r}, which units set")
        if extra := given.keys() - {info.name for info in self.layers}:
            raise ProbeError(f"value names layer {min(extra)!r}, which is not among the layers given; leave it out")
        checked = {layer: _checked_value(item) for layer, item in given.items()}
        return {layer: checked[layer] for layer in needed}

    def _means(self, z1: Latents, n: int, layers: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Each unit's mean over the clean runs, and over the positions of a channel or feature: (units, …)."""
        if not layers:
            return {}

        coordinates = self.space.by_call(self.space.coordinates)

        def sums(index: slice) -> dict[str, Tensor]:
            means: dict[str, Tensor] = {}

            def adder(layer: str) -> Callable[[Tensor], None]:
                def action(activation: Tensor) -> None:
                    at = coordinates[layer]
                    values = (at.codes(activation) if isinstance(at, Features) else activation).double()
                    if at.kind == TOKEN:
                        means[layer] = at.units_first(values).sum(0)
                        return
                    mean = values.flatten(2).mean(2) if values.dim() > 2 else values
                    mean = mean.view(*mean.shape, *[1] * (values.dim() - 2))
                    means[layer] = (mean if isinstance(at, Features) else at.units_first(mean)).sum(0)

                return action

            actions = {layer: adder(layer) for layer in layers}
            self.generator.forward(lt.take(z1, index), actions, noise=range(n)[index], seed=seed)
            return means

        parts = list(self.generator.batches(n, sums))
        return {layer: torch.stack([part[layer] for part in parts]).sum(0) / n for layer in layers}


def _checked_value(value: Any) -> Value:
    """A value of one of the accepted kinds, an array as a tensor."""
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc"):
        return plain_tensor(value.copy() if isinstance(value, np.ndarray) else value, "the values")
    if isinstance(value, (Real, Tensor)) or callable(value) or (isinstance(value, str) and value == "mean"):
        return cast(Value, value)
    raise ProbeError(f"value is {shortened(value)}; give a number, 'mean', a tensor or a function")


def _shaped(value: Tensor, current: Tensor, sample: int, n: int, what: str) -> Tensor:
    """A given tensor as the values (k, …) of one sample's units."""
    value = value.to(current)
    shape, k = tuple(current.shape), len(current)
    if value.dim() == 0 or tuple(value.shape) == shape:
        return value.expand_as(current)
    if tuple(value.shape) == (n, *shape):
        return value[sample]
    if tuple(value.shape) == (k,):
        return value.reshape(-1, *[1] * (current.dim() - 1)).expand_as(current)
    raise ProbeError(
        f"the tensor given as value has shape {tuple(value.shape)} for {k} {what}; give "
        f"(), ({k},), {shape} or {(n, *shape)}"
    )
