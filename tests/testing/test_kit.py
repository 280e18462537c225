"""The test kit for adapters: good ones pass, and of each broken one exactly the right check fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.testing import AdapterReport, Check, check_adapter, hybrid_checks
from support.toys import HIDDEN_PATH, NOISY, PLAIN, TOYS, Deconv, Toy, seeded, vectors

F32 = torch.float32


def of(module: nn.Module, sample: Any = None, **options: Any) -> cp.GeneratorAdapter:
    """An adapter of a module in float32, with weights that make effects visible."""
    with seeded(5):
        for weight in module.parameters():
            nn.init.normal_(weight, 0, 0.4)
    return cp.wrap(module, sample or vectors(5), **{"layers": ["main.2", "main.6"], **options})


class Changed(Deconv):
    """Whatever ``change`` makes of the image, knowing the latent and the module."""

    def __init__(self, change: Callable[[Tensor, Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, z: Tensor) -> Tensor:
        return self.change(super().forward(z), z, self)


def changed(change: Callable[[Tensor, Tensor, Any], Tensor], **options: Any) -> cp.GeneratorAdapter:
    return of(Changed(change), **options)


# --- good adapters -----------------------------------------------------------------------------------


# One of each: of latents, of what a module returns, of what stands beside a layer, of precisions, of wrappers.
SHORT = {
    "deconvolutions, batch norm, in-place ReLU",
    "conditional, dict of latents",
    "tuple of latents, skip-z",
    "returns a dict",
    "needs image=",
    "layer returns a named tuple",
    "layer overwritten in place",
    "skip crosses the layer",
    "one ReLU for all",
    "noise in the forward",
    "samples of a batch are coupled",
    "dropout, in train mode",
    "vector layer",
    "five colours, odd size",
    "bfloat16",
    "DataParallel",
    "compiled part, in place",
}


@pytest.mark.parametrize(
    "toy", [pytest.param(toy, marks=() if toy.name in SHORT else pytest.mark.long, id=toy.name) for toy in TOYS]
)
def test_every_toy_passes(toy: Toy) -> None:
    generator = cp.wrap(toy.module(), toy.sampler, **{"image_range": (-6, 6), **toy.wrap})
    report = check_adapter(generator, layers=[toy.layer, toy.deeper])
    assert report.passed
    skipped = {check.name for check in report.checks if check.outcome == "skipped"}
    cut = {"all channels give the source", "a set and its complement"}
    assert skipped <= (cut if toy is not NOISY else {"float64 agrees with float32", "bfloat16 works or says why"})
    assert report[min(cut)].outcome == "passed" or not toy.full_cut


@pytest.mark.long
def test_the_pretrained_faces_pass(faces: cp.GeneratorAdapter) -> None:
    report = check_adapter(faces)
    assert {check.outcome for check in report.checks} == {"passed"}
    assert report.layers == ("main.5", "main.8", "main.11")
    assert "by prepared" in report["hybrids equal plain hooks"].explanation


def test_conditions_that_must_be_equal_are_found() -> None:
    from support.toys import CONDITIONAL

    report = check_adapter(cp.wrap(CONDITIONAL.module(), CONDITIONAL.sampler), layers="first")
    assert "in 'first' (with equal y)" in report["all channels give the source"].explanation


def test_where_something_passes_by_that_is_no_failure() -> None:
    report = check_adapter(HIDDEN_PATH.generator(), layers="second")
    check = report["all channels give the source"]
    assert check.outcome == "skipped"
    assert "something bypasses each of 'second'" in check.explanation


# --- broken adapters, one for each check -----------------------------------------------------------------


def drifting() -> cp.GeneratorAdapter:
    calls = []

    def sample(n: int, rng: torch.Generator) -> Tensor:
        calls.append(n)
        return torch.randn(n, 5, generator=rng) + (len(calls) > 5) * len(calls)

    return of(Deconv(), sample)


def batchwise(image: Tensor, z: Tensor, _: Any) -> Tensor:
    return image if len(z) < 4 else (image - 0.1 * image.mean((0, 2, 3), keepdim=True))


def cropped(image: Tensor, z: Tensor, _: Any) -> Tensor:
    return image[:, :, : 15 if bool((z[:, 0] > 1).any()) else 16]


def later_other() -> cp.GeneratorAdapter:
    """Counts in a hook: what a forward counts, the library puts back."""
    module, calls = Deconv(), list[int]()

    def hook(_module: nn.Module, _given: Any, image: Tensor) -> Tensor:
        calls.append(1)
        return image + 1e-3 * (len(calls) > 11) * len(calls)

    module.register_forward_hook(hook)
    return of(module)


def sometimes_nan(image: Tensor, z: Tensor, _: Any) -> Tensor:
    return image * (0.4 - z[:, :1, None, None]).sqrt()


def only_float32(image: Tensor, z: Tensor, _: Any) -> Tensor:
    return image if z.dtype != torch.float64 else image * 0.9


def no_bfloat16(image: Tensor, z: Tensor, _: Any) -> Tensor:
    return image if z.dtype != torch.bfloat16 else -image


def stays_behind(image: Tensor, z: Tensor, module: Any) -> Tensor:
    return image + module.change.offset


stays_behind.offset = torch.zeros(16)  # type: ignore[attr-defined]


def marks_the_module() -> cp.GeneratorAdapter:
    module: Any = Deconv()

    def sample(n: int, rng: torch.Generator) -> Tensor:
        setattr(module, f"mark{len(module.__dict__)}", True)  # outside of a forward, so that no run puts it back
        return vectors(5)(n, rng)

    return of(module, sample)


class FixedHash(cp.GeneratorAdapter):
    def weights_hash(self) -> str:
        return "0" * 64


def with_fixed_hash() -> cp.GeneratorAdapter:
    return FixedHash(Deconv(), vectors(5), layers=["main.2", "main.6"])


class Branching(Deconv):
    """A layer whose size depends on the latent; the image is none the wiser."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        image = super().forward(z)
        self.cut(image[:, :, : 15 if bool((z[:, 0] > 1).any()) else 16])
        return image


