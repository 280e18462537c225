"""Hybrids and maps of a BigGAN-deep: identities, and equal to plain hooks on the package's own module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.biggan_deep import BigGANDeep, genblock
from torch import Tensor

import counterfactual_probe as cp
from support.adapters.biggans import hybrids, images
from support.twins import gap

# Truncations at steps and between, and classes, that differ within the batch and within each pair.
BASE = {"classes": ["koala", "teddy", 3], "truncation": [0.4, 0.93, 1.0]}
SOURCE = {"classes": ["ostrich", 105, 4], "truncation": [0.87, 0.5, 0.4]}
LAST = 5
VISIBLE = 1e-3


@pytest.fixture(scope="module")
def pair(gen: BigGANDeep) -> tuple[Any, Any]:
    return gen.sample(3, seed=0, **BASE), gen.sample(3, seed=1, **SOURCE)


def every_channel(gen: BigGANDeep, layer: str) -> dict[str, list[int]]:
    return {layer: list(range(gen.layer(layer).channels))}


@pytest.mark.parametrize(
    ("block", "part"), [(1, None), (2, "conv_0"), (2, "conv_1"), (3, "conv_2"), (3, "conv_3"), (5, None)]
)
def test_hybrids_are_those_of_plain_hooks(
    block: int, part: str | None, gen: BigGANDeep, reference: Any, pair: tuple[Any, Any]
) -> None:
    layer = genblock(gen, block, part)
    sets = [{layer: [channel]} for channel in range(3)] + [{layer: [0, 2]}]
    found = cp.Hybridizer(gen, layer).hybridize(*pair, units=sets)
    assert found.provenance["executor"] == "prepared"
    expected = hybrids(reference, *pair, sets)
    assert gap(found.images, expected) <= 1e-10
    assert gap(found.base, images(reference, pair[0])) <= 1e-10
    assert gap(found.images, found.base.expand_as(found.images)) > VISIBLE
    assert gap(found.images, hybrids(reference, pair[1], pair[0], sets)) > VISIBLE


def test_two_convolutions_of_a_block_at_once(gen: BigGANDeep, reference: Any, pair: tuple[Any, Any]) -> None:
    layers = [genblock(gen, 3, "conv_2"), genblock(gen, 3, "conv_3")]
    sets = [{layers[0]: [0, channel], layers[1]: [channel]} for channel in range(1, 4)]
    found = cp.Hybridizer(gen, layers).hybridize(*pair, units=sets)
    assert found.provenance["executor"] == "prepared"
    assert gap(found.images, hybrids(reference, *pair, sets)) <= 1e-10
    alone = hybrids(reference, *pair, [{layers[0]: units[layers[0]]} for units in sets])
    assert gap(found.images, alone) > VISIBLE


def test_attention_and_the_shared_relu(gen: BigGANDeep, reference: Any, pair: tuple[Any, Any]) -> None:
    for layer in ("generator.layers.2", "generator.layers.3.relu#3"):
        sets = [{layer: [channel]} for channel in range(3)]
        found = cp.Hybridizer(gen, layer).hybridize(*pair, units=sets)
        assert gap(found.images, hybrids(reference, *pair, sets)) <= 1e-10
        assert gap(found.images, found.base.expand_as(found.images)) > VISIBLE


def test_maps_are_the_means_of_plain_hooks(gen: BigGANDeep, reference: Any, pair: tuple[Any, Any]) -> None:
    layer = genblock(gen, 4)
    maps = cp.InfluenceMap(gen, layer).attribute(*pair)
    assert maps.provenance["executor"] == "prepared"
    sets = [{layer: [channel]} for channel in range(gen.layer(layer).channels)]
    expected = (hybrids(reference, *pair, sets) - images(reference, pair[0])).abs().mean((1, 2))
    assert gap(maps.maps, expected) <= 1e-6  # maps are kept in float32
    assert expected.max() > VISIBLE


def test_the_conditions_of_the_base_stay(gen: BigGANDeep, pair: tuple[Any, Any]) -> None:
    """Setting all of a block's channels does not give the source: class, truncation and z go on being the base's."""
    layer = genblock(gen, 3)
    all_of_it = every_channel(gen, layer)
    found = cp.Hybridizer(gen, layer).hybridize(*pair, units=all_of_it)
    assert found.source is not None
    assert gap(found.images[0], found.source) > VISIBLE
    # The same activations with the source's class from there on are another image.
    z1, z2 = pair
    relabelled = cp.Hybridizer(gen, layer).hybridize(z1 | {"label": z2["label"]}, z2, units=all_of_it)
    assert gap(relabelled.images, found.images) > VISIBLE


def test_a_full_cut_gives_the_source(gen: BigGANDeep, pair: tuple[Any, Any]) -> None:
    """After the last block nothing but the truncation enters any more."""
    z1, z2 = pair
    same = z2 | {"truncation": z1["truncation"]}
    layer = genblock(gen, LAST)
    hybridize = cp.Hybridizer(gen, layer).hybridize
    found = hybridize(z1, same, units=every_channel(gen, layer))
    assert found.source is not None
    assert gap(found.images[0], found.source) <= 1e-10
    assert gap(found.base, found.source) > VISIBLE
    other = hybridize(z1, z2, units=every_channel(gen, layer))
    assert other.source is not None
    assert gap(other.images[0], other.source) > VISIBLE
    one, rest = [0, 2], [1, 3]
    assert gap(hybridize(z1, same, units=one).images, hybridize(same, z1, units=rest).images) <= 1e-10
    assert gap(hybridize(z1, same, units=one).images, hybridize(z1, same, units=rest).images) > VISIBLE


def test_no_channel_and_equal_latents_change_nothing(gen: BigGANDeep, pair: tuple[Any, Any]) -> None:
    layer = genblock(gen, 2)
    z1, z2 = pair
    none = cp.Hybridizer(gen, layer).hybridize(z1, z2, units={layer: []})
    assert torch.equal(none.images[0], gen(z1))
    same = cp.InfluenceMap(gen, layer).attribute(z1, z1)
    assert same.maps.count_nonzero() == 0
    assert cp.InfluenceMap(gen, layer).attribute(z1, z2).maps.count_nonzero() > 0


def test_the_last_convolution_and_its_block_differ(gen: BigGANDeep, pair: tuple[Any, Any]) -> None:
    """The block's output has what came in added to it."""
    conv, block = genblock(gen, 2, "conv_3"), genblock(gen, 2)
    of_conv = cp.Hybridizer(gen, conv).hybridize(*pair, units=[0, 1, 2]).images
    of_block = cp.Hybridizer(gen, block).hybridize(*pair, units=[0, 1, 2]).images
    assert gap(of_conv, of_block) > VISIBLE


