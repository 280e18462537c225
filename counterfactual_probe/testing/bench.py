"""What the checks share: pairs of latents, chosen layers and channels, and forwards with plain hooks.

The hooks here use ``torch.nn`` alone and run one sample at a time, so that the library's results are compared with
results that share no code with it but for where in a forward a layer stands.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..base.errors import ProbeError, first_line
from ..generator import latents as lt
from ..generator.adapter import BASE, SOURCE, GeneratorAdapter
from ..generator.latents import Latents
from ..generator.layers import LayerInfo, listed
from ..generator.state.randomness import random_state_kept
from ..generator.units import UnitSet
from ..hybrids.hybridizer import Hybridizer
from ..hybrids.result import Hybrids
from .outcome import Skipped

PAIRS = 2
_EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}
_BATCHED = {torch.float64: 1e-10, torch.float32: 1e-4}
_HALF = 0.05
_TIMES, _MOST = 4, 1e-2  # the measured rounding, and what no rounding excuses

Action = Callable[[Tensor], Tensor | None]
T = TypeVar("T")


class Bench:
    """An adapter under test. All randomness comes from ``seed``, and everything is computed once."""

    def __init__(self, adapter: GeneratorAdapter, seed: int, layers: str | Sequence[str] | None) -> None:
        self.adapter, self.seed = adapter, seed
        names = _spread(list(adapter.layers)) if layers is None else listed(layers)
        self.layers = [adapter.layer(name) for name in names]
        self._hybrids: dict[str, Hybrids] = {}
        self._memo: dict[Callable[[Bench], Any], Any] = {}

    @cached_property
    def z1(self) -> Latents:
        return self.adapter.sample(PAIRS, seed=self.seed, stream=BASE)

    @cached_property
    def z2(self) -> Latents:
        return self.adapter.sample(PAIRS, seed=self.seed, stream=SOURCE)

    @cached_property
    def many(self) -> Latents:
        """More latents than ``wrap`` has run, which do not overlap with z1 and z2."""
        return self.adapter.sample(6, seed=self.seed, stream=SOURCE, start=PAIRS)

    @cached_property
    def many_images(self) -> Tensor:
        return self.plain_images(self.many)

    @property
    def dtype(self) -> torch.dtype:
        return self.adapter.dtype or torch.float32

    @property
    def exact(self) -> float:
        """Largest allowed difference between two exact computations of an image, for images of scale one."""
        return self._at_least(_EXACT)

    @property
    def batched(self) -> float:
        """The same between batches of different sizes, for which torch selects other kernels."""
        return self._at_least(_BATCHED)

    def _at_least(self, usual: Mapping[torch.dtype, float]) -> float:
        """The usual tolerance of the dtype or, where the forward magnifies rounding more, what was measured."""
        return max(usual[self.dtype], min(_TIMES * self.magnified, _MOST)) if self.dtype in usual else _HALF

    @cached_property
    def magnified(self) -> float:
        """The rounding of an image: how far it is from that of a copy in double precision.

        Of a module in double precision, what its copy in single precision is off by, at double precision's scale. Of
        one that cannot be copied, or that would draw other noise, what a change of the latents' last bit makes.
        """
        other = torch.float32 if self.dtype == torch.float64 else torch.float64
        if self.adapter.draws_noise:
            return self.sensitivity
        try:
            images = self.copy(dtype=other)(cast(self.z1, other), seed=self.seed)
        except (ProbeError, Skipped):
            return self.sensitivity
        finer = torch.finfo(self.dtype).eps / torch.finfo(torch.float32).eps
        return gap(images, self.originals[0]) * (finer if self.dtype == torch.float64 else 1.0)

    @cached_property
    def sensitivity(self) -> float:
        """How far an image moves when the last bit of every latent does, with the same noise."""
        bit = torch.finfo(self.dtype).eps
        moved = lt.apply(self.z1, lambda value: value * (1 + bit) if value.is_floating_point() else value)
        return gap(self.plain_images(moved), self.originals[0])

    @cached_property
    def rounding(self) -> float:
        """Largest allowed difference between a hybrid and that of plain hooks.

        This is ``exact``, unless the generator itself magnifies rounding more: then it is four times the difference
        that another batch size makes to its images, without any hybrid.
        """
        if not self.adapter.batchable:
            return self.exact
        return max(self.exact, min(_TIMES * gap(self.adapter(self.many), self.many_images), self.batched))

    @cached_property
    def originals(self) -> tuple[Tensor, Tensor]:
        """Images of z1 and of z2, one forward per latent."""
        return self.plain_images(self.z1), self.plain_images(self.z2)

    def memo(self, find: Callable[[Bench], T]) -> T:
        """``find(self)``, computed once."""
        if find not in self._memo:
            self._memo[find] = find(self)
        value: T = self._memo[find]
        return value

    def sets(self, layer: LayerInfo) -> list[UnitSet]:
        """Two single channels, half of them, all, and none: enough hybrids for the fast executor to be used."""
        order = [int(channel) for channel in np.random.default_rng(self.seed).permutation(layer.channels)]
        half = order[: max(1, layer.channels // 2)]
        chosen = [order[:1], order[-1:], half, range(layer.channels), ()]
        return [UnitSet({layer.name: tuple(channels)}) for channels in chosen]

    def hybrids(self, layer: LayerInfo) -> Hybrids:
        """The library's hybrids of this layer for :meth:`sets`."""
        if layer.name not in self._hybrids:
            run = Hybridizer(self.adapter, layer.name).hybridize
            self._hybrids[layer.name] = run(self.z1, self.z2, units=self.sets(layer), seed=self.seed)
        return self._hybrids[layer.name]

    # --- forwards with plain hooks -------------------------------------------------------------------

    def plain_images(self, latents: Latents) -> Tensor:
        n = lt.count(latents)
        return torch.cat([self.plain(lt.take(latents, slice(i, i + 1)), i, {}) for i in range(n)])

    def plain_hybrid(self, z1: Latents, z2: Latents, i: int, units: Mapping[str, Sequence[int]]) -> Tensor:
        """The hybrid of pair i by its definition: record the source's activations, then overwrite the base's."""
        donor = self.activations(z2, i, list(units))
        layers = {layer: self.adapter.layer(layer) for layer in units}
        actions = {layer: _putting(layers[layer], donor[layer], channels) for layer, channels in units.items()}
        return self.plain(lt.take(z1, slice(i, i + 1)), i, actions)

    def activations(self, latents: Latents, i: int, layers: Sequence[str]) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        self.plain(lt.take(latents, slice(i, i + 1)), i, {layer: _recording(seen, layer) for layer in layers})
        if missing := [layer for layer in layers if layer not in seen]:
            raise ProbeError(
                f"layer {missing[0]!r} did not run for latent {i} of seed {self.seed}; choose layers that run for "
                "every input"
            )
        return seen

    def plain(self, latents: Latents, number: int, actions: Mapping[str, Action]) -> Tensor:
        """One image, by one call of the module with hooks on its submodules."""
        adapter = self.adapter
        with adapter.session():
            if adapter.draws_noise:
                adapter.seed_noise(adapter.noise_seeds(latents, [number], self.seed)[0])
            handles = [_attached(adapter, layer, action) for layer, action in actions.items()]
            try:
                output = _called(adapter, latents)
            finally:
                for handle in handles:
                    handle.remove()
            image: Tensor = adapter._read_image(output)
            with torch.inference_mode(False):
                return image.clone() if image.dtype == torch.float64 else image.float().clone()

    # --- copies ----------------------------------------------------------------------------------------

    def copy(self, *, dtype: torch.dtype | None = None, device: str | None = None) -> GeneratorAdapter:
        """The same adapter on a copy of its module, of another dtype or on another device."""
        module = self.copied_module()
        old = self.adapter
        return GeneratorAdapter(
            module if dtype is None else module.to(dtype),
            old._sample_latents,
            layers=[layer.name for layer in self.layers],
            image=old._read_image,
            image_range=old.image_range,
            axes=old.axes,
            noise="latent" if old.noise_is_latent else None,
            device=device,
            name=old.name,
        )

    def copied_module(self) -> nn.Module:
        try:
            with random_state_kept(self.adapter.module):  # a module may draw while it is copied
                return copy.deepcopy(self.adapter.module)
        except Exception as error:
            raise Skipped(
                f"the module cannot be copied ({type(error).__name__}: {first_line(error)}); store no tensor that "
                "requires a gradient, and no open file, on it"
            ) from error


