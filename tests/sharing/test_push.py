"""Generators on the hub: a round trip through the real client, and a card whose every word is text."""

from __future__ import annotations

import io
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator, DCGANGenerator
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.base.files import write_json
from counterfactual_probe.registry.folders import save_folder
from counterfactual_probe.sharing import push
from counterfactual_probe.sharing.card import CardFacts, model_card
from counterfactual_probe.sharing.modules import shared_modules
from counterfactual_probe.sharing.push import write_generator
from support import forks, saved_results
from support.registry import hub
from support.toys import PLAIN, seeded

needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs huggingface-hub")
LAYER = "main.2"
HOSTILE = '`</script><script>x</script>` | "eyes"\n---\nlicense: evil\n# {{7*7}} ![x](http://x) [a](b) \x1b[2J ```'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator with its discriminator and the terms of its data."""
    with seeded(3):
        state, other = DCGANGenerator(5, [6, 4], 3).state_dict(), DCGANDiscriminator([4, 6], 3).state_dict()
    config = {"name": "mine", "trained_on": "my pictures", "terms": "CC BY 4.0"}
    made = save_folder(tmp_path_factory.mktemp("generators") / "mine", "dcgan", state, config=config)
    import safetensors.torch

    (made / "discriminator.safetensors").write_bytes(safetensors.torch.save(other))
    return made


@cache
def finder(folder: Path) -> cp.ModuleFinder:
    """Planted modules of a layer with as many channels, as if they had been found with these weights."""
    found = saved_results.finder()
    largest = max(range(2), key=lambda k: found.unit_sets()[k].size)
    found.name_modules(["eyes and mouth" if k == largest else "frame" for k in range(2)])
    found.provenance_["maps"] = saved_results.ABOUT | {"weights_sha256": cp.load(folder).weights_hash()}
    return found


def facts(**more: Any) -> CardFacts:
    return CardFacts(**{"address": "hf:user/repo", "architecture": "dcgan", **more})


def written(tmp_path: Path, folder: Path, modules: Any = None, **more: Any) -> Path:
    gen = cp.load(folder)
    shared = None if modules is None else shared_modules(gen, modules)
    return write_generator(tmp_path / "written", gen, facts(**more), shared)


# --- the round trip -------------------------------------------------------------------------------

PROGRAM = """
    import counterfactual_probe as cp
    gen = cp.load({folder!r})
    finder = cp.ModuleFinder.load({finder!r})
    print(gen.push_to_hub("user/repo", modules=finder, licence="cc-by-4.0", private=True))
    again = cp.load("hf:user/repo")
    print(again.name, again.weights_hash() == gen.weights_hash(), again.config["trained_on"], again.partner is not None)
    z1, z2 = gen.sample(2, seed=1), gen.sample(2, seed=2)
    edited = again.edit(z1, "eyes", source=z2, strength=0.5)
    print(edited.module, (edited.images == gen.edit(z1, "eyes", source=z2, strength=0.5, modules=finder).images).all())
    print((gen.edit(z1, "frame", source=z2, modules="hf:user/repo/modules.json").images
        == gen.edit(z1, "frame", source=z2, modules=finder).images).all())
    print(again.push_to_hub("hf:user/repo", modules="hf:user/repo@main/modules.json"))
