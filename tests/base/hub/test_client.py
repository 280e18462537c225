"""Files of results on the hub: pushed by the real client, and opened wherever a path is."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import counterfactual_probe as cp
from counterfactual_probe.base.hub.address import FileAddress, repository_of, require_file_name
from counterfactual_probe.base.hub.client import local_file
from support import forks, saved_results
from support.registry import hub

needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs huggingface-hub")

# In a process of its own: the client reads its settings when it is imported.
PROGRAM = """
    import sys
    sys.path.insert(0, {tests!r})
    import counterfactual_probe as cp
    from support import saved_results
    score = saved_results.scores()[0]
    try:
        {code}
    except cp.ProbeError as error:
        print("error:", error)
"""


def on_hub(tmp_path: Path, code: str, **settings: str) -> list[str]:
    tests = str(Path(__file__).parents[2])
    kept = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    text = PROGRAM.format(tests=tests, code=code.replace("\n", "\n        "))
    return forks.run(text, **{"HF_TOKEN": hub.TOKEN, **kept, **settings}).strip().splitlines()


def address(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:user/name/modules.json", ("user/name", None, "modules.json")),
        ("hf:user/name@v1.0/modules.json", ("user/name", "v1.0", "modules.json")),
        ("hf:user/name@refs/pr/1/maps/a.safetensors", ("user/name", "refs/pr/1", "maps/a.safetensors")),
        ("hf:user/name@a%2Fb/maps.safetensors", ("user/name", "a/b", "maps.safetensors")),
    ],
)
def test_an_address_is_read(text: str, expected: tuple[str, str | None, str]) -> None:
    found = FileAddress.of(text)
    assert (found.repository, found.revision, found.file) == expected
    assert FileAddress.of(found.text) == found


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:modules.json",
        "hf:user/name",
        "hf:user/name/",
        "hf:user/name@v1",
        "hf:user/name/../../secret",
        "hf:user/name/a/./b",
        "hf:user/name//etc/passwd",
        "hf:user/name/*.json",
        "hf:user/name/a\\b",
        "hf:user/na me/modules.json",
        "hf:../name/modules.json",
        "hf:user/name/.git/config",
        "hf:user/name/a\nb",
    ],
)
def test_an_address_of_no_file(text: str) -> None:
    for read in (local_file, cp.InfluenceMaps.load, cp.ModuleFinder.load, cp.bases.PCA.load):
        with pytest.raises(
            cp.ProbeError, match="names no file on the hub; give hf:user/name/file, or hf:user/name@rev"
        ):
            read(text)


@pytest.mark.parametrize("name", ["name", "user/name/more", "user/", "../x", "user/..", "a b/c", "", None, 3, "u/a--b"])
def test_a_repository_that_cannot_be_one(name: Any) -> None:
    with pytest.raises(cp.ProbeError, match=r"the repository is .*; give 'user/name', of letters"):
        saved_results.stability().push_to_hub(name)
    assert repository_of("hf:user/name") == repository_of("user/name") == "user/name"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("maps.npz", r"the name in the repository is 'maps\.npz' and a Stability is kept in a \.safetensors file"),
        ("../a.safetensors", r"the name in the repository is '\.\./a\.safetensors'; give one such as"),
        ("/a.safetensors", "give one such as"),
        ("", "give one such as"),
        (3, "give one such as"),
    ],
)
def test_a_name_in_the_repository_that_cannot_be_one(file: Any, said: str) -> None:
    with pytest.raises(cp.ProbeError, match=said):
        saved_results.stability().push_to_hub("user/name", file)
    assert require_file_name("layers/main.8.json") == "layers/main.8.json"


def test_a_file_whose_name_begins_so_is_opened_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stability = saved_results.stability()
    stability.save("hf:maps")
    assert str(cp.Stability.load("./hf:maps")) == str(cp.Stability.load(Path("hf:maps"))) == str(stability)


# --- pushed and opened ----------------------------------------------------------------------------


@needs_hub
@pytest.mark.long
def test_every_result_is_pushed_and_opened(tmp_path: Path) -> None:
    code = """for name, result in saved_results.results().items():
    address = result.push_to_hub("user/repo", "results/" + name)
    loaded = type(result).load(address)
    print(address, str(loaded) == str(result))"""
    with hub.hub_of(address(tmp_path), hub.TOKEN) as served:
        found = on_hub(tmp_path, code, HF_ENDPOINT=served.address)
        assert found == [f"hf:user/repo/results/{name} True" for name in saved_results.results()]
        assert len(served.created) == 1
        assert served.created[0]["name"] == "repo"
        assert served.created[0].get("private") in (False, None)
        first = f"results/{next(iter(saved_results.results()))}"
        assert served.commits[0] == (f"Add {first}", [first])
        last = served.commits[-1][1][0].rpartition("/")[2]
        assert last == "DCI.json", "the newest commit, which is the one that is known without a connection"
        result = saved_results.results()["InfluenceMaps.safetensors"]
        local = result.save(tmp_path / "maps")
        assert served.files()["results/InfluenceMaps.safetensors"] == local.read_bytes()
    # What was fetched loads when the hub is gone.
    again = f'print(cp.metrics.DCI.load("hf:user/repo/results/{last}") is not None)'
    assert on_hub(tmp_path, again, HF_HUB_OFFLINE="1") == ["True"]


@needs_hub
def test_a_name_of_its_own_and_a_private_repository(tmp_path: Path) -> None:
    code = """print(score.push_to_hub("hf:user/repo", private=True))
