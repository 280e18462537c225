"""The rendered room: factors, parts, light; and the labelled files that users bring."""

from __future__ import annotations

import colorsys
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.data import Scene, labelled, open_images, read_labelled
from counterfactual_probe.data.geometry import see
from counterfactual_probe.data.scene import ANGLES, SCALES

SCENE = Scene(size=24)
BASE = [2, 7, 4, 3, 1, 9]  # floor, wall and object hue, scale, shape, orientation


def row(**changes: int) -> np.ndarray:
    names = ["floor", "wall", "object", "scale", "shape", "orientation"]
    return np.array([[changes.get(name, value) for name, value in zip(names, BASE, strict=True)]])


def test_there_are_as_many_images_as_in_3d_shapes() -> None:
    assert len(SCENE) == 480_000
    assert SCENE.geometries == 480
    assert repr(SCENE).startswith("Scene(480000 of 3×24×24; 10 floor hue, 10 wall hue")
    assert SCENE.labels([0, 1, 15, 479_999]).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0],
        [9, 9, 9, 7, 3, 14],
    ]


def test_samples_are_different_and_even() -> None:
    labels = SCENE.sample(4000, seed=3)
    assert len(np.unique(labels, axis=0)) == 4000
    assert np.array_equal(SCENE.sample(10, seed=3), labels[:10])
    assert not np.array_equal(SCENE.sample(10, seed=4), labels[:10])
    for column, size in zip(labels.T, (10, 10, 10, 8, 4, 15), strict=True):
        counts = np.bincount(column, minlength=size)
        assert len(counts) == size
        assert counts.min() > 0.7 * 4000 / size


@pytest.mark.parametrize("part", ["floor", "wall", "object"])
def test_a_hue_colours_its_part_alone(part: str) -> None:
    one, two = SCENE.render(row()).int()[0], SCENE.render(row(**{part: 0})).int()[0]
    changed = (one != two).any(0)
    masks = SCENE.masks(row())[0]
    assert masks.sum(0).eq(1).all()  # each pixel is of one part
    mask = masks[["floor", "wall", "object"].index(part)]
    inside = torch.nn.functional.max_pool2d(1 - mask[None].float(), 3, 1, 1)[0] == 0  # no pixel is shared there
    outside = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0] == 0
    assert inside.sum() > 4
    assert changed[inside].all()
    assert not changed[outside].any()


@pytest.mark.parametrize("name", ["scale", "shape", "orientation"])
def test_a_geometry_moves_what_it_should(name: str) -> None:
    one, two = (SCENE.masks(row(**{name: value}))[0] for value in (0, 3))
    moved = (one != two).flatten(1).any(1)
    assert moved[2] or name == "orientation"
    assert moved[1]
    images = [SCENE.render(row(**{name: value})).float() for value in (0, 3)]
    assert (images[0] - images[1]).abs().mean() > 0.5
    if name == "scale":
        assert two[2].sum() > 1.1 * one[2].sum()


def test_an_image_is_its_light_times_its_colours() -> None:
    """The literal sum, in float64, pixel by pixel."""
    found = see(BASE[4], float(SCALES[BASE[3]]), float(ANGLES[BASE[5]]), 24)
    colours = [colorsys.hsv_to_rgb(hue / 10, 0.85, 0.95) for hue in BASE[:3]] + [(1.0, 1.0, 1.0)]
    image = SCENE.render(row())[0].reshape(3, -1)
    for pixel in range(0, 576, 7):
        for colour in range(3):
            value = sum(float(found.light[k, pixel]) * colours[k][colour] for k in range(4))
            assert abs(int(image[colour, pixel]) - min(255, 255 * value)) <= 0.51


def test_edges_are_smooth_and_the_object_casts_a_shadow() -> None:
    red = SCENE.render(row(floor=0, wall=0, object=6)).float()[0]
    share = SCENE._light[int(SCENE._trace(torch.tensor(row()), False)[0])]
    assert ((share[2] > 0.02) & (share[1] > 0.02)).any()  # object and wall in one pixel
    floor = SCENE.masks(row())[0, 0]
    light = red[0][floor]
    assert light.min() < 0.65 * light.median()
    assert red.max() > 1.05 * 255 * 0.95 * 0.8  # nothing is merely dark


