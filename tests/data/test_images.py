"""Training images: what is read, in which order, what is said about it, and what is refused."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.data import Images, generated, open_images, pictures
from counterfactual_probe.data.images import to_bytes
from counterfactual_probe.data.order import epoch_order
from counterfactual_probe.generator.latents import stream_seed
from support import toys


def noise(height: int, width: int, colours: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, colours) if colours > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures in two folders, and what is no picture."""
    found = tmp_path / "pictures"
    for i in range(6):
        save(found / ("cats" if i % 2 else "dogs") / f"{i}.png", noise(8, 8, seed=i))
    (found / "notes.txt").write_text("no picture")
    (found / ".hidden.png").write_bytes(b"")
    return found


def test_a_folder_is_read_in_the_order_of_its_names(folder: Path) -> None:
    images = open_images(folder)
    assert (len(images), images.size, images.notes) == (6, (3, 8, 8), ())
    for row, seed in enumerate([1, 3, 5, 0, 2, 4]):  # cats, then dogs
        assert np.array_equal(np.moveaxis(images.pixels[row].numpy(), 0, -1), noise(8, 8, seed=seed))
    assert images.source == f"6 images in {folder.parent.name}/pictures"
    assert images.terms == "not stated"
    assert open_images(folder, terms="CC0").terms == "CC0"


def test_fewer_are_taken_evenly(folder: Path) -> None:
    every, some = open_images(folder), open_images(folder, images=3)
    assert torch.equal(some.pixels, every.pixels[[0, 2, 4]])
    assert len(open_images(folder, images=99)) == 6


