"""A file is written whole, where its name leads, with the modes it had; what is no file is left alone."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counterfactual_probe.adapters.dcgan import DCGANGenerator

import counterfactual_probe as cp
from counterfactual_probe.base.checkpoint import Checkpoint
from counterfactual_probe.base.files import as_path, read_bytes, write_bytes
from counterfactual_probe.base.memory import is_out_of_memory
from counterfactual_probe.registry.folders import save_folder
from counterfactual_probe.training.record.losses import plot_losses
from support import forks

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, links and pipes are POSIX's")


@posix
def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    assert write_bytes(tmp_path / "link", b"new") == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@posix
def test_a_dangling_link_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("later")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "later").read_bytes() == b"new"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o777])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = write_bytes(tmp_path / "file", b"one")
    path.chmod(mode)
    write_bytes(path, b"two")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_modes_that_the_umask_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    code = (
        f"import os; os.umask({mask}); from counterfactual_probe.base.files import write_bytes; write_bytes('x', b'')"
    )
    monkeypatch.chdir(tmp_path)
    forks.run(code)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


def test_the_umask_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", lambda *_: pytest.fail("other threads would see it"))
    write_bytes(tmp_path / "file", b"")
    assert (tmp_path / "file").exists()


@posix
def test_a_pipe_and_a_folder_are_refused_and_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(cp.ProbeError, match=r"pipe cannot be written \(it is a device, pipe or socket, which"):
        write_bytes(tmp_path / "pipe", b"x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(cp.ProbeError, match=r"cannot be written \(it is a folder\); give the name"):
        write_bytes(tmp_path / "folder", b"x")
    with pytest.raises(cp.ProbeError, match=r"/dev/null cannot be written \(it is a device"):
        write_bytes("/dev/null", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def refused(number: int) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("call", ["fsync", "chmod"])
def test_what_a_disk_cannot_do_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write_bytes(tmp_path / "file", b"one")
    monkeypatch.setattr(os, call, refused(errno.EPERM))
    write_bytes(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_is_said_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_bytes(tmp_path / "file", b"one")
    monkeypatch.setattr(os, "fsync", refused(number))
    with pytest.raises(cp.ProbeError, match="file cannot be written"):
        write_bytes(tmp_path / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"one")]


def test_fewer_bytes_than_given_are_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat

    def short(descriptor: int) -> Any:
        values = list(real(descriptor))
        values[stat.ST_SIZE] = 1
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", short)
    with pytest.raises(cp.ProbeError, match=r"1 of 3 bytes were taken.*free some space"):
        write_bytes(tmp_path / "file", b"two")
    assert not list(tmp_path.iterdir())


@posix
def test_what_a_killed_writer_left_is_cleared_and_a_running_ones_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, signal; from counterfactual_probe.base import files; "
        "files._flush_to_disk = lambda _: os.kill(os.getpid(), signal.SIGKILL); files.write_bytes('file', b'x')"
    )
    monkeypatch.chdir(tmp_path)
    assert forks.Fork(code).wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    own = left.with_name(left.name.replace(left.name.split(".")[3], str(os.getpid())))
    own.write_bytes(b"of a thread of this process")
    write_bytes(tmp_path / "file", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"file", own.name}


def test_the_home_folder_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_bytes("~/deep/file", b"x")
    assert (tmp_path / "deep" / "file").read_bytes() == read_bytes("~/deep/file") == b"x"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (5, "the path is 5, of type int; give a string or a Path"),
        (None, "the path is None, of type NoneType; give a string or a Path"),
        ("a\0b", "cannot be a file's"),
        ("a\ud800b", "cannot be a file's"),
        ("x" * 300, r"the path 'x+'… cannot be a file's \(File name too long\); give another"),
    ],
)
def test_what_is_no_path_is_said(path: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        write_bytes(path, b"")


def test_a_checkpoint_that_is_no_path_is_said() -> None:
    with pytest.raises(cp.ProbeError, match="the path is 5, of type int; give a string or a Path"):
        Checkpoint(5, {})  # type: ignore[arg-type]
    assert as_path(Path("x")) == Path("x")


@pytest.mark.parametrize(
    "words",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "MPS backend out of memory (MPS allocated: 7.23 GB). Tried to allocate",
        "HIP out of memory. Tried to allocate",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
    ],
)
def test_running_out_of_memory_is_known_on_every_device(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError(words))


# --- disks that are really full, and files that are none -------------------------------------------------------------


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_device_is_refused_and_stays_a_device(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/full")
    for path in ("/dev/full", tmp_path / "link"):
        with pytest.raises(cp.ProbeError, match="is a device, pipe or socket"):
            write_bytes(path, b"x")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert (tmp_path / "link").is_symlink()


@posix
def test_a_file_larger_than_the_system_allows_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the process stands for a disk that takes some bytes and then no more."""
    (tmp_path / "old").write_bytes(b"precious")
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "import counterfactual_probe as cp; from counterfactual_probe.base.files import write_bytes\n"
        "for name in ('old', 'new'):\n"
        "    try: write_bytes(name, bytes(20_000))\n"
        "    except cp.ProbeError as error: print(error)\n"
        "write_bytes('small', bytes(4000))"
    )
    monkeypatch.chdir(tmp_path)
    said = forks.run(code).splitlines()
    assert [line.partition(" (")[0] for line in said] == ["old cannot be written", "new cannot be written"]
    assert all("free some space or choose another disk; no partial file was left" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "small"]
    assert (tmp_path / "old").read_bytes() == b"precious"


@posix
def test_a_circle_of_links_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for use in (lambda path: write_bytes(path, b""), read_bytes):
        with pytest.raises(cp.ProbeError, match=r"one cannot be (written|read)"):
            use(tmp_path / "one")


@posix
def test_the_result_survives_a_disk_without_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """chmod is refused after the bytes were written: they are what counts."""
    path = write_bytes(tmp_path / "file", b"one")
    path.chmod(0o600)
    for call in ("chmod", "fchmod", "fsync"):
        monkeypatch.setattr(os, call, refused(errno.ENOTSUP))
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"


@pytest.mark.parametrize("name", ["figure.png", "figure.pdf", "figure.svg", "figure"])
def test_a_figure_is_written_as_any_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    plot = plot_losses({"loss": np.ones(3, np.float32)})
    path = plot.savefig(f"~/deep/{name}")
    assert path.parent == tmp_path / "deep"
    assert path.suffix in (".png", ".pdf", ".svg")
    assert path.stat().st_size > 1000
    with pytest.raises(cp.ProbeError, match=r"cannot be written as 'doc' .* give a name that ends in"):
        plot.savefig(tmp_path / "figure.doc")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(cp.ProbeError, match="it is a folder"):
        plot.savefig(tmp_path / "folder")


def test_folders_in_the_home_folder_are_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = save_folder("~/made", "dcgan", DCGANGenerator(3, [4, 2], 1).state_dict())
    assert folder == tmp_path / "made"
    assert cp.load("~/made").image_size == (1, 16, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]
