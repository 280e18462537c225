"""What cannot be a unit, a region or a strength is refused in one sentence, and the module stays as it was."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.state import fingerprint
from support.toys import PLAIN, TOKENS, VECTOR, Toy
from support.unit_models import VIT

NAN, HALF = float("nan"), torch.full((4, 4), 0.5)


class Codes:
    """A basis with faults: it makes codes, and activations, by the functions given."""

    def __init__(self, encode: Any = torch.clone, decode: Any = torch.clone) -> None:
        self.encode, self.decode = encode, decode


def elsewhere(**origin: str) -> Codes:
    codes: Any = Codes()
    codes.origin = {"layer": "main.2", "weights_sha256": "0" * 64} | origin
    return codes


def broken(_: Tensor) -> Tensor:
    raise RuntimeError("a bug of mine")


UNITS: dict[str, tuple[Toy, str, dict[str, Any], str]] = {
    "no such axis": (PLAIN, "main.2", {"axis": "pixel"}, "axis is 'pixel'; give one of 'channel', 'token', 'head'"),
    "tokens of maps": (
        PLAIN,
        "main.2",
        {"axis": "token"},
        "gives maps (n c h w, 4×4 positions) and no tokens; use axis=",
    ),
    "tokens of vectors": (VECTOR, "mapping.1", {"axis": "token"}, "gives vectors (n c, no positions) and no tokens"),
    "heads of vectors": (VECTOR, "mapping.1", {"axis": "head", "heads": 2}, "gives vectors and no attention's output"),
    "heads unknown": (TOKENS, "mlp", {"axis": "head"}, "no module around layer 'mlp' says how many heads its 6"),
    "heads do not divide": (
        TOKENS,
        "mlp",
        {"axis": "head", "heads": 4},
        "4 heads (given) do not divide the 6 channels",
    ),
    "no heads": (TOKENS, "mlp", {"axis": "head", "heads": 0}, "heads is 0; give an integer of at least 1"),
    "heads of channels": (TOKENS, "mlp", {"heads": 2}, "heads=2 is given with axis='channel'; give axis='head'"),
    "features and tokens": (TOKENS, "mlp", {"axis": "token", "features": Codes()}, "features are given with axis="),
    "no basis": (PLAIN, "main.2", {"features": 64}, "features are a int; give an object with encode(activations)"),
    "another layer's": (
        PLAIN,
        "main.6",
        {"features": elsewhere()},
        "features are of layer 'main.2' and asked of 'main.6'",
    ),
    "another generator's": (
        PLAIN,
        "main.2",
        {"features": elsewhere()},
        "features are of a generator of weights 00000000",
    ),
    "an encoder that raises": (PLAIN, "main.2", {"features": Codes(broken)}, "a bug of mine"),
    "a decoder that raises": (PLAIN, "main.2", {"features": Codes(decode=broken)}, "a bug of mine"),
    "codes of another form": (PLAIN, "main.2", {"features": Codes(torch.mean)}, "features.encode gives codes () of 2"),
    "no codes": (PLAIN, "main.2", {"features": Codes(lambda h: None)}, "features.encode gives NoneType where codes"),
    "another shape": (
        PLAIN,
        "main.2",
        {"features": Codes(decode=lambda h: h[:, :3])},
        "features.decode gives (2, 3, 4, 4) and layer 'main.2' is (2, 6, 4, 4)",
    ),
    "NaN": (PLAIN, "main.2", {"features": Codes(decode=lambda h: h * NAN)}, "features decode to NaN or infinite"),
    "for one of two layers": (
        PLAIN,
        "both",
        {"features": {"main.2": Codes()}},
        "features are of main.2 and layers are",
    ),
}


@pytest.mark.parametrize("case", UNITS)
def test_units_that_are_not_there_are_refused(case: str) -> None:
    toy, layer, arguments, message = UNITS[case]
    generator = toy.generator()
    before = fingerprint(generator.module)
    layers = ["main.2", "main.6"] if layer == "both" else layer
    for probe in (cp.Hybridizer, cp.InfluenceMap):
        with pytest.raises(cp.ProbeError, match=re.escape(message)):
            probe(generator, layers, **arguments)
    assert fingerprint(generator.module) == before


SWAPS: dict[str, tuple[Toy, str, dict[str, Any], str]] = {
    "another size": (
        PLAIN,
        "main.2",
        {"where": torch.ones(5, 5)},
        "where is 5×5 and layer 'main.2' takes 4×4 or 16×16",
    ),
    "of other pairs": (PLAIN, "main.2", {"where": torch.ones(2, 4, 4)}, "or 3 of these, one for each pair; resize it"),
    "all False": (PLAIN, "main.2", {"where": torch.zeros(4, 4) > 0}, "the mask given as where is all False"),
    "all False for one": (
        PLAIN,
        "main.2",
        {"where": torch.stack([HALF, HALF, 0 * HALF])},
        "where of pair 2 is all False",
    ),
    "NaN mask": (PLAIN, "main.2", {"where": HALF * NAN}, "the mask given as where holds NaN or infinite values"),
    "above 1": (PLAIN, "main.2", {"where": 3 * HALF}, "where ranges from 1.5 to 1.5; give booleans, or numbers from 0"),
    "below 0": (PLAIN, "main.2", {"where": -HALF}, "where ranges from -0.5 to -0.5; give booleans, or numbers from 0"),
    "text": (PLAIN, "main.2", {"where": "left half"}, "the mask given as where are of type <U9; give numbers"),
    "of vectors": (VECTOR, "mapping.1", {"where": torch.ones(8, 8)}, "gives vectors, which have no positions; leave"),
    "another layer": (PLAIN, "main.2", {"where": {"main.6": HALF}}, "where names layer 'main.6', which is not among"),
    "NaN strength": (PLAIN, "main.2", {"strength": NAN}, "strength is NaN or infinite; give a number"),
    "one NaN": (PLAIN, "main.2", {"strength": [1.0, NAN, 1.0]}, "strength is NaN or infinite; give a number"),
    "strengths of others": (PLAIN, "main.2", {"strength": [1.0, 2.0]}, "strength has shape (2,) for 3 pairs"),
    "strong": (PLAIN, "main.2", {"strength": "very"}, "strength is 'very'; give a number, or one for each pair"),
    "no strength": (PLAIN, "main.2", {"strength": None}, "strength is None; give a number, or one for each pair"),
}


@pytest.mark.parametrize("case", SWAPS)
def test_regions_and_strengths_that_do_not_fit_are_refused(case: str) -> None:
    toy, layer, arguments, message = SWAPS[case]
    generator = toy.generator()
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    before = fingerprint(generator.module)
    hybridizer = cp.Hybridizer(generator, layer)
    for call in (
        lambda: hybridizer.hybridize(z1, z2, **arguments),
        lambda: hybridizer.intervene(z1, **arguments),
        lambda: cp.InfluenceMap(generator, layer).attribute(z1, z2, **arguments),
    ):
        with pytest.raises(cp.ProbeError, match=re.escape(message)):
            call()
    assert fingerprint(generator.module) == before


def test_tokens_beyond_the_length_and_tokens_that_are_no_patches() -> None:
    generator = VIT.generator()
    hybridizer = cp.Hybridizer(generator, "blocks.0", axis="token")
    z1, z2 = generator.sample(3, seed=0), generator.sample(3, seed=1)
    with pytest.raises(cp.ProbeError, match=r"token 16 asked of layer 'blocks.0', which has 16; give 0 to 15"):
        hybridizer.hybridize(z1, z2, units=[3, 16])
    with pytest.raises(cp.ProbeError, match=r"True is given as a token of layer 'blocks.0'; tokens are integers"):
        hybridizer.hybridize(z1, z2, units=[[True]])
    words = nn.Sequential(nn.Linear(5, 15), nn.Unflatten(1, (5, 3)), Flat(nn.Linear(3, 3)))
    generator = cp.wrap(words.eval(), lambda n, rng: torch.randn(n, 5, generator=rng), axes={"2.part": "n t c"})
    with pytest.raises(cp.ProbeError, match=r"has 5 tokens, which are no grid of patches of an image of 2×4; give"):
        cp.Hybridizer(generator, "1", axis="token").hybridize(*[generator.sample(3)] * 2, where=torch.ones(2, 4))


class Flat(nn.Module):
    """Tokens as an image of 2×4 pixels, whatever they are."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.last = part, nn.Linear(15, 24)

    def forward(self, x: Tensor) -> Tensor:
        image: Tensor = self.last(self.part(x).flatten(1)).view(-1, 3, 2, 4)
        return image


