"""One module of pictures set to the values of others: the function behind ``gen.edit``."""

from __future__ import annotations

import warnings

from ..generator.adapter import GeneratorAdapter
from ..generator.units import Strength
from ..hybrids.hybridizer import Hybridizer
from ..inversion.invert import NotReached
from .choice import ModulesLike, axis_of, chosen_module, named_modules
from .given import GivenLike, as_given
from .result import INVERTED, Edited


def edit(
    generator: GeneratorAdapter,
    given: GivenLike,
    module: str,
    *,
    source: GivenLike,
    modules: ModulesLike | None = None,
    strength: Strength = 1.0,
    seed: int = 0,
    starts: int = 4,
    steps: int = 200,
    show_progress: bool = False,
    stacklevel: int = 3,
) -> Edited:
    """Set one module, by its name, to the values that it takes for the source (S003 §3.2).

    Called as :meth:`GeneratorAdapter.edit`, whose docstring says what the arguments mean. ``stacklevel`` is that of the
    warning, as of :func:`warnings.warn`.
    """
    chosen = chosen_module(named_modules(generator, modules), module).placed()
    hybridizer = Hybridizer(generator, sorted(chosen), axis=axis_of(chosen))
    hybridizer.space.parse(chosen)  # before anything long
    options = {"starts": starts, "steps": steps, "seed": seed, "show_progress": show_progress}
    base = as_given(generator, given, "what is edited", options)
    other = as_given(generator, source, "the source", options).repeated(base.n)
    hybrids = hybridizer.hybridize(base.latents, other.latents, units=chosen, strength=strength, seed=seed)
    about = {"module": chosen.name, "given": base.kind, "source": other.kind}
    edited = Edited(
        images=hybrids.images[0],
        base=hybrids.base,
        source=hybrids.base if hybrids.source is None else hybrids.source,
        units=(chosen,),
        provenance=hybrids.provenance | {"edit": about},
        pictures=base.pictures,
        error=base.error,
        relative_error=base.relative_error,
        source_relative_error=other.relative_error,
    )
    if INVERTED in (base.kind, other.kind) and (warning := edited.warning()):
        warnings.warn(warning, NotReached, stacklevel=stacklevel)
    return edited