def _spread(names: list[str]) -> list[str]:
    """An early, a middle and a late layer."""
    return list(dict.fromkeys(names[len(names) * quarter // 4] for quarter in (1, 2, 3)))


def _called(adapter: GeneratorAdapter, latents: Latents) -> Any:
    module = adapter.module
    if adapter.noise_is_latent:
        latents, _ = lt.noise_of(latents)
    if isinstance(latents, dict):
        return module(**latents)
    return module(latents) if isinstance(latents, Tensor) else module(*latents)


def _attached(adapter: GeneratorAdapter, layer: str, action: Action) -> RemovableHandle:
    """A hook that applies the action to one layer."""
    site = adapter.site(layer)
    calls = count(1)

    def acted(handed: Any) -> Any:
        is_due = site.is_only_call or site.address.call == next(calls)
        activation = site.read(handed) if is_due else None
        new = None if activation is None else action(activation)
        return None if new is None else site.replaced(handed, new)

    part = adapter.submodules[site.address.name]
    if site.address.is_input:
        return part.register_forward_pre_hook(lambda _, given, named: acted((given, named)), with_kwargs=True)
    return part.register_forward_hook(lambda _part, _given, output: acted(output))


def _recording(into: dict[str, Tensor], layer: str) -> Action:
    def action(activation: Tensor) -> None:
        into[layer] = activation.clone()

    return action


def _putting(info: LayerInfo, values: Tensor, channels: Sequence[int]) -> Action:
    def action(activation: Tensor) -> Tensor:
        new = activation.clone()
        info.channels_first(new)[:, list(channels)] = info.channels_first(values)[:, list(channels)]
        return new

    return action


def cast(latents: Latents, dtype: torch.dtype) -> Latents:
    """The latents with those of floating point in this type."""
    return lt.apply(latents, lambda value: value.to(dtype) if value.is_floating_point() else value)


def gap(one: Tensor, two: Tensor) -> float:
    """Largest difference, relative to the images' scale if that is above one; NaN stays NaN."""
    scale = max(1.0, float(two.abs().max()))
    return float((one.double() - two.double()).abs().max()) / scale


@contextmanager
def as_skipped(what: str) -> Iterator[None]:
    """Turn a ProbeError into Skipped: the check has nothing to compare."""
    try:
        yield
    except ProbeError as error:
        raise Skipped(f"{what} ({error})") from error
