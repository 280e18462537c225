"""The making of a report: what is done is on the page at once, and stays there whatever happens next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..base.errors import ProbeError
from ..base.files import require_writable
from ..base.plugins import blamed_on_plugin
from ..generator.adapter import GeneratorAdapter
from ..registry.regions import Regions
from .choice import study_layers
from .layer.kept import KeptLayers
from .page import Chapter, Report
from .section import Section, SectionMaker, require_distinct
from .study import Settings, Study, growing_study
from .words import listing
from .writing import layer_chapter, write_report

# Further chapters, made after the study: those of the papers.
More = Callable[[Study], Sequence[Chapter]]


@dataclass
class Growth:
    """A report in the making; the layers that are done are kept until it is complete, so that it can be interrupted.

    Attributes:
        again: the command that makes the same report, for who has to go on.
        more: further chapters, and what they are called while they are made.
        failed: names of sections that could not be made.
    """

    generator: GeneratorAdapter
    layers: Sequence[str] | None
    settings: Settings
    out: Path
    regions: Regions
    makers: Sequence[SectionMaker] = ()
    more: tuple[str, More] | None = None
    say: Callable[[str], None] = lambda _: None
    again: str = "call cp.report again with the same arguments"
    failed: list[str] = field(default_factory=list)
    _chapters: dict[str, Chapter] = field(default_factory=dict)
    _sections: list[Section] = field(default_factory=list)
    _further: Sequence[Chapter] = ()
    _written: bool = False

    def ready(self) -> int:
        """Raise a ProbeError now for what would stop a long run; the number of layers."""
        self.settings.require()
        infos = study_layers(self.generator, self.layers, self.settings.n_modules)
        for maker in self.makers:  # now, and not after the study
            with blamed_on_plugin(f"section {maker.name!r}"):
                maker.ready()
                maker.fits(self.generator)
        require_writable(self.out)
        return len(infos)

    def run(self, *, show_progress: bool = False) -> Report:
        """Study, describe and write; what stops it is said on the page and raised."""
        layers = self.ready()
        study = Study(self.generator.name, self.generator.provenance(), self.settings, ())
        steps = layers + len(self.makers) + (self.more is not None)
        try:
            for done, (study, next_step) in enumerate(self._steps(show_progress), 1):
                if next_step:
                    self._write(study, f"This page grows: step {done + 1} of {steps} is {next_step}.", growing=True)
        except BaseException as stop:
            self._stopped(study, "by hand" if isinstance(stop, KeyboardInterrupt) else f"by an error ({stop})")
            raise
        report = self._write(study, "")
        self._kept.forget()
        return report

    @property
    def _kept(self) -> KeptLayers:
        return KeptLayers(self.out, self.generator, self.settings, self.say)

    def _stopped(self, study: Study, how: str) -> None:
        """Say so on the page, if there is one of this run."""
        if not self._written:
            return
        missing = f"what is missing is layer {listing(study.to_come)}" if study.to_come else "the last part is missing"
        with suppress(ProbeError):  # there may be no room on the disk: then the page stands as it was
            self._write(study, f"Stopped {how}: {missing}, all else is complete. To go on, {self.again}.")

    def _steps(self, show_progress: bool) -> Iterator[tuple[Study, str]]:
        """The study after each step, and what the next one is; empty after the last."""
        later = [maker.summary for maker in self.makers] + ([] if self.more is None else [self.more[0]])
        growing = growing_study(
            self.generator,
            self.layers,
            self.settings,
            show_progress=show_progress,
            say=self.say,
            kept=self._kept.layer,
        )
        for study in growing:
            yield study, f"layer {study.to_come[0]}" if study.to_come else "".join(later[:1])
        for place, maker in enumerate(self.makers, 1):
            try:
                self._sections.append(maker.section(self.generator, study, self.say))
                require_distinct(self._sections)
            except ProbeError as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.say(f"left out: {error}")
                self.failed.append(maker.name)
            yield study, "".join(later[place : place + 1])
        if self.more is not None:
            self._further = self.more[1](study)
            yield study, ""

    def _write(self, study: Study, status: str, *, growing: bool = False) -> Report:
        report = write_report(
            study,
            self.out,
            regions=self.regions,
            sections=self._sections,
            layers=self._described(study),
            further=self._further,
            status=status,
            growing=growing,
            again=self._written,
        )
        self._written = True
        return report

    def _described(self, study: Study) -> list[Chapter]:
        """The chapters of the layers, each of which is drawn once."""
        for layer in study.layers:
            if layer.layer.name not in self._chapters:
                self._chapters[layer.layer.name] = layer_chapter(study, layer.layer.name, self.regions)
        return [self._chapters[layer.layer.name] for layer in study.layers]
