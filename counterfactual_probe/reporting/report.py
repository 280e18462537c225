"""The report of a generator: one page that grows while layer after layer is studied."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..base.files import as_path
from ..generator.adapter import GeneratorAdapter
from ..modules.confidence import ENOUGH
from ..modules.features import Kind
from ..registry.segmentation import RegionsLike, regions_of
from .growth import Growth
from .page import Report
from .section import SectionMaker, section_maker
from .study import Settings


def report(
    generator: GeneratorAdapter,
    layers: Sequence[str] | str | None = None,
    *,
    out: str | os.PathLike[str] = "report",
    n_modules: int = 3,
    expected_ari: float = ENOUGH,
    max_pairs: int = 256,
    max_hybrids: int = 2**15,
    seed: int = 0,
    regions: RegionsLike | None = None,
    features: Kind | None = None,
    sections: Sequence[str | SectionMaker] = (),
    show_progress: bool = False,
) -> Report:
    """What a generator is made of, on one page: its modules, their hybrids, and how reproducible they are.

    >>> cp.report(gen).page  # doctest: +SKIP
    PosixPath('report/report.html')

    The page is there after the first layer, and grows. In each layer, modules are found by pair-normalised maps
    (``ModuleFinder(features="l2")``) and by the papers' pipeline on the same maps; the page shows the more reproducible
    ones first, and both in the layer's chapter. The same arguments give the same bytes. Interrupted, the page stands
    with the layers that are done, and the same call goes on with the next one.

    Args:
        layers: names; by default the last of each resolution.
        out: the folder that the page and its files are written into.
        expected_ari: pairs of latents are added to a layer's maps until another sample is expected to give modules of
            this adjusted Rand index, or ``max_pairs`` pairs or ``max_hybrids`` hybrids (pairs × channels) are reached.
        regions: named parts of the image that modules are named after: masks (height, width) by name, or a module or
            function from images (n, C, H, W) to labels (n, H, W), such as a segmentation network, whose ``names`` are
            those of the labels. By default those of the registry, or centre, border and sides.
        features: of :class:`ModuleFinder`, if modules are to be of these; by default "l2" or "bits", as above.
        sections: further analyses, by the names that :func:`counterfactual_probe.reporting.available_sections` lists.

    Raises:
        ProbeError: an unknown layer, or one with fewer channels than modules; a folder that cannot be written into.
    """
    names = [layers] if isinstance(layers, str) else layers
    settings = Settings(n_modules, expected_ari, max_pairs, max_hybrids, seed, features=features)
    makers = [section_maker(one) if isinstance(one, str) else one for one in sections]
    growth = Growth(generator, names, settings, as_path(out), regions=regions_of(generator, regions), makers=makers)
    return growth.run(show_progress=show_progress)
