"""What a template shows, in words that the evidence bears: the one place that decides it, for any generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..base.errors import ProbeError
from .regions import Floats, Regions, correlations

# A template shows a region when its correlation with the region's mask reaches the first, and resembles it from the
# second on; below that it has no name. Smooth noise reaches 0.3 by chance, and 0.5 hardly ever.
SHOWS_FROM, RESEMBLES_FROM = 0.5, 0.3
# A module is not named at all where its layer's modules are expected to agree less than this with those of other
# latents (adjusted Rand index), where these would keep fewer of its channels than this share, or where it is less
# specific than this share of random sets of channels: its template is noise, or that of any channels.
RELATED_FROM, KEPT_FROM, MORE_SPECIFIC_FROM = 0.4, 0.5, 0.75
_ALL_BUT = "all but"


@dataclass(frozen=True)
class Evidence:
    """What speaks for a module, where that was measured.

    Attributes:
        expected_ari: of all modules of the layer, against another sample of latents.
        kept: share of its channels that another sample of latents is expected to keep in it.
        more_specific: share of random sets of as many channels that act less in the module's own region.
    """

    expected_ari: float | None = None
    kept: float | None = None
    more_specific: float | None = None

    @property
    def bears_a_name(self) -> bool:
        """Whether it is enough to say what the module acts on."""
        least = (RELATED_FROM, KEPT_FROM, MORE_SPECIFIC_FROM)
        measured = (self.expected_ari, self.kept, self.more_specific)
        return all(value is None or value >= limit for value, limit in zip(measured, least, strict=True))


class Shown(NamedTuple):
    """The region that a template shows or resembles, None for neither; and the largest correlation with any.

    A template that is dark where a region is shows "all but" that region.
    """

    region: str | None
    correlation: float

    @property
    def name(self) -> str | None:
        """What a module is called after it.

        >>> Shown("frame", 0.7).name, Shown("frame", 0.4).name, Shown(None, 0.1).name
        ('frame', 'resembles frame', None)
        """
        return self.region if self.region is None or self.correlation >= SHOWS_FROM else f"resembles {self.region}"

    @property
    def words(self) -> str:
        """The same as the end of a sentence, with the correlation.

        >>> Shown("frame", 0.4).words
        'resembles the frame (correlation 0.40)'
        """
        verb = "shows" if self.correlation >= SHOWS_FROM else "resembles"
        article = "" if (self.region or "").startswith(_ALL_BUT) else "the "
        part = "shows no named part" if self.region is None else f"{verb} {article}{self.region}"
        return f"{part} (correlation {self.correlation:.2f})"


def shown_regions(templates: Floats, regions: Regions, evidence: Sequence[Evidence] | None = None) -> list[Shown]:
    """What each template (K, H, W) shows; nothing where its ``evidence`` bears no name.

    >>> import numpy as np
    >>> from counterfactual_probe.registry.regions import generic_regions
    >>> regions = generic_regions(16, 16)
    >>> shown_regions(regions.masks["left"][None].astype(float), regions)
    [Shown(region='left', correlation=1.0)]
    """
    names = list(regions.masks)
    size = regions.size
    if templates.shape[1:] != size:
        raise ProbeError(
            f"the templates are {templates.shape[1:]} and the regions {size}; fit modules on maps of the images' size, "
            "or name them one by one"
        )
    direct = correlations(templates, [regions.masks[name] for name in names])
    names += [f"{_ALL_BUT} {name}" for name in names]
    table = np.concatenate([direct, -direct], axis=1)
    shown = []
    for k, best in enumerate(table.argmax(1)):
        value = round(float(table[k, best]), 12)  # so that a perfect match is 1, however it was added up
        borne = value >= RESEMBLES_FROM and (evidence is None or evidence[k].bears_a_name)
        shown.append(Shown(names[best] if borne else None, value))
    return shown


def module_names(templates: Floats, regions: Regions, evidence: Sequence[Evidence] | None = None) -> list[str]:
    """Names of modules: what each template shows, with the module's number where that is ambiguous."""
    return numbered_names([shown.name for shown in shown_regions(templates, regions, evidence)])


def numbered_names(shown: Sequence[str | None]) -> list[str]:
    """Names of modules that show these parts of the image, with the module's number where that is ambiguous.

    >>> numbered_names(["eyes and mouth", "frame", None, "frame"])
    ['eyes and mouth', 'frame (module 2)', 'module 3', 'frame (module 4)']
    """
    numbered = [f"module {k}" for k in range(1, len(shown) + 1)]
    return [
        number if name is None else name if shown.count(name) == 1 else f"{name} ({number})"
        for name, number in zip(shown, numbered, strict=True)
    ]


def agreement(templates: Floats, regions: Regions) -> list[tuple[str, int, float]]:
    """The expected parts matched one to one with templates: (part, template, correlation)."""
    from scipy.optimize import linear_sum_assignment

    table = correlations(templates, [regions.masks[name] for name in regions.expected])
    rows = linear_sum_assignment(table.T, maximize=True)[1]
    return [(name, int(rows[i]), float(table[rows[i], i])) for i, name in enumerate(regions.expected[: len(rows)])]
