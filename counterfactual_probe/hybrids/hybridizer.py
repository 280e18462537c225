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
from ..generator.layers import LayerInfo
from ..generator.units import UnitSet, UnitsLike, by_layer, parse_layers, parse_units
from .result import Hybrids

# A constant, "mean", a tensor or array, or a function of the activations; or one of these per layer.
Value: TypeAlias = "float | Literal['mean'] | Tensor | npt.NDArray[Any] | Callable[[Tensor], Tensor]"


class Hybridizer:
    """Runs a generator with channels of a layer, or several, set to other values.

    >>> hybridizer = cp.Hybridizer(gen, "main.8")  # doctest: +SKIP
    >>> hybridizer.hybridize(z1, z2, units=[[3, 17], [40]]).images.shape  # doctest: +SKIP
    torch.Size([2, 8, 3, 64, 64])

    Args:
        generator: from :func:`wrap` or :func:`load`.
        layer: a layer's name, or several.
    """

    def __init__(self, generator: GeneratorAdapter, layer: str | Sequence[str]) -> None:
        self.generator = generator
        self.layers = parse_layers(generator, layer)

    def hybridize(
        self,
        z1: Latents,
        z2: Latents,
        *,
        units: UnitsLike = None,
        seed: int = 0,
        hybrids_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Hybrids:
        """Base runs with the channels of ``units`` set to the source's values (S003 §3.2).

        Each listed channel takes, as soon as its layer is computed, the value of the clean run of
        z2; everything else, deeper conditions included, is the base's, recomputed from what is
        already hybrid (conventions 2 and 3).

        Args:
            z1, z2: base and source latents, in pairs.
            units: channels of the layer | {layer: channels} | a list of such sets; by default
                each channel alone.
            seed: of noise inside the forward, if any; pair i shares it in all runs.
        """
        sets, seed = parse_units(units, self.layers, self.generator), whole(seed, "the seed", 0)
        pairs = given_pairs(self.generator, z1, z2)
        with self.generator.unchanged(), self.generator.session():
            return self._run(
                Swap(sets),
                pairs,
                source=self.generator(z2, seed=seed),
                seed=seed,
                hybrids_per_eval=hybrids_per_eval,
                show_progress=show_progress,
                about={"kind": "swap"},
            )

    def intervene(
        self,
        z1: Latents,
        *,
        units: UnitsLike = None,
        value: Value | Mapping[str, Value] = 0.0,
        seed: int = 0,
        hybrids_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Hybrids:
        """Base runs with the channels of ``units`` set to ``value`` (S003 Def. 1 and 3).

        >>> cp.Hybridizer(gen, "main.8").intervene(z1, units=[3], value=0.0)  # ablation  # doctest: +SKIP

        Args:
            z1: base latents.
            units: as in :meth:`hybridize`.
            value: a number; "mean", each channel's mean over the clean runs of all of z1 and over
                positions; a tensor or array, for k channels of size (H, W) any of (), (k,),
                (k, H, W) or (n, k, H, W); or a function of the channels' activations (k, H, W) in one sample's
                run, whatever is upstream of them already set. A dict gives one of these per layer.
        """
        sets, seed = parse_units(units, self.layers, self.generator), whole(seed, "the seed", 0)
        n = self.generator.check(z1, "the base latents z1")
        pairs = Pairs(n, lambda start, stop: lt.take(z1, slice(start, stop)))
        with self.generator.unchanged(), self.generator.session():
            values = self._values(value, sets, z1, n, seed)
            described = value if isinstance(value, (int, float, str)) else type(value).__name__
            about = {"kind": "assignment", "value": described}
            return self._run(
                Assignment(sets, values),
                pairs,
                seed=seed,
                hybrids_per_eval=hybrids_per_eval,
                show_progress=show_progress,
                about=about,
            )

    def _run(
        self,
        intervention: Intervention,
        pairs: Pairs,
        *,
        source: Tensor | None = None,
        seed: int,
        hybrids_per_eval: int | None,
        show_progress: bool,
        about: dict[str, Any],
    ) -> Hybrids:
        base = self.generator(pairs.base(0, pairs.n), seed=seed)
        sets = intervention.sets
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
            "intervention": about,
            "n_pairs": pairs.n,
            "precision": str(images.dtype).removeprefix("torch."),
            "hybrids_per_eval": stream.hybrids_per_eval,
            "executor": str(stream.executor.choice),
        }
        return Hybrids(images, base, tuple(sets), provenance, source)

    def _values(
        self, value: Any, sets: Sequence[UnitSet], z1: Latents, n: int, seed: int
    ) -> Callable[[UnitSet, str, int, Tensor], Tensor]:
        infos = {info.name: info for info in self.layers}
        chosen = self._chosen(value, {layer for units in sets for layer in units})
        means = self._means(z1, n, [layer for layer, item in chosen.items() if isinstance(item, str)], seed)

        def assign(units: UnitSet, layer: str, sample: int, current: Tensor) -> Tensor:
            item, channels = chosen[layer], units[layer]
            if isinstance(item, str):
                return means[layer][list(channels)].reshape(-1, *[1] * (current.dim() - 1)).expand_as(current)
            if isinstance(item, Tensor):
                return _shaped(item, current, sample, n, infos[layer])
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
        """Each channel's mean over the clean runs and over positions."""
        if not layers:
            return {}

        def sums(index: slice) -> dict[str, Tensor]:
            means: dict[str, Tensor] = {}

            def adder(layer: str) -> Callable[[Tensor], None]:
                def action(activation: Tensor) -> None:
                    values = activation.double()
                    means[layer] = values.reshape(*values.shape[:2], -1).mean(2).sum(0)

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


def _shaped(value: Tensor, current: Tensor, sample: int, n: int, layer: LayerInfo) -> Tensor:
    """A given tensor as the values (k, …) of one sample's channels."""
    value = value.to(current)
    shape, k = tuple(current.shape), len(current)
    if value.dim() == 0 or tuple(value.shape) == shape:
        return value.expand_as(current)
    if tuple(value.shape) == (n, *shape):
        return value[sample]
    if tuple(value.shape) == (k,):
        return value.reshape(-1, *[1] * (current.dim() - 1)).expand_as(current)
    raise ProbeError(
        f"the tensor given as value has shape {tuple(value.shape)} for {k} channels of layer {layer.name!r}; give "
        f"(), ({k},), {shape} or {(n, *shape)}"
    )
