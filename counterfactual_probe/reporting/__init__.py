"""Reports: what an analysis found, as one HTML page with its figures and files beside it.

There is one path from a study to its page, and each file on it does one thing:

1. ``study`` computes: :func:`run_study` gives a ``LayerStudy`` of arrays for each layer, without words or colours.
2. ``modules`` and ``channels`` describe a layer, ``overview`` all layers together. Each reads the study once, and gives
   a :class:`Section`: sentences, tables, figures as PNG with their captions, and results to save. ``words`` has the
   phrases that they share (percentages, lists, the adjusted Rand index).
3. ``report`` puts sections in order: overview, layers, successive layers, and those of other analyses.
4. ``page`` makes HTML of them with ``base.html``, and ``folder`` puts all files in place at once.

``section`` defines what a section is, which is all that another analysis needs: those in ``sections`` (fidelity,
invariance, pictures, robustness, spectral) build on this folder, nothing here imports them, and the command line finds
them by their entry points, as it finds those of other packages.
"""

from ..base.display.description import Table
from .page import Report
from .report import write_report
from .section import CaptionedFigure, Section, SectionMaker, available_sections, section_maker, shown
from .study import Settings, Study, run_study

__all__ = [
    "CaptionedFigure",
    "Report",
    "Section",
    "SectionMaker",
    "Settings",
    "Study",
    "Table",
    "available_sections",
    "run_study",
    "section_maker",
    "shown",
    "write_report",
]
