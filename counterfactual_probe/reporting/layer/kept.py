"""Layers that are done, kept beside a report until it is complete: the same call goes on with the next one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from ...base.errors import ProbeError
from ...base.files import read_json, write_json
from ...base.formats.schema import Schema, conform
from ...base.formats.types import Text
from ...generator.adapter import GeneratorAdapter
from ...generator.layers import LayerInfo
from ...hybrids.result import Hybrids
from ...influence.maps import InfluenceMaps
from ...modules.finder import ModuleFinder
from ...modules.quality import ModuleQuality
from ..study import LayerStudy, Settings

_FOLDER = ".layers-of-an-unfinished-report"
_ABOUT = "layer.json"  # written last: without it, a layer is not there


class KeptLayer(Schema):
    """What the files of a kept layer do not say."""

    stopped: Text
    other: bool
    quality: bool


@dataclass(frozen=True)
class KeptLayers:
    """The layers of an unfinished report.

    A layer is taken from its files only if everything that it depends on is the same: the generator's weights and
    settings, images of its first latents to the bit, the layer, the report's settings, and the versions.
    """

    out: Path
    generator: GeneratorAdapter
    settings: Settings
    say: Callable[[str], None] = lambda _: None

    def layer(self, info: LayerInfo, study: Callable[[], LayerStudy]) -> LayerStudy:
        """The layer of an earlier run, or that of ``study()``, which is kept for a later one."""
        place = self.out / _FOLDER / self._digest(info)
        if (found := _read(place, info)) is not None:
            self.say(f"  {info.name} is done: the run that was interrupted has kept it")
            return found
        made = study()
        try:
            _write(place, made)
        except ProbeError:  # a disk that is full, say; the report needs less room
            shutil.rmtree(place, ignore_errors=True)
        return made

    def forget(self) -> None:
        """Remove them all: the report is complete."""
        shutil.rmtree(self.out / _FOLDER, ignore_errors=True)

    def _digest(self, info: LayerInfo) -> str:
        about = [self.generator.provenance(), vars(self.settings), repr(info)]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        # Of what has no name: hooks, the functions that draw latents and read images.
        images = self.generator(self.generator.sample(2, seed=self.settings.seed)).contiguous().cpu()
        digest.update(images.view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _write(place: Path, layer: LayerStudy) -> None:
    layer.maps.save(place / "maps.safetensors")
    layer.hybrids.save(place / "hybrids.safetensors")
    layer.finder.save(place / "finder.safetensors")
    if layer.other is not None:
        layer.other.save(place / "other.safetensors")
    if layer.quality is not None:
        layer.quality.save(place / "quality.safetensors")
    about = {"stopped": layer.stopped, "other": layer.other is not None, "quality": layer.quality is not None}
    write_json(place / _ABOUT, about)


def _read(place: Path, info: LayerInfo) -> LayerStudy | None:
    """None where the layer is not there, or its files are damaged."""
    if not (place / _ABOUT).exists():
        return None
    with suppress(ValueError, ProbeError):
        about = conform(read_json(place / _ABOUT), KeptLayer)
        return LayerStudy(
            info,
            InfluenceMaps.load(place / "maps.safetensors"),
            ModuleFinder.load(place / "finder.safetensors"),
            ModuleFinder.load(place / "other.safetensors") if about.other else None,
            Hybrids.load(place / "hybrids.safetensors"),
            ModuleQuality.load(place / "quality.safetensors") if about.quality else None,
            about.stopped,
        )
    return None
