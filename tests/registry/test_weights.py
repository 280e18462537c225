"""Weight files as training scripts, wrappers and strangers leave them."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from counterfactual_probe.adapters.began import BEGANGenerator, began
from counterfactual_probe.adapters.cdcgan import cdcgan
from counterfactual_probe.adapters.dcgan import DCGANGenerator, dcgan
from counterfactual_probe.adapters.flow import UNet, flow
from counterfactual_probe.adapters.vae import VAE, vae
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.registry.folders import save_folder
from counterfactual_probe.registry.weights import built, load_weights, nested_state, tensors_only
from support.files.limits import bounded


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (lambda: torch.eye(3).to_sparse(), "is a sparse_coo tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "is a sparse_csr tensor"),
        (lambda: torch.ones(10**6, 10**6, device="meta"), "is a meta tensor"),
        (lambda: torch.ones(1).expand(10**6, 10**6), r"is \(1000000, 1000000\), more than the [0-9,]+ bytes"),
        (lambda: torch.empty(0, 10**15), r"is \(0, 1000000000000000\), more than"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Validating sparse tensor invariants")
def test_tensors_that_are_not_numbers_one_after_the_other(
    tensor: Callable[[], Tensor], kind: str, tmp_path: Path
) -> None:
    for content in ({"a": tensor()}, {"state_dict": {"a": tensor()}}):
        with pytest.raises(cp.ProbeError, match=rf"'a' in weights\.pth {kind}"), bounded(20, 2**28):
            load_weights(saved(tmp_path / "weights.pth", content))


def test_tied_and_cut_tensors_are_read(tmp_path: Path) -> None:
    """The control: views of memory that is in the file."""
    whole = torch.arange(12.0).reshape(3, 4)
    found = load_weights(saved(tmp_path / "w.pth", {"a": whole, "b": whole, "c": whole.T, "d": whole[1:, ::2]}))
    assert torch.equal(found["c"], whole.T)
    assert torch.equal(found["d"], whole[1:, ::2])


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_what_wrappers_add_to_names_is_taken_off(prefix: str, tmp_path: Path) -> None:
    state = DCGANGenerator(3, [4, 2], 1).state_dict()
    path = saved(tmp_path / "w.pth", OrderedDict({f"{prefix}{key}": value for key, value in state.items()}))
    assert list(tensors_only(load_weights(path))) == list(state)
    inner = saved(tmp_path / "w.pth", {key.replace("main.", "main._orig_mod.", 1): v for key, v in state.items()})
    assert list(tensors_only(load_weights(inner))) == list(state)


def test_names_that_only_look_like_a_wrappers_stay() -> None:
    names = ["my_module.a", "a.module.b", "a_orig_mod.b"]
    assert list(tensors_only(dict.fromkeys(names, torch.ones(1)))) == names


@pytest.mark.parametrize("key", [3, None, ("a", "b"), b"a", 1.5])
def test_keys_that_are_no_names(key: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {key: torch.ones(1)})
    with pytest.raises(cp.ProbeError, match=r"the state dict has the key .*; give tensors by name"):
        tensors_only(load_weights(path))


def test_one_tensor_under_two_names_of_wrappers() -> None:
    with pytest.raises(cp.ProbeError, match=r"holds 'a' twice, once as 'module\.a'"):
        tensors_only({"a": torch.ones(1), "module.a": torch.zeros(1)})


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_the_state_dict_of_a_training_script_is_found(key: str) -> None:
    assert nested_state({key: {"a": 1}, "epoch": 3}) == {"a": 1}
    assert nested_state({"a": 1}) == {"a": 1}


def test_an_archive_that_would_grow_is_refused(tmp_path: Path) -> None:
    """torch.save compresses nothing: a megabyte that becomes a gigabyte is not one of its files."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, buffer)
    with (
        zipfile.ZipFile(buffer) as before,
        zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name) if "data/0" not in name else bytes(2**26))
    with pytest.raises(cp.ProbeError, match="its records are compressed"), bounded(20, 2**25):
        load_weights(tmp_path / "w.pth")


# --- sizes that only names or shapes have ------------------------------------------------------------------


def test_a_number_in_a_name_does_not_make_a_module_large(tmp_path: Path) -> None:
    state = BEGANGenerator(4, 4, 1, image_size=16).state_dict()
    began(state)
    for number in (7, 999, 10**18):
        with pytest.raises(cp.ProbeError, match=r"numbered up to|unexpected"), bounded(20, 2**28):
            began({**state, f"blocks.{number}.0.weight": torch.zeros(4, 4, 3, 3)})