"""


@needs_hub
def test_a_generator_is_pushed_opened_and_edited(tmp_path: Path, folder: Path) -> None:
    kept = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": hub.TOKEN}
    repository = tmp_path / "repository"
    repository.mkdir()
    program = PROGRAM.format(folder=str(folder), finder=str(finder(folder).save(tmp_path / "finder.safetensors")))
    with hub.hub_of(repository, hub.TOKEN) as served:
        found = forks.run(program, HF_ENDPOINT=served.address, **kept).splitlines()
        commits, files = served.commits, served.files()
    assert found == [
        "hf:user/repo",
        "mine True my pictures True",
        "eyes and mouth tensor(True)",
        "tensor(True)",
        "hf:user/repo",
    ]
    names = ["README.md", "config.json", "discriminator.safetensors", "hybrids.webp", "model.safetensors"]
    names += ["modules.json", "samples.webp"]
    assert (commits[0][0], sorted(commits[0][1])) == ("Add mine", names), "one commit"
    assert sorted(files) == names
    assert not [name for name in files if name.endswith((".bin", ".py", ".pkl", ".pt"))]
    card = files["README.md"].decode()
    assert "- Trained on: my pictures.\n- Terms: CC BY 4.0." in card
    assert json.loads(files["modules.json"])["names"] == list(finder(folder).names_)


# --- the card -------------------------------------------------------------------------------------


def test_the_card_says_what_was_measured(tmp_path: Path, folder: Path) -> None:
    place = written(tmp_path, folder, finder(folder), trained_on="my pictures", terms="CC BY", licence="cc-by-4.0")
    card, found = (place / "README.md").read_text(), finder(folder)
    about = metadata(card)
    assert about["library_name"] == "counterfactual-probe"
    assert about["license"] == "cc-by-4.0"
    assert set(about["tags"]) == {"counterfactual-probe", "interpretability", "dcgan"}
    confidence = [found.confidence_[found.labels_ == k].mean() for k in range(2)]
    for units, name, value in zip(found.unit_sets(), found.names_, confidence, strict=True):
        assert f"| {name} | {LAYER} | {units.size} channel{'s' * (units.size > 1)} | {value:.2f} |" in card
    assert f"adjusted Rand index {found.expected_ari_:.2f}" in card
    assert 'gen = cp.load("hf:user/repo")' in card
    assert f'gen.edit(z1, "{found.names_[0]}", source=z2, strength=0.7)' in card
    assert f"| {LAYER} | 6 | 4×4 |" in card
    assert cp.load(folder).weights_hash() in card
    for name in re.findall(r"!\[\w+\]\((.+?)\)", card):
        with Image.open(place / name) as picture:
            pixels = np.asarray(picture.convert("RGB"), float)
        assert pixels.std() > 5, "a picture of one colour"


def test_the_samples_are_those_of_the_generator(tmp_path: Path, folder: Path) -> None:
    place = written(tmp_path, folder)
    assert "## Modules" not in (place / "README.md").read_text()
    assert not (place / "modules.json").exists()
    figure = cp.load(folder).show(16, seed=0).figure
    from counterfactual_probe.base.display.encode import encoded

    assert (place / "samples.webp").read_bytes() == encoded(figure, photographs=True)[0]


def metadata(card: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    first, about, _ = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    assert first == ""
    return dict(yaml.safe_load(about))


def test_names_from_outside_are_text_in_the_card(folder: Path) -> None:
    gen = cp.load(folder)
    gen.name = HOSTILE
    shared = shared_modules(gen, finder(folder).unit_sets()[0].named(HOSTILE))
    words = dict.fromkeys(("summary", "trained_on", "terms", "source"), HOSTILE)
    card = model_card(gen, facts(**words, address="hf:user/repo"), samples=("samples.webp", 16), modules=shared)
    assert metadata(card)["tags"] == ["counterfactual-probe", "interpretability", "dcgan"]
    assert "license" not in metadata(card)
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    body = card.partition("\n---\n")[2]
    html = markdown.render(body)
    assert "<script" not in html
    assert 'src="http://x"' not in html
    assert "\x1b" not in card
    gen.name = "mine"
    few, harmless = shared_modules(gen, {"a": {LAYER: [0]}}), facts(**dict.fromkeys(words, "x"))
    plain = markdown.render(model_card(gen, harmless, samples=("s", 1), modules=few).partition("\n---\n")[2])
    for tag in ("<h1", "<h2", "<p", "<li", "<td", "<code", "<img", "<a", "<hr"):
        assert html.count(tag) == plain.count(tag), f"a name made or broke a {tag}>"


def test_a_hostile_tag_is_text(folder: Path) -> None:
    gen = cp.load(folder)
    card = model_card(gen, facts(architecture='x"\n- evil: [1]\n---\n'), samples=("s", 1))
    assert metadata(card)["tags"][2] == 'x"\n- evil: [1]\n---\n'


# --- modules --------------------------------------------------------------------------------------


def test_modules_of_a_file_keep_what_was_measured(tmp_path: Path, folder: Path) -> None:
    gen, found = cp.load(folder), finder(folder)
    shared = shared_modules(gen, found)
    path = write_json(tmp_path / "modules-main.2.json", {**shared.content, "other": 1})
    again = shared_modules(gen, path)
    assert again.content == shared.content
    assert again.expected_ari == pytest.approx(found.expected_ari_)
    assert again.confidence(1) == pytest.approx(float(found.confidence_[found.labels_ == 1].mean()))
    saved = shared_modules(gen, found.save(tmp_path / "finder.safetensors"))
    assert saved.content == shared.content
    named = shared_modules(gen, {"a": {LAYER: [0]}})
    assert (named.expected_ari, named.confidence(0)) == (None, None)
    assert named.content == {"modules": [{LAYER: [0]}], "names": ["a"]}


def test_modules_of_other_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    gen = cp.load(folder)
    with torch.no_grad():
        next(gen.module.parameters()).add_(1)
    with pytest.raises(
        cp.ProbeError, match=r"the modules given were found with other weights \(\w{12}…\) than those of"
    ):
        shared_modules(gen, finder(folder))


def test_two_modules_of_one_name(folder: Path) -> None:
    units = finder(folder).unit_sets()
    with pytest.raises(cp.ProbeError, match="two modules have the same name"):
        shared_modules(cp.load(folder), [units[0].named("a"), units[1].named("a")])


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was sent")

    monkeypatch.setattr(push, "push", sent)


def test_a_module_of_the_users_is_not_shared(nothing_sent: None) -> None:
    with pytest.raises(cp.ProbeError, match=r"Deconv is a module of no architecture that cp\.load builds"):
        PLAIN.generator().push_to_hub("user/name")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"licence": "My Licence"}, "licence is 'My Licence'; give an identifier of the hub, such as 'mit'"),
        ({"licence": 'mit"\nevil: 1'}, "licence is "),
        ({"terms": 3}, "terms is 3; give a string"),
        ({"modules": "nothing.json"}, r"nothing\.json cannot be read"),
        ({"modules": {}}, "modules is empty"),
        ({"modules": {"a": {"main.99": [0]}}}, r"layer 'main\.99' is not in this generator"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], said: str, folder: Path, nothing_sent: None) -> None:
    with pytest.raises(cp.ProbeError, match=said):
        cp.load(folder).push_to_hub("user/name", **options)
    with pytest.raises(cp.ProbeError, match="the repository is 'name'"):
        cp.load(folder).push_to_hub("name", **options)


def test_a_generator_that_would_open_as_another_is_refused(folder: Path, nothing_sent: None) -> None:
    gen = cp.load(folder)
    gen.module.main[0].register_buffer("extra", torch.zeros(2))
    with pytest.raises(cp.ProbeError, match="would open as another generator: 'dcgan' builds none"):
        gen.push_to_hub("user/name")
    half = cp.load(folder)
    half.module.half()
    with pytest.raises(cp.ProbeError, match="the folder of mine would open as another generator: 'dcgan' builds none"):
        write_generator(folder.parent / "half", _of_float(half), facts(), None)


def _of_float(gen: cp.GeneratorAdapter) -> cp.GeneratorAdapter:
    return cp.wrap(gen.module, lambda n, rng: torch.randn(n, 5, 1, 1, generator=rng), layers=LAYER, name="mine")


@pytest.mark.parametrize(
    "name", ["dcgan-faces", "dcgan-faces-small", "cdcgan-eyes", "vae-cifar10", "flow-faces", "began-faces"]
)
@pytest.mark.long
def test_the_models_that_ship_can_be_shared(name: str, tmp_path: Path) -> None:
    gen, entry = cp.load(name), cp.pretrained(name)
    facts = push._facts(gen, "hf:user/repo", licence=None, trained_on=None, terms=None)
    place = write_generator(tmp_path / name, gen, facts, None)
    again = cp.load(place)
    assert again.weights_hash() == gen.weights_hash()
    assert torch.equal(again(again.sample(2)), gen(gen.sample(2)))
    card = (place / "README.md").read_text()
    assert entry.trained_on[:40] in card.replace("\\", "")
    assert entry.licence[:3] in card
    assert again.config["trained_on"] == entry.trained_on


@pytest.mark.long
def test_weights_that_are_stored_otherwise_are_those_of_the_folder(tmp_path: Path) -> None:
    """A BigGAN-deep's have spectral norms, which are removed when it opens."""
    pytest.importorskip("pytorch_pretrained_biggan")
    from support.adapters.biggans import package_model, publish

    gen = cp.load(publish(tmp_path / "published", package_model().float()))
    place = write_generator(tmp_path / "shared", gen, push._facts(gen, "hf:user/repo", licence=None), None)
    again = cp.load(place)
    assert torch.equal(again(again.sample(1)), gen(gen.sample(1)))
    assert [path.name for path in place.iterdir() if path.suffix == ".bin"] == []


