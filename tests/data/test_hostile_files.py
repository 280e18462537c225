"""Data that lead elsewhere: out of an archive, to a device, to another file, or to a program."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.data import open_images, read_labelled
from counterfactual_probe.registry.weights import load_weights

needs_h5py = pytest.mark.skipif(find_spec("h5py") is None, reason="h5py is not installed")
posix = pytest.mark.skipif(sys.platform == "win32", reason="links and special files are POSIX's")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_names_in_a_zip_that_lead_out_of_it_write_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ["../../out.png", str(tmp_path / "absolute.png"), "a/../../../up.png", "C:\\windows.png", "good.png"]
    with zipfile.ZipFile(inside / "pictures.zip", "w") as archive:
        for name in names:
            archive.writestr(name, png())
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16  # a symbolic link, as Unix's zip stores one
        archive.writestr(link, "/etc/passwd")
    images = open_images(inside / "pictures.zip", skip_unreadable=True)
    assert images.unreadable == ("link.png (not an image)",)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "pictures.zip"]


def test_a_picture_is_not_given_to_a_decoder_that_starts_a_program(tmp_path: Path, monkeypatch: Any) -> None:
    """Pillow renders PostScript by running Ghostscript, whatever the file is called."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(postscript)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.format == "EPS"
    with pytest.raises(cp.ProbeError, match=r"a\.png \(not an image\)"):
        open_images(tmp_path)


@posix
@pytest.mark.parametrize("special", ["/dev/zero", "pipe"])
def test_a_device_or_a_pipe_is_not_read_for_ever(special: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(special if special.startswith("/") else tmp_path / special)
    for read in (cp.InfluenceMaps.load, cp.ModuleFinder.load, cp.metrics.MIG.load, load_weights):
        with pytest.raises(cp.ProbeError, match="is a device, pipe or socket"):
            read(tmp_path / "link")
    with pytest.raises(cp.ProbeError, match="is a device, pipe or socket"):
        open_images(np.zeros((2, 3, 4, 4), np.uint8), cache=tmp_path / "link")


@needs_h5py
@pytest.mark.parametrize("way", ["external link", "external storage", "virtual", "soft link"])
def test_an_hdf5_file_opens_no_other_file(way: str, tmp_path: Path) -> None:
    import h5py

    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["images"] = np.zeros((5, 64, 64, 3), np.uint8)
    (tmp_path / "secret.raw").write_bytes(bytes(5 * 64 * 64 * 3))
    with h5py.File(tmp_path / "shapes.h5", "w") as file:
        file["labels"] = np.zeros((5, 6))
        if way == "external link":
            file["images"] = h5py.ExternalLink(str(secret), "/images")
        elif way == "soft link":
            file["other"] = h5py.ExternalLink(str(secret), "/images")
            file["images"] = h5py.SoftLink("/other")
        elif way == "virtual":
            layout = h5py.VirtualLayout((5, 64, 64, 3), np.uint8)
            layout[:] = h5py.VirtualSource(str(secret), "images", (5, 64, 64, 3))
            file.create_virtual_dataset("images", layout)
        else:
            raw = [(str(tmp_path / "secret.raw"), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset("images", (5, 64, 64, 3), np.uint8, external=raw)
    with pytest.raises(cp.ProbeError, match=r"the images in shapes\.h5 are kept in another file"):
        read_labelled(tmp_path / "shapes.h5")
