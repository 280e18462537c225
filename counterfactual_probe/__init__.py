"""counterfactual-probe: open a pretrained image generator and find the parts it is made of.

A generator is a causal model; set some of its internal variables to the values they take for
another latent, and look at what happens to the image.

>>> import counterfactual_probe as cp
>>> gen = cp.load("dcgan-faces")  # doctest: +SKIP
>>> maps = cp.InfluenceMap(gen, "main.8").attribute(n_pairs=64)  # doctest: +SKIP
>>> finder = cp.ModuleFinder(n_modules=3).fit(maps)  # doctest: +SKIP
>>> z1, z2 = gen.sample(8, seed=0), gen.sample(8, seed=1)  # doctest: +SKIP
>>> cp.Hybridizer(gen, "main.8").hybridize(z1, z2, units=finder.modules_).plot()  # doctest: +SKIP
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .version import __version__

# For type checkers and editors only: at run time a name is imported when it is first used, since torch alone takes
# seconds that `counterfactual-probe --help` need not spend.
if TYPE_CHECKING:
    from . import autoencoders, bases, metrics
    from .base.errors import Interrupted, ProbeError
    from .classifiers import Classifier, Preprocessing, load_classifier
    from .editing.result import Edited
    from .exchanging.exchange import exchange
    from .exchanging.result import Exchanged
    from .explorer.explore import explore
    from .fidelity.compare import FidelityTest
    from .fidelity.frechet import frechet_distance
    from .fidelity.result import Fidelity
    from .generator.adapter import GeneratorAdapter
    from .generator.layers.info import LayerInfo
    from .generator.units.unit_set import UnitSet
    from .generator.wrap import wrap
    from .hybrids.hybridizer import Hybridizer
    from .hybrids.result import Hybrids
    from .influence.influence_map import InfluenceMap
    from .influence.maps import InfluenceMaps
    from .invariance import transformations
    from .invariance.result import Invariance
    from .invariance.stretch import StretchTest
    from .inversion.invert import invert
    from .inversion.result import Inversion
    from .modules.calls.comparison import modules_by_call
    from .modules.calls.result import ModulesByCall
    from .modules.evidence import Evidence
    from .modules.finder import ModuleFinder
    from .modules.matching import ModuleMatch, match_modules
    from .modules.quality import ModuleQuality
    from .modules.selection import Selection
    from .modules.stability import Stability
    from .parts.agreement import parts_agreement, parts_by_image
    from .parts.result import PartsAgreement
    from .registry.pretrained import PretrainedGenerator, available, load, pretrained
    from .reporting.report import report
    from .robustness import Ranking, Robustness, RobustnessProbe
    from .spectral import (
        ActivationRatios,
        FilterRemoval,
        SpectralDependency,
        SpectralIndependence,
        SpectralRatios,
        SpectralTable,
        spectral_independence_loss,
    )
    from .sweeping.result import Sweep
    from .sweeping.sweep import sweep
    from .training import train

__all__ = [
    "ActivationRatios",
    "Classifier",
    "Edited",
    "Evidence",
    "Exchanged",
    "Fidelity",
    "FidelityTest",
    "FilterRemoval",
    "GeneratorAdapter",
    "Hybridizer",
    "Hybrids",
    "InfluenceMap",
    "InfluenceMaps",
    "Interrupted",
    "Invariance",
    "Inversion",
    "LayerInfo",
    "ModuleFinder",
    "ModuleMatch",
    "ModuleQuality",
    "ModulesByCall",
    "PartsAgreement",
    "Preprocessing",
    "PretrainedGenerator",
    "ProbeError",
    "Ranking",
    "Robustness",
    "RobustnessProbe",
    "Selection",
    "SpectralDependency",
    "SpectralIndependence",
    "SpectralRatios",
    "SpectralTable",
    "Stability",
    "StretchTest",
    "Sweep",
    "UnitSet",
    "__version__",
    "autoencoders",
    "available",
    "bases",
    "exchange",
    "explore",
    "frechet_distance",
    "invert",
    "load",
    "load_classifier",
    "match_modules",
    "metrics",
    "modules_by_call",
    "parts_agreement",
    "parts_by_image",
    "pretrained",
    "report",
    "spectral_independence_loss",
    "sweep",
    "train",
    "transformations",
    "wrap",
]

# The same names at run time, each beside the module that it is imported from.
_HOMES = {
    "ActivationRatios": "spectral.ratios",
    "Classifier": "classifiers.classifier",
    "Edited": "editing.result",
    "Evidence": "modules.evidence.result",
    "Exchanged": "exchanging.result",
    "Fidelity": "fidelity.result",
    "FidelityTest": "fidelity.compare",
    "FilterRemoval": "spectral.removal",
    "GeneratorAdapter": "generator.adapter",
    "Hybridizer": "hybrids.hybridizer",
    "Hybrids": "hybrids.result",
    "InfluenceMap": "influence.influence_map",
    "InfluenceMaps": "influence.maps",
    "Interrupted": "base.errors",
    "Invariance": "invariance.result",
    "Inversion": "inversion.result",
    "LayerInfo": "generator.layers.info",
    "ModuleFinder": "modules.finder",
    "ModuleMatch": "modules.matching",
    "ModuleQuality": "modules.quality",
    "ModulesByCall": "modules.calls.result",
    "PartsAgreement": "parts.result",
    "Preprocessing": "classifiers.preprocessing",
    "PretrainedGenerator": "registry.pretrained",
    "ProbeError": "base.errors",
    "Ranking": "robustness.ranking",
    "Robustness": "robustness.result",
    "RobustnessProbe": "robustness.probe",
    "Selection": "modules.selection",
    "SpectralDependency": "spectral.dependency",
    "SpectralIndependence": "spectral.independence",
    "SpectralRatios": "spectral.ratios",
    "SpectralTable": "spectral.ratios",
    "Stability": "modules.stability",
    "StretchTest": "invariance.stretch",
    "Sweep": "sweeping.result",
    "UnitSet": "generator.units.unit_set",
    "available": "registry.pretrained",
    "exchange": "exchanging.exchange",
    "explore": "explorer.explore",
    "frechet_distance": "fidelity.frechet",
    "invert": "inversion.invert",
    "load": "registry.pretrained",
    "load_classifier": "classifiers.opening",
    "match_modules": "modules.matching",
    "modules_by_call": "modules.calls.comparison",
    "parts_agreement": "parts.agreement",
    "parts_by_image": "parts.agreement",
    "pretrained": "registry.pretrained",
    "report": "reporting.report",
    "spectral_independence_loss": "spectral.loss",
    "sweep": "sweeping.sweep",
    "train": "training.train",
    "wrap": "generator.wrap",
}
_MODULES = {"transformations": "invariance.transformations"}


def _imported(name: str) -> Any:
    """The public object, or the package inside this one, of that name: imported now, and kept."""
    if name in _HOMES:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name.isidentifier() and name[0] != "_" and find_spec(path := f"{__name__}.{_MODULES.get(name, name)}"):
        found = import_module(path)
    else:
        from .base.errors import nearest

        # Programs that look at modules ask for many private names, and have no use for the nearest.
        others = "" if name.startswith("_") else f"; nearest: {nearest(name, __all__)}"
        # `obj` alone, since Python would add a suggestion of its own to an error that has a `name` too.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{others}", obj=sys.modules[__name__])
    globals()[name] = found
    return found


def _public_names() -> list[str]:
    return list(__all__)


if not TYPE_CHECKING:  # which take a module with a `__getattr__` for one that has every name
    __getattr__, __dir__ = _imported, _public_names