def test_half_of_the_channels_take_the_skip_path(gen: BigGANDeep, pair: tuple[Any, Any]) -> None:
    """A block that halves the channels drops the second half of what came in from the sum."""
    assert gen.layers[genblock(gen, 1)].channels == 2 * gen.layers[genblock(gen, 2)].channels
    kept: list[Tensor] = []
    part = gen.submodules[genblock(gen, 2)]
    convolution = gen.submodules[genblock(gen, 2, "conv_3")]
    handles = [
        part.register_forward_hook(lambda _part, inputs, output: kept.extend([inputs[0], output])),
        convolution.register_forward_hook(lambda _part, _inputs, output: kept.append(output)),
    ]
    try:
        gen(pair[0])
    finally:
        for handle in handles:
            handle.remove()
    of_convolution, before, after = kept
    enlarged = before[:, : before.shape[1] // 2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert gap(after, of_convolution + enlarged) <= 1e-10
    second = before[:, before.shape[1] // 2 :].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert gap(after, of_convolution + second) > VISIBLE


def test_batches_do_not_matter(gen: BigGANDeep, pair: tuple[Any, Any]) -> None:
    layer = genblock(gen, 3, "conv_1")
    attribute = cp.InfluenceMap(gen, layer).attribute
    assert gap(attribute(*pair).maps, attribute(*pair, hybrids_per_eval=2).maps) <= 1e-6
