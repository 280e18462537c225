"""All studies, by name."""

from __future__ import annotations

from .row import Study
from .s000 import stretch, translation
from .s002 import networks
from .s003 import successive

STUDIES: dict[str, Study] = {
    study.name: study for study in (stretch.STUDY, translation.STUDY, networks.STUDY, successive.STUDY)
}