print(saved_results.stability().push_to_hub("user/repo"))
print(cp.bases.Linear([[1.0, 0.0]]).push_to_hub("user/repo", "basis.safetensors"))
print(cp.bases.Linear.load("hf:user/repo@main/basis.safetensors"))"""
    with hub.hub_of(address(tmp_path)) as served:
        found = on_hub(tmp_path, code, HF_ENDPOINT=served.address)
        (asked,) = served.created
        assert asked.get("visibility") == "private" or asked.get("private") is True
    assert found[:3] == [
        "hf:user/repo/MIG.json",
        "hf:user/repo/Stability.safetensors",
        "hf:user/repo/basis.safetensors",
    ]
    assert found[3].startswith("Linear(")


@needs_hub
def test_the_wrong_file(tmp_path: Path) -> None:
    folder = address(tmp_path)
    saved_results.stability().save(folder / "stability.safetensors")
    (folder / "maps.safetensors").write_bytes(b"no safetensors")
    (folder / "modules.json").write_text(json.dumps({"modules": "none"}))
    names = ["stability.safetensors", "maps.safetensors", "none.safetensors"]
    code = """for name in {names!r}:
    try:
        cp.InfluenceMaps.load("hf:user/repo/" + name)
    except cp.ProbeError as error:
        print(error)
gen = cp.load("dcgan-faces-small")
gen.edit(gen.sample(1), "a", source=gen.sample(1), modules="hf:user/repo/modules.json")""".replace(
        "{names!r}", repr(names)
    )
    with hub.hub_of(folder) as served:
        found = on_hub(tmp_path, code, HF_ENDPOINT=served.address)
    assert "holds Stability and not InfluenceMaps" in found[0]
    assert "is not a complete safetensors file" in found[1]
    held = "maps.safetensors, modules.json, stability.safetensors"
    assert found[2] == f"hf:user/repo has no file 'none.safetensors' (it holds {held}); check the name"
    assert found[3].startswith("error: hf:user/repo/modules.json holds no modules (modules is 'none'")


@needs_hub
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "ConnectError"),
        ({"HF_HUB_OFFLINE": "1"}, "OfflineModeIsEnabled"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_one_sentence(settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    code = """address = "hf:user/repo/maps.safetensors"
for act, given in ((score.push_to_hub, "user/repo"), (cp.InfluenceMaps.load, address)):
    try:
        act(given)
    except cp.ProbeError as error:
        print("error:", error)"""
    pushed, loaded = on_hub(tmp_path, code, **settings)
    assert pushed.startswith(f"error: 'hf:user/repo' cannot be written on the Hugging Face hub ({reason}")
    assert pushed.endswith("check the name, the connection, and that you may write there (run: hf auth login)")
    assert loaded.startswith("error: 'hf:user/repo/maps.safetensors' cannot be fetched from the Hugging Face hub (")
    assert loaded.endswith("check the name and the connection")


@needs_hub
def test_who_may_not_write_is_told_so(tmp_path: Path) -> None:
    with hub.hub_of(address(tmp_path), "another") as served:
        (said,) = on_hub(tmp_path, 'score.push_to_hub("user/repo")', HF_ENDPOINT=served.address)
        assert "cannot be written on the Hugging Face hub (" in said
        assert "hf auth login" in said
        assert hub.TOKEN not in said
        assert not served.files()


def test_without_the_hubs_client(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = r"is on the Hugging Face hub, whose client is not installed; run: pip install 'counterfactual-probe\[hub\]'"
    with pytest.raises(cp.ProbeError, match=f"'hf:user/name/maps.safetensors' {said}"):
        cp.InfluenceMaps.load("hf:user/name/maps.safetensors")
    with pytest.raises(cp.ProbeError, match=f"'hf:user/name' {said}"):
        saved_results.scores()[0].push_to_hub("user/name")


@needs_hub
def test_commands_take_addresses_where_they_take_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = """from counterfactual_probe.cli.entry import main
gen = cp.load("dcgan-faces-small")
maps = cp.InfluenceMap(gen, "main.8").attribute(n_pairs=2)
print(maps.push_to_hub("user/repo", "maps.safetensors"))
quiet = ["--no-progress"]
print(main(["modules", "hf:user/repo/maps.safetensors", "--modules", "2", "--out", "modules", *quiet]))
import shutil
shutil.copy("modules/modules-main.8.json", "repository/modules.json")
score.push_to_hub("user/repo")  # another commit, since those that there are do not change
given = ["dcgan-faces-small", "--modules-file", "hf:user/repo/modules.json", "-n", "1", *quiet]
print(main(["hybridize", *given, "--out", "hybrids"]))
names = [item.name for item in cp.Hybrids.load("hybrids/hybrids-main.8.safetensors").units]
print(main(["edit", *given, "--module", names[0], "--out", "edited"]))
print(main(["hybridize", *given[:1], "--modules-file", "hf:user/repo/none.json", "--out", "none", *quiet]))"""
    with hub.hub_of(address(tmp_path)) as served:
        found = on_hub(tmp_path, code, HF_ENDPOINT=served.address)
    assert [line for line in found if line in ("0", "2")] == ["0", "0", "0", "2"]
    assert (tmp_path / "edited/edited.safetensors").is_file()
    assert not (tmp_path / "none").exists()
