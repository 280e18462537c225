"""Edits by the name of a module: the hybrids of the latents that were given, encoded or found, and nothing else."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.vae import VAE, vae
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.base.files import write_json
from counterfactual_probe.generator import verbs
from counterfactual_probe.inversion.invert import NotReached
from counterfactual_probe.registry.folders import save_folder
from support import saved_results
from support.registry.entries import entries
from support.toys import CONDITIONAL, FLOAT32, PLAIN, TOKENS, seeded

LAYER = "main.2"
MODULES = {"eyes and mouth": {LAYER: [0, 3]}, "frame": {LAYER: [1]}, "face skin": {LAYER: [2, 4, 5]}}
QUICK: dict[str, Any] = {"starts": 2, "steps": 20}


@cache
def plain() -> cp.GeneratorAdapter:
    return PLAIN.generator()


@cache
def encoding() -> cp.GeneratorAdapter:
    with seeded(0):
        return vae(VAE(4, (8, 4), 1, image_size=16, start=4).state_dict())


def hybrids(gen: cp.GeneratorAdapter, z1: Any, z2: Any, units: Any, **options: Any) -> Tensor:
    return cp.Hybridizer(gen, list(units)).hybridize(z1, z2, units=units, **options).images[0]


# --- the identity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1.0, 0.7, 0.0])
def test_latents_are_edited_as_hybrids_are(strength: float) -> None:
    gen = plain()
    z1, z2 = gen.sample(3, seed=1), gen.sample(3, seed=2)
    edited = gen.edit(z1, "frame", source=z2, modules=MODULES, strength=strength)
    assert torch.equal(edited.images, hybrids(gen, z1, z2, MODULES["frame"], strength=strength))
    assert torch.equal(edited.base, gen(z1))
    assert torch.equal(edited.source, gen(z2))
    assert (edited.module, edited.pictures, edited.error, edited.warning()) == ("frame", None, None, "")
    assert edited.provenance["edit"] == {"module": "frame", "given": "latents", "source": "latents"}
    assert torch.equal(edited.images, edited.base) == (strength == 0)
    other = gen.edit(z1, "face skin", source=z2, modules=MODULES, strength=1.0)
    assert not torch.equal(other.images, edited.images)


def test_pictures_are_inverted_where_there_is_no_encoder() -> None:
    gen = plain()
    z1, z2 = gen.sample(2, seed=1), gen.sample(2, seed=2)
    edited = gen.edit(gen(z1), "frame", source=z2, modules=MODULES, starts=4, steps=200)
    assert edited.provenance["edit"] == {"module": "frame", "given": "inverted pictures", "source": "latents"}
    assert float(edited.relative_error.max()) < 1e-6
    assert torch.equal(edited.pictures, gen(z1))
    found = cp.invert(gen, gen(z1))
    assert torch.equal(edited.images, hybrids(gen, found.latents, z2, MODULES["frame"]))
    assert torch.equal(edited.error, found.error)
    given = gen.edit(found, "frame", source=z2, modules=MODULES)
    assert torch.equal(given.images, edited.images)
    assert torch.equal(given.relative_error, found.relative_error)
    assert f"{float(found.relative_error.max()):.3g} at most" in str(edited)


def test_pictures_are_encoded_where_there_is_an_encoder() -> None:
    gen = encoding()
    pictures, z2 = gen(gen.sample(2, seed=1)), gen.sample(2, seed=2)
    units = {"decoder.level1": [0, 2]}
    edited = gen.edit(pictures, "half", source=z2, modules={"half": units})
    assert edited.provenance["edit"]["given"] == "encoded pictures"
    codes = gen.encode(pictures)
    assert torch.equal(edited.images, hybrids(gen, codes, z2, units))
    own = gen(gen.sample(64, stream=5)).double()
    error = (gen(codes) - pictures).double().square().mean((1, 2, 3))
    torch.testing.assert_close(edited.error, error, rtol=1e-9, atol=0)
    torch.testing.assert_close(edited.relative_error, error / (own - own.mean(0)).square().mean(), rtol=1e-9, atol=0)
    assert edited.warning(), "an untrained encoder reaches nothing"


def test_what_is_not_reached_is_said() -> None:
    gen = plain()
    noise = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    z = gen.sample(2)
    with pytest.warns(NotReached, match="^2 of 2 pictures not reached") as caught:
        edited = gen.edit(noise, "frame", source=z, modules=MODULES, **QUICK)
    assert caught[0].filename == __file__
    assert edited.warning() in str(edited).replace("\n", " ")
    with pytest.warns(NotReached, match="^of the source: 2 of 2 pictures not reached"):
        edited = gen.edit(z, "frame", source=noise, modules=MODULES, **QUICK)
    assert edited.relative_error is None
    assert edited.source_relative_error is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gen.edit(z, "frame", source=z, modules=MODULES)


def test_one_source_is_for_all() -> None:
    gen = plain()
    z1, z2 = gen.sample(3, seed=1), gen.sample(1, seed=2)
    edited = gen.edit(z1, "frame", source=z2, modules=MODULES)
    assert torch.equal(edited.images, hybrids(gen, z1, z2.expand(3, -1), MODULES["frame"]))
    with pytest.raises(cp.ProbeError, match="z1 holds 3 latents and z2 holds 2"):
        gen.edit(z1, "frame", source=gen.sample(2), modules=MODULES)


def test_latents_in_dicts_and_units_of_other_kinds() -> None:
    gen = CONDITIONAL.generator()
    z1, z2 = gen.sample(2, seed=1), gen.sample(2, seed=2)
    edited = gen.edit(z1, "some", source=z2, modules={"some": {"first": [0, 1]}})
    assert torch.equal(edited.images, hybrids(gen, z1, z2, {"first": [0, 1]}))
    gen = TOKENS.generator()
    z1, z2 = gen.sample(2, seed=1), gen.sample(2, seed=2)
    units = cp.UnitSet({TOKENS.layer: (0, 1)}, "corner", "token")
    edited = gen.edit(z1, "corner", source=z2, modules=units)
    expected = cp.Hybridizer(gen, TOKENS.layer, axis="token").hybridize(z1, z2, units=[0, 1]).images[0]
    assert torch.equal(edited.images, expected)
    with pytest.raises(cp.ProbeError, match="module 'x' is of features, which their basis alone decodes"):
        gen.edit(z1, "x", source=z2, modules=cp.UnitSet({TOKENS.layer: (0,)}, "x", "feature"))


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eyes and mouth", "eyes", "EYES and mouth", " frame ", "Frame", "face"])
def test_a_module_is_known_by_its_name_or_the_start_of_it(name: str) -> None:
    z = plain().sample(1)
    edited = plain().edit(z, name, source=z, modules=MODULES)
    assert edited.module.casefold().startswith(name.strip().casefold())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ears", "no module is called 'ears'; there are 'eyes and mouth', 'frame', 'face skin'"),
        ("f", "'f' may be any of 'frame', 'face skin'; write the name in full"),
        ("", "no module is called ''; there are"),
        (3, "the module is 3; give a string"),
        (None, "the module is None; give a string"),
    ],
)
def test_a_name_that_no_module_has_or_several(name: Any, said: str) -> None:
    z = plain().sample(1)
    with pytest.raises(cp.ProbeError, match=said):
        plain().edit(z, name, source=z, modules=MODULES)


def test_the_same_name_in_two_layers() -> None:
    z, modules = plain().sample(1), [{"frame": {"main.2": [0]}}, {"frame": {"main.6": [0]}}]
    with pytest.raises(cp.ProbeError, match=r"'frame' may be any of 'frame' of main\.2, 'frame' of main\.6; .* fewer"):
        plain().edit(z, "frame", source=z, modules=modules)
    whole = [{"frame": {"main.2": [0]}}, {"frame, all": {"main.6": [0]}}]
    assert plain().edit(z, "frame", source=z, modules=whole).units[0] == {"main.2": (0,)}, "the whole name goes first"


# --- where modules are from -----------------------------------------------------------------------


def test_modules_of_finders_and_files(tmp_path: Path) -> None:
    gen = plain()
    maps = cp.InfluenceMap(gen, LAYER).attribute(n_pairs=2)
    finder = cp.ModuleFinder(2).fit(maps).name_modules(["above", "below"])
    z1, z2 = gen.sample(2, seed=1), gen.sample(2, seed=2)
    expected = hybrids(gen, z1, z2, finder.unit_sets()[0])
    file = write_json(
        tmp_path / "modules.json",
        {"modules": [{LAYER: list(item[LAYER])} for item in finder.unit_sets()], "shows": ["above", None]},
    )
    for modules in (finder, finder.save(tmp_path / "finder.safetensors"), file, str(file), [finder.unit_sets()[0]]):
        assert torch.equal(gen.edit(z1, "above", source=z2, modules=modules).images, expected)
    assert gen.edit(z1, "module 2", source=z2, modules=file).units[0] == finder.unit_sets()[1]


def test_modules_of_other_weights_are_refused(tmp_path: Path) -> None:
    gen, others = plain(), saved_results.finder().name_modules(["above", "below"])
    z = gen.sample(1)
    about = {"weights_sha256": "f" * 64}
    file = write_json(tmp_path / "modules.json", {"modules": [{LAYER: [0]}], "names": ["above"], "provenance": about})
    for modules, made in (
        (others, "given"),
        (others.save(tmp_path / "m.safetensors"), "of .*safetensors"),
        (file, "of"),
    ):
        said = rf"the modules {made}.* were found with other weights \(\w+…\) than those of Deconv \(\w+…\); find them"
        with pytest.raises(cp.ProbeError, match=said):
            gen.edit(z, "above", source=z, modules=modules)
    gen.edit(z, "above", source=z, modules=others.unit_sets())  # given by their numbers


def test_modules_beside_the_generator_are_its_own(tmp_path: Path) -> None:
    from counterfactual_probe.adapters.dcgan import DCGANGenerator

    with seeded(0):
        state = DCGANGenerator(5, [6, 4], 1).state_dict()
    folder = save_folder(tmp_path / "mine", "dcgan", state, config={"name": "mine"})
    gen = cp.load(folder)
    z = gen.sample(1)
    with pytest.raises(cp.ProbeError, match=r"no modules are given, and mine has no modules\.json in .*mine"):
        gen.edit(z, "frame", source=z)
    write_json(folder / "modules.json", {"modules": [{LAYER: [0, 1]}], "names": ["frame"]})
    assert gen.edit(z, "frame", source=gen.sample(1, seed=2)).units[0] == {LAYER: (0, 1)}
    with pytest.raises(cp.ProbeError, match="no modules are given, and Deconv was opened from no folder or repository"):
        plain().edit(plain().sample(1), "frame", source=plain().sample(1))


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({}, "modules is empty; give a fitted ModuleFinder"),
        ([], "modules is empty"),
        (3, "modules is 3; give a fitted ModuleFinder"),
        ({"a": 3}, r"the units of module 'a' are 3; give \{layer: \[numbers\]\}"),
        ({"a": {LAYER: "x"}}, "the units of module 'a'"),
        ({3: {LAYER: [0]}}, "a module's name is 3; give a string"),
        (cp.UnitSet({LAYER: (0,)}), r"has no name; give it one, with \.named"),
        ("nothing.json", r"nothing\.json cannot be read"),
        (cp.ModuleFinder(2), "has no modules yet; fit it first"),
        ({"frame": {"main.99": [0]}}, r"layer 'main\.99' is not in this generator"),
        ({"frame": {LAYER: [99]}}, r"channel 99 asked of layer 'main\.2', which has 6"),
    ],
)
def test_modules_that_are_none(modules: Any, said: str) -> None:
    z = plain().sample(1)
    with pytest.raises(cp.ProbeError, match=said):
        plain().edit(z, "frame", source=z, modules=modules)


def test_a_file_that_holds_no_modules(tmp_path: Path) -> None:
    path, z = tmp_path / "modules.json", plain().sample(1)
    for content in ("[]", "{", json.dumps({"modules": [{LAYER: [-1]}]}), json.dumps({"modules": [{LAYER: []}]})):
        path.write_text(content)
        with pytest.raises(cp.ProbeError, match=r"modules\.json holds .*; give a file"):
            plain().edit(z, "frame", source=z, modules=path)


# --- what is given --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "photo.png",
            r"what is edited is 'photo\.png'; give images \(n, 3, 16, 16\), latents, or what cp.invert found",
        ),
        (None, "what is edited is None; give images"),
        (
            torch.zeros(2, 7).double(),
            r"what is edited has shape \(2, 7\); give images \(n, 3, 16, 16\) or latents \(n, 5\)",
        ),
        (torch.zeros(2, 3, 8, 8).double(), r"the images are \(2, 3, 8, 8\) and this generator's are"),
        (torch.zeros(2, 1, 16, 16).double(), "the images have 1 colour and this generator's 3; repeat it"),
        (torch.zeros(3, 16, 16).double(), "add a first dimension to a single one"),
        (torch.full((1, 3, 16, 16), 255.0).double(), "the images range from 255 to 255"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), r"the images are torch\.uint8"),
        ({"z": torch.zeros(1, 5)}, r"what is edited are latents\['z'\]"),
        ([torch.zeros(1, 5)], "what is edited are latents"),
    ],
)
def test_what_is_neither_pictures_nor_latents(given: Any, said: str) -> None:
    with pytest.raises(cp.ProbeError, match=said):
        plain().edit(given, "frame", source=plain().sample(1), modules=MODULES)


def test_an_edit_is_kept_and_drawn(tmp_path: Path) -> None:
    gen = FLOAT32.generator()
    z1, z2 = gen.sample(2, seed=1), gen.sample(2, seed=2)
    edited = gen.edit(gen(z1), "frame", source=z2, modules=MODULES, starts=4, steps=100)
    loaded = cp.Edited.load(edited.save(tmp_path / "edited.safetensors"))
    assert str(loaded) == str(edited)
    assert torch.equal(loaded.images, edited.images)
    assert len(edited.plot().axes.get_yticklabels()) == 4
    assert len(gen.edit(z1, "frame", source=z2, modules=MODULES).plot().axes.get_yticklabels()) == 3


def test_an_installation_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "entry_points", entries())
    with pytest.raises(cp.ProbeError, match=r"edit is not registered, .*; install this one again"):
        plain().edit(plain().sample(1), "frame", source=plain().sample(1), modules=MODULES)
