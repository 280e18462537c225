"""The prepared path gives what plain hooked forwards give, takes the shortcuts it is there for, and no others."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.base.memory import memory_kept
from counterfactual_probe.engine import FullForward, Prepared, Strategy, executor_for
from counterfactual_probe.engine import select as choice
from counterfactual_probe.engine.prepared.batch import Batch
from counterfactual_probe.engine.program.recording import NotRecordable, record
from counterfactual_probe.generator.units import parse_layers, parse_units
from support import toys, twins
from support.devices.cases import STAND_IN, on_devices
from support.programs import N, build, conv, hybrids, largest_gap
from support.toys import Toy

# Half precision is left as it is; coupled samples cannot be batched at all.
UNPREPARED = {"bfloat16", "float16", toys.COUPLED.name}


def test_prepared_equals_full_forwards_on_every_toy(toy: Toy) -> None:
    generator = toy.generator()
    # What the stand-in for a GPU draws is made on the CPU, where a recording cannot follow it.
    is_prepared = toy.name not in UNPREPARED and (toy.device, toy.name) != (STAND_IN, toys.NOISY.name)
    for layers in dict.fromkeys([(toy.layer,), (toy.deeper or toy.layer,), (toy.layer, toy.deeper or toy.layer)]):
        infos = parse_layers(generator, list(dict.fromkeys(layers)))
        alone = parse_units(None, infos, generator)
        several = parse_units([{info.name: [0, 1] for info in infos}, {infos[0].name: [1]}], infos, generator)
        for sets in (alone, several):
            executor = executor_for(generator, sets)
            assert (str(executor.choice) == "prepared") == is_prepared, str(executor.choice)
            found = hybrids(generator, sets, executor)
            assert (str(executor.choice) == "prepared") == is_prepared, str(executor.choice)
            full = hybrids(generator, sets, FullForward(generator))
            assert (found - full).abs().max() <= toy.tolerance
            assert not torch.equal(full, full[:1].expand_as(full)), "the hybrids must differ to mean anything"


@pytest.mark.parametrize("hybrids_per_eval", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("toy", on_devices([toys.PLAIN, toys.OVER_WIDTH, toys.SKIP_CROSSES]))
def test_unit_sets_of_several_sizes_and_layers_in_any_batches(toy: Toy, hybrids_per_eval: int | None) -> None:
    generator = toy.generator()
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    assert toy.deeper is not None
    sets = [{toy.layer: channels} for channels in ([0], [1, 2], [3], [0, 1, 2, 3], [2])]
    sets += [{toy.deeper: [0]}, {toy.layer: [0], toy.deeper: [1]}, {toy.deeper: [1, 2]}]
    hybridizer = cp.Hybridizer(generator, [toy.layer, toy.deeper])
    found = hybridizer.hybridize(z1, z2, units=sets, hybrids_per_eval=hybrids_per_eval)
    assert twins.gap(found.images, twins.hybrids(toy, z1, z2, sets)) <= toy.tolerance
    assert found.provenance["executor"] == "prepared"


# --- what cannot be recorded --------------------------------------------------------------------------------


def sizes_matter(_: Any, x: Tensor) -> Tensor:
    return x[:, :3] * (2.0 if len(x) > 2 else 1.0)


REFUSED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "looks at a value": lambda m, x: x[:, :3] * (2.0 if float(x.sum()) > 1e9 else 1.0),
    "leaves torch": lambda m, x: x[:, :3] + torch.from_numpy(x.detach().numpy()[:, :3].copy()),
    "changes a view by strides in place": lambda m, x: (x.as_strided((1,), (1,)).mul_(2.0), x[:, :3])[1],
    "another path for more samples": sizes_matter,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_fixed_program_is_refused_and_right_all_the_same(name: str) -> None:
    generator = build(REFUSED[name])
    if name != "another path for more samples":  # whose samples are not those of smaller batches anyway
        sets = parse_units(None, parse_layers(generator, "first"), generator)
        executor = executor_for(generator, sets)
        assert executor.choice.strategy in (Strategy.REPLAY, Strategy.FULL_FORWARD)
        found, full = hybrids(generator, sets, executor), hybrids(generator, sets, FullForward(generator))
        assert (found - full).abs().max() <= 1e-11
    with generator.session(), pytest.raises(NotRecordable):
        record(generator)


def test_a_constant_with_a_row_for_each_sample_serves_every_batch() -> None:
    generator = build(lambda m, x: m.conv(x + torch.ones(len(x), 1, 1, 1, dtype=x.dtype)), conv=conv())
    assert largest_gap(generator, "act") <= 1e-11


def test_what_goes_wrong_after_recording_is_found_out() -> None:
    """A parameter is changed between the recording and the run."""
    generator = build(lambda m, x: m.norm(m.conv(x)), conv=conv(), norm=nn.BatchNorm2d(3))
    sets = parse_units(None, parse_layers(generator, "act"), generator)
    executor = executor_for(generator, sets)
    with torch.no_grad():
        generator.module.get_submodule("norm").bias.add_(0.5)  # the program has folded the old one
    found, full = hybrids(generator, sets, executor), hybrids(generator, sets, FullForward(generator))
    assert str(executor.choice).startswith("replay (prepared disagreed: a difference of 0.5")
    assert (found - full).abs().max() <= 1e-11


@pytest.mark.parametrize("room", [2, 3, 7])
def test_out_of_memory_halves_prepared_batches_too(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = build(lambda m, x: m.conv(x), conv=conv())
    attribute = cp.InfluenceMap(generator, "act").attribute
    expected = attribute(n_pairs=9, hybrids_per_eval=16)
    largest = 0

    def tight(original: Any, size_of: Callable[..., int]) -> Any:
        def limited(*args: Any, **kwargs: Any) -> Any:
            nonlocal largest
            if (size := size_of(*args)) > room:
                raise torch.OutOfMemoryError("no room")
            largest = max(largest, size)
            return original(*args, **kwargs)

        return limited

    monkeypatch.setattr(Batch, "__init__", tight(Batch.__init__, lambda _self, _clean, runs, *_: len(runs)))
    monkeypatch.setattr(Prepared, "clean", tight(Prepared.clean, lambda _self, _z, _layers, numbers, *_: len(numbers)))
    found = attribute(n_pairs=9, hybrids_per_eval=16)
    assert found.provenance["executor"] == "prepared"
    assert found.provenance["hybrids_per_eval"] < 16
    assert 1 < largest <= room
    assert float((found.maps - expected.maps).abs().max()) <= 1e-6


# --- differences in bfloat16 -----------------------------------------------------------------------------------


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that multiplies bfloat16, whether this one does or not."""
    monkeypatch.setattr(choice, "multiplies_bfloat16", lambda device: True)