class Aside(Deconv):
    """``aside`` runs and leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Linear(5, 4)

    def forward(self, z: Tensor) -> Tensor:
        self.aside(z)
        return super().forward(z)


BROKEN: list[tuple[str, Callable[[], cp.GeneratorAdapter], str]] = [
    ("latents come from seed, stream and index", drifting, "latents of seed 0 differ if they are sampled"),
    (
        "other seeds and streams give other latents",
        lambda: of(Deconv(), lambda n, rng: torch.ones(n, 5)),
        "seed 0 and seed 1 give the same four latents; take all random numbers from the rng",
    ),
    ("images have one size", lambda: changed(cropped), r"shape \(1, 3, 15, 16\) and another \(1, 3, 16, 16\)"),
    ("images are deterministic", later_other, "differ from run to run, by up to .*; let the forward"),
    ("images are finite", lambda: changed(sometimes_nan), "of 6 images hold NaN or infinite values; check the range"),
    (
        "images lie in image_range",
        lambda: changed(lambda image, *_: 127.5 * (image + 1)),
        r"pixels run from .* and image_range is \(-1, 1\): .*% of them lie outside; give the .* own as image_range=",
    ),
    (
        "images lie in image_range",
        lambda: of(Deconv(), image_range=(0, 255)),
        "of them lie outside|less than a hundredth of it",
    ),
    ("an image does not depend on its batch", lambda: changed(batchwise), "a batch of 6 and a batch of one"),
    (
        "layers are as listed",
        lambda: of(Branching(), layers=["cut"]),
        r"layer 'cut' is listed with shape \(3, 16, 16\) and has \(3, 15, 16\) for latent",
    ),
    (
        "units change the image",
        lambda: of(Aside(), layers=["aside"]),
        "setting all channels of 'aside' changes no image; choose layers=",
    ),
    ("float64 agrees with float32", lambda: changed(only_float32), "float32 and float64 differ by .*magnifies"),
    ("bfloat16 works or says why", lambda: changed(no_bfloat16), "a copy in bfloat16 differ by .* standard deviations"),
    ("devices", lambda: changed(stays_behind), "a tensor stays behind .*; make it a buffer"),
    ("the hash of the weights", with_fixed_hash, "stays 00000000… when 'main.0.weight' changes"),
    ("the module is left as it was found", marks_the_module, "the attributes of the module is not as it was"),
]


@pytest.mark.parametrize(
    ("name", "make", "sentence"), BROKEN, ids=[f"{i} {name}" for i, (name, *_) in enumerate(BROKEN)]
)
@pytest.mark.filterwarnings("ignore:the images of Deconv do not depend on the latents:UserWarning")
def test_a_broken_adapter_fails_the_one_check(name: str, make: Callable[[], Any], sentence: str) -> None:
    adapter = make()
    report = check_adapter(adapter, layers=list(adapter.layers)[-1:], raise_on_failure=False)
    assert [check.name for check in report.failures] == [name], report
    assert not report.passed
    assert re.search(f"(?s){sentence}", report[name].explanation)


def test_failures_are_raised_with_their_explanations() -> None:
    report = check_adapter(drifting(), raise_on_failure=False)
    (failure,) = report.failures
    with pytest.raises(cp.ProbeError) as raised:
        check_adapter(drifting())
    assert str(raised.value) == f"Deconv fails 1 of 20 checks\n- {failure.name}: {failure.explanation}"


# --- the identities, which only a broken library breaks ---------------------------------------------------


def broken_library(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Hybrids or maps that are off by a little."""
    if kind == "maps":
        attribute = cp.InfluenceMap.attribute

        def off(self: Any, *args: Any, **kwargs: Any) -> Any:
            maps = attribute(self, *args, **kwargs)
            maps.maps.add_(1e-6)
            return maps

        monkeypatch.setattr(cp.InfluenceMap, "attribute", off)
        return
    hybridize = cp.Hybridizer.hybridize

    def off_hybrids(self: Any, z1: Any, z2: Any, *, units: Any, **kwargs: Any) -> Any:
        hybrids = hybridize(self, z1, z2, units=units, **kwargs)
        for row, chosen in zip(hybrids.images, units, strict=True):
            channels = len(chosen["main.2"]) if "main.2" in chosen else -1
            row.add_(1e-3 * {"none": channels == 0, "one": channels == 1, "half": channels == 3}[kind])
        return hybrids

    monkeypatch.setattr(cp.Hybridizer, "hybridize", off_hybrids)


