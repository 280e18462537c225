"""Result files: what is saved comes back, nothing is half written, nothing foreign is believed."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.base import files
from support.planted import planted, structureless
from support.toy_modules import Deconv
from support.toys import BF16, PLAIN, Toy


def influence(normalise: Any = None) -> cp.InfluenceMaps:
    units = [{"main.2": [0, 1]}, {"main.6": [2], "main.2": []}]
    return cp.InfluenceMap(PLAIN.generator(), ["main.2", "main.6"]).attribute(
        n_pairs=3, units=units, normalise=normalise
    )


def hybrids() -> cp.Hybrids:
    generator = PLAIN.generator()
    return cp.Hybridizer(generator, "main.2").hybridize(
        generator.sample(2), generator.sample(2, seed=1), units=[[0], [1]]
    )


def intervened() -> cp.Hybrids:
    generator = Toy("half", Deconv, dtype=BF16).generator()
    return cp.Hybridizer(generator, "main.2").intervene(generator.sample(2), units=[0], value="mean")


def stability(other: bool) -> cp.Stability:
    return cp.ModuleFinder().stability(
        planted()[0], n_modules=[2, 3], repetitions=2, other=structureless(18) if other else None
    )


RESULTS: dict[str, Callable[[], Any]] = {
    "maps": influence,
    "maps, normalised": lambda: influence("pair"),
    "maps of modules": lambda: cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=1),
    "hybrids": hybrids,
    "hybrids, intervened": intervened,
    "stability": lambda: stability(False),
    "stability between draws": lambda: stability(True),
}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return bool(
            isinstance(two, Tensor) and one.dtype == two.dtype and torch.allclose(one, two, 0, 0, equal_nan=True)
        )
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two)
    return bool(one == two and type(one) is type(two))


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS.keys())
def test_what_is_saved_comes_back(make: Callable[[], Any], tmp_path: Path) -> None:
    result = make()
    path = result.save(tmp_path / "result.safetensors")
    assert path == tmp_path / "result.safetensors"
    loaded = type(result).load(str(path))
    for field in dataclasses.fields(result):
        assert same(getattr(result, field.name), getattr(loaded, field.name)), field.name
    assert repr(loaded) == repr(result)
    # Saved again it is the same file: nothing in it depends on when or where it was written.
    assert loaded.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["again.safetensors", "result.safetensors"]


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    result = influence()
    loaded = cp.InfluenceMaps.load(result.save(tmp_path / "maps"))
    for change in (
        {"maps": result.maps + 1},
        {"maps": result.maps.double()},
        {"units": result.units[:1]},
        {"provenance": {**result.provenance, "seed": 1}},
        {"normalised": result.maps},
    ):
        other = dataclasses.replace(loaded, **change)
        assert not all(same(getattr(result, f.name), getattr(other, f.name)) for f in dataclasses.fields(result))


def test_loaded_units_serve_as_units(tmp_path: Path) -> None:
    loaded = cp.InfluenceMaps.load(influence().save(tmp_path / "maps"))
    generator = PLAIN.generator()
    again = cp.InfluenceMap(generator, ["main.2", "main.6"]).attribute(n_pairs=3, units=loaded.units)
    assert torch.equal(again.maps, loaded.maps)


def test_files_hold_no_pickle_and_open_with_safetensors_alone(tmp_path: Path) -> None:
    result = influence()
    plain = safetensors.torch.load_file(result.save(tmp_path / "maps.safetensors"))
    assert torch.equal(plain["maps"], result.maps)


def test_results_are_frozen_and_say_what_they_are() -> None:
    result = influence()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.maps = result.maps * 0
    first, *facts = repr(result).splitlines()
    assert first == "InfluenceMaps(Deconv, main.2, main.6: 2 unit sets of 16×16, 3 pairs each, seed 0)"
    assert f"{float(result.influence.min()):.3g} to {float(result.influence.max()):.3g}, median" in facts[0]


def test_folders_are_made_and_files_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "maps"
    influence().save(path)
    before = path.read_bytes()
    influence("pair").save(path)
    assert path.read_bytes() != before
    assert [entry.name for entry in path.parent.iterdir()] == ["maps"]
    other = path.with_name("other")
    other.write_bytes(b"")
    assert path.stat().st_mode == other.stat().st_mode  # as any new file, not mkstemp's 0600


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3)])
def test_a_seed_of_numpy_can_be_saved(seed: Any, tmp_path: Path) -> None:
    cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=1, seed=seed).save(tmp_path / "maps")
    assert cp.InfluenceMaps.load(tmp_path / "maps").provenance["seed"] == 3
    finder = cp.ModuleFinder(seed=seed)
    finder.stability(planted()[0], n_modules=2, repetitions=1).save(tmp_path / "stability")
    assert cp.Stability.load(tmp_path / "stability").provenance["seed"] == 3


# --- files that are not what they should be -------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return influence().save(tmp_path / "maps.safetensors")


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any], **tensors: Tensor) -> None:
    """The same file with another description in its header."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["counterfactual-probe"])
    description = change(header)
    text = (
        description if isinstance(description, str) else json.dumps(description if description is not None else header)
    )
    values = safetensors.torch.load(content) | tensors
    path.write_bytes(safetensors.torch.save(values, metadata={"counterfactual-probe": text}))


