"""Pictures as folders and archives really hold them: behind links, with odd suffixes and metadata, far too large."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import counterfactual_probe as cp
from counterfactual_probe.data import decoding, open_images, read_labelled
from support.files.limits import bounded

posix = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


def picture(seed: int = 0, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8))


@posix
def test_pictures_behind_links_are_read(tmp_path: Path) -> None:
    for place in ("data/cats", "elsewhere/dogs"):
        (tmp_path / place).mkdir(parents=True)
        picture().save(tmp_path / place / "0.png")
    (tmp_path / "data" / "dogs").symlink_to(tmp_path / "elsewhere" / "dogs")
    (tmp_path / "data" / "cats" / "1.png").symlink_to(tmp_path / "elsewhere" / "dogs" / "0.png")
    (tmp_path / "data" / "cats" / "gone.png").symlink_to("nowhere")
    (tmp_path / "data" / "cats" / "up").symlink_to(tmp_path / "data")
    images = open_images(tmp_path / "data")
    assert len(images) == 3
    assert images.classes == ("cats", "dogs")


SUFFIXES = {
    ".jfif": "JPEG", ".jpe": "JPEG", ".bmp": "BMP", ".dib": "DIB", ".PNG": "PNG", ".pbm": "PPM",
    ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".avif": "AVIF", ".webp": "WEBP", ".apng": "PNG", ".tiff": "TIFF",
}  # fmt: skip


OPTIONAL = {"JPEG2000": "jpg_2000", "AVIF": "avif", "WEBP": "webp"}  # of Pillow's builds


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        pytest.param(suffix, kind, id=suffix, marks=pytest.mark.skipif(lacks, reason=f"this Pillow has no {kind}"))
        for suffix, kind in SUFFIXES.items()
        for lacks in [kind in OPTIONAL and not features.check(OPTIONAL[kind])]
    ],
)
def test_every_suffix_of_a_format_is_one(suffix: str, kind: str, tmp_path: Path) -> None:
    given = picture().convert("1") if suffix == ".pbm" else picture()
    given.save(tmp_path / f"a{suffix}", kind)
    assert len(open_images(tmp_path)) == 1


def test_kinds_that_cannot_be_read_are_noted(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIF", "d.svg", "notes.txt", "labels.json"):
        (tmp_path / name).write_bytes(b"x")
    images = open_images(tmp_path)
    assert images.notes == ("3 files of other kinds are left out: b.heic, c.HEIF, d.svg",)
    (tmp_path / "a.png").unlink()
    with pytest.raises(cp.ProbeError, match=r"holds no images that can be read \(b\.heic, c\.HEIF, d\.svg\); give"):
        open_images(tmp_path)


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp"])
def test_files_of_several_images_are_noted_and_the_first_is_read(suffix: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], **options)
    first.save(tmp_path / f"b.{suffix}", **options)
    images = open_images(tmp_path)
    assert f"1 files hold several images, of which the first was read: a.{suffix}" in images.notes
    assert (images.pixels[:, 0] > 250).all()
    assert (images.pixels[:, 2] < 5).all()


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_damaged_metadata_do_not_make_pixels_unreadable(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    damaged = exif.tobytes()[:-7].replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x63")
    picture().save(tmp_path / f"a.{suffix}", exif=damaged)
    assert len(open_images(tmp_path)) == 1
    assert open_images(tmp_path).unreadable == ()


def test_metadata_that_cannot_be_applied_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.png")

    def damaged(image: Image.Image) -> Image.Image:
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(decoding.ImageOps, "exif_transpose", damaged)
    assert open_images(tmp_path).notes == ("1 images have damaged metadata, and were not turned upright: a.png",)


# --- sizes before memory -----------------------------------------------------------------------------------


def black(side: int) -> bytes:
    """A PNG of side × side black pixels, in some thousandths of their size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    about = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_of_hundreds_of_megapixels_is_named_and_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(black(13_300))
    picture().save(tmp_path / "a.png")
    with bounded(60, 2**27):
        images = open_images(tmp_path, size=8, skip_unreadable=True)
    assert images.unreadable == ("bomb.png (177 megapixels, and at most 100 are read)",)


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_LARGE", 100)
    inside, most = [0], [0]
    lock, pixels = threading.Lock(), decoding._pixels

    def counted(*arguments: Any) -> Any:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        try:
            return pixels(*arguments)
        finally:
            with lock:
                inside[0] -= 1

    monkeypatch.setattr(decoding, "_pixels", counted)
    for k in range(12):
        picture(k, (64, 64)).save(tmp_path / f"{k:02}.png")
    assert len(open_images(tmp_path)) == 12
    assert most[0] == 1