def test_a_picture_is_small(tmp_path: Path, folder: Path) -> None:
    place = written(tmp_path, folder, finder(folder))
    for name in ("samples.webp", "hybrids.webp"):
        content = (place / name).read_bytes()
        assert Image.open(io.BytesIO(content)).format == "WEBP"
        assert len(content) < 500_000


# --- trainings ------------------------------------------------------------------------------------

TRAINING = """
    import sys
    import counterfactual_probe as cp
    from counterfactual_probe.cli.entry import main
    small = ["--latent", "4", "--width", "6", "--batch", "5", "--device", "cpu", "--no-progress"]
    data = ["--data", "generator:dcgan-faces-small", "--images", "20", "--size", "16", "--terms", "<b>mine</b>"]
    assert main(["train", "vae", *data, *small, "--steps", "4", "--out", "trained", "--push", "user/repo"]) == 0
    gen = cp.load("hf:user/repo")
    print(gen.weights_hash() == cp.load("trained").weights_hash(), gen.config["terms"])
"""


@needs_hub
def test_a_training_is_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": hub.TOKEN}
    repository = tmp_path / "repository"
    repository.mkdir()
    with hub.hub_of(repository, hub.TOKEN) as served:
        *_, address, loaded = forks.run(TRAINING, HF_ENDPOINT=served.address, **kept).splitlines()
        ((message, names),), files = served.commits, served.files()
    assert (address, loaded) == ("hf:user/repo", "True <b>mine</b>")
    assert message == "Add vae"
    card = files["README.md"].decode()
    assert metadata(card)["tags"][-1] == "vae"
    assert 'gen = cp.load("hf:user/repo")' in card
    assert "path/to/this/folder" not in card
    assert r"Terms: \<b\>mine\</b\>" in card
    pictures = re.findall(r"!\[\w+\]\((.+?)\)", card)
    assert len(pictures) == 2
    assert sorted(names) == sorted(["README.md", "config.json", "losses.csv", "model.safetensors", *pictures])


@pytest.mark.parametrize("name", ["user", "user/a b", "../x/y"])
def test_a_training_whose_repository_cannot_be_does_not_begin(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from counterfactual_probe.cli.entry import main

    monkeypatch.chdir(tmp_path)
    assert main(["train", "vae", "--data", "scene", "--push", name]) == 2
    assert f"the repository is {name!r}; give 'user/name'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
