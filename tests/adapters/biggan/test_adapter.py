"""BigGAN-deep with random weights: the package's own forward, mixed truncations, classes, layers, identities."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.biggan_deep import (
    CONFIGS,
    CONVOLUTIONS,
    BigGANDeep,
    biggan_deep,
    genblock,
    random_biggan_deep,
    truncated_normal,
)
from counterfactual_probe.adapters.biggan_deep.module import Stored
from counterfactual_probe.adapters.imagenet import class_index, class_name
from pytorch_pretrained_biggan import convert_tf_to_pytorch as published
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.adapters import imagenet
from counterfactual_probe.generator import latents as lt
from support.adapters.biggans import SMALL, images

# --- the package's forward ------------------------------------------------------------------------


def test_images_are_the_packages_at_every_truncation(reference: Any, gen: BigGANDeep) -> None:
    """Stored steps, values between them, and the five steps that the package's division misses."""
    steps = [round(step / 100, 2) for step in range(1, 101)]
    latents = gen.sample(len(steps) + 1, seed=3, truncation=[*steps, 0.123456])
    assert torch.allclose(gen(latents), images(reference, latents), atol=1e-10, rtol=0)


def test_the_comparison_can_fail(reference: Any, gen: BigGANDeep) -> None:
    latents: Any = gen.sample(4, seed=3, truncation=0.4)
    others = {"truncation": 1.05 * latents["truncation"], "label": latents["label"] - 1, "z": -latents["z"]}
    for name, other in others.items():
        changed = latents | {name: other}
        gap = (gen(changed) - images(reference, latents)).abs().amax((1, 2, 3))
        assert (gap > 1e-3).all(), name