def huge(module: nn.Module, name: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """A state dict one of whose tensors claims a size; it is expanded, as no file may hold it."""
    return {**module.state_dict(), name: torch.zeros(1).expand(shape)}


@pytest.mark.parametrize(
    "load",
    [
        lambda: dcgan(huge(DCGANGenerator(3, [4, 2], 1), "main.0.weight", (10**7, 10**6, 4, 4))),
        lambda: vae(huge(VAE(4, (4, 2), 1, image_size=16, start=4), "decoder.level1.0.0.weight", (64, 10**12))),
        lambda: began(huge(BEGANGenerator(4, 4, 1, image_size=16), "h0.0.weight", (256, 10**12))),
        lambda: flow(huge(UNet((8, 16), 1, time=8), "clock.0.weight", (10**8, 32)), image_size=8),
        lambda: flow(UNet((8, 16), 1, time=8).state_dict(), image_size=2**20),
        lambda: cdcgan(DCGANGenerator(6, [4, 2], 1).state_dict(), 10**9),
    ],
    ids=["dcgan", "vae", "began", "flow", "flow's image", "cdcgan's classes"],
)
def test_shapes_are_compared_before_memory_is_taken(load: Callable[[], Any]) -> None:
    with bounded(30, 2**29), pytest.raises(cp.ProbeError, match=r"not that of|are \(|need|fewer classes|give"):
        load()


def test_many_small_kernels_do_not_make_an_endless_image(tmp_path: Path) -> None:
    """Forty layers of one channel each would double 4 pixels to four thousand billion."""
    state = DCGANGenerator(1, [1] * 40, 1).state_dict()
    folder = save_folder(tmp_path / "deep", "dcgan", state)
    with bounded(30, 2**28), pytest.raises(cp.ProbeError, match=r"the maps of a DCGAN's images.* need .* GiB"):
        cp.load(folder)


@pytest.mark.parametrize("classes", [10**9, 0, -1, 2.0, True, [], ["a"] * 3, [1], None, "three"])
def test_classes_of_a_configuration(classes: Any, tmp_path: Path) -> None:
    folder = save_folder(
        tmp_path / "g", "cdcgan", DCGANGenerator(6, [4, 2], 1).state_dict(), config={"classes": classes}
    )
    with bounded(20, 2**28), pytest.raises(cp.ProbeError, match="class"):
        cp.load(folder)


def test_what_is_built_has_the_tensors_and_moves_no_random_state() -> None:
    state = nn.Linear(3, 2).state_dict()
    before = torch.get_rng_state()
    module = built(lambda: nn.Linear(3, 2), state, "a line")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    with pytest.raises(cp.ProbeError, match=r"not that of a line \(of another shape: bias \(3,\) for \(2,\)\)"):
        built(lambda: nn.Linear(3, 2), {**state, "bias": torch.zeros(3)}, "a line")
    with pytest.raises(cp.ProbeError, match=r"of another type: bias torch\.complex64 for torch\.float32"):
        built(lambda: nn.Linear(3, 2), {**state, "bias": torch.zeros(2, dtype=torch.complex64)}, "a line")


def test_safetensors_of_a_claimed_size(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.empty(0, 3)}))
    assert load_weights(path)["a"].shape == (0, 3)
    content = path.read_bytes().replace(b"[0,3]", b"[0,999999999999999]")
    path.write_bytes((int.from_bytes(content[:8], "little") + 14).to_bytes(8, "little") + content[8:])
    with pytest.raises(cp.ProbeError, match=r"'a' in model\.safetensors is \(0, 999999999999999\)|no readable"):
        load_weights(path)


OTHERS = {
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
        "Git LFS .*with git lfs pull",
    ),
    "a page": (b"\n <!DOCTYPE html><html></html>", "a web page or XML.*download the file itself"),
    "gzip": (gzip.compress(b"weights"), "compressed by gzip.*unpack it"),
    "nothing": (b"", "it is empty"),
    "another pickle": (pickle.dumps({"a": 1}, protocol=5), "Unsupported operand 149"),
    "zeros": (b"\0" * 100, r"\("),
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_is_no_file_of_weights_is_called_what_it_is(name: str, suffix: str, tmp_path: Path) -> None:
    content, message = OTHERS[name]
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        cp.ProbeError, match=message if suffix == "pth" or name in list(OTHERS)[:4] else "holds no"
    ) as error:
        load_weights(path)
    assert "In PyTorch 2.6" not in str(error.value)


def test_checkpoints_of_training_scripts_in_a_folder_are_read(tmp_path: Path) -> None:
    state = DCGANGenerator(3, [4, 2], 1).state_dict()
    save_folder(tmp_path, "dcgan", state)
    expected = cp.load(f"{tmp_path}")
    (tmp_path / "model.safetensors").unlink()
    saved(tmp_path / "pytorch_model.bin", {"state_dict": state, "optimizer": {"state": {0: torch.ones(2)}}, "epoch": 3})
    found = cp.load(f"{tmp_path}")
    z = found.sample(2)
    assert torch.equal(found(z), expected(z))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_whole_numbers_are_no_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    """They would be loaded without a word, as those of a quantised network are stored."""
    state = {name: value.to(dtype) for name, value in DCGANGenerator(3, [4, 2], 1).state_dict().items()}
    with pytest.raises(cp.ProbeError, match=rf"of another type: main.0.weight {dtype} for torch.float32"):
        dcgan(state)
    halves = {name: value.half() for name, value in DCGANGenerator(3, [4, 2], 1).state_dict().items()}
    dcgan(halves)  # the control


@pytest.mark.parametrize("family", [dcgan, began, vae, partial(flow, image_size=8)])
def test_names_of_any_length_are_told_in_one_short_line(family: Callable[..., Any]) -> None:
    strange = {"k" * 10**6: torch.ones(1), "a\nb\x1b[2J": torch.ones(1)}
    for state in (strange, {**DCGANGenerator(3, [4, 2], 1).state_dict(), **strange}):
        with pytest.raises(cp.ProbeError) as error:
            family(state)
        assert len(str(error.value)) < 1500
        assert str(error.value).isprintable()
