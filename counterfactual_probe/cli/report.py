"""The commands ``counterfactual-probe report``, ``demo`` and ``study``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..base.errors import ProbeError
from .common import GENERATOR, PAIRS, common, device_option, open_generator, show
from .defaults import FEATURES, REPORT_HYBRIDS, REPORT_PAIRS
from .options.layers import layers_option, regions_option
from .options.output import output_folder, results
from .options.values import count, names, natural
from .robustness import chosen_classes, judge_options, open_classifier

if TYPE_CHECKING:
    from ..generator.adapter import GeneratorAdapter
    from ..registry.regions import Regions
    from ..reporting.page import Chapter, Report
    from ..reporting.section import SectionMaker
    from ..reporting.study import Study

DEMO = "dcgan-faces"
_DEMO_HYBRIDS = 2**14  # in a layer: half of those of a report, so that the demo takes a minute
_COMMANDS = (
    (
        "report",
        "what a generator is made of: modules, hybrids and how reproducible they are, as an HTML page",
        "report dcgan-faces --layers main.5,main.8",
    ),
    ("demo", f"the report on the pretrained face generator {DEMO}, in about a minute", "demo --out out/demo"),
    (
        "study",
        "the report with all figures of the papers: two samples, many numbers of modules, several minutes",
        "study dcgan-faces --layers main.8",
    ),
)


def add_report(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the parsers of the commands."""
    for name, text, example in _COMMANDS:
        made = command(name, _report, text, example)
        if name == "demo":
            made.set_defaults(generator=DEMO)
        else:
            given: dict[str, Any] = {"nargs": "?", "default": DEMO} if name == "study" else {}
            default = f" (default {DEMO})" if given else ""
            made.add_argument(
                "generator", metavar="GENERATOR", type=os.path.expanduser, help=f"{GENERATOR}{default}", **given
            )
        device_option(made)
        made.set_defaults(command=name)
        layers_option(made)
        made.add_argument("--modules", type=count, default=3, help="number of modules K (default 3)")
        made.add_argument(
            "--features",
            choices=FEATURES,
            help="of the maps that modules are found by, as in 'modules' (default: l2 or bits, in each layer the "
            "more reproducible)",
        )
        _options_of_pairs(made, name)
        made.add_argument("--sections", type=names, help="names of further sections, separated by commas")
        regions_option(made)
        judge_options(made, required=False)
        made.add_argument(
            "--pictures",
            type=os.path.expanduser,
            help="pictures to make hybrids of too, if the generator encodes images; the same values as --data of train",
        )
        common(made, f"out/{name}", pairs=False)


def _options_of_pairs(parser: argparse.ArgumentParser, name: str) -> None:
    hybrids = _DEMO_HYBRIDS if name == "demo" else REPORT_HYBRIDS
    parser.add_argument(
        "--pairs",
        type=count,
        default=REPORT_PAIRS,
        help=f"at most so many pairs of latents in a layer (default {REPORT_PAIRS}); fewer where modules are "
        "reproducible before",
    )
    parser.add_argument(
        "--hybrids", type=count, default=hybrids, help=f"and at most so many hybrids in a layer (default {hybrids})"
    )
    if name == "study":
        parser.add_argument(
            "--papers-pairs", type=count, default=PAIRS, help=f"pairs of the papers' pipeline (default {PAIRS})"
        )
        parser.add_argument(
            "--repetitions", type=natural, default=10, help="repetitions of the stability analysis (default 10)"
        )


def _report(options: argparse.Namespace) -> None:
    from ..registry.segmentation import regions_of
    from ..reporting.growth import Growth
    from ..reporting.sections.pictures import encoder_of, pictures_maker
    from ..reporting.study import Settings

    generator = open_generator(options.generator, options.device)
    if options.pictures is not None:
        encoder_of(generator)  # now, and not after the study
    settings = Settings(
        options.modules,
        max_pairs=options.pairs,
        max_hybrids=options.hybrids,
        seed=options.seed,
        features=options.features,
    )
    makers = _section_makers(options)
    if options.pictures is not None:
        makers.append(pictures_maker(options.pictures))
    regions = regions_of(generator, _given_regions(options.regions))
    growth = Growth(
        generator,
        options.layers,
        settings,
        output_folder(options),
        regions,
        makers,
        _papers(options, generator, regions),
        _say,
        f"run “{_command_line(options)}” again",
    )
    growth.ready()
    with results(options, "report"):
        _say(_beginning(options))
        _printed(growth.run(show_progress=options.progress), growth.failed)


