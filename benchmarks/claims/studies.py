"""All studies, by name."""

from __future__ import annotations

from .row import Study
from .s000 import stretch, translation
from .s001 import artificial, clusters, purity
from .s002 import coactivation, edges, networks, reverse, sweep
from .s003 import faithful, photographs, successive

_ALL = (
    stretch.STUDY, translation.STUDY,
    clusters.STUDY, purity.STUDY, artificial.STUDY,
    networks.STUDY, edges.STUDY, reverse.STUDY, coactivation.STUDY, sweep.STUDY,
    successive.STUDY, faithful.STUDY, photographs.STUDY,
)  # fmt: skip
STUDIES: dict[str, Study] = {study.name: study for study in _ALL}