def test_batches_and_order_change_no_image() -> None:
    labels = SCENE.sample(70, seed=1)
    images = SCENE.render(labels)
    assert torch.equal(SCENE.render(labels[::-1].copy()).flip(0), images)
    assert torch.equal(Scene(size=24).render(labels[5:6])[0], images[5])
    assert images.dtype == torch.uint8
    assert SCENE.render(np.zeros((0, 6), int)).shape == (0, 3, 24, 24)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SCENE.render(np.zeros((2, 5), int)),
            r"the factors are torch\.int64 \(2, 5\); give integers",
        ),
        (lambda: SCENE.render(np.zeros((2, 6))), r"the factors are torch\.float64"),
        (lambda: SCENE.render(row(shape=4)), r"shape is 4 to 4 in the factors given; give 0 to 3"),
        (lambda: SCENE.masks(row(floor=-1)), r"floor hue is -1 to -1"),
        (lambda: SCENE.labels([480_000]), r"numbers are 480000 to 480000; give integers from 0 to 479999"),
        (lambda: SCENE.labels([0.5]), r"numbers are float64 \(1,\)"),
        (lambda: SCENE.sample(480_001), r"480001 images are more than the scene's 480000"),
        (lambda: Scene(size=2), r"size is 2; give an integer of at least 4"),
        (
            lambda: open_images("scene"),
            r"the number of images of the scene to render is missing; give images=, or",
        ),
        (lambda: open_images("scene", images=2, colours=1), r"have 3 colours and colours is 1"),
    ],
)
def test_what_the_scene_refuses(call: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        call()


def test_the_scene_is_training_data(tmp_path: Path) -> None:
    images = open_images("scene", images=6, size=24, seed=2, cache=tmp_path / "cache")
    assert torch.equal(images.pixels, SCENE.render(SCENE.sample(6, seed=2)))
    assert images.source == "6 renders of the procedural scene (seed 2)"
    assert not images.generated
    assert images.terms == "none: rendered by counterfactual-probe"
    assert torch.equal(open_images("scene", images=6, size=24, seed=2, cache=tmp_path / "cache").pixels, images.pixels)
    assert open_images("scene", images=1, terms="mine").size == (3, 64, 64)


# --- files ----------------------------------------------------------------------------------------


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), np.uint8)


def shapes(path: Path, n: int = 40, **changes: Any) -> Path:
    """A file in the form of 3dshapes.h5, with as many of its rows."""
    numbers = np.arange(n) * 11_003 % 480_000
    index = np.stack(np.unravel_index(numbers, (10, 10, 10, 8, 4, 15)), 1)
    index[:15, 5], index[:8, 3], index[:10, :3] = np.arange(15), np.arange(8), np.arange(10)[:, None]
    index[:4, 4] = np.arange(4)
    labels = index * [0.1, 0.1, 0.1, 0.5 / 7, 1, 60 / 14] + [0, 0, 0, 0.75, 0, -30]
    content = {"images": pixels(n), "labels": labels, **changes}
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            if value is not None:
                file[key] = value
    np.save(path.with_suffix(".index.npy"), index)
    return path


def test_3d_shapes_is_read(tmp_path: Path) -> None:
    path = shapes(tmp_path / "3dshapes.h5")
    found = read_labelled(path)
    assert torch.equal(found.images.pixels, torch.from_numpy(np.moveaxis(pixels(40), -1, 1).copy()))
    assert np.array_equal(found.factors, np.load(path.with_suffix(".index.npy")))
    assert found.names[:4] == ("floor hue", "wall hue", "object hue", "scale")
    assert repr(found).startswith("Labelled(Images(40 of 3×64×64, from all 40 images of 3dshapes.h5), factors floor")
    some = read_labelled(path, images=9, seed=1, terms="CC BY")
    assert some.images.terms == "CC BY"
    assert some.images.source == "9 of the 40 images of 3dshapes.h5"
    places = [(found.images.pixels == image).flatten(1).all(1).nonzero().item() for image in some.images.pixels]
    assert len(set(places)) == 9
    assert np.array_equal(found.factors[places], some.factors)
    assert not torch.equal(read_labelled(path, images=9, seed=2).images.pixels, some.images.pixels)
    assert torch.equal(open_images(path, images=9, seed=1).pixels, some.images.pixels)


def test_rows_that_lie_far_apart_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shapes(tmp_path / "3dshapes.h5")
    dense = read_labelled(path, images=9)
    monkeypatch.setattr(labelled, "_dense", lambda _: False)
    monkeypatch.setattr(labelled, "_CHUNK", 4)
    sparse = read_labelled(path, images=9)
    assert torch.equal(dense.images.pixels, sparse.images.pixels)
    assert np.array_equal(dense.factors, sparse.factors)


SMALL = {48: {"colour": 2, "axis": 24}}


@pytest.mark.parametrize("compressed", [True, False])
def test_mpi3d_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool) -> None:
    monkeypatch.setattr(labelled, "MPI3D", SMALL)
    monkeypatch.setattr(labelled, "_CHUNK", 7)
    path = tmp_path / "mpi3d_toy.npz"
    (np.savez_compressed if compressed else np.savez)(path, images=pixels(48))
    found = read_labelled(path)
    assert torch.equal(found.images.pixels, torch.from_numpy(np.moveaxis(pixels(48), -1, 1).copy()))
    assert found.factors.tolist() == [[colour, axis] for colour in range(2) for axis in range(24)]
    some = read_labelled(path, images=10)
    numbers = some.factors @ [24, 1]
    assert len(set(numbers)) == 10
    assert torch.equal(some.images.pixels, found.images.pixels[numbers])


