"""The caller's global settings neither decide what a door of the library gives, nor are they moved by it."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from counterfactual_probe.adapters.autoencoder import autoencoder
from counterfactual_probe.adapters.began import BEGANDiscriminator, BEGANGenerator, began, began_discriminator
from counterfactual_probe.adapters.biggan_deep import random_biggan_deep
from counterfactual_probe.adapters.cdcgan import ConditionalDCGANGenerator, cdcgan
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator, DCGANGenerator, dcgan, dcgan_discriminator
from counterfactual_probe.adapters.flow import UNet, flow
from counterfactual_probe.adapters.vae import VAE, vae
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.classifiers.timm_models import architecture, save_classifier, timm_classifier
from counterfactual_probe.generator import latents as lt
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.registry.folders import load_folder, save_folder
from support.toy_modules import Deconv, vectors
from support.toys import seeded

SEED_OF_32_BITS = 2**32

# --- the settings ------------------------------------------------------------------------------------


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype": default_dtype,
    "default device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
    "pandas": lambda: sklearn.config_context(transform_output="pandas"),
    "floating errors": lambda: np.errstate(all="raise"),
}


@contextmanager
def everything() -> Iterator[None]:
    with ExitStack() as stack:
        for setting in SETTINGS.values():
            stack.enter_context(setting())
        yield


def observed() -> tuple[Any, ...]:
    """All that a door could move."""
    state = np.random.get_state(legacy=False)
    return (
        torch.get_rng_state().tolist() if torch.get_default_device().type == "cpu" else None,
        state["state"]["key"].tobytes(),
        state["state"]["pos"],
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        sklearn.get_config()["transform_output"],
        np.geterr(),
    )


# --- the doors ---------------------------------------------------------------------------------------


def of_module(module: nn.Module | None) -> Any:
    assert module is not None
    assert not any(value.is_inference() for value in module.state_dict().values())
    return lt.fingerprint(dict(module.state_dict()))


def of_generator(gen: cp.GeneratorAdapter) -> Any:
    z = gen.sample(2, seed=3)
    return of_module(gen.module), lt.fingerprint(z), lt.fingerprint(gen(z))


def of_classifier(classifier: cp.Classifier) -> Any:
    images = torch.linspace(0, 1, 2 * 3 * 32 * 32, device="cpu", dtype=torch.float32).view(2, 3, 32, 32)
    return of_module(classifier.module), lt.fingerprint(classifier.logits(images))


def of_maps(maps: cp.InfluenceMaps) -> Any:
    return lt.fingerprint({name: value for name, value in vars(maps).items() if isinstance(value, Tensor)})


@cache
def states() -> dict[str, dict[str, Tensor]]:
    with seeded(1):
        modules = {
            "dcgan": DCGANGenerator(8, [8, 4], 3),
            "dcgan discriminator": DCGANDiscriminator([4, 8], 3),
            "cdcgan": ConditionalDCGANGenerator(8, 2, [8, 4], 3),
            "began": BEGANGenerator(8, 4, 1, image_size=16),
            "began discriminator": BEGANDiscriminator(8, 4, 1, image_size=16),
            "flow": UNet((8, 16), 1),
            "vae": VAE(8, (8, 4), 1, image_size=16, start=4),
            "autoencoder": cp.autoencoders.StructuralAutoencoder(6, 3, image_size=16, width=8, convolutions=4),
        }
    return {name: module.state_dict() for name, module in modules.items()}


@cache
def plain_gen() -> cp.GeneratorAdapter:
    return dcgan(states()["dcgan"])


@cache
def plain_maps() -> cp.InfluenceMaps:
    return cp.InfluenceMap(plain_gen(), "main.2").attribute(n_pairs=8, blocks=2)


@cache
def plain_classifier() -> cp.Classifier:
    with seeded(2):
        return timm_classifier("test_resnet", pretrained=False, size=32, class_names=["a", "b", "c"])


@cache
def table() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 3, (90, 2))
    return factors + 0.3 * rng.standard_normal((90, 2)), factors


def folder_of(path: Path) -> Path:
    return path if path.is_dir() else save_folder(path, "dcgan", states()["dcgan"])


def classifier_folder(path: Path) -> Path:
    return path if path.is_dir() else save_classifier(plain_classifier(), path)


def checkpoint_of(path: Path) -> Path:
    if not path.exists():
        torch.save(plain_classifier().module.state_dict(), path)
    return path


def finder(method: Any) -> Any:
    made = cp.ModuleFinder(n_modules=2, method=method, seed=SEED_OF_32_BITS).fit(plain_maps())
    return made.labels_.tolist(), made.templates_.tobytes()


def wrapped() -> Any:
    with seeded(4), torch.device("cpu"), default_dtype_of(torch.float32), torch.inference_mode(False):
        module = nn.Sequential(nn.ConvTranspose2d(4, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1))
    return of_generator(cp.wrap(module, lambda n, rng: torch.randn(n, 4, generator=rng)[..., None, None]))


@contextmanager
def default_dtype_of(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


def score_of(metric: Callable[..., Any]) -> Callable[[Path], Any]:
    return lambda _: (metric(*table(), seed=SEED_OF_32_BITS).score, metric(*table(), seed=1).matrix.tobytes())


DOORS: dict[str, Callable[[Path], Any]] = {
    "load": lambda _: of_generator(cp.load("dcgan-cifar10")),
    "load an entry": lambda _: of_generator(cp.pretrained("vae-cifar10").load(None)),
    "load a folder": lambda path: of_generator(cp.load(folder_of(path / "folder"))),
    "load_folder": lambda path: of_generator(load_folder(folder_of(path / "folder"))),
    "partner": lambda _: of_module(cp.load("dcgan-cifar10").partner),
    "dcgan": lambda _: of_generator(dcgan(states()["dcgan"])),
    "dcgan_discriminator": lambda _: of_module(dcgan_discriminator(states()["dcgan discriminator"])),
    "cdcgan": lambda _: of_generator(cdcgan(states()["cdcgan"], 2)),
    "began": lambda _: of_generator(began(states()["began"])),
    "began_discriminator": lambda _: of_module(began_discriminator(states()["began discriminator"])),
    "flow": lambda _: of_generator(flow(states()["flow"], image_size=8, steps=2)),
    "vae": lambda _: of_generator(vae(states()["vae"])),
    "autoencoder": lambda _: of_generator(autoencoder(states()["autoencoder"])),
    "wrap": lambda _: wrapped(),
    "classifier folder": lambda path: of_classifier(cp.load_classifier(classifier_folder(path / "classifier"))),
    "classifier checkpoint": lambda path: of_classifier(
        cp.load_classifier("test_resnet", checkpoint=checkpoint_of(path / "test.pth"))
    ),
    "attribute": lambda _: of_maps(
        cp.InfluenceMap(plain_gen(), "main.2").attribute(n_pairs=8, seed=SEED_OF_32_BITS, components=4, blocks=2)
    ),
    "hybridize": lambda _: lt.fingerprint(
        cp.Hybridizer(plain_gen(), "main.2").hybridize(plain_gen().sample(2), plain_gen().sample(2, seed=1)).images
    ),
    "stretch": lambda _: lt.fingerprint(cp.StretchTest(plain_gen(), "main.2").measure(n_images=2).mse),
    "spectral": lambda _: lt.fingerprint(cp.SpectralDependency(plain_gen()).measure("main.3", "main.6").ratio),
    "nmf": lambda _: finder("nmf"),
    "k-means": lambda _: finder("kmeans"),
    **{
        name: score_of(getattr(cp.metrics, name)) for name in ("dci", "sap", "explicitness", "mig", "modularity", "irs")
    },
}
if find_spec("pytorch_pretrained_biggan") is not None:
    DOORS["biggan"] = lambda _: of_generator(random_biggan_deep("small", seed=2**64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doors")


@cache
def right_value(door: str, folder: Path) -> Any:
    return DOORS[door](folder)


@pytest.mark.parametrize("door", DOORS)
def test_no_setting_of_the_callers_changes_what_a_door_gives(door: str, folder: Path) -> None:
    expected = right_value(door, folder)
    before = observed()
    assert DOORS[door](folder) == expected
    assert observed() == before, "random states and settings stay as they were"
    with everything():
        before = observed()
        found = DOORS[door](folder)
        assert observed() == before
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("door", DOORS)
def test_each_setting_by_itself(door: str, setting: str, folder: Path) -> None:
    expected = right_value(door, folder)
    with SETTINGS[setting]():
        assert DOORS[door](folder) == expected


@pytest.mark.parametrize("name", [name for name in cp.available() if not name.startswith("biggan")])
def test_loading_each_pretrained_generator_moves_no_random_state(name: str) -> None:
    before = observed()
    gen = cp.load(name)
    assert gen.partner is None or isinstance(gen.partner, nn.Module)
    assert observed() == before


def test_the_settings_do_make_a_difference_without_fresh_ones() -> None:
    """Negative control: a network that is built under them is another one."""
    with seeded(1), default_dtype():
        assert of_module(DCGANGenerator(8, [8, 4], 3)) != lt.fingerprint(states()["dcgan"])
    before = torch.get_rng_state()
    architecture("test_resnet")
    assert not torch.equal(torch.get_rng_state(), before)
    with fresh_settings():
        inside = torch.get_rng_state()
        torch.rand(3)
        assert not torch.equal(torch.get_rng_state(), inside)


def test_levels_of_loggers_and_the_limit_of_recursion_are_put_back() -> None:
    """As a library's ``set_verbosity_error()``, called in the forward, sets them."""

    class Quiet(Deconv):
        def forward(self, z: Tensor) -> Tensor:
            logging.getLogger("a library").setLevel(logging.ERROR)
            logging.disable(logging.INFO)
            sys.setrecursionlimit(limit + 1)
            return super().forward(z)

    def seen() -> tuple[int, int, int]:
        return logging.getLogger("a library").level, logging.root.manager.disable, sys.getrecursionlimit()

    before, limit = seen(), sys.getrecursionlimit()
    generator = cp.wrap(Quiet(), vectors(5, torch.float32))
    generator(generator.sample(2))
    assert seen() == before
    try:
        generator.module(torch.randn(3, 5))  # the control
        assert seen() == (logging.ERROR, logging.INFO, limit + 1)
    finally:
        logging.getLogger("a library").setLevel(before[0])
        logging.disable(before[1])
        sys.setrecursionlimit(limit)
