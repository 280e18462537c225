"""Reports: what an analysis found, as one HTML page with its figures and files beside it.

There is one path from a generator to its page, and each file on it does one thing:

1. ``study`` computes: :func:`run_study` gives a ``LayerStudy`` of arrays for each layer that ``choice`` names, without
   words or colours.
2. ``layer`` describes: the first screen, and a chapter for each layer, a :class:`Section` of sentences, tables,
   captioned figures and results to save. ``words`` has the phrases that they share; what a template shows is decided in
   ``registry.naming``.
3. ``writing`` puts sections in order, ``page`` makes HTML of them with ``base.html``, and ``folder`` puts all files in
   place at once.
4. ``growth`` does this after each layer, and :func:`counterfactual_probe.report` is the call for all of it.

``papers`` has the papers' own study, whose chapters the command ``study`` adds. ``section`` defines what a section is,
which is all that another analysis needs: those in ``sections`` (fidelity, invariance, pictures, robustness, spectral)
build on this folder, nothing here imports them, and the command line finds them by their entry points, as it finds
those of other packages.
"""

from ..base.display.description import Table
from .page import Report
from .papers.study import PapersSettings, PapersStudy, run_papers_study
from .section import CaptionedFigure, Section, SectionMaker, available_sections, section_maker, shown
from .study import LayerStudy, Settings, Study, run_study
from .writing import write_report

__all__ = [
    "CaptionedFigure",
    "LayerStudy",
    "PapersSettings",
    "PapersStudy",
    "Report",
    "Section",
    "SectionMaker",
    "Settings",
    "Study",
    "Table",
    "available_sections",
    "run_papers_study",
    "run_study",
    "section_maker",
    "shown",
    "write_report",
]