def test_an_encoder_that_fails_only_in_the_run_leaves_the_module_as_it_was() -> None:
    calls = []

    def encode(activations: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("no more")
        return activations

    generator = PLAIN.generator()
    before = fingerprint(generator.module)
    z1, z2 = generator.sample(8, seed=0), generator.sample(8, seed=1)
    with pytest.raises(cp.ProbeError, match="no more"):
        cp.Hybridizer(generator, "main.2", features=Codes(encode)).hybridize(z1, z2)
    assert fingerprint(generator.module) == before


def test_masks_of_the_image_are_averaged_over_the_part_that_a_position_stands_for() -> None:
    mask = torch.rand(16, 16, dtype=torch.float64)
    mean = torch.stack([mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for y in range(4) for x in range(4)])
    for toy, layer, size in ((PLAIN, "main.2", (4, 4)), (PLAIN, "main.6", (8, 8)), (TOKENS, "mlp", (16,))):
        generator = toy.generator()
        z1, z2 = generator.sample(12, seed=0), generator.sample(12, seed=1)
        small = mask if toy is PLAIN else mask[:8, :8]
        by_hand = mean if size == (4, 4) else mask.view(8, 2, 8, 2).mean((1, 3))
        if toy is TOKENS:
            by_hand = small.view(4, 2, 4, 2).mean((1, 3)).flatten()
        hybridize = cp.Hybridizer(generator, layer).hybridize
        one, two = (hybridize(z1, z2, where=given).images for given in (small, by_hand.view(size)))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
        assert (one - hybridize(z1, z2).images).abs().max() > 1e-3