def test_images_that_memory_has_no_room_for_are_refused_at_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterfactual_probe.base.memory.free_memory", lambda _: 4000)
    for k in range(6):
        picture(k).save(tmp_path / f"{k}.png")
    with pytest.raises(cp.ProbeError, match=r"6 images of 16×16 need .* GiB and .* are free"):
        open_images(tmp_path)


def archive(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(f"{name}.png", content)
    return path


def png() -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    return buffer.getvalue()


def test_an_entry_of_a_zip_that_would_take_all_memory_is_named(tmp_path: Path) -> None:
    archive(tmp_path / "a.zip", bomb=bytes(2**28 + 1), good=png())
    with bounded(60, 2**26):
        images = open_images(tmp_path / "a.zip", skip_unreadable=True)
    assert len(images) == 1
    assert images.unreadable[0].startswith("bomb.png (ValueError: it holds 268,435,457 bytes, and at most 268,435,456")


def patched(path: Path, *changes: tuple[bytes, int, bytes]) -> Path:
    """A zip in which bytes after each signature are replaced, in the local and the central headers alike."""
    content = bytearray(path.read_bytes())
    for signature, offset, new in changes:
        at = content.find(signature)
        content[at + offset : at + offset + len(new)] = new
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(b"PK\x01\x02", 6, b"\xff\x00")], r"a zip that cannot be read \(zip file version 25\.5\)"),
        ([(b"PK\x01\x02", 8, b"\x01\x00"), (b"PK\x03\x04", 6, b"\x01\x00")], "it is encrypted"),
        ([(b"PK\x01\x02", 10, b"\x63\x00"), (b"PK\x03\x04", 8, b"\x63\x00")], "NotImplementedError"),
        ([(b"PK\x01\x02", 8, b"\x00\x08"), (b"PK\x01\x02", 46, b"\xff\xfe")], "a zip that cannot be read"),
    ],
    ids=["version", "encrypted", "method", "name that is no UTF-8"],
)
def test_zips_that_python_cannot_read(changes: list[Any], message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", good=png())
    open_images(path)
    with pytest.raises(cp.ProbeError, match=message):
        open_images(patched(path, *changes))


@posix
@pytest.mark.skipif(find_spec("h5py") is None, reason="h5py is not installed")
def test_a_locked_file_is_called_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    import h5py

    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    path = tmp_path / "3dshapes.h5"
    with h5py.File(path, "w"):
        pass
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(cp.ProbeError, match=r"3dshapes\.h5 is locked by a program that writes it .* close that"):
            read_labelled(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(cp.ProbeError, match="is not a complete HDF5 file"):
        read_labelled(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX's")
def test_pipes_and_links_to_nothing_are_left_out_with_a_note(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere.png")
    images = open_images(tmp_path)
    assert len(images) == 1
    assert images.notes == ("2 files of other kinds are left out: b.png, c.png",)


def test_a_single_picture_is_read(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    opened = open_images(tmp_path / "one.png")
    assert len(opened) == 1
    assert np.array_equal(opened.pixels[0].permute(1, 2, 0).numpy(), pixels)
    assert open_images(str(tmp_path / "one.png"), size=2, colours=1).size == (1, 2, 2)
    (tmp_path / "torn.png").write_bytes(b"no picture")
    with pytest.raises(cp.ProbeError, match=r"none of the 1 images in .*torn\.png can be read"):
        open_images(tmp_path / "torn.png")
