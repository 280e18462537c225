"""What exchanging a module changes: the function behind ``cp.exchange``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..base.errors import ProbeError, brief, first_few, whole
from ..editing.choice import ModulesLike, axis_of, named_modules
from ..engine import Pairs
from ..generator.adapter import BASE, SOURCE, GeneratorAdapter
from ..generator.latents import Latents
from ..generator.units import UnitSet
from ..influence.influence_map import InfluenceMap
from ..modules.clustering import Array
from .controls import DEFAULT_CONTROLS, KINDS
from .effects import Effects, Sums
from .faithfulness import Encode, Nearest, Searched
from .pilot import PAIRS, Pilot
from .ratios import Ratio, ratio, standard_error
from .result import Exchanged


def exchange(
    generator: GeneratorAdapter,
    modules: ModulesLike,
    *,
    n_pairs: int = 64,
    controls: int = DEFAULT_CONTROLS,
    images: int = 8,
    steps: int = 100,
    encoder: Encode | None = None,
    seed: int = 0,
    hybrids_per_eval: int | None = None,
    show_progress: bool = False,
) -> Exchanged:
    """Measure what exchanging each module changes, and what it leaves alone (S003 §2.3 and 3.1).

    >>> found = cp.exchange(gen, finder, n_pairs=64)  # doctest: +SKIP
    >>> found.cause, found.isolation, found.interaction  # doctest: +SKIP

    d = hybrid − base is what a module changes, and w what all units of its layers change together, which is as far as
    any exchange can go. With ``|·|`` the mean over colours, and sums over pairs and pixels:

    - A module's region is where its share Σ|d| / Σ|w| of a pixel is large, cut off by Otsu's rule on 32 other pairs.
    - ``cause`` = 1 − Σ|d − w| / Σ|w| inside of the region: 1, the hybrid is the source there; 0, it is no nearer to it
      than the base; below 0, it is further away.
    - ``isolation`` = 1 − Σ|d| / Σ|w| outside of it: 1, it is the base there; 0, as much changes as by all units.
    - ``separation`` = cause + isolation − 1: 1, a part of its own; 0, like no unit at all, or all of them.
    - ``interaction[a, b]`` = ``Σ|d_ab − d_a − d_b| / Σ(|d_ab − d_b| + |d_a|)`` with d_ab of both together: how far
      what a changes depends on whether b is exchanged. 0, not at all; 1, it has nothing in common.
    - ``joint[a, b]`` = I(a ∪ b) / (I(a) + I(b)) of influences I = Σ|d| (S003 eq. 2): 1 for modules in other places.
    - ``faithfulness`` = 1 − min over z of ‖G(z) − h‖² / min(‖x − h‖², ‖y − h‖²) of a hybrid h, base x and source y: 1,
      it is an image that the generator makes itself (S003 Def. 2); 0, no such image is nearer than the originals.
      Modules are a Cartesian product if all hybrids are own images (Def. 4 and 5). z is searched as by :func:`invert`,
      from the latents of base and source, and from what an encoder gives. Images of mixed latents, which are own ones,
      are searched likewise, and say what the search misses.

    All is compared with ``controls`` random sets in the modules' places, dealt from the units of the layers that change
    anything: once of as many units in each layer, once of as much influence. Each has a region of its own.

    Args:
        modules: a fitted :class:`ModuleFinder`, the file of one, named unit sets, or ``{name: {layer: numbers}}``; no
            two with a unit in common.
        n_pairs: pairs of latents, at least 2.
        controls: random sets of each kind for each module; 0 for none.
        images: pairs whose hybrids are searched among own images, at most ``n_pairs``. That takes most of the time; 0
            leaves ``faithfulness`` out.
        steps: of the search from each latent.
        encoder: a function from images to latents; by default ``generator.encode``, where there is one.
        seed: of pairs, random sets and noise inside the forward.

    Raises:
        ProbeError: modules that share units or change nothing; too few units for so many random sets; an encoder that
            gives other latents; with ``images``, a generator without gradients.
    """
    chosen = _checked_modules(generator, modules)
    settings = _Settings(n_pairs, controls, images, steps, seed)
    if encoder is not None and not callable(encoder):
        raise ProbeError(f"encoder is {brief(encoder)}; give a function from images to latents, or None")
    encode = encoder or getattr(generator, "encode", None)
    options: dict[str, Any] = {"hybrids_per_eval": hybrids_per_eval, "show_progress": show_progress}
    with generator.unchanged():
        return _exchanged(generator, chosen, settings, encode, options)


class _Settings:
    """The numbers that a call is given, checked."""

    def __init__(self, n_pairs: Any, controls: Any, images: Any, steps: Any, seed: Any) -> None:
        self.n_pairs = whole(n_pairs, "n_pairs", 1)
        if self.n_pairs == 1:
            raise ProbeError("n_pairs is 1, and one pair has no standard error; give at least 2")
        self.controls, self.images = whole(controls, "controls", 0), min(whole(images, "images", 0), self.n_pairs)
        self.steps, self.seed = whole(steps, "steps", 1), whole(seed, "the seed", 0)

    def provenance(self) -> dict[str, Any]:
        about = {"controls": self.controls, "pilot_pairs": PAIRS, "images": self.images, "steps": self.steps}
        return {"n_pairs": self.n_pairs, "seed": self.seed, "exchange": about}


def _exchanged(
    generator: GeneratorAdapter,
    modules: Sequence[UnitSet],
    settings: _Settings,
    encode: Encode | None,
    options: dict[str, Any],
) -> Exchanged:
    layers = sorted({layer for module in modules for layer in module})
    influence = InfluenceMap(generator, layers, axis=axis_of(modules[0]))
    influence.space.parse(list(modules))  # before anything long

    def sampled(stream: int, start: int, stop: int) -> Latents:
        """Of the pairs that are measured, behind those of the pilot."""
        return generator.sample(stop - start, seed=settings.seed, stream=stream, start=PAIRS + start)

    pilot = Pilot(influence, modules, settings.seed, options)
    of_size, of_influence = pilot.deals(settings.controls)
    groups = [list(modules), *of_size, *of_influence]
    regions = pilot.regions(groups)
    shaped = regions[0].reshape(len(modules), *generator.image_size[1:])
    nearest, n = None, settings.images
    if n:  # before hybrids are run, since not every generator can be searched
        searched = Searched(
            generator,
            modules,
            z1=sampled(BASE, 0, n),
            z2=sampled(SOURCE, 0, n),
            other=sampled(BASE, settings.n_pairs, settings.n_pairs + n),
            random=[of_influence[i % len(of_influence)][i % len(modules)] for i in range(n if of_influence else 0)],
            regions=shaped[:, None],
            seed=settings.seed,
        )
        nearest = searched.nearest(encode, steps=settings.steps, show_progress=options["show_progress"])
    pairs = Pairs(
        settings.n_pairs,
        lambda start, stop: sampled(BASE, start, stop),
        lambda start, stop: sampled(SOURCE, start, stop),
    )
    effects = Effects(generator, influence.space, groups, pilot.all_units, **options)
    sums = effects.measure(pairs, torch.from_numpy(regions).to(generator.device), settings.seed)
    about = generator.provenance() | influence.space.provenance() | settings.provenance()
    about |= {"layers": layers, "reach": pilot.reach()}
    return _result(modules, shaped, sums, settings.controls, nearest, about=about)


def _checked_modules(generator: GeneratorAdapter, given: ModulesLike) -> list[UnitSet]:
    """The modules, which have units and share none."""
    modules = [module.placed() for module in named_modules(generator, given)]
    owners: dict[tuple[str, int], int] = {}
    for place, module in enumerate(modules):
        if not module.size:
            raise ProbeError(f"module {module.name!r} has no units; leave it out, or fit fewer modules")
        if module.kind != modules[0].kind:
            raise ProbeError(
                f"module {modules[0].name!r} is of {modules[0].kind}s and {module.name!r} of {module.kind}s; give "
                "modules of one kind"
            )
        for layer, number in ((layer, number) for layer, numbers in module.items() for number in numbers):
            if (other := owners.setdefault((layer, number), place)) != place:
                raise ProbeError(
                    f"modules {modules[other].name!r} and {module.name!r} share {module.kind} {number} of layer "
                    f"{layer!r}, which can be exchanged only once; give modules that share none"
                )
    names = [module.name for module in modules]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ProbeError(f"two modules are called {twice[0]!r} (of {first_few(names)}); give each a name of its own")
    return modules


def _measured(sums: Sums, group: int) -> tuple[Ratio, Ratio, Ratio, Ratio]:
    """What the sets of a group miss of the source, change outside, interact, and change together."""
    change = sums.change[group]
    between = 1 - np.eye(change.shape[1])
    return (
        ratio(sums.missing[group], sums.inside[group]),
        ratio(sums.changed_outside[group], sums.outside[group]),
        ratio(sums.depends[group], sums.given_other[group] + change[:, :, None] * between),
        ratio(sums.joint[group], (change[:, :, None] + change[:, None, :]) * between),
    )


def _result(
    modules: Sequence[UnitSet],
    regions: npt.NDArray[np.bool_],
    sums: Sums,
    controls: int,
    nearest: Nearest | None,
    *,
    about: dict[str, Any],
) -> Exchanged:
    missing, leaking, interaction, joint = _measured(sums, 0)
    random = [_measured(sums, group) for group in range(1, len(sums.change))]
    k, change = len(modules), sums.change.mean(1) / regions[0].size

    def of_random(values: Sequence[Array], *shape: int) -> Array:
        return np.stack(values).reshape(len(KINDS), controls, *shape) if values else np.zeros((len(KINDS), 0, *shape))

    return Exchanged(
        units=tuple(modules),
        regions=regions,
        influence=change[0],
        cause=1 - missing.value,
        cause_error=missing.standard_error,
        isolation=1 - leaking.value,
        isolation_error=leaking.standard_error,
        separation_error=standard_error(missing.deviations + leaking.deviations),
        interaction=interaction.value,
        interaction_error=interaction.standard_error,
        joint=joint.value,
        joint_error=joint.standard_error,
        random_influence=of_random(list(change[1:]), k),
        random_cause=of_random([1 - one[0].value for one in random], k),
        random_isolation=of_random([1 - one[1].value for one in random], k),
        random_interaction=of_random([one[2].value for one in random], k, k),
        random_joint=of_random([one[3].value for one in random], k, k),
        provenance=about,
        **({} if nearest is None else nearest._asdict()),
    )
