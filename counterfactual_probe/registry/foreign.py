"""Folders of generators: those of this library, and those of others, which a wrapper knows by a file in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..base.errors import ProbeError
from ..base.files import as_path
from ..base.plugins import blamed_on_plugin, imported
from ..generator.adapter import GeneratorAdapter
from ..generator.state.settings import fresh_settings
from ..generator.wrap import Wrapper, wrappers
from .folders import CONFIG, load_folder


def open_folder(
    folder: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> GeneratorAdapter:
    """The generator in a folder with config.json, or with the file by which a wrapper knows its library's folders."""
    folder, options = as_path(folder), dict(options or {})
    if folder.is_dir() and not (folder / CONFIG).is_file() and (wrapper := _wrapper_of(folder)) is not None:
        package, load = wrapper
        with fresh_settings(), blamed_on_plugin(f"the wrapper of {package}", "cannot load a folder"):
            generator: GeneratorAdapter = load(folder, device=device, **options)
        return generator
    if options:
        raise ProbeError(f"{folder} is no pipeline and takes no {', '.join(options)}; leave it out")
    return load_folder(folder, device=device)


def _wrapper_of(folder: Path) -> tuple[str, Any] | None:
    """The library whose index the folder holds, and how its folders are loaded."""
    for package, entries in wrappers().items():
        wrapper = imported(entries, "wrapper", Wrapper)
        if wrapper.index is not None and wrapper.load is not None and (folder / wrapper.index).is_file():
            return package, wrapper.load
    return None
