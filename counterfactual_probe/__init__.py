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

from . import autoencoders, metrics
from .base.errors import Interrupted, ProbeError
from .classifiers import Classifier, Preprocessing, load_classifier
from .fidelity.compare import FidelityTest
from .fidelity.frechet import frechet_distance
from .fidelity.result import Fidelity
from .generator.adapter import GeneratorAdapter, wrap
from .generator.layers import LayerInfo
from .generator.units import UnitSet
from .hybrids.hybridizer import Hybridizer
from .hybrids.result import Hybrids
from .influence.influence_map import InfluenceMap
from .influence.maps import InfluenceMaps
from .invariance import transformations
from .invariance.result import Invariance
from .invariance.stretch import StretchTest
from .modules.finder import ModuleFinder
from .modules.matching import ModuleMatch, match_modules
from .modules.quality import ModuleQuality
from .modules.selection import Selection
from .modules.stability import Stability
from .parts.agreement import parts_agreement, parts_by_image
from .parts.result import PartsAgreement
from .registry.pretrained import PretrainedGenerator, available, load, pretrained
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
from .training import train
from .version import __version__

__all__ = [
    "ActivationRatios",
    "Classifier",
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
    "LayerInfo",
    "ModuleFinder",
    "ModuleMatch",
    "ModuleQuality",
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
    "UnitSet",
    "__version__",
    "autoencoders",
    "available",
    "frechet_distance",
    "load",
    "load_classifier",
    "match_modules",
    "metrics",
    "parts_agreement",
    "parts_by_image",
    "pretrained",
    "spectral_independence_loss",
    "train",
    "transformations",
    "wrap",
]
