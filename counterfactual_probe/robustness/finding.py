"""Modules of every layer, for an assessment that is given none."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..base.display.text import counted
from ..base.errors import ProbeError, whole
from ..base.files import as_path, safe_name
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from ..generator.units import UnitSet, parse_layers
from ..influence.influence_map import InfluenceMap
from ..modules.finder import ModuleFinder

HYBRIDS = 4096


def modules_by_layer(
    generator: GeneratorAdapter,
    z1: Latents,
    z2: Latents,
    *,
    layers: Sequence[str],
    n_modules: int = 3,
    hybrids: int = HYBRIDS,
    progress: str | os.PathLike[str] | None = None,
    show_progress: bool = False,
) -> dict[str, dict[str, UnitSet]]:
    """Modules of each layer from influence maps, as :meth:`RobustnessProbe.score` takes them.

    >>> units = modules_by_layer(gen, z1, z2, layers=["main.8"])  # doctest: +SKIP

    Every layer gets about ``hybrids`` hybrids, and at least two pairs: layers of many channels, which are the early and
    slow ones, get fewer pairs. ``progress`` is a folder for checkpoints: the same call goes on from it.
    """
    n_modules, hybrids = whole(n_modules, "n_modules", 1), whole(hybrids, "hybrids", 1)
    given = generator.check(z1, "the base latents z1")
    by_layer = {}
    for info in parse_layers(generator, layers):
        if info.channels < n_modules:
            raise ProbeError(
                f"{counted(n_modules, 'module')} asked of layer {info.name!r}, which has "
                f"{counted(info.channels, 'channel')}; ask for fewer, "
                "or leave the layer out"
            )
        pairs = min(given, max(2, hybrids // info.channels))
        first = [lt.take(latents, slice(0, pairs)) for latents in (z1, z2)]
        file = f"{safe_name(info.name)}-{pairs}.progress"
        checkpoint = None if progress is None else as_path(progress) / file
        maps = InfluenceMap(generator, info.name).attribute(*first, checkpoint=checkpoint, show_progress=show_progress)
        modules = ModuleFinder(n_modules).fit(maps).unit_sets()
        # A module without channels changes nothing: there is no hybrid to score.
        by_layer[info.name] = {str(k): units for k, units in enumerate(modules, 1) if units.size}
    return by_layer
