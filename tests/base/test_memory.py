"""Running out of memory, in the words of every platform, at every door: smaller batches, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.base.memory import default_batch, free_on_disk, in_words, is_out_of_memory

# As torch and its libraries say it.
ERRORS: dict[str, Exception] = {
    "Python": MemoryError(),
    "torch": torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory."),
    "CUDA": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "CUDA error": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "Linux": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    "Windows": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"
    ),
    "MPS": RuntimeError(
        "MPS backend out of memory (MPS allocated: 7.23 GB, other allocations: 1 GB, max allowed: 9 GB)"
    ),
    "HIP": RuntimeError("HIP out of memory. Tried to allocate 64.00 MiB"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


class Hungry(nn.Module):
    """Has room for as many samples as ``limit`` says."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = nn.ConvTranspose2d(4, 6, 4), nn.ConvTranspose2d(6, 3, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z[:, :, None, None])
        if len(z) > Hungry.limit[0]:
            raise Hungry.limit[1]
        images: Tensor = self.last(torch.relu(h))
        return images

    limit: tuple[float, Exception] = (float("inf"), MemoryError())


@pytest.fixture(autouse=True)
def _no_limit() -> Any:
    yield
    Hungry.limit = (float("inf"), MemoryError())


def sampler(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, 4, generator=rng)


def broken_sampler(n: int, rng: torch.Generator) -> Tensor:
    raise Hungry.limit[1]


DOORS: dict[str, Callable[[cp.GeneratorAdapter, Tensor], Any]] = {
    "wrap": lambda gen, z: cp.wrap(Hungry().eval(), sampler),
    "sampler": lambda gen, z: cp.wrap(Hungry().eval(), broken_sampler),
    "call": lambda gen, z: gen(z),
    "hybridize": lambda gen, z: cp.Hybridizer(gen, "first").hybridize(z, z + 1),
    "mean": lambda gen, z: cp.Hybridizer(gen, "first").intervene(z, value="mean"),
    "attribute": lambda gen, z: cp.InfluenceMap(gen, "first").attribute(n_pairs=3),
    "stretch": lambda gen, z: cp.StretchTest(gen, "first").measure(n_images=3),
    "spectral": lambda gen, z: cp.SpectralDependency(gen),
    "spectral, plain": lambda gen, z: cp.SpectralDependency(Hungry(), example=z),
    "classifier": lambda gen, z: cp.Classifier(nn.Sequential(nn.Flatten(), Eats()), cp.Preprocessing((8, 8))),
}


class Eats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise Hungry.limit[1]


@pytest.mark.parametrize("words", ERRORS)
def test_the_words_of_every_platform_are_known(words: str) -> None:
    assert is_out_of_memory(ERRORS[words])
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))


@pytest.mark.parametrize("words", ["Python", "torch", "Windows"])
@pytest.mark.parametrize("door", DOORS)
def test_without_room_for_one_sample_there_is_one_sentence(door: str, words: str) -> None:
    gen = cp.wrap(Hungry().eval(), sampler)
    Hungry.limit = (0, ERRORS[words])
    with pytest.raises(
        cp.ProbeError, match=r"memory ran out in .*; use a device with more memory, or the generator in"
    ):
        DOORS[door](gen, torch.ones(3, 4))


@pytest.mark.parametrize("words", ERRORS)
def test_batches_are_halved_until_they_fit(words: str) -> None:
    gen = cp.wrap(Hungry().eval(), sampler)
    z = gen.sample(40)
    expected = gen(z)
    Hungry.limit = (3, ERRORS[words])
    assert torch.allclose(gen(z), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("total", "each", "batch"),
    [
        (80, 2**20, 256),  # 256 MiB
        (80, 128 * 2**20, 16),  # StyleGAN2 at 1024×1024: a few fill a GPU
        (24, 128 * 2**20, 6),  # up to a thirty-second of it
        (8, 128 * 2**20, 2),
        (8, 2**30, 1),
        (80, 8, 4096),
    ],
)
def test_a_gpu_gets_a_few_samples_of_a_large_generator(
    total: int, each: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=total * 2**30))
    assert default_batch(each, torch.device("cuda", 0)) == batch
    assert default_batch(each, torch.device("mps")) == max(1, min(4096, 256 * 2**20 // each))
    assert default_batch(each, torch.device("cpu")) == max(1, min(4096, 8 * 2**20 // each))


def test_bytes_are_told_in_words_and_disks_asked_for_folders_to_come(tmp_path: Path) -> None:
    assert [in_words(size) for size in (0, 1023, 1024, 3 * 2**20, 2**42)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "3.0 MiB",
        "4,096.0 GiB",
    ]
    assert free_on_disk(tmp_path / "not" / "there") == pytest.approx(free_on_disk(tmp_path), rel=0.1)
