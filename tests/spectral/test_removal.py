"""Filter removal (S002 §4.2, conventions 21): which filters go, what stands beside them, and what is measured."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.invariance.scales import Scales
from counterfactual_probe.spectral.filters import (
    finest_energy,
    mean_saturation,
    per_filter,
    removal_plan,
    stratified,
    stratified_sample,
)
from support.spectral import twins
from support.spectral.networks import generator


@pytest.fixture(scope="module")
def gen() -> cp.GeneratorAdapter:
    return generator(3)


@pytest.fixture(scope="module")
def removal(gen: cp.GeneratorAdapter) -> cp.FilterRemoval:
    return cp.SpectralDependency(gen).remove_filters("3", "5", gen.sample(5), below=0.98, above=1.05, draws=3)


def planned_example(**options: Any) -> Any:
    rng = torch.Generator().manual_seed(0)
    energy, ratio = (
        torch.rand(32, 32, generator=rng).double() ** 2,
        0.4 + 1.4 * torch.rand(32, 32, generator=rng).double(),
    )
    defaults: dict[str, Any] = {"kept": 4260 / 8192, "below": 0.9, "above": 1.45, "draws": 4, "seed": 0}
    return removal_plan(energy, ratio, **defaults | options), energy, ratio


def test_energy_and_ratio_of_a_filter(gen: cp.GeneratorAdapter) -> None:
    sd = cp.SpectralDependency(gen)
    energy, ratio = per_filter(sd.pathways("3", "5"))
    earlier, later = (gen.module.get_submodule(name) for name in ("3", "5"))
    for i, j in ((0, 0), (7, 6), (2, 5)):
        g = twins.kernel_in(earlier, i, j)
        assert float(energy[i, j]) == pytest.approx(twins.power(g))
        mean = sum(twins.ratio_up(g, twins.kernel_in(later, j, o), 2) for o in range(3)) / 3
        assert float(ratio[i, j]) == pytest.approx(mean, abs=1e-9)
    assert torch.allclose(ratio, sd.measure("3", "5").per_filter)


def test_the_filters_that_are_removed() -> None:
    plan, energy, ratio = planned_example()
    original, weak, low, high, lowest, highest = plan.removed
    assert not original.any()
    assert int((~weak).sum()) == round(1024 * 4260 / 8192)
    assert float(energy[weak].max()) <= float(energy[~weak].min())
    assert torch.equal(low & ~weak, (ratio < 0.9) & ~weak)
    assert torch.equal(high & ~weak, (ratio > 1.45) & ~weak)
    equal = min(int((low & ~weak).sum()), int((high & ~weak).sum()))
    for removed in (lowest, highest):
        assert int((removed & ~weak).sum()) == equal > 0
        assert (removed[weak]).all()
    left = ratio[~weak].sort().values
    assert float(ratio[lowest & ~weak].max()) == float(left[equal - 1])
    assert float(ratio[highest & ~weak].min()) == float(left[-equal])
    assert plan.names[4:] == (f"the {equal} lowest", f"the {equal} highest")


def test_controls_have_the_same_number_and_energies() -> None:
    plan, energy, _ = planned_example()
    weak = plan.removed[1]
    for removed, controls in zip(plan.removed[2:], plan.controls, strict=True):
        own = float(energy[removed & ~weak].sum())
        for control in controls:
            assert int(control.sum()) == int(removed.sum())
            assert control[weak].all()
            assert float(energy[control & ~weak].sum()) == pytest.approx(own, rel=0.05)
            assert not torch.equal(control, removed)
        assert not torch.equal(controls[0], controls[1])
    again = planned_example()[0]
    assert torch.equal(again.controls, plan.controls)
    assert not torch.equal(planned_example(seed=1)[0].controls, plan.controls)


def test_filters_at_random_without_strata_would_have_other_energies() -> None:
    # The negative control of the one above: the strongest filters, against any filters.
    energy = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)).double() ** 2
    strong = energy > 0.5
    rng = torch.Generator().manual_seed(1)
    within = stratified_sample(strong, stratified(energy, torch.ones(32, 32) > 0), rng)
    anywhere = stratified_sample(strong, [torch.arange(1024)], rng)
    assert float(energy[within].sum()) == pytest.approx(float(energy[strong].sum()), rel=0.02)
    assert float(energy[anywhere].sum()) < 0.7 * float(energy[strong].sum())


def test_dead_filters_belong_to_neither_tail() -> None:
    energy = torch.ones(4, 4).double()
    ratio = torch.full((4, 4), float("nan")).double()
    ratio[0] = torch.tensor([0.5, 0.6, 1.6, 1.7])
    plan = removal_plan(energy, ratio, kept=1.0, below=0.9, above=1.45, draws=1, seed=0)
    assert plan.removed.sum((1, 2)).tolist() == [0, 0, 2, 2, 2, 2]
    assert plan.removed[4, 0].tolist() == [True, True, False, False]
    assert plan.removed[5, 0].tolist() == [False, False, True, True]


def test_images_are_those_of_a_module_with_zeroed_kernels(gen: cp.GeneratorAdapter, removal: cp.FilterRemoval) -> None:
    z, sd = gen.sample(5), cp.SpectralDependency(gen)
    energy, ratio = per_filter(sd.pathways("3", "5"))
    plan = removal_plan(energy, ratio, kept=removal.provenance["kept"], below=0.98, above=1.05, draws=3, seed=0)
    for row in (0, 1, 2, 5):
        other = generator(3)
        with torch.no_grad():
            other.module[3].weight[plan.removed[row]] = 0  # type: ignore[index]
        assert torch.allclose(removal.images[row], other(z), atol=1e-6)
    assert not torch.allclose(removal.images[2], removal.images[0], atol=1e-2)
    assert removal.filters.tolist() == [int((~mask).sum()) for mask in plan.removed]


def test_the_module_keeps_its_weights(gen: cp.GeneratorAdapter) -> None:
    before = gen.weights_hash()
    cp.SpectralDependency(gen).remove_filters("0", "3", gen.sample(2), draws=1)
    assert gen.weights_hash() == before
    assert not any(part._forward_hooks or "_call_impl" in part.__dict__ for part in gen.module.modules())


def test_saturation_and_finest_energy_of_known_images() -> None:
    grey, red = torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)
    red[0] = 0.7
    pale = torch.full((3, 4, 4), 0.4)
    pale[1] = 0.8
    assert mean_saturation(torch.stack([grey, red, pale, torch.zeros(3, 4, 4)])).tolist() == pytest.approx(
        [0, 1, 0.5, 0]
    )
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2 * 1.0
    coarse = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    images = torch.stack([board, coarse])[:, None]
    assert finest_energy(images).tolist() == pytest.approx([0.25, 0])
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 7, 6, generator=rng)
    total, count = 0.0, 0
    for c, y, x in itertools.product(range(3), range(0, 6, 2), range(0, 6, 2)):
        block = image[0, c, y : y + 2, x : x + 2].double()
        total, count = total + float(((block - block.mean()) ** 2).sum()), count + 4
    assert float(finest_energy(image)) == pytest.approx(total / count)


def test_the_finest_energy_is_that_of_the_scales_of_invariance() -> None:
    images = torch.rand(3, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    coarse, fine = zip(*(Scales((8, 6), levels=1).energies(image) for image in images), strict=True)
    assert finest_energy(images).tolist() == pytest.approx(fine, rel=1e-14)
    assert finest_energy(images).tolist() != pytest.approx(coarse, rel=0.1)


def test_rows_have_error_bars(removal: cp.FilterRemoval) -> None:
    rows = removal.rows()
    assert [row["removed"] for row in rows[:4]] == ["nothing", "low energy", "ratio < 0.98", "ratio > 1.05"]
    assert "saturation_control" not in rows[1]
    own = removal.fine[3]
    assert rows[3]["fine"] == pytest.approx(float(own.mean()))
    assert rows[3]["fine_error"] == pytest.approx(float(own.std()) / 5**0.5)
    draws = removal.control_fine[1].mean(1)
    assert rows[3]["fine_control"] == pytest.approx(float(draws.mean()))
    assert rows[3]["fine_control_spread"] == pytest.approx(float(draws.std()))
    assert rows[0]["energy"] == 1
    assert 0 < rows[3]["energy"] < 1
    assert str(removal).splitlines()[0] == "FilterRemoval(small: filters of 3 removed, 5 images)"


def test_it_saves_and_plots(removal: cp.FilterRemoval, tmp_path: Path) -> None:
    loaded = cp.FilterRemoval.load(removal.save(tmp_path / "r.safetensors"))
    assert loaded.names == removal.names
    assert torch.equal(loaded.images, removal.images)
    assert str(loaded) == str(removal)
    _, ax = removal.plot(most=4)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels[0] == "original\n56 filters"
    assert labels[2].startswith("without ratio < 0.98\n")
    assert len(labels) == 6 + 4
    _, axes = removal.plot_measures()
    assert [len(ax.patches) for ax in axes] == [10, 10]


def test_convolutions_that_are_no_deconvolutions_lose_the_right_filters() -> None:
    def make() -> cp.GeneratorAdapter:
        torch.manual_seed(5)
        module = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=1)
        )
        return cp.wrap(module, lambda n, rng: torch.randn(n, 2, 4, 4, generator=rng))

    gen, other = make(), make()
    z, sd = gen.sample(2), cp.SpectralDependency(gen)
    found = sd.remove_filters("0", "3", z, kept=0.5, draws=1)
    energy, _ = per_filter(sd.pathways("0", "3"))
    weak = energy < energy.reshape(-1).median() * 1.0001  # (in, mid), of which half is to go
    weight: Tensor = other.module[0].weight  # type: ignore[index, assignment]
    with torch.no_grad():
        weight[weak.T] = 0
    assert int(weak.sum()) == 4
    assert torch.allclose(found.images[1], other(z), atol=1e-6)


def test_what_cannot_be_done(gen: cp.GeneratorAdapter) -> None:
    sd = cp.SpectralDependency(gen)
    with pytest.raises(cp.ProbeError, match="Sequential is a plain module and makes no images; wrap it"):
        cp.SpectralDependency(gen.module).remove_filters("3", "5", gen.sample(1))
    with pytest.raises(cp.ProbeError, match=r"kept is 0; give a number above 0, up to 1"):
        sd.remove_filters("3", "5", gen.sample(1), kept=0)
    with pytest.raises(cp.ProbeError, match="draws is 0; give an integer of at least 1"):
        sd.remove_filters("3", "5", gen.sample(1), draws=0)
    grouped = nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 3, 4, 2))
    other = cp.wrap(grouped, lambda n, rng: torch.randn(n, 4, 2, 2, generator=rng))
    with pytest.raises(cp.ProbeError, match="'0' has groups, or only some of its channels reach '1'"):
        cp.SpectralDependency(other).remove_filters("0", "1", other.sample(1))