@pytest.mark.parametrize(
    ("kind", "failing", "sentence"),
    [
        (
            "maps",
            "equal latents have no influence",
            "have an influence of 1e-06 although base and source are the same latent",
        ),
        ("none", "no channel gives the base", "with no channel of layer 'main.2' set, the image differs"),
        ("one", "hybrids equal plain hooks", "a hybrid of layer 'main.2' differs .* by 0.001 "),
        ("half", "hybrids equal plain hooks", "a hybrid of layer 'main.2' differs"),
    ],
)
def test_a_broken_identity_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: str, failing: str, sentence: str, plain: cp.GeneratorAdapter
) -> None:
    broken_library(monkeypatch, kind)
    report = check_adapter(plain, layers="main.2", raise_on_failure=False)
    assert failing in [check.name for check in report.failures]
    assert any(re.search(sentence, check.explanation) for check in report.failures)


@pytest.mark.parametrize(
    ("check", "channels"), [(hybrid_checks.full_cut, 6), (hybrid_checks.complement, 3)], ids=["full cut", "complement"]
)
def test_a_broken_full_cut_is_found(
    monkeypatch: pytest.MonkeyPatch, check: Any, channels: int, plain: cp.GeneratorAdapter
) -> None:
    """Alone, since hybrids that are wrong are found by comparison with plain hooks first."""
    from counterfactual_probe.testing.bench import Bench
    from counterfactual_probe.testing.outcome import Failed

    assert "'main.2'" in check(Bench(plain, 0, "main.2"))
    hybridize = cp.Hybridizer.hybridize

    def off(self: Any, z1: Any, z2: Any, *, units: Any, **kwargs: Any) -> Any:
        hybrids = hybridize(self, z1, z2, units=units, **kwargs)
        if len(units[0]["main.2"]) == channels and torch.equal(z1, plain.sample(2, seed=0)):
            hybrids.images.add_(1e-3)
        return hybrids

    monkeypatch.setattr(cp.Hybridizer, "hybridize", off)
    with pytest.raises(Failed, match=r"layer 'main.2'.* differs? .*by 0.001"):
        check(Bench(plain, 0, "main.2"))


def test_a_result_that_cannot_be_saved() -> None:
    gen = cp.wrap(PLAIN.module(), PLAIN.sampler)
    gen.name = {"a": 1, 2: object()}  # type: ignore[assignment]  # which wrap refuses
    report = check_adapter(gen, raise_on_failure=False)
    assert [check.name for check in report.failures] == ["results save and load"]


# --- the report -----------------------------------------------------------------------------------------


def test_the_report_prints_itself() -> None:
    checks = (Check("one", "passed", "fine"), Check("two", "failed", "word " * 40), Check("three", "skipped", "why"))
    report = AdapterReport("blobs", ("a", "b"), checks)
    text = repr(report)
    assert text.splitlines()[0] == "AdapterReport('blobs', 1 passed, 1 failed, 1 skipped; layers a, b)"
    assert "  passed   one: fine" in text
    assert "  skipped  three: why" in text
    assert max(map(len, text.splitlines())) <= 120
    assert not report.passed
    assert report.failures == (checks[1],)
    assert report["three"] is checks[2]


def test_what_is_no_adapter_is_refused() -> None:
    with pytest.raises(cp.ProbeError, match=r"the adapter is a Deconv; give what cp.wrap\(\) or cp.load\(\) returns"):
        check_adapter(Deconv())  # type: ignore[arg-type]


def test_another_seed_draws_other_latents_and_channels(plain: cp.GeneratorAdapter) -> None:
    one, two = (check_adapter(plain, seed=seed)["images lie in image_range"].explanation for seed in (0, 1))
    assert one != two
    assert check_adapter(plain, seed=0)["images lie in image_range"].explanation == one