def test_the_factors_of_mpi3d_are_as_published() -> None:
    for count, sizes in labelled.MPI3D.items():
        assert int(np.prod(list(sizes.values()))) == count


BAD: list[tuple[dict[str, Any], str]] = [
    ({"labels": None}, r"3dshapes\.h5 holds images and no array 'labels'; give 3dshapes\.h5 as published"),
    ({"images": None, "labels": None}, r"3dshapes\.h5 holds nothing and no array 'images'"),
    ({"labels": None, "labels/inner": np.zeros(3)}, r"3dshapes\.h5 holds images, labels and no array 'labels'"),
    (
        {"images": pixels(40)[:, ::2]},
        r"the images in 3dshapes\.h5 are uint8 \(40, 32, 64, 3\) and \(n, 64, 64, 3\)",
    ),
    ({"images": pixels(40) / 255}, r"the images in 3dshapes\.h5 are float64"),
    (
        {"labels": np.zeros((40, 5))},
        r"the labels in 3dshapes\.h5 are \(40, 5\) and \(40, 6\) are expected for 40 images",
    ),
    ({"labels": np.arange(240.0).reshape(40, 6)}, r"floor hue has 40 values in 3dshapes\.h5 and 10 are expected"),
    ({"labels": np.zeros((40, 6))}, r"floor hue has 1 values in 3dshapes\.h5 and 10 are expected; .* the whole file"),
    (
        {"labels": np.full((40, 6), np.nan)},
        r"some labels in 3dshapes\.h5 are not finite",
    ),
    ({"labels": np.full((40, 6), b"red")}, r"the labels in 3dshapes\.h5 are \|S3 and not numbers"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=range(len(BAD)))
def test_other_h5_files(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        read_labelled(shapes(tmp_path / "3dshapes.h5", **changes))


def damaged(path: Path) -> Path:
    """The same file with bytes in its middle overwritten."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(content))
    return path


def test_files_that_are_damaged_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shapes(tmp_path / "3dshapes.h5", images=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("images", data=pixels(40), compression="gzip", chunks=(40, 64, 64, 3))
    with pytest.raises(cp.ProbeError, match=r"3dshapes\.h5 is not a complete HDF5 file \(.*\); get it again"):
        read_labelled(damaged(path))
    monkeypatch.setattr(labelled, "MPI3D", SMALL)
    np.savez_compressed(tmp_path / "mpi3d.npz", images=pixels(48) // 64)
    with pytest.raises(cp.ProbeError, match=r"mpi3d\.npz is not a complete \.npz file \(.*\); get it again"):
        read_labelled(damaged(tmp_path / "mpi3d.npz"))


def zipped(path: Path, content: bytes, name: str = "images.npy") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, content)
    return path


def saved(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_other_npz_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mpi3d.npz"
    cases = [
        (saved(pixels(5)), r"mpi3d\.npz holds 5 images and MPI3D has 1036800 or 460800; give the whole file"),
        (saved(pixels(5)[:, :9]), r"the images in mpi3d\.npz are uint8 \(5, 9, 64, 3\)"),
        (b"no array", r"mpi3d\.npz holds no plain array of images"),
        (saved(np.asfortranarray(pixels(5))), r"are in Fortran order"),
    ]
    for content, message in cases:
        with pytest.raises(cp.ProbeError, match=message):
            read_labelled(zipped(path, content))
    with pytest.raises(cp.ProbeError, match=r"mpi3d\.npz holds pictures and no 'images'"):
        read_labelled(zipped(path, saved(pixels(5)), "pictures.npy"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(cp.ProbeError, match=r"mpi3d\.npz is not a complete \.npz file"):
        read_labelled(path)
    monkeypatch.setattr(labelled, "MPI3D", SMALL)
    with pytest.raises(cp.ProbeError, match=r"is not a complete \.npz file \(it ends after 47 images\)"):
        read_labelled(zipped(path, saved(pixels(48))[:-5]))
    with pytest.raises(cp.ProbeError, match=r"is not a complete \.npz file"):
        read_labelled(zipped(path, saved(pixels(48))[: -64 * 64 * 3]))


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(cp.ProbeError, match=r"there is no file .*a\.h5; get 3dshapes\.h5 or an MPI3D \.npz from its"):
        read_labelled(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with pytest.raises(cp.ProbeError, match=r"a\.h5 is not a complete HDF5 file"):
        open_images(tmp_path / "a.h5")
    (tmp_path / "a.txt").write_bytes(b"nothing")
    with pytest.raises(cp.ProbeError, match=r"a\.txt is neither \.h5 \(3D-Shapes\) nor \.npz"):
        read_labelled(tmp_path / "a.txt")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        cp.ProbeError,
        match=r"a\.h5 is read by h5py, which is not installed; run: pip install 'counterfactual-probe.shapes3d",
    ):
        read_labelled(tmp_path / "a.h5")
