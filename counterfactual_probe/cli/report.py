"""The commands ``counterfactual-probe report`` and ``demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..base.errors import ProbeError
from ..base.plugins import blamed_on_plugin
from ..registry.pretrained import PretrainedGenerator, available, pretrained
from .common import common, open_generator, output_folder, regions_for, show
from .robustness import chosen_classes, judge_options, open_classifier

if TYPE_CHECKING:
    from ..generator.adapter import GeneratorAdapter
    from ..reporting.section import Section, SectionMaker
    from ..reporting.study import Study

DEMO = "dcgan-faces"


def add_report(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the parsers of both commands."""
    for name, text in (
        ("report", "influence maps, modules, stability and hybrids of a generator, as an HTML report"),
        ("demo", f"the report on the pretrained face generator {DEMO}"),
    ):
        made = command(name, _report, text)
        if name == "report":
            made.add_argument("generator", metavar="GENERATOR")
        else:
            made.set_defaults(generator=DEMO)
        made.add_argument("--layers", help="names, separated by commas (default: the last of each resolution)")
        made.add_argument("--modules", type=int, default=3, help="number of modules K (default 3)")
        made.add_argument("--sections", help="names of further sections, separated by commas")
        judge_options(made, required=False)
        made.add_argument(
            "--pictures",
            help="pictures to make hybrids of too, if the generator encodes images; the same values as --data of train",
        )
        made.add_argument(
            "--repetitions", type=int, default=10, help="repetitions of the stability analysis (default 10)"
        )
        common(made, f"out/{name}")


def _report(options: argparse.Namespace) -> None:
    from ..reporting.folder import require_writable
    from ..reporting.report import write_report
    from ..reporting.sections.pictures import encoded_section, encoder_of
    from ..reporting.study import Settings, run_study, study_layers

    def say(text: str) -> None:
        show(text, to=sys.stderr)

    generator = open_generator(options.generator, options.device)
    entry = _entry(options.generator)
    if options.pictures is not None:
        encoder_of(generator)  # now, and not after the study
    settings = Settings(options.pairs, options.modules, options.seed, repetitions=options.repetitions)
    makers = _section_makers(options)
    for maker in makers:  # now, and not after the study
        with blamed_on_plugin(f"section {maker.name!r}"):
            maker.ready()
            maker.fits(generator)
    layers = study_layers(generator, options.layers.split(",") if options.layers else None, settings, say)
    out = output_folder(options)
    require_writable(out)
    names = [info.name for info in layers]
    study = run_study(generator, names, settings=settings, show_progress=options.progress, say=say)
    sections, failed = _made_sections(makers, generator, study, say)
    if options.pictures is not None:
        sections.append(encoded_section(generator, study, options.pictures))
    say("writing the report")
    regions = regions_for(options.generator, generator.image_size)
    card = entry.card() if entry else None
    report = write_report(study, out, regions=regions, card=card, sections=sections)
    tensors = sum(path.suffix == ".safetensors" for path in report.results)
    show("\n".join(report.in_short))
    show(f"report:  {report.page}")
    show(f"figures: {out / 'figures'} ({len(report.figures)} PNG files)")
    show(f"results: {out} ({tensors} safetensors files, modules as JSON)")
    if failed:
        raise ProbeError(f"the report lacks the sections that failed: {', '.join(failed)}; the reasons are above")


def _made_sections(
    makers: Sequence[SectionMaker], generator: GeneratorAdapter, study: Study, say: Callable[[str], None]
) -> tuple[list[Section], list[str]]:
    """The sections, and the names of those that failed: after a long study, the others are worth writing."""
    sections, failed = [], []
    for maker in makers:
        try:
            sections.append(maker.section(generator, study, say))
        except ProbeError as error:
            say(f"left out: {error}")
            failed.append(maker.name)
    return sections, failed


def _section_makers(options: argparse.Namespace) -> list[SectionMaker]:
    """Those of ``--sections``; that on robustness with the classes and classifiers of the command line."""
    from ..reporting.section import section_maker
    from ..reporting.sections.robustness import CLASSIFIERS, robustness_maker

    names = options.sections.split(",") if options.sections else []
    if "robustness" not in names and (options.classes or options.classifier or options.class_map):
        raise ProbeError(
            "--classes, --classifier and --class-map are for --sections robustness; add it, or leave them out"
        )
    makers = {name: section_maker(name) for name in names}
    if "robustness" in makers and options.classes:
        classifiers = [open_classifier(name, options.device) for name in options.classifier or CLASSIFIERS]
        classes, class_map = chosen_classes(options)
        makers["robustness"] = robustness_maker(classes, classifiers, class_map)
    return list(makers.values())


def _entry(name: str) -> PretrainedGenerator | None:
    """The registry's entry, of a generator that is there by name."""
    return pretrained(name) if name in available() else None
