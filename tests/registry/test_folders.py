"""Generators in folders and from the hub: written, read back, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.dcgan import DCGANGenerator, dcgan
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.cli.common import open_generator
from counterfactual_probe.registry import folders
from counterfactual_probe.registry.folders import Architecture, load_folder, save_folder
from support import forks
from support.paths import DOCS
from support.registry import hub
from support.registry.entries import Hostile, entries
from support.toys import seeded

DOCUMENT = DOCS / "folders.md"


def state() -> dict[str, Tensor]:
    with seeded(0):
        return dict(DCGANGenerator(3, [4, 2], 1).state_dict())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_folder(tmp_path / "small", "dcgan", state(), config={"name": "small"}, card="# Small")


def same(one: cp.GeneratorAdapter, two: cp.GeneratorAdapter) -> bool:
    return torch.equal(one(one.sample(2)), two(two.sample(2)))


# --- written and read back ------------------------------------------------------------------------


def test_round_trip(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text()) == {"architecture": "dcgan", "name": "small"}
    assert (folder / "README.md").read_text() == "# Small"
    gen, original = cp.load(str(folder)), dcgan(state())
    assert gen.name == "small"
    assert gen.weights_hash() == original.weights_hash()
    assert same(gen, original)
    another = dict(state())
    another["main.0.weight"] = -another["main.0.weight"]
    assert not same(gen, dcgan(another))


def test_every_way_to_name_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    ways = ["small", "./small", "small/", "../" + folder.parent.name + "/small", "~/small", folder, Path("small")]
    for name in ways:
        assert cp.load(name).name == "small", name
    assert open_generator("./small", None).name == "small"


def test_a_name_of_the_registry_goes_before_a_folder_and_a_path_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    folder.rename(folder.parent / "dcgan-faces")
    assert cp.load("dcgan-faces").name == "dcgan-faces"
    assert cp.load(Path("dcgan-faces")).name == cp.load("./dcgan-faces").name == "small"


@pytest.mark.parametrize("name", [3, None, b"dcgan-faces"])
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(cp.ProbeError, match=r"a generator is named by a string or a path, and .* is a \w+$"):
        cp.load(name)
    with pytest.raises(cp.ProbeError, match="no generator named '' is in the registry"):
        cp.load("")


def test_a_torch_file_is_read_where_there_is_no_safetensors(folder: Path) -> None:
    torch.save({f"module.{key}": value for key, value in state().items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same(cp.load(folder), dcgan(state()))


def test_safetensors_go_before_a_torch_file(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert same(cp.load(folder), dcgan(state()))


def test_a_hostile_torch_file_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    harm = tmp_path / "harm"
    torch.save({**state(), "main.9.weight": Hostile(harm)}, folder / "pytorch_model.bin")
    with pytest.raises(cp.ProbeError, match=r"pytorch_model\.bin holds no readable weights .* get a complete, plain"):
        cp.load(folder)
    assert not harm.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert harm.exists()  # it was hostile


def test_truncated_safetensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(cp.ProbeError, match=r"model\.safetensors holds no readable weights"):
        cp.load(folder)


def test_tied_and_strided_tensors_are_written(tmp_path: Path) -> None:
    tied = torch.arange(6.0).view(2, 3)
    tensors = {"a": tied, "b": tied, "c": tied.T, "d": tied[0]}
    with pytest.raises(cp.ProbeError, match="holds no numbered 4-D kernels"):  # and are read back before that
        load_folder(save_folder(tmp_path, "dcgan", tensors))
    from safetensors.torch import load_file

    found = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_an_architecture_that_nobody_could_load_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match=r"cannot be written as the architecture 'dcgna'; nearest: 'dcgan'"):
        save_folder(tmp_path / "new", "dcgna", state())
    with pytest.raises(cp.ProbeError, match=r"the configuration for .* is no JSON \(Object of type Tensor"):
        save_folder(tmp_path / "new", "dcgan", state(), config={"scale": torch.ones(1)})
    assert not (tmp_path / "new").exists()


# --- what a folder can lack -----------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match=r"there is no folder .*nowhere; give one with config\.json and model\."):
        cp.load(tmp_path / "nowhere")
    with pytest.raises(cp.ProbeError, match=r"there is no folder nowhere"):
        cp.load("./nowhere")


def test_a_file_instead_of_its_folder(folder: Path) -> None:
    with pytest.raises(cp.ProbeError, match=r"model\.safetensors is a file; give a folder with config\.json"):
        cp.load(folder / "model.safetensors")


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(cp.ProbeError, match=r"small has no config\.json \(it holds README\.md, model\.safetensors\)"):
        cp.load(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(cp.ProbeError, match=r"has no config\.json \(it holds nothing\)"):
        cp.load(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        cp.ProbeError, match=r"holds no weights; put model\.safetensors \(or pytorch_model\.bin\) beside"
    ):
        cp.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"config\.json is no JSON \(Expecting property name"),
        (b"", r"config\.json is no JSON \(Expecting value"),
        (b"\xff\xfe\xfa", r"config\.json is no JSON \("),
        (b"[" * 100_000, r"config\.json is no JSON \("),
        (b'["dcgan"]', r"config\.json holds a list and not an object; write it again"),
        (b"{}", r'names no architecture \(its keys: none\); add "architecture", one of .*\'dcgan\''),
        (b'{"model_type": "gpt2", "b": 1}', r"names no architecture \(its keys: model_type, b\)"),
        (b'{"architecture": "dcgna"}', r"of .*small names the architecture 'dcgna'; nearest: 'dcgan'"),
        (b'{"architecture": 3}', r"names the architecture 3; nearest: .* \(a package adds one with an entry point"),
        (b'{"architecture": ["dcgan"]}', r"names the architecture \['dcgan'\]; nearest: 'dcgan'"),
        (b'{"architecture": null}', r"names the architecture None; nearest"),
    ],
)
def test_a_wrong_config(content: bytes, message: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(cp.ProbeError, match=message):
        cp.load(folder)


def test_tensors_of_something_else(folder: Path) -> None:
    save_folder(folder, "dcgan", {"weight": torch.zeros(2, 2)})
    with pytest.raises(cp.ProbeError, match=r"holds no numbered 4-D kernels \(its first keys: weight\)"):
        cp.load(folder)


# --- architectures --------------------------------------------------------------------------------


def built(config: Mapping[str, Any], tensors: Mapping[str, Tensor], device: Any) -> cp.GeneratorAdapter:
    return dcgan(tensors, device=device, name=f"claimed {config['kind']}")


def of_kind(name: str, kind: str) -> Architecture:
    return Architecture(name, built, claims=lambda config: config.get("kind") == kind)


@pytest.fixture
def own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(A=of_kind("a", "one"), B=of_kind("b", "two"), C=of_kind("c", "two"))
    monkeypatch.setitem(sys.modules, "own_package", package)
    found = entries(*[(name.lower(), f"own_package:{name}") for name in "ABC"], ("dcgan", "no_such_package:X"))
    monkeypatch.setattr(folders, "entry_points", found)


def config(folder: Path, **content: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_named_architecture_of_a_users_package(folder: Path, own_package: None) -> None:
    assert cp.load(config(folder, architecture="c", kind="x"), device="cpu").name == "claimed x"


def test_a_package_that_cannot_be_imported(folder: Path, own_package: None) -> None:
    with pytest.raises(
        cp.ProbeError, match=r"architecture 'dcgan' of 'no_such_package:X' cannot be imported .* reinstall it"
    ):
        cp.load(config(folder, architecture="dcgan"))


def test_a_configuration_of_another_library_is_claimed(
    folder: Path, own_package: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [entry for entry in folders.entry_points(group=folders.GROUP) if entry.name != "dcgan"]
    monkeypatch.setattr(folders, "entry_points", lambda group: found)
    assert cp.load(config(folder, kind="one")).name == "claimed one"
    with pytest.raises(
        cp.ProbeError,
        match=r"names no architecture and is claimed by 'b' and 'c'; add \"architecture\", one of 'b', 'c'$",
    ):
        cp.load(config(folder, kind="two"))
    with pytest.raises(cp.ProbeError, match=r"names no architecture \(its keys: kind\); .* one of 'a', 'b', 'c'$"):
        cp.load(config(folder, kind="three"))


def test_packages_that_fail_do_not_keep_others_from_claiming(
    folder: Path, own_package: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = Architecture("d", built, claims=lambda config: config["no such key"])
    monkeypatch.setattr(sys.modules["own_package"], "D", fails, raising=False)
    found = [*folders.entry_points(group=folders.GROUP), *entries(("d", "own_package:D"))(group=folders.GROUP)]
    monkeypatch.setattr(folders, "entry_points", lambda group: found)
    assert cp.load(config(folder, kind="one")).name == "claimed one"  # although dcgan cannot be imported
    with pytest.raises(cp.ProbeError, match="architecture 'dcgan' of 'no_such_package:X' cannot be imported"):
        cp.load(config(folder, kind="three"))
    found = [entry for entry in found if entry.name != "dcgan"]
    with pytest.raises(cp.ProbeError, match=r"architecture 'd' cannot say whether it reads a folder \(KeyError"):
        cp.load(config(folder, kind="three"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("dcgan", "os:path")], r"entry point 'os:path' is a module and not an Architecture"),
        ([("dcgan", "one:A"), ("dcgan", "two:B")], r"two packages register the architecture 'dcgan' .*uninstall one"),
    ],
)
def test_broken_entries(pairs: list[Any], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "entry_points", entries(*pairs))
    with pytest.raises(cp.ProbeError, match=message):
        cp.load(folder)


def test_our_architectures_are_named_by_their_entry_points_and_described() -> None:
    text = DOCUMENT.read_text()
    for name, found in folders.architectures()[0].items():
        assert found.name == name
        assert not found.claims({})
        assert f'| `"{name}"`' in text


def test_the_documents_architecture_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)[2]
    names: dict[str, Any] = {}
    exec(compile(code, "folders.md", "exec"), names)
    monkeypatch.setitem(sys.modules, "my_package", SimpleNamespace(LINEAR=names["LINEAR"]))
    monkeypatch.setattr(folders, "entry_points", entries(("linear", "my_package:LINEAR")))
    weights = nn.Linear(3, 20).state_dict()
    gen = cp.load(save_folder(folder, "linear", weights, config={"height": 4}))
    assert gen.image_size == (1, 4, 5)


# --- the hub --------------------------------------------------------------------------------------


def test_without_the_hubs_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = (
        r"'hf:user/repo' is on the Hugging Face hub, .* not installed; run: pip install 'counterfactual-probe\[hub\]'"
    )
    with pytest.raises(cp.ProbeError, match=said):
        cp.load("hf:user/repo")


HUB_CALLS = """
    import time, warnings
    import counterfactual_probe as cp
    from counterfactual_probe.cli.common import open_generator
    waits = []
    time.sleep = waits.append
    for name in {names!r}:
        try:
            found = open_generator(name, None).name
        except cp.ProbeError as error:
            found = str(error)
        print(found)
        assert sum(waits) < 20, "tries again and again"