def test_where_bfloat16_is_imitated_hybrids_stay_exact(
    plain: cp.GeneratorAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "multiplies_bfloat16", lambda device: False)
    attribute = cp.InfluenceMap(plain, toys.PLAIN.layer).attribute
    exact, asked = attribute(n_pairs=8), attribute(n_pairs=8, precision="bf16-diff")
    assert asked.provenance["precision"] == exact.provenance["precision"]
    assert torch.equal(asked.maps, exact.maps)


def test_a_handful_of_hybrids_needs_no_program(plain: cp.GeneratorAdapter) -> None:
    z1, z2 = plain.sample(4, seed=0), plain.sample(4, seed=1)
    hybridize = cp.Hybridizer(plain, toys.PLAIN.layer).hybridize
    few, more = (hybridize(z1, z2, units=[[c] for c in range(n)]) for n in (2, 3))
    assert (few.provenance["executor"], more.provenance["executor"]) == ("full forward", "prepared")
    torch.testing.assert_close(few.images, more.images[:2], rtol=0, atol=1e-10)


@pytest.mark.usefixtures("bfloat16")
def test_narrow_differences_are_close_and_say_so() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.ConvTranspose2d(5, 24, 4), nn.ReLU(), nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(16, 8, 3, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 3, 3, padding=1), nn.Tanh(),
    )  # fmt: skip
    generator = cp.wrap(module.eval(), lambda n, rng: torch.randn(n, 5, 1, 1, generator=rng))
    units = [*[[c] for c in range(24)], list(range(12))]
    attribute = cp.InfluenceMap(generator, "1").attribute
    exact, narrow = attribute(n_pairs=8, units=units), attribute(n_pairs=8, units=units, precision="bf16-diff")
    assert (exact.provenance["precision"], narrow.provenance["precision"]) == ("float32", "bf16-diff")
    assert exact.provenance["executor"] == narrow.provenance["executor"] == "prepared"
    gap = (narrow.maps - exact.maps).flatten(1).norm(dim=1) / exact.maps.flatten(1).norm(dim=1)
    assert 1e-5 < float(gap.median()) < 5e-3
    assert float(gap.max()) < 2e-2


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(
    "function",
    [lambda x: x * x, lambda x: torch.div(x, 0.01, rounding_mode="floor"), lambda x: x / 0.5, lambda x: -x],
    ids=["square", "floor", "halves", "minus"],
)
def test_what_is_not_linear_is_not_taken_for_it(function: Callable[[Tensor], Tensor]) -> None:
    generator = build(lambda m, x: m.conv(function(x)), conv=conv())
    maps = cp.InfluenceMap(generator, "act").attribute(n_pairs=4, precision="bf16-diff")
    assert (maps.provenance["executor"], maps.provenance["precision"]) == ("prepared", "bf16-diff")
    exact = cp.InfluenceMap(generator, "act").attribute(n_pairs=4).maps
    assert float((maps.maps - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.usefixtures("bfloat16")
def test_no_effect_is_exactly_zero_in_bfloat16_too() -> None:
    module = nn.Sequential(nn.Linear(5, 6), nn.Unflatten(1, (6, 1, 1)), nn.ConvTranspose2d(6, 3, 4))
    with torch.no_grad():
        module[2].weight[2] = 0  # type: ignore[index,operator]
    generator = cp.wrap(module.eval(), lambda n, rng: torch.randn(n, 5, generator=rng))
    maps = cp.InfluenceMap(generator, "1").attribute(n_pairs=4, precision="bf16-diff").maps.flatten(1)
    assert float(maps[2].abs().max()) == 0.0
    assert bool((maps[[0, 1, 3, 4, 5]].sum(1) > 0).all())


def test_precision_falls_back_where_there_is_no_program_and_must_be_known() -> None:
    generator = build(REFUSED["looks at a value"])
    found = cp.InfluenceMap(generator, "first").attribute(n_pairs=3, precision="bf16-diff")
    assert found.provenance["precision"] == "float64"
    with pytest.raises(cp.ProbeError, match=r"precision is 'fp8'; give one of 'float32', 'tf32', 'bf16-diff'"):
        cp.InfluenceMap(generator, "first").attribute(n_pairs=3, precision="fp8")  # type: ignore[arg-type]


def test_a_checkpoint_of_another_precision_is_refused(tmp_path: Path, plain: cp.GeneratorAdapter) -> None:
    attribute = cp.InfluenceMap(plain, toys.PLAIN.layer).attribute
    attribute(n_pairs=3, checkpoint=tmp_path / "maps")
    with pytest.raises(cp.ProbeError, match="requested precision"):
        attribute(n_pairs=3, checkpoint=tmp_path / "maps", precision="bf16-diff")


def test_memory_is_kept_inside_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    class Libc:
        def mallopt(self, *args: int) -> None:
            calls.append(args)

        def malloc_trim(self, *args: int) -> None:
            calls.append(args)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Libc())
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    with memory_kept(torch.device("cpu")):
        assert calls == [(-4, 0), (-1, 2**31 - 1)]
    assert calls[2:] == [(-4, 65536), (-3, 32 * 2**20), (-1, 64 * 2**20), (0,)]
    calls.clear()
    with memory_kept(torch.device("meta")):
        pass
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    with memory_kept(torch.device("cpu")):
        pass
    assert not calls
