"""Checks of hybrids: the identities of interventions, and equality with forwards with plain hooks."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from ..generator import latents as lt
from ..generator.latents import Latents
from ..generator.layers import LayerInfo
from ..generator.units import UnitSet
from ..hybrids.hybridizer import Hybridizer
from ..influence.influence_map import InfluenceMap
from .bench import PAIRS, Bench, gap
from .outcome import Failed, Skipped


def layers_as_listed(bench: Bench) -> str:
    """Each layer has, for every latent, the number of channels and the map size that the adapter lists."""
    for layer in bench.layers:
        for i in range(lt.count(bench.many)):
            seen = bench.activations(bench.many, i, [layer.name])[layer.name]
            try:
                seen = layer.channels_first(seen)
            except RuntimeError:  # it has other dimensions
                seen = seen[None]
            shape, expected = tuple(seen.shape[1:]), (layer.channels, *layer.size)
            if shape != expected:
                raise Failed(
                    f"layer {layer.name!r} is listed with shape {expected} and has {shape} for latent {i}; choose "
                    "layers=[...] whose outputs have the same shape for every latent"
                )
    return "; ".join(f"{layer.name!r} has {layer.channels} channels" for layer in bench.layers)


def no_channel(bench: Bench) -> str:
    """With no channel set, a hybrid is the base image, exactly."""
    for layer in bench.layers:
        hybrids = bench.hybrids(layer)
        if not torch.equal(hybrids.images[-1], hybrids.base):
            raise Failed(
                f"with no channel of layer {layer.name!r} set, the image differs from the base's by "
                f"{gap(hybrids.images[-1], hybrids.base):.2g}; {_REPORT}"
            )
    return "with no channel set, the hybrid is exactly the base image"


def equal_latents(bench: Bench) -> str:
    """If base and source are the same latent, no channel has any influence."""
    for layer in bench.layers:
        run = InfluenceMap(bench.adapter, layer.name).attribute
        maps = run(bench.z1, bench.z1, units=bench.sets(layer), seed=bench.seed)
        if maps.maps.count_nonzero() or maps.standard_error.count_nonzero():
            raise Failed(
                f"channels of layer {layer.name!r} have an influence of {float(maps.maps.max()):.2g} although base and "
                f"source are the same latent; {_REPORT}"
            )
    return "if base and source are the same latent, every influence is exactly 0"


def plain_hooks(bench: Bench) -> str:
    """Hybrids of one layer, and of two, equal those of plain forwards with hooks."""
    worst, executors = 0.0, []
    for layer in bench.layers:
        hybrids = bench.hybrids(layer)
        executors.append(f"{layer.name!r} by {hybrids.provenance['executor']}")
        worst = max(worst, _compared(bench, hybrids.images, bench.sets(layer), layer.name))
    if len(bench.layers) > 1:
        sets = _over_two(bench)
        names = [bench.layers[0].name, bench.layers[-1].name]
        images = Hybridizer(bench.adapter, names).hybridize(bench.z1, bench.z2, units=sets, seed=bench.seed).images
        worst = max(worst, _compared(bench, images, sets, " and ".join(names)))
    return f"hybrids equal those of plain hooks to {worst:.1g} (tolerance {bench.rounding:.0e}); {', '.join(executors)}"


def units_act(bench: Bench) -> str:
    """Setting channels changes images; otherwise the equalities would mean nothing."""
    dead = []
    for layer in bench.layers:
        hybrids = bench.hybrids(layer)
        if torch.equal(hybrids.images[3], hybrids.base):
            dead.append(repr(layer.name))
    if len(dead) == len(bench.layers):
        raise Failed(
            f"setting all channels of {', '.join(dead)} changes no image; choose layers=[...] that the image depends "
            "on, and check that image=... reads it from the module's output"
        )
    return "setting channels changes images" + (f", but not in layer {', '.join(dead)}" if dead else "")


def full_cut(bench: Bench) -> str:
    """If nothing bypasses a layer, setting all of its channels to the source's values gives the source's image."""
    for layer, (source, conditions) in bench.memo(_cuts).items():
        target = bench.plain_images(source)
        units = UnitSet({layer.name: tuple(range(layer.channels))})
        hybrids = Hybridizer(bench.adapter, layer.name).hybridize(bench.z1, source, units=[units], seed=bench.seed)
        if not (difference := gap(hybrids.images[0], target)) <= bench.rounding:
            raise Failed(
                f"with all channels of layer {layer.name!r}{conditions} set, the image differs from the source's by "
                f"{difference:.2g}; {_REPORT}"
            )
    return _cut_layers(bench) + ": with all channels set, the image is the source's"


def complement(bench: Bench) -> str:
    """Setting E on z1 from z2 equals setting the complement of E on z2 from z1."""
    for layer, (source, conditions) in bench.memo(_cuts).items():
        some = bench.sets(layer)[2][layer.name]
        rest = tuple(channel for channel in range(layer.channels) if channel not in some)
        run = Hybridizer(bench.adapter, layer.name).hybridize
        one = run(bench.z1, source, units=[{layer.name: some}], seed=bench.seed).images
        two = run(source, bench.z1, units=[{layer.name: rest}], seed=bench.seed).images
        if not (difference := gap(one, two)) <= bench.rounding:
            raise Failed(
                f"half of the channels of layer {layer.name!r}{conditions}, set from z2 on z1, and the other half, set "
                f"from z1 on z2, give images that differ by {difference:.2g}; {_REPORT}"
            )
    return _cut_layers(bench) + ": (E, z1, z2) gives the image of (complement of E, z2, z1)"


_REPORT = (
    "the module may depend on something that is not an input, such as a global; if not, please report this as a bug of "
    "counterfactual-probe"
)


def _compared(bench: Bench, images: Tensor, sets: list[UnitSet], where: str) -> float:
    worst = 0.0
    for units, row in zip(sets, images, strict=True):
        for i in range(PAIRS):
            difference = gap(row[i : i + 1], bench.plain_hybrid(bench.z1, bench.z2, i, units))
            if not difference <= bench.rounding:
                raise Failed(
                    f"a hybrid of layer {where!r} differs from that of a forward with plain hooks by {difference:.2g} "
                    f"(tolerance {bench.rounding:.0e}); make the forward take one path for all latents, or choose "
                    "layers=[...] after the branch"
                )
            worst = max(worst, difference)
    return worst


def _over_two(bench: Bench) -> list[UnitSet]:
    first, last = bench.layers[0], bench.layers[-1]
    one, two = bench.sets(first), bench.sets(last)
    return [
        UnitSet({first.name: one[a][first.name], last.name: two[b][last.name]}) for a, b in ((0, 0), (2, 1), (2, 2))
    ]


def _cuts(bench: Bench) -> dict[LayerInfo, tuple[Latents, str]]:
    """The layers that nothing bypasses, each with a source and the latents that it must share with the base.

    This is found with plain hooks: which latents must be equal in base and source, so that setting all channels gives
    the source's image? Raises Skipped if there is no such layer.
    """
    cuts = {}
    for layer in bench.layers:
        for source, conditions in _sources(bench):
            target = bench.plain_images(source)
            units = {layer.name: range(layer.channels)}
            hybrids = torch.cat([bench.plain_hybrid(bench.z1, source, i, units) for i in range(PAIRS)])
            if gap(hybrids, target) <= bench.rounding < gap(bench.originals[0], target):
                cuts[layer] = source, conditions
                break
    if not cuts:
        raise Skipped(
            f"something bypasses each of {', '.join(repr(layer.name) for layer in bench.layers)}: a skip connection, "
            "or a latent that enters later; so all of their channels do not determine the image, which is no error"
        )
    return cuts


def _sources(bench: Bench) -> list[tuple[Latents, str]]:
    """z2, and z2 with some of its tensors taken from z1: classes, truncations, latents that bypass the layer."""
    z1, z2 = bench.z1, bench.z2
    sources: list[tuple[Latents, str]] = [(z2, "")]
    if isinstance(z2, Tensor) or isinstance(z1, Tensor):
        return sources
    keys = list(z2) if isinstance(z2, dict) else list(range(len(z2)))
    for size in range(1, len(keys)):
        for kept in combinations(keys, size):
            if isinstance(z2, dict) and isinstance(z1, dict):
                mixed: Latents = {key: (z1 if key in kept else z2)[key] for key in z2}
            elif isinstance(z2, tuple) and isinstance(z1, tuple):
                mixed = tuple((z1 if i in kept else z2)[i] for i in range(len(z2)))
            sources.append((mixed, f" (with equal {', '.join(map(str, kept))})"))
    return sources


def _cut_layers(bench: Bench) -> str:
    cuts = bench.memo(_cuts)
    named = [f"{layer.name!r}{conditions}" for layer, (_, conditions) in cuts.items()]
    others = [repr(layer.name) for layer in bench.layers if layer not in cuts]
    return f"in {', '.join(named)}" + (f"; something bypasses {', '.join(others)}" if others else "")