def test_a_zip_and_a_folder_inside_it(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.*"):
            file.write(path, path.relative_to(folder))
        file.writestr("__MACOSX/cats/1.png", b"resource fork")
    assert torch.equal(open_images(archive).pixels, open_images(folder).pixels)
    assert torch.equal(open_images(archive / "dogs").pixels, open_images(folder / "dogs").pixels)
    with pytest.raises(cp.ProbeError, match="holds no images"):
        open_images(archive / "birds")
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(cp.ProbeError, match=r"all\.zip is not a complete zip"):
        open_images(archive)


def test_unreadable_images_are_named_and_counted(folder: Path) -> None:
    whole = (folder / "cats/1.png").read_bytes()
    (folder / "cats/1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dogs/a.jpg").write_bytes(b"no picture")
    refused = r"2 of 7 images in .* cannot be read: cats/1\.png \(OSError.*, dogs/a\.jpg \(not an image\); .*skip_"
    with pytest.raises(cp.ProbeError, match=refused):
        open_images(folder)
    images = open_images(folder, skip_unreadable=True, cache=folder / "cache")
    assert len(images) == 5
    assert len(images.unreadable) == 2
    with pytest.raises(cp.ProbeError, match=refused):
        open_images(folder, cache=folder / "cache")
    assert len(open_images(images)) == 5  # they have been agreed to
    (note,) = images.notes
    assert note.startswith("2 of 7 images cannot be read and are left out: cats/1.png (")
    assert "dogs/a.jpg (not an image)" in note


def test_many_unreadable_images_are_counted_and_the_first_named(folder: Path) -> None:
    for i in range(9):
        (folder / f"{i}.jpg").write_bytes(b"no picture")
    (note,) = open_images(folder, skip_unreadable=True).notes
    assert note.startswith("9 of 15 images")
    assert note.endswith(" and 4 more")


def test_several_sizes_need_one_that_is_asked(folder: Path) -> None:
    wide = noise(6, 10, seed=9)
    save(folder / "wide.png", wide)
    with pytest.raises(cp.ProbeError, match=r"have 2 sizes \(8×8: 6, 10×6: 1\); give size=, or --size"):
        open_images(folder)
    images = open_images(folder, size=4)
    assert images.size == (3, 4, 4)
    (note,) = images.notes
    assert note.startswith("7 of 7 images had other sizes (8×8: 6, 10×6: 1): the largest centred square")
    square = Image.fromarray(wide[:, 2:8]).resize((4, 4), Image.Resampling.LANCZOS)
    assert np.array_equal(np.moveaxis(images.pixels[6].numpy(), 0, -1), np.asarray(square))
    (note,) = open_images(folder, size=8).notes
    assert note.startswith("1 of 7 images had other sizes (10×6: 1)")


def test_modes_become_one_and_it_is_said(tmp_path: Path) -> None:
    grey, deep = noise(4, 4, 1), noise(4, 4, 1).astype(np.uint16) << 8
    half = np.full((4, 4, 4), 255, np.uint8)
    half[:2] = [10, 20, 30, 0]  # transparent: white, whatever colour is underneath
    save(tmp_path / "a.png", grey)
    save(tmp_path / "b.png", deep)
    save(tmp_path / "c.png", half)
    Image.fromarray(noise(4, 4)).quantize(8).save(tmp_path / "d.png")
    images = open_images(tmp_path)
    assert images.size == (3, 4, 4)
    for row in (0, 1):
        assert np.array_equal(images.pixels[row].numpy(), np.stack([grey] * 3))
    assert (images.pixels[2] == 255).all()
    (note,) = images.notes
    assert "4 of 4 images had other modes (L: 1, I;16: 1, RGBA: 1, P: 1) and were converted to RGB" in note
    assert open_images(tmp_path, colours=1).size == (1, 4, 4)
    Image.fromarray(noise(4, 4).astype(np.float32)[..., 0]).save(tmp_path / "e.tiff")
    assert "mode F has no defined white level" in open_images(tmp_path, skip_unreadable=True).unreadable[0]


def test_cameras_that_were_held_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise: left becomes top
    save(tmp_path / "a.png", pixels, exif=turned)
    images = open_images(tmp_path)
    assert images.size == (3, 16, 8)
    assert (images.pixels[0, :, :8] == 255).all()
    assert (images.pixels[0, :, 8:] == 0).all()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "holds no images; give a folder or zip of .png"),
        ({"a.txt": b"text"}, "holds no images"),
        ({"a.png": b"", "b.png": b""}, r"none of the 2 images in .* can be read; the first: a\.png \(not an image"),
    ],
)
def test_folders_without_images(tmp_path: Path, files: dict[str, bytes], sentence: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(cp.ProbeError, match=sentence):
        open_images(tmp_path)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match=r"there is no folder or zip .*nowhere; give one of images"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(cp.ProbeError, match="no generator named 'dcgan-facse' is in the registry"):
        open_images("generator:dcgan-facse", images=3)


def test_arrays(tmp_path: Path) -> None:
    pixels = np.stack([np.moveaxis(noise(8, 8, seed=i), -1, 0) for i in range(4)])
    floats = torch.from_numpy(pixels).double() / 127.5 - 1
    every = torch.arange(4)
    for images in (open_images(pixels), open_images(torch.from_numpy(pixels)), open_images(floats)):
        torch.testing.assert_close(images.floats(every).double(), floats, atol=1e-6, rtol=0)
    np.save(tmp_path / "a.npy", pixels)
    mapped = open_images(tmp_path / "a.npy", images=3)
    assert torch.equal(mapped.pixels, torch.from_numpy(pixels[:3]))
    assert mapped.source == "the first 3 of a.npy"
    np.save(tmp_path / "b.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(cp.ProbeError, match="holds no array"):
        open_images(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (np.zeros((8, 8, 3), np.uint8), {}, r"the images are \(8, 8, 3\); give an array or tensor \(n, C, H, W\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), {}, "with 1 or 3 colours"),
        (np.zeros((0, 3, 8, 8), np.uint8), {}, "there are 0 images"),
        (np.zeros((2, 3, 0, 8), np.uint8), {}, r"the images are \(2, 3, 0, 8\); give images of at least 1×1"),
        (np.zeros((2, 3, 8, 8), np.int64), {}, r"the images are torch\.int64; give bytes"),
        (np.full((2, 3, 8, 8), 255.0), {}, "range from 255 to 255; scale them"),
        (np.full((2, 3, 8, 8), np.nan), {}, "hold NaN or infinite values"),
        (np.array(["a"]), {}, r"the images are \(1,\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), {"size": 16}, "the images are 8×8 and size is 16×16"),
        (np.zeros((2, 3, 8, 8), np.uint8), {"colours": 1}, "have 3 colours and colours is 1"),
        (np.zeros((2, 3, 8, 8), np.uint8), {"colours": 2}, "colours is 2; give 3, or 1"),
        (np.zeros((2, 3, 8, 8), np.uint8), {"size": 0}, "size is 0; give an integer of at least 1"),
        (np.zeros((2, 3, 8, 8), np.uint8), {"images": 0}, "the number of images is 0"),
        (3, {}, "the images are a int"),
    ],
)
def test_arrays_that_do_not_fit(given: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        open_images(given, **options)


def test_bytes_and_floats_are_inverse() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = Images(pixels).floats(torch.tensor([0]))
    assert (float(floats.min()), float(floats.max())) == (-1, 1)
    assert torch.equal(to_bytes(floats, (-1, 1)), pixels)
    assert torch.equal(to_bytes(floats / 2 + 0.5, (0, 1)), pixels)


def test_samples_of_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = toys.PLAIN.generator()
    images = open_images(gen, images=10, seed=3)
    assert images.generated
    assert images.source == f"10 samples of the generator {gen.name} (seed 3)"
    low, high = gen.image_range
    wanted = gen(gen.sample(10, seed=3, stream=generated.SAMPLES)).clamp(low, high)
    gap = images.floats(torch.arange(10)) * (high - low) / 2 + (high + low) / 2 - wanted
    assert float(gap.abs().max()) <= (high - low) / 255 / 2 * 1.01
    monkeypatch.setattr(generated, "_CHUNK", 3)
    assert torch.equal(open_images(gen, images=10, seed=3).pixels, images.pixels)
    assert not torch.equal(open_images(gen, images=10, seed=4).pixels, images.pixels)
    with pytest.raises(cp.ProbeError, match="the number of images to sample from the generator is missing"):
        open_images(gen)


def test_samples_are_resized_and_their_terms_are_the_generators(faces: cp.GeneratorAdapter) -> None:
    images = open_images("generator:dcgan-faces", images=3, size=16)
    assert images.notes == ("resized from 64×64 to 16×16",)
    assert "DigiFace-1M" in images.terms
    large = faces(faces.sample(3, stream=generated.SAMPLES))
    means = images.floats(torch.arange(3)).mean((1, 2, 3))
    torch.testing.assert_close(means, large.mean((1, 2, 3)), atol=0.02, rtol=0)


def test_decoded_images_are_kept_in_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken.png").write_bytes(b"")
    cache = tmp_path / "cache"
    first = open_images(folder, cache=cache, skip_unreadable=True)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(pictures, "read_pictures", never)
    again = open_images(folder, cache=cache, skip_unreadable=True)
    assert torch.equal(again.pixels, first.pixels)
    assert (again.source, again.notes, again.unreadable) == (first.source, first.notes, first.unreadable)
    assert again.fingerprint() == first.fingerprint()
    with pytest.raises(cp.ProbeError, match="is the cache of other images: its size is None and not 4"):
        open_images(folder, size=4, cache=cache)
    cache.write_bytes(cache.read_bytes()[:50])
    with pytest.raises(cp.ProbeError, match="is not a complete safetensors file"):
        open_images(folder, cache=cache)


def test_folders_are_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, name in enumerate(["train/dog/1.png", "train/cat/7.png", "train/cat/5.png", "train/cat/2.png"]):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        if number == 2:
            path.write_bytes(b"broken")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted((tmp_path / "data").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "data"))
    for data in (tmp_path / "data", tmp_path / "data/train", tmp_path / "data.zip", tmp_path / "data.zip/train"):
        cache = tmp_path / f"cache-{data.name}-{data.parent.name}"
        for _ in range(2):  # the second time from the file
            found = open_images(data, skip_unreadable=True, cache=cache)
            assert found.classes == ("cat", "dog")
            assert found.labels is not None
            assert found.labels.tolist() == [0, 0, 1], "2.png, 7.png, 1.png"
    first = open_images(found, images=2)
    assert first.labels is not None
    assert (first.labels.tolist(), first.classes, len(first)) == ([0, 0], ("cat", "dog"), 2)
    only = open_images(tmp_path / "data/train/dog")
    assert (only.labels, only.classes) == (None, ())
    (tmp_path / "data/train/cat/5.png").unlink()
    shutil.copytree(tmp_path / "data/train", tmp_path / "data/test")
    both = open_images(tmp_path / "data")
    assert both.classes == ("test/cat", "test/dog", "train/cat", "train/dog"), (
        "names that would be the same are told whole"
    )


def test_a_fingerprint_tells_one_pixel() -> None:
    pixels = np.zeros((2, 3, 8, 8), np.uint8)
    before = Images(pixels).fingerprint()
    assert Images(pixels.copy()).fingerprint() == before
    pixels[1, 2, 7, 7] = 1
    assert Images(pixels).fingerprint() != before


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [epoch_order(50, seed=seed, epoch=epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    literal = np.random.default_rng(stream_seed(1, 5, 1)).permutation(50).tolist()
    assert orders[3] == literal
    assert epoch_order(50, seed=1, epoch=1).tolist() == literal