def test_a_file_of_another_kind(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match="holds InfluenceMaps and not Hybrids; load it with that class"):
        cp.Hybrids.load(saved)
    with pytest.raises(cp.ProbeError, match="holds Stability and not InfluenceMaps"):
        cp.InfluenceMaps.load(stability(False).save(tmp_path / "stability"))


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(
        cp.ProbeError, match=r"maps\.safetensors is not a complete safetensors file .* again with \.save\(\)"
    ):
        cp.InfluenceMaps.load(saved)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_other_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(content)
    with pytest.raises(cp.ProbeError, match="is not a complete safetensors file"):
        cp.InfluenceMaps.load(path)


def test_a_foreign_safetensors_file(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "model", metadata=metadata)
        with pytest.raises(cp.ProbeError, match="is a safetensors file but holds no result of this library"):
            cp.InfluenceMaps.load(tmp_path / "model")


def test_a_file_of_another_format(saved: Path) -> None:
    rewrite(saved, lambda header: header.update(format=99))
    with pytest.raises(cp.ProbeError, match="has format 99 and this version reads 1; install a matching version"):
        cp.InfluenceMaps.load(saved)


def test_a_file_that_lacks_a_part(saved: Path) -> None:
    rewrite(saved, lambda header: header["fields"].pop("units") and None)
    with pytest.raises(cp.ProbeError, match=r"lacks a part of InfluenceMaps .*units.*; make it again with \.save\(\)"):
        cp.InfluenceMaps.load(saved)


def test_rewriting_alone_does_no_harm(saved: Path) -> None:
    """The control of the tests around it."""
    rewrite(saved, lambda header: None)
    assert torch.equal(cp.InfluenceMaps.load(saved).maps, influence().maps)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: "{not JSON",
        lambda header: "[]",
        lambda header: header.pop("kind") and None,
        lambda header: header.pop("format") and None,
        lambda header: header.pop("fields") and None,
        lambda header: header.pop("arrays") is None or None,
        lambda header: header["fields"].update(units=[3]),
    ],
    ids=["not JSON", "a list", "no kind", "no format", "no fields", "no arrays", "units of another form"],
)
def test_an_altered_header(saved: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    rewrite(saved, change)
    with pytest.raises(cp.ProbeError, match=r"maps\.safetensors .*\(.*\); make it again with \.save\(\)"):
        cp.InfluenceMaps.load(saved)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match=r"none cannot be read \(No such file or directory\); check the path"):
        cp.InfluenceMaps.load(tmp_path / "none")
    with pytest.raises(cp.ProbeError, match=r"cannot be read \(Is a directory\)"):
        cp.InfluenceMaps.load(tmp_path)


# --- writing that fails ---------------------------------------------------------------------------


class Full:
    """A file whose disk takes some bytes and then no more."""

    def __init__(self, file: Any, error: BaseException) -> None:
        self.file, self.error = file, error

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        raise self.error


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def disk_full(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.fdopen
    error = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fdopen", lambda *args, **options: Full(opened(*args, **options), error))


def quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.EDQUOT, "Disk quota exceeded")))


def no_permission_to_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", failing(PermissionError(errno.EACCES, "Permission denied")))


def read_only_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom no permission stops.
    monkeypatch.setattr(files.os, "open", failing(PermissionError(errno.EACCES, "Permission denied")))


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "disk full": (
        disk_full,
        r"\(No space left on device\); free some space or choose another disk; no partial file",
    ),
    "quota": (quota, r"\(Disk quota exceeded\); free some space"),
    "no permission to replace": (
        no_permission_to_replace,
        r"\(Permission denied\); choose a folder that you may write to",
    ),
    "read-only folder": (read_only_folder, r"\(Permission denied\); choose a folder that you may write to"),
}


@pytest.mark.parametrize(("fail", "message"), FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("exists", [True, False])
def test_a_failed_write_leaves_what_was_there(
    fail: Callable[[pytest.MonkeyPatch], None],
    message: str,
    exists: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, result = tmp_path / "maps.safetensors", influence()
    if exists:
        path.write_text("precious")
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(cp.ProbeError, match=rf"maps\.safetensors cannot be written {message}"):
            result.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == (["maps.safetensors"] if exists else [])
    assert not exists or path.read_text() == "precious"
    result.save(path)
    assert cp.InfluenceMaps.load(path).maps.shape == result.maps.shape


@pytest.mark.parametrize("place", ["fsync", "replace", "fdopen"])
def test_ctrl_c_while_writing_leaves_nothing(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, result = tmp_path / "maps", influence()
    path.write_text("precious")
    monkeypatch.setattr(os, place, failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        result.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["maps"]
    assert path.read_text() == "precious"


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the rename the old file is there whole, and at the rename the new one is complete."""
    path, seen, replace = tmp_path / "maps", [], os.replace
    path.write_text("precious")

    def watched(source: Any, target: Any) -> None:
        seen.append((path.read_text(), Path(source).parent == path.parent, cp.InfluenceMaps.load(source).units))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    result = influence()
    result.save(path)
    assert seen == [("precious", True, result.units)]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    with pytest.raises(cp.ProbeError, match="maps cannot be written"):
        influence().save(tmp_path / "maps")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(cp.ProbeError, match="cannot be written"):
        influence().save(tmp_path / "file" / "maps")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "maps"]


def test_json_is_sorted_and_whole(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "a.json", {"b": [1, 2], "a": None})
    assert json.loads(path.read_text()) == {"a": None, "b": [1, 2]}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert path.read_text().endswith("\n")
