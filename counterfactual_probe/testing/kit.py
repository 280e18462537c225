"""``check_adapter``: runs every check in order, and returns one report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..base.errors import Interrupted, ProbeError, first_line, whole
from ..generator import adapter as generators
from . import hybrid_checks, image_checks, latent_checks, module_checks
from .bench import Bench
from .outcome import AdapterReport, Check, Failed, Outcome, Skipped


@dataclass(frozen=True)
class _Test:
    name: str
    run: Callable[[Bench], str]
    needs: tuple[str, ...] = ()


_REPEAT, _DIFFER = "latents come from seed, stream and index", "other seeds and streams give other latents"
_SIZE, _SAME, _FINITE = "images have one size", "images are deterministic", "images are finite"
_LISTED, _HOOKS, _ACT = "layers are as listed", "hybrids equal plain hooks", "units change the image"
_CUT, _RANGE = "all channels give the source", "images lie in image_range"
_BATCH = "an image does not depend on its batch"
_IMAGES = (_REPEAT, _SIZE, _SAME, _FINITE)

_TESTS = (
    _Test(_REPEAT, latent_checks.repeat),
    _Test(_DIFFER, latent_checks.differ, (_REPEAT,)),
    _Test(_SIZE, image_checks.size, (_REPEAT,)),
    _Test(_SAME, image_checks.deterministic, (_SIZE,)),
    _Test(_FINITE, image_checks.finite, (_SIZE,)),
    _Test(_RANGE, image_checks.in_range, (_FINITE,)),
    _Test(_BATCH, image_checks.batch, _IMAGES),
    _Test(_LISTED, hybrid_checks.layers_as_listed, (_REPEAT, _SIZE)),
    _Test("no channel gives the base", hybrid_checks.no_channel, (_BATCH, _LISTED)),
    _Test("equal latents have no influence", hybrid_checks.equal_latents, (_BATCH, _LISTED)),
    _Test(_HOOKS, hybrid_checks.plain_hooks, (_BATCH, _LISTED)),
    _Test(_ACT, hybrid_checks.units_act, (_BATCH, _LISTED, _DIFFER)),
    _Test(_CUT, hybrid_checks.full_cut, (_HOOKS, _ACT)),
    _Test("a set and its complement", hybrid_checks.complement, (_CUT,)),
    _Test("float64 agrees with float32", module_checks.other_float, _IMAGES),
    _Test("bfloat16 works or says why", module_checks.half, _IMAGES),
    _Test("devices", module_checks.device, _IMAGES),
    _Test("the hash of the weights", module_checks.hash_of_weights),
    _Test("results save and load", module_checks.saved, (_BATCH, _LISTED)),
)
_LEFT = "the module is left as it was found"


def check_adapter(
    adapter: generators.GeneratorAdapter,
    *,
    seed: int = 0,
    layers: str | Sequence[str] | None = None,
    raise_on_failure: bool = True,
) -> AdapterReport:
    """Run every check on an adapter: identities of hybrids, determinism, precisions, devices, state.

    >>> report = check_adapter(gen, raise_on_failure=False)  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP
    AdapterReport('blobs', 18 passed, 2 skipped; layers first, second, image)
      passed   latents come from seed, stream and index: latents of one seed are the same …

    A check that depends on one that did not pass is skipped, so that each problem is reported once. The checks run some
    hundred forwards of single images and copy the module.

    Args:
        adapter: made by :func:`wrap` or :func:`load`.
        seed: for latents and for the choice of channels.
        layers: where hybrids are made; by default an early, a middle and a late layer of the adapter's.
        raise_on_failure: raise a ProbeError if a check fails; otherwise only the report says so.

    Raises:
        ProbeError: a check failed; every failure is listed with what to change.
    """
    if not isinstance(adapter, generators.GeneratorAdapter):
        raise ProbeError(f"the adapter is a {type(adapter).__name__}; give what cp.wrap() or cp.load() returns")
    seed = whole(seed, "the seed", 0)
    before = module_checks.Fingerprint(adapter.module)
    bench, checks = Bench(adapter, seed, layers), dict[str, Check]()
    for test in _TESTS:
        checks[test.name] = _run_check(test, bench, checks)
    last = _Test(_LEFT, lambda _: before.require_same(adapter.module))
    checks[_LEFT] = _run_check(last, bench, checks)
    report = AdapterReport(adapter.name, tuple(layer.name for layer in bench.layers), tuple(checks.values()))
    if raise_on_failure and not report.passed:
        listed = "\n".join(f"- {check.name}: {check.explanation}" for check in report.failures)
        raise ProbeError(f"{adapter.name} fails {len(report.failures)} of {len(report.checks)} checks\n{listed}")
    return report


def _run_check(test: _Test, bench: Bench, done: dict[str, Check]) -> Check:
    """Run one check; an exception becomes its explanation."""
    for name in test.needs:
        if done[name].outcome != "passed":
            return Check(test.name, "skipped", f"it depends on {name!r}, which did not pass")
    outcome: Outcome = "passed"
    try:
        explanation = test.run(bench)
    except Interrupted:
        raise
    except Skipped as reason:
        outcome, explanation = "skipped", str(reason)
    except (Failed, ProbeError) as failure:
        outcome, explanation = "failed", str(failure)
    except Exception as error:
        outcome = "failed"
        explanation = f"it raised {type(error).__name__}: {first_line(error)}; run the module by itself to see why"
    return Check(test.name, outcome, explanation)