"""


def hub_calls(cache: Path, *names: str, **environment: str) -> list[str]:
    """What loading these gives, in a process of its own: the client reads its settings when it is imported."""
    settings = {"HF_HOME": str(cache.parent / "home"), "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return forks.run(HUB_CALLS.format(names=names), **settings, **environment).strip().splitlines()


def cached(cache: Path, folder: Path, commit: str = "0" * 40) -> None:
    """The local cache after user/repo was fetched, as the hub's client lays it out."""
    repository = cache / "models--user--repo"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)


def test_a_repository_that_was_fetched_before_loads_without_the_hub(folder: Path, tmp_path: Path) -> None:
    cached(tmp_path / "cache", folder)
    names = ["hf:user/repo", "hf:user/repo@main", "hf:user/repo@" + "0" * 40, "hf:user/other", "hf:user/repo@v2"]
    for settings in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        found = hub_calls(tmp_path / "cache", *names, **settings)
        assert found[:3] == ["small"] * 3
        assert found[3].startswith("'hf:user/other' cannot be fetched from the Hugging Face hub (")
        assert found[4].startswith("'hf:user/repo@v2' cannot be fetched from the Hugging Face hub (")


needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs huggingface-hub")


@needs_hub
@pytest.mark.parametrize(
    ("weights", "beside"),
    [("model.safetensors", []), ("model.safetensors", ["pytorch_model.bin"]), ("pytorch_model.bin", [])],
)
def test_what_was_fetched_loads_when_the_hub_is_gone(
    weights: str, beside: list[str], folder: Path, tmp_path: Path
) -> None:
    torch.save(state(), folder / "pytorch_model.bin")
    for name in {"model.safetensors", "pytorch_model.bin"} - {weights, *beside}:
        (folder / name).unlink()
    for name in (".gitattributes", "training.log"):
        (folder / name).write_text("of no use here, as every repository has some")
    cache = tmp_path / "cache"
    with hub.serving(folder) as address:
        assert hub_calls(cache, "hf:user/repo", HF_ENDPOINT=address) == ["small"]
    fetched = {path.name for path in (cache / "models--user--repo" / "snapshots" / hub.COMMIT).iterdir()}
    assert fetched == {"config.json", "README.md", weights}
    for settings in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": address}):
        assert hub_calls(cache, "hf:user/repo", "hf:user/repo@main", **settings) == ["small"] * 2


