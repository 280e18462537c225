"""Pretrained generators by name, found through the entry points of installed packages.

A package adds one with an entry point of the group ``counterfactual_probe.generators`` that names a
:class:`PretrainedGenerator`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from ..base.errors import ProbeError, nearest, text
from ..base.plugins import blamed_on_plugin, by_name, clash, imported

if TYPE_CHECKING:  # only loading needs torch: names and cards are shown without
    import torch

    from ..generator.adapter import GeneratorAdapter
    from .regions import Regions

GROUP = "counterfactual_probe.generators"


@dataclass(frozen=True)
class PretrainedGenerator:
    """A generator of the registry: how it is loaded, its data, licence and source."""

    name: str
    summary: str
    trained_on: str
    licence: str
    source: str
    install: str
    load: Callable[[torch.device | str | None], GeneratorAdapter]
    regions: Callable[[], Regions] | None = None

    def card(self) -> str:
        """A few lines: what it is, its data, its terms, where it comes from, how to install it."""
        return "\n".join(
            [
                f"{self.name}: {self.summary}",
                f"  trained on: {self.trained_on}",
                f"  licence: {self.licence}",
                f"  source: {self.source}",
                f"  install: {self.install}",
            ]
        )


def available(pattern: str = "*") -> list[str]:
    """Names in the registry that match a wildcard pattern, sorted.

    >>> cp.available("*-faces")
    ['began-faces', 'dcgan-faces', 'flow-faces', 'vae-faces']
    """
    return sorted(name for name in _generator_plugins() if fnmatchcase(name, text(pattern, "the pattern")))


def registered(name: str, *, advice: str) -> list[EntryPoint]:
    """Who registers a name; a ProbeError with the nearest names, and advice in the caller's words, if nobody does."""
    entries = _generator_plugins()
    if text(name, "the name") not in entries:
        raise ProbeError(
            f"no generator named {name!r} is in the registry; nearest: {nearest(name, sorted(entries))} ({advice})"
        )
    return entries[name]


def pretrained(name: str) -> PretrainedGenerator:
    """The registry's entry of this name, with its model card."""
    entries = registered(name, advice="cp.available() lists all, cp.wrap() takes your own module")
    return imported(entries, "generator", PretrainedGenerator)


def clash_of(name: str) -> str | None:
    """What is wrong with a name that two installed packages register; None if there is one such."""
    return clash(_generator_plugins()[name], "generator")


def load(name: str | os.PathLike[str], *, device: torch.device | str | None = None, **options: Any) -> GeneratorAdapter:
    """A pretrained generator by name, from a folder, or from a repository of the Hugging Face hub.

    >>> gen = cp.load("dcgan-faces")  # doctest: +SKIP
    >>> gen(gen.sample(8, seed=0)).shape  # doctest: +SKIP
    torch.Size([8, 3, 64, 64])
    >>> cp.load("./my-generator"), cp.load("hf:user/repo@main")  # doctest: +SKIP

    A folder or repository holds config.json and model.safetensors: see :func:`folders.load_folder`. One with
    model_index.json is a pipeline of diffusers, and ``options`` such as ``steps`` are its :func:`wrap_pipeline`'s. A
    string without a slash is a folder only if there is one and the registry has no such name; a ``Path`` always is.

    Raises:
        ProbeError: unknown name (with the nearest), weights not installed (with the one command
            that installs them) or altered, a hub that cannot be reached.
    """
    from ..base.hub.address import HUB
    from ..generator.adapter import GeneratorAdapter
    from ..generator.state.settings import fresh_settings
    from .folders import is_folder
    from .foreign import open_folder
    from .hub import hub_folder

    if not isinstance(name, (str, os.PathLike)):
        raise ProbeError(f"a generator is named by a string or a path, and {name!r} is a {type(name).__name__}")
    if isinstance(name, str) and name.startswith(HUB):
        return open_folder(hub_folder(name), device=device, options=options)
    if isinstance(name, os.PathLike) or (is_folder(name) and name not in _generator_plugins()):
        return open_folder(name, device=device, options=options)
    entry = pretrained(name)
    if options:
        raise ProbeError(f"{name!r} is no pipeline and takes no {', '.join(options)}; leave it out")
    # Whatever another package does to load it.
    with fresh_settings(), blamed_on_plugin(f"generator {name!r}", "cannot be loaded"):
        generator = entry.load(device)
    if isinstance(generator, GeneratorAdapter):
        words = {
            "summary": entry.summary,
            "trained_on": entry.trained_on,
            "terms": entry.licence,
            "source": entry.source,
        }
        generator.config = words | generator.config
    return generator


def _generator_plugins() -> dict[str, list[EntryPoint]]:
    return by_name(lambda: entry_points(group=GROUP), "a generator")
