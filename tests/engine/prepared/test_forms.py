"""Forms of convolutions after the layer: the same images, whichever is taken, and a word on which it was."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.engine import Checked, FullForward, Prepared, Strategy
from counterfactual_probe.engine.forms import form
from counterfactual_probe.engine.forms.form import Form, form_on
from counterfactual_probe.engine.forms.packed import PackedConvolution
from counterfactual_probe.engine.program.operators import Convolution
from support import toys
from support.programs import Net, single_hybrids

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
ORDINARY = Convolution((1, 1), (1, 1), (1, 1))
TRANSPOSED = Convolution((2, 2), (1, 1), (1, 1), transposed=True)
KINDS = {
    "ordinary": (ORDINARY, (6, 5, 3, 3)),
    "pointwise": (Convolution((1, 1), (0, 0), (1, 1)), (6, 5, 1, 1)),
    "transposed": (TRANSPOSED, (5, 6, 4, 4)),
    "odd transposed": (Convolution((2, 2), (1, 1), (1, 1), True, (1, 1)), (5, 6, 3, 3)),
    "grouped": (Convolution((1, 1), (1, 1), (1, 1), groups=5), (10, 1, 3, 3)),
}


def generator(last: nn.Module | None = None) -> cp.GeneratorAdapter:
    """Convolutions of each kind: an enlarging one, one to the same size, and one to colours that ends in tanh."""
    parts: dict[str, Any] = {
        "up": nn.ConvTranspose2d(8, 20, 4, 2, 1),
        "mid": nn.Conv2d(20, 8, 3, padding=1),
        "last": last or nn.ConvTranspose2d(8, 3, 4, 2, 1),
    }
    with toys.seeded(0):
        for part in parts.values():
            part.reset_parameters()
        net = Net(lambda m, x: m.last(torch.relu(m.mid(torch.relu(m.up(x))))).tanh(), **parts)
    return cp.wrap(net.eval(), toys.vectors(5), layers=["act", "up"])


def in_form(gen: cp.GeneratorAdapter, layer: str, chosen: Form) -> tuple[Tensor, Checked]:
    def made() -> Prepared:
        return Prepared(gen, [frozenset([layer])], form=chosen)

    executor = Checked(gen, {Strategy.PREPARED: made})
    return single_hybrids(gen, layer, executor), executor


def packed(name: str, ending: str = "none", held: dict[Hashable, Tensor] | None = None) -> tuple[Any, Tensor]:
    """A packed convolution, and an image that it takes."""
    run, shape = KINDS[name]
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=rng)
    bias = torch.randn(shape[1] if run.transposed else shape[0], generator=rng)
    x = torch.randn(9, 5, 8, 8, generator=rng).contiguous(memory_format=torch.channels_last)
    return PackedConvolution(run, weight, bias, ending, {} if held is None else held), x


@needs_onednn
@pytest.mark.parametrize("name", KINDS)
def test_a_packed_kernel_gives_what_the_convolution_gives(name: str) -> None:
    for ending in ("none", "tanh"):
        one, x = packed(name, ending)
        found = one(x)
        twin = one.run(x.double(), one.weight.double(), one.bias.double())
        twin = twin.tanh() if ending == "tanh" else twin
        torch.testing.assert_close(found.double(), twin, rtol=0, atol=1e-4)
        torch.testing.assert_close(one(x[:2]), found[:2], rtol=0, atol=1e-5)  # packed for nine rows, and used for two
        assert torch.equal(one(x), found)
        wrong = PackedConvolution(one.run, one.weight.flip(2, 3).roll(1, 0), one.bias, ending, {})(x)
        assert (wrong - twin).abs().max() > 0.1  # negative control: another kernel is seen


@needs_onednn
def test_kernels_are_packed_once_and_shared() -> None:
    held: dict[Hashable, Tensor] = {}
    one, x = packed("transposed", held=held)
    other = PackedConvolution(one.run, one.weight, None, "none", held)
    assert not torch.equal(one(x), other(x))  # their biases differ, and are no part of what is packed
    assert len(held) == 1
    PackedConvolution(ORDINARY, torch.randn(6, 5, 3, 3), None, "none", held)(x)
    assert len(held) == 2


@needs_onednn
@pytest.mark.parametrize("ending", ["none", "tanh"])
def test_what_is_not_finite_stays_so(ending: str) -> None:
    one, x = packed("transposed", ending)
    x[3, 2, 4, 4] = float("nan")
    found, expected = one(x), one.run(x, one.weight, one.bias)
    assert torch.equal(found.isnan(), expected.isnan())
    assert found.isnan().any()


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # flags() sets all flags, that of Intel's GPUs too
@pytest.mark.parametrize("ending", ["none", "tanh"])
def test_without_onednn_torch_computes_it(ending: str) -> None:
    held: dict[Hashable, Tensor] = {}
    one, x = packed("ordinary", ending, held)
    with torch.backends.mkldnn.flags(enabled=False):
        found, expected = one(x), one.run(x, one.weight, one.bias)
    assert torch.equal(found, expected.tanh() if ending == "tanh" else expected)
    assert held == {}


@needs_onednn
@pytest.mark.parametrize("layer", ["act", "up"])
@pytest.mark.parametrize("last", [nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Conv2d(8, 3, 3, padding=1)], ids=repr)
def test_hybrids_are_the_same_in_each_form(layer: str, last: nn.Module) -> None:
    gen = generator(copy.deepcopy(last))
    plain, executor = in_form(gen, layer, Form.PLAIN)
    assert executor.convolutions == "plain"
    found, executor = in_form(gen, layer, Form.PACKED)
    assert (str(executor.choice), executor.convolutions) == ("prepared", "packed")
    again, _ = in_form(gen, layer, Form.PACKED)
    assert torch.equal(found, again)  # the same bits for the same settings
    twin = cp.wrap(gen.module.double(), lambda n, rng: torch.randn(n, 5, generator=rng).double())
    exact = single_hybrids(twin, layer, FullForward(twin))
    for images in (plain, found):
        torch.testing.assert_close(images, exact, rtol=0, atol=2e-7)
    assert exact.std(1).max() > 1e-4  # channels do differ


@needs_onednn
def test_a_wrong_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PackedConvolution._pack

    def wrong(self: PackedConvolution, x: Tensor) -> Tensor:
        self.weight = self.weight.flip(2)
        return plain(self, x)

    monkeypatch.setattr(PackedConvolution, "_pack", wrong)
    gen = generator()
    _, executor = in_form(gen, "act", Form.PACKED)
    assert executor.convolutions == "plain"
    assert "prepared disagreed: a difference of" in str(executor.choice)


def test_results_say_in_which_form_they_were_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = generator()
    monkeypatch.setattr(form, "processor", lambda: "AMD AVX512")
    taken = "packed" if torch.backends.mkldnn.is_available() else "plain"
    assert cp.InfluenceMap(gen, "act").attribute(n_pairs=3).provenance["convolutions"] == taken
    images = cp.Hybridizer(gen, "act").hybridize(
        gen.sample(3, seed=0), gen.sample(3, seed=1), units=[[c] for c in range(8)]
    )
    assert images.provenance["convolutions"] == taken
    few = cp.InfluenceMap(gen, "act").attribute(n_pairs=1, units=[0])
    assert (few.provenance["executor"], few.provenance["convolutions"]) == ("full forward", "plain")


def test_processors_that_were_not_measured_get_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "processor", lambda: "Elbrus AVX9000")
    assert form_on(torch.device("cpu")) is Form.PLAIN
    assert form_on(torch.device("meta")) is Form.PLAIN
    assert all(Form(name) for name in form._measured().values())