def test_a_cache_without_the_weights(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    cached(tmp_path / "cache", folder)
    (found,) = hub_calls(tmp_path / "cache", "hf:user/repo", HF_HUB_OFFLINE="1")
    assert "holds no weights; put model.safetensors" in found


def test_a_torch_file_in_the_cache(folder: Path, tmp_path: Path) -> None:
    torch.save(state(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    cached(tmp_path / "cache", folder)
    assert hub_calls(tmp_path / "cache", "hf:user/repo", HF_HUB_OFFLINE="1") == ["small"]


@needs_hub
@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin"], ["model.safetensors", "pytorch_model.bin"]),
    ],
)
def test_what_is_asked_of_the_hub(
    held: list[str], wanted: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def info(_self: Any, repository: str, **options: Any) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in held])

    def download(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert cp.load("hf:user/repo@v1").name == "small"
    beside = ["config.json", "README.md", "discriminator.safetensors", "modules.json"]
    assert asked == [
        ("user/repo", {"revision": "v1", "allow_patterns": [*beside, *wanted]}),
    ]


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    names = ["hf:user/repo", "hf:user/repo@" + "0" * 40, "hf:", "hf:a b/c"]
    # Nothing listens on this port of this machine.
    found = hub_calls(tmp_path / "cache", *names, HF_ENDPOINT="http://127.0.0.1:9")
    for name, sentence in zip(names, found, strict=True):
        assert sentence.startswith(f"{name!r} cannot be fetched from the Hugging Face hub (")
        assert sentence.endswith("config.json and model.safetensors elsewhere and load their folder")