@pytest.mark.parametrize("truncation", [0.4, 0.58, 0.73, 1.0])
def test_float32_keeps_the_step_that_is_meant(reference: Any, truncation: float) -> None:
    """0.4 of float32 is 0.4000000060, beyond the stored step, where the package would take the next one."""
    single = biggan_deep(SMALL, reference.state_dict())
    assert single.dtype == torch.float32
    latents: Any = single.sample(2, truncation=truncation)
    exact = {name: value.double() if value.is_floating_point() else value for name, value in latents.items()}
    exact["truncation"] = torch.full((2,), truncation, dtype=torch.float64)
    assert torch.allclose(single(latents).double(), images(reference, exact), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_stored_steps_are_met_in_every_precision(dtype: torch.dtype) -> None:
    steps = [step for step in range(1, 51) if step not in (7, 14, 28, 29, 47)]  # those that the division misses
    truncation = torch.tensor([step / 50 for step in steps], dtype=torch.float64).to(dtype)
    stored = Stored.at(truncation, 51)
    assert stored.first.tolist() == steps
    assert (stored.share == 1).all()
    assert Stored.at(truncation + 0.01, 51).share[0, 0] < 0.6


def test_a_training_run_does_not_move_the_spectral_norms(reference: Any, gen: BigGANDeep) -> None:
    """In train mode every forward of the package changes its function; here the weights are what they are."""
    latents = gen.sample(2)
    before = gen(latents)
    gen.module.train()
    try:
        gen.module(**latents)  # type: ignore[arg-type]
    finally:
        gen.module.eval()
    assert torch.equal(gen(latents), before)
    assert not any("weight_u" in name for name, _ in gen.module.named_buffers())
    weight, theirs = gen.module.generator.layers[0].conv_1.weight, reference.generator.layers[0].conv_1
    assert torch.allclose(weight, theirs.weight)
    assert not torch.allclose(weight, theirs.weight_orig)


def test_loading_leaves_the_random_state_alone(reference: Any) -> None:
    before = torch.random.get_rng_state()
    biggan_deep(SMALL, reference.state_dict())
    random_biggan_deep(SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- sampling -------------------------------------------------------------------------------------


def test_a_sample(gen: BigGANDeep) -> None:
    one: Any = gen.sample(3, classes=["koala", 850, "ostrich"], truncation=[0.4, 0.5, 1])
    assert {name: (tuple(value.shape), value.dtype) for name, value in one.items()} == {
        "z": ((3, 6), torch.float64),
        "label": ((3,), torch.int64),
        "truncation": ((3,), torch.float64),
    }
    assert one["label"].tolist() == [105, 850, 9]
    assert one["truncation"].tolist() == [0.4, 0.5, 1]
    for_all: Any = gen.sample(3, classes="koala", truncation=0.5)
    assert for_all["label"].tolist() == [105] * 3
    # The same z for all classes and, but for its scale, truncations.
    assert torch.allclose(one["z"], for_all["z"] / 0.5 * one["truncation"][:, None], atol=1e-7)


def test_what_is_drawn_by_default(gen: BigGANDeep) -> None:
    drawn: Any = gen.sample(200)
    assert set(drawn["truncation"].tolist()) == {0.4}
    assert len(set(drawn["label"].tolist())) > 150
    assert drawn["z"].abs().max() <= 0.8
    again: Any = gen.sample(200, seed=1)
    assert not torch.equal(drawn["label"], again["label"])


def test_the_latent_is_a_truncated_normal() -> None:
    z = truncated_normal(200, 128, torch.Generator().manual_seed(0)).double()
    assert z.abs().max() <= 2
    # Cut at ±2 the standard deviation is 0.8796; values moved to ±2 instead would give 0.96.
    assert abs(float(z.std()) - 0.8796) < 0.01
    assert abs(float(z.mean())) < 0.02


def test_a_class_in_a_mixture_of_latents_stays_the_bases(gen: BigGANDeep) -> None:
    base, source = gen.sample(2, seed=0), gen.sample(2, seed=1)
    mixed: Any = lt.mix(base, source, 0.4, seed=0)
    assert torch.equal(mixed["label"], dict(base)["label"])  # type: ignore[call-overload]
    assert not torch.equal(mixed["z"], dict(base)["z"])  # type: ignore[call-overload]


@pytest.mark.parametrize("truncation", [0, -0.1, 1.01, float("nan"), True, "0.4"])
def test_a_truncation_outside(truncation: Any, gen: BigGANDeep) -> None:
    with pytest.raises(cp.ProbeError, match=r"truncation .* is outside \(0, 1\]"):
        gen.sample(1, truncation=truncation)


def test_a_truncation_that_is_no_number(gen: BigGANDeep) -> None:
    with pytest.raises(cp.ProbeError, match=r"truncation is 'strong'; give a number in \(0, 1\]"):
        gen.sample(1, truncation="strong")


BAD_LATENTS: list[tuple[dict[str, Tensor], str]] = [
    ({"truncation": torch.tensor([0.4, 1.5])}, r"truncation 1\.5 is outside \(0, 1\]"),
    ({"truncation": torch.tensor([0.4, 0.0])}, r"truncation 0\.0 is outside"),
    ({"truncation": torch.ones(2, 1)}, r"truncation of the latents has shape \(2, 1\); give one number each, \(2,\)"),
    ({"label": torch.tensor([3, 1000])}, r"class 1000 is out of range; give a number from 0 to 999"),
    ({"label": torch.tensor([-1, 0])}, r"class -1 is out of range"),
    ({"label": torch.ones(2)}, r"label of the latents is torch\.float32 of shape \(2,\); give class numbers"),
    ({"label": torch.zeros(2, 1000)}, r"label of the latents is torch\.float32 of shape \(2, 1000\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_LATENTS)
def test_latents_made_by_hand(change: Mapping[str, Tensor], message: str, gen: BigGANDeep) -> None:
    good: Any = gen.sample(2)
    with pytest.raises(cp.ProbeError, match=message):
        gen(good | change)
    with pytest.raises(cp.ProbeError, match=message.replace("the latents", "the .* latents z2")):
        cp.Hybridizer(gen, genblock(gen, 1)).hybridize(good, good | change)


# --- class names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [("koala", 105), ("Teddy Bear", 850), ("ostrich", 9), ("cock", 7), ("coala", None), ("Phascolarctos", 105), (3, 3)],
)
def test_classes_by_name(name: str | int, number: int | None) -> None:
    if number is None:
        with pytest.raises(cp.ProbeError, match=r"class 'coala' is none of the 1000 .* of ImageNet; nearest: 'koala'"):
            class_index(name)
    else:
        assert class_index(name) == number


def test_every_class_is_found_by_its_description() -> None:
    for number in range(1000):
        try:
            assert class_index(class_name(number)) == number
        except cp.ProbeError as error:  # two kinds of crane
            assert f"{number} (" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("crane", r"class 'crane' fits 2 classes of ImageNet: 134 \(crane\), 517 \(crane\); give one's number"),
        ("bear", r"class 'bear' fits \d+ classes of ImageNet: .*, …; give one's number"),
        ("", r"class '' is none of the 1000 classes of ImageNet; nearest: "),
        (1000, r"class 1000 is out of range; give a number from 0 to 999"),
        (-1, r"class -1 is out of range"),
        (1.5, r"class 1\.5 is a float; give a name such as 'koala' or a number from 0 to 999"),
        (True, r"class True is a bool"),
        (None, r"class None is a NoneType"),
    ],
)
def test_a_wrong_class(wanted: Any, message: str, gen: BigGANDeep) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        class_index(wanted)
    if wanted is not None:
        with pytest.raises(cp.ProbeError, match=message):
            gen.sample(2, classes=wanted)


def test_names_are_those_of_imagenet_alone() -> None:
    few = random_biggan_deep(SMALL | {"num_classes": 10})
    with pytest.raises(cp.ProbeError, match=r"'koala' is a name of ImageNet's 1000 .* has 10; give a number from 0 to"):
        few.sample(1, classes="koala")
    with pytest.raises(cp.ProbeError, match=r"class 10 is out of range; give a number from 0 to 9"):
        few.sample(1, classes=10)


def test_names_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.data.imagenet_info", None)
    imagenet._descriptions.cache_clear()
    assert class_index(3) == 3
    with pytest.raises(
        cp.ProbeError, match=r"run: pip install \"counterfactual-probe\[biggan\]\", or give classes by num"
    ):
        class_index("koala")


# --- layers ---------------------------------------------------------------------------------------


def test_every_block_and_convolution_is_a_layer(gen: BigGANDeep) -> None:
    expected = []
    for place in range(6):  # five blocks and the attention
        block = f"generator.layers.{place}"
        expected += [f"{block}.{conv}" for conv in CONVOLUTIONS if place != 2] + [block]
    assert list(gen.layers) == expected
    assert gen.layers["generator.layers.1.conv_2"].channels == 8
    assert gen.layers["generator.layers.1"].channels == 16


def test_blocks_have_the_numbers_of_the_paper(gen: BigGANDeep) -> None:
    assert [genblock(gen, number) for number in (1, 2, 3, 5)] == [f"generator.layers.{place}" for place in (0, 1, 3, 5)]
    assert genblock(gen, 3, "conv_1") == "generator.layers.3.conv_1"
    with pytest.raises(cp.ProbeError, match=r"has GenBlocks 1 to 5, not 6"):
        genblock(gen, 6)
    with pytest.raises(cp.ProbeError, match=r"has GenBlocks 1 to 5, not 0"):
        genblock(gen, 0)
    with pytest.raises(cp.ProbeError, match=r"layer 'generator\.layers\.0\.conv_4' is not in .* nearest: 'gen"):
        genblock(gen, 1, "conv_4")


def test_blocks_of_another_generator(plain: cp.GeneratorAdapter) -> None:
    with pytest.raises(cp.ProbeError, match="has no GenBlocks; give a BigGAN-deep"):
        genblock(plain, 1)


def test_the_shared_relu_is_refused_without_its_call(gen: BigGANDeep) -> None:
    with pytest.raises(cp.ProbeError, match=r"relu' runs 4 times in one forward; name one call as '.*relu#2'"):
        cp.InfluenceMap(gen, "generator.layers.0.relu")
    assert gen.layer("generator.layers.0.relu#2").channels == 16


@pytest.mark.parametrize("size", [128, 256, 512])
def test_the_configurations_are_the_published_ones(size: int) -> None:
    theirs = getattr(published, f"BigGAN{size}").to_dict()
    ours = CONFIGS[f"biggan-deep-{size}"]
    assert theirs | {"layers": [list(layer) for layer in theirs["layers"]]} == ours
