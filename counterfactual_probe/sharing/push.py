"""Generators as repositories of the hub: the function behind ``gen.push_to_hub``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
from torch import Tensor

from ..base.display.encode import encoded
from ..base.errors import ProbeError, text
from ..base.files import write_bytes, write_json, write_text
from ..base.hub.address import HUB, repository_of
from ..base.hub.card import licence_of
from ..base.hub.client import push, require_client
from ..editing.choice import ModulesLike
from ..generator.adapter import GeneratorAdapter
from ..hybrids.hybridizer import Hybridizer
from ..registry.folders import CARD, DISCRIMINATOR, architecture_named, folder_tensors, load_folder, save_folder
from ..registry.modules import MODULES
from .card import CardFacts, model_card
from .modules import SharedModules, shared_modules

_SAMPLES, _PAIRS = 16, 6
_WORDS = ("summary", "trained_on", "terms", "source")  # of config.json, for the card


def push_generator(
    generator: GeneratorAdapter,
    repository: str,
    *,
    modules: ModulesLike | None = None,
    trained_on: str | None = None,
    terms: str | None = None,
    licence: str | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Write weights, configuration, modules and card into a repository, as one commit; gives the address for ``load``.

    Called as :meth:`GeneratorAdapter.push_to_hub`, whose docstring says what the arguments mean.
    """
    address = f"{HUB}{repository_of(repository)}"
    require_client(repr(address))
    facts = _facts(generator, address, trained_on=trained_on, terms=terms, licence=licence)
    shared = None if modules is None else shared_modules(generator, modules)
    with TemporaryDirectory() as place:
        folder = write_generator(Path(place) / "generator", generator, facts, shared)
        files: dict[str, bytes | Path] = {path.name: path for path in sorted(folder.iterdir())}
        return push(repository, files, message=f"Add {generator.name}", private=private, revision=revision)


def write_generator(folder: Path, generator: GeneratorAdapter, facts: CardFacts, modules: SharedModules | None) -> Path:
    """The folder of a generator with its card and pictures; a ProbeError unless it opens as the same generator."""
    words = {name: value for name in _WORDS if (value := getattr(facts, name))}
    config = {**generator.config, **words, "name": generator.name}
    _write_weights(folder, generator, facts.architecture, config)
    _write_discriminator(folder, generator, facts.architecture)
    if modules is not None:
        write_json(folder / MODULES, modules.content)
    samples = _picture(folder / "samples", generator.show(_SAMPLES).figure)
    hybrids = None if modules is None else _picture(folder / "hybrids", _hybrids_figure(generator, modules))
    write_text(
        folder / CARD,
        model_card(
            generator,
            facts,
            samples=(samples, _SAMPLES),
            modules=modules,
            hybrids=None if hybrids is None else (hybrids, _PAIRS),
        ),
    )
    return folder


def _facts(generator: GeneratorAdapter, address: str, *, licence: str | None, **given: str | None) -> CardFacts:
    """What is given, and otherwise what the generator's configuration says."""
    architecture = generator.config.get("architecture")
    if not isinstance(architecture, str):
        raise ProbeError(
            f"{generator.name} is a module of no architecture that cp.load builds, and code is not shared; register "
            "one with an entry point, see docs/folders.md, or share its modules and results alone"
        )
    architecture_named(architecture, f"{generator.name} is of the architecture {architecture!r}")
    chosen = {
        name: text(value, name) if (value := given.get(name)) is not None else str(generator.config.get(name, ""))
        for name in _WORDS
    }
    return CardFacts(
        address=address,
        architecture=architecture,
        licence=None if licence is None else licence_of(licence),
        **{name: value.strip().rstrip(".") for name, value in chosen.items()},
    )


def _write_weights(folder: Path, generator: GeneratorAdapter, architecture: str, config: Mapping[str, Any]) -> None:
    """Those of the module or, where its architecture stores others, as without spectral norms, of the folder that it is
    from: whichever open as the same generator."""
    for tensors in _tensors_of(generator):
        save_folder(folder, architecture, tensors, config=config)
        if _opens_as(folder, generator):
            return
    raise ProbeError(
        f"the folder of {generator.name} would open as another generator: {architecture!r} builds none with these "
        f"weights, in {generator.dtype}; push it as it was opened, or register an architecture of its own"
    )


def _tensors_of(generator: GeneratorAdapter) -> Iterator[Mapping[str, Tensor]]:
    yield generator.module.state_dict()
    if generator.folder is not None:
        yield folder_tensors(generator.folder)


def _opens_as(folder: Path, generator: GeneratorAdapter) -> bool:
    try:
        return load_folder(folder).weights_hash() == generator.weights_hash()
    except ProbeError:  # the tensors do not fit
        return False


def _write_discriminator(folder: Path, generator: GeneratorAdapter, architecture: str) -> None:
    known = architecture_named(architecture, f"{generator.name} is of the architecture {architecture!r}")
    if known.discriminator is not None and (partner := generator.partner) is not None:
        write_bytes(folder / DISCRIMINATOR, safetensors.torch.save(_plain(partner.state_dict())))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _hybrids_figure(generator: GeneratorAdapter, modules: SharedModules) -> Any:
    layers = list(dict.fromkeys(layer for item in modules.sets for layer in item))
    axis: Any = modules.sets[0].kind
    hybridizer = Hybridizer(generator, layers, axis=axis)
    z1, z2 = generator.sample(_PAIRS, seed=1), generator.sample(_PAIRS, seed=2)
    return hybridizer.hybridize(z1, z2, units=list(modules.sets)).plot().figure


def _picture(path: Path, figure: Any) -> str:
    """Write a figure of photographs; gives the file's name."""
    content, suffix = encoded(figure, photographs=True)
    return write_bytes(path.with_suffix(suffix), content).name