def _say(text: str) -> None:
    show(text, to=sys.stderr)


def _beginning(options: argparse.Namespace) -> str:
    """What will be done, how long it takes, and where it can be seen meanwhile."""
    times = {"demo": "about a minute on two cores", "study": "some minutes", "report": "a minute or more"}
    page = output_folder(options) / "report.html"
    return (
        f"{options.command}: which channels of {options.generator} change which part of its images; "
        f"{times[options.command]}.\nopen {page} in a browser as soon as the first layer is done: the page grows by "
        "itself"
    )


def _command_line(options: argparse.Namespace) -> str:
    """The command as it was typed, for the page to quote."""
    return shlex.join(["counterfactual-probe", *options.typed])


def _given_regions(name: str | None) -> Any:
    from .common import made_by

    return None if name is None else made_by(name)


def _papers(
    options: argparse.Namespace, generator: GeneratorAdapter, regions: Regions
) -> tuple[str, Callable[[Study], Sequence[Chapter]]] | None:
    """The papers' chapters, for the command ``study``."""
    if options.command != "study":
        return None
    from ..reporting.papers.chapters import papers_chapters
    from ..reporting.papers.study import PapersSettings, run_papers_study

    settings = PapersSettings(options.papers_pairs, options.modules, options.seed, repetitions=options.repetitions)
    settings.require()

    def made(study: Study) -> Sequence[Chapter]:
        names = [layer.name for layer in _in_order(generator, study)]
        papers = run_papers_study(generator, names, settings=settings, show_progress=options.progress, say=_say)
        return papers_chapters(papers, regions)

    return "the papers' study", made


def _in_order(generator: GeneratorAdapter, study: Study) -> list[Any]:
    """The layers of the study as they come in the generator, since the papers compare successive ones."""
    done = {layer.layer.name: layer.layer for layer in study.layers}
    listed = [name for name in generator.layers if name in done]
    return [done[name] for name in [*listed, *(name for name in done if name not in listed)]]


def _printed(report: Report, failed: Sequence[str]) -> None:
    from ..base.display.text import counted

    tensors = sum(path.suffix == ".safetensors" for path in report.results)
    show("\n".join(report.in_short))
    show(f"report:  {report.page} ({report.page.stat().st_size / 1e6:.1f} MB)")
    show(f"figures: {report.page.parent / 'figures'} ({counted(len(report.figures), 'file')})")
    show(f"results: {report.page.parent} ({counted(tensors, 'safetensors file')}, modules as JSON, channels as CSV)")
    if failed:
        raise ProbeError(f"the report lacks the sections that failed: {', '.join(failed)}; the reasons are above")


def _section_makers(options: argparse.Namespace) -> list[SectionMaker]:
    """Those of ``--sections``; that on robustness with the classes and classifiers of the command line."""
    from ..reporting.section import section_maker
    from ..reporting.sections.robustness import CLASSIFIERS, robustness_maker

    wanted = options.sections or []
    if "robustness" not in wanted and (options.classes or options.classifier or options.class_map):
        raise ProbeError(
            "--classes, --classifier and --class-map are for --sections robustness; add it, or leave them out"
        )
    makers = {name: section_maker(name) for name in wanted}
    if "robustness" in makers and options.classes:
        classifiers = [open_classifier(name, options.device) for name in options.classifier or CLASSIFIERS]
        classes, class_map = chosen_classes(options)
        makers["robustness"] = robustness_maker(classes, classifiers, class_map)
    return list(makers.values())
