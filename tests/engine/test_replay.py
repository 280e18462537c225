"""Replay runs less and gives the same: exactness, what it skips, and when it must not be believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine import Checked, FullForward, Replay, Strategy
from support import toys, twins
from support.devices.cases import on_devices
from support.programs import single_hybrids
from support.toys import Toy

N = 3


def replay(generator: cp.GeneratorAdapter, layers: list[str]) -> Checked:
    """Replay, and full forwards where it is wrong."""
    return Checked(generator, {Strategy.REPLAY: lambda: Replay(generator, layers)})


def test_replay_equals_full_forwards_on_every_toy(toy: Toy) -> None:
    generator = toy.generator()
    for layers in (
        [toy.layer],
        [toy.deeper or toy.layer],
        list(dict.fromkeys([toy.layer, toy.deeper or toy.layer])),
    ):
        if not generator.batchable:
            continue  # noise is drawn in the order of the forward, so nothing of it is skipped
        executor = replay(generator, layers)
        replayed = single_hybrids(generator, layers, executor)
        full = single_hybrids(generator, layers, FullForward(generator))
        assert (replayed - full).abs().max() <= toy.tolerance
        # Not by falling back: where the generator can be batched, replay must work.
        replays = toy.name != toys.HIDDEN_PATH.name
        assert executor.choice.strategy is (Strategy.REPLAY if replays else Strategy.FULL_FORWARD)
        assert not torch.equal(full, full[:1].expand_as(full)), "the hybrids must differ for the test to mean anything"


def counting(module: nn.Module, names: list[str]) -> tuple[dict[str, int], list[Any]]:
    """How many samples each submodule's own forward computes."""
    counts = dict.fromkeys(names, 0)
    handles = []
    for name in names:

        def count(_part: nn.Module, inputs: Any, name: str = name) -> None:
            counts[name] += len(inputs[0])

        handles.append(module.get_submodule(name).register_forward_pre_hook(count))
    return counts, handles


def test_what_is_before_the_layer_runs_only_in_clean_runs(only_replay: None) -> None:
    module = toys.PLAIN.plain().eval()
    generator = cp.wrap(module, toys.vectors(5))
    counts, handles = counting(module, ["main.0", "main.4", "main.7"])
    cp.Hybridizer(generator, "main.6").hybridize(generator.sample(N, seed=0), generator.sample(N, seed=1), units=None)
    before, after = counts["main.0"], counts["main.7"]
    assert counts["main.4"] == before
    # All five channels of three pairs, and the originals in their batch, run after the layer only.
    assert after - before >= 5 * N
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("hybrids_per_eval", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("toy", on_devices([toys.PLAIN, toys.OVER_WIDTH]))
def test_unit_sets_of_several_sizes_in_any_batches(toy: Toy, hybrids_per_eval: int | None, only_replay: None) -> None:
    generator = toy.generator()
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    sets = [{toy.layer: channels} for channels in ([0], [1, 2], [3], [4], [0, 1, 2, 3], [2])]
    hybridizer = cp.Hybridizer(generator, toy.layer)
    found = hybridizer.hybridize(z1, z2, units=sets, hybrids_per_eval=hybrids_per_eval)
    assert twins.gap(found.images, twins.hybrids(toy, z1, z2, sets)) <= toy.tolerance
    assert found.provenance["executor"] == "replay (not prepared: not in these tests)"


def test_a_replaced_forward_is_not_taken_apart(only_replay: None) -> None:
    module = toys.PLAIN.plain().eval()
    reader = module.get_submodule("main.4")
    original = reader.forward
    reader.forward = lambda x: original(x.clamp(max=0.5))  # type: ignore[method-assign]
    generator = cp.wrap(module, toys.vectors(5))
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    sets = [[0, 1], [2], [3], [4]]
    whole = cp.Hybridizer(generator, "main.3").hybridize(z1, z2, units=sets).images
    for size in (1, 2, 3):
        found = cp.Hybridizer(generator, "main.3").hybridize(z1, z2, units=sets, hybrids_per_eval=size)
        torch.testing.assert_close(found.images, whole, rtol=0, atol=1e-10)
    clamped = generator.module.get_submodule("main.3")
    assert clamped is not reader


def test_ctrl_c_while_getting_ready_stops_the_run() -> None:
    """It must not be taken for a generator that cannot be replayed."""
    module = toys.PLAIN.plain().eval()
    generator = cp.wrap(module, toys.vectors(5))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = module.get_submodule("main.0").register_forward_pre_hook(stop)
    with pytest.raises(cp.Interrupted):
        cp.InfluenceMap(generator, "main.2").attribute(n_pairs=2)
    handle.remove()


def test_only_outputs_that_are_read_are_kept() -> None:
    generator = toys.PLAIN.generator()
    executor = Replay(generator, ["main.6"])
    assert executor.plan.kept == {("main.6", 1)}
    unet = toys.SKIP_CROSSES.generator()
    crossing = Replay(unet, ["middle"])
    assert len(crossing.plan.kept) > 1, "the skip connection reads what was computed before the layer"


class ReadsAttribute(nn.Module):
    """The tail reads what a skipped submodule would have left on itself: replay cannot know."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), Remembers(), nn.Linear(6, 12)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.second(self.first(z))
        image: Tensor = torch.tanh(self.last(hidden) + self.second.memory.mean(1, keepdim=True))
        return image.view(-1, 3, 2, 2)


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.zeros(1, 6)

    def forward(self, x: Tensor) -> Tensor:
        self.memory = x * 2
        return torch.relu(x)


def test_a_hidden_path_is_found_out_and_full_forwards_are_used(only_replay: None) -> None:
    torch.manual_seed(0)
    generator = cp.wrap(ReadsAttribute(), lambda n, rng: torch.randn(n, 4, generator=rng))
    maps = cp.InfluenceMap(generator, "second").attribute(n_pairs=4)
    rejected = "not prepared: not in these tests; replay disagreed: "
    assert maps.provenance["executor"].startswith(f"full forward ({rejected}")
    executor = replay(generator, ["second"])
    replayed = single_hybrids(generator, ["second"], executor)
    assert torch.equal(replayed, single_hybrids(generator, ["second"], FullForward(generator)))


class Views(nn.Module):
    """Looks at maps through .view, which takes them in the usual layout only, as StyleGAN2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.kernel = nn.ConvTranspose2d(5, 6, 4), nn.Parameter(torch.randn(1, 4, 6, 3, 3))
        self.act, self.style, self.last = nn.ReLU(), nn.Linear(5, 6), nn.Conv2d(4, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.act(self.first(z[:, :, None, None]))
        n, c, h, w = x.shape
        kernel = self.kernel * self.style(z).view(n, 1, c, 1, 1)
        x = F.conv2d(x.view(1, n * c, h, w), kernel.view(n * 4, c, 3, 3), padding=1, groups=n)
        image: Tensor = self.last(x.view(n, 4, h, w))
        return image


def test_a_module_that_takes_the_usual_layout_only_is_replayed_in_it(only_replay: None) -> None:
    torch.manual_seed(0)
    generator = cp.wrap(Views().double(), toys.vectors(5))
    executor = replay(generator, ["act"])
    found = single_hybrids(generator, ["act"], executor)
    assert str(executor.choice) == "replay"
    full = single_hybrids(generator, ["act"], FullForward(generator))
    torch.testing.assert_close(found, full, rtol=0, atol=1e-10)
    assert not torch.equal(full, full[:1].expand_as(full))


class Branches(nn.Module):
    """Each sample takes its own path after the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(4, 6), nn.Linear(6, 12), nn.Linear(6, 12)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.first(z)
        choice = hidden.sum(1, keepdim=True) > 0
        image: Tensor = torch.where(choice, self.left(hidden), self.right(hidden)).tanh().view(-1, 3, 2, 2)
        return image


class Unbatched(Branches):
    """Each sample takes its own path, in a Python loop."""

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.first(z)
        rows = [self.left(row[None]) if row.sum() > 0 else self.right(row[None]) for row in hidden]
        return torch.cat(rows).tanh().view(-1, 3, 2, 2)


@pytest.mark.parametrize("module", [Branches, Unbatched])
def test_control_flow_per_sample_after_the_layer(module: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    generator = cp.wrap(module().double(), lambda n, rng: torch.randn(n, 4, generator=rng))
    z1, z2 = generator.sample(8, seed=0), generator.sample(8, seed=1)
    found = cp.Hybridizer(generator, "first").hybridize(z1, z2, units=[[0, 1, 2], [3]]).images
    for i in range(8):
        alone = cp.Hybridizer(generator, "first").hybridize(z1[i : i + 1], z2[i : i + 1], units=[[0, 1, 2], [3]])
        torch.testing.assert_close(found[:, i : i + 1], alone.images, rtol=0, atol=1e-10)


def test_a_submodule_that_fails_on_replay_only_falls_back(only_replay: None) -> None:
    class NeedsOrder(nn.Module):
        """Its last part insists that its first part has just run."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = Remembers(), nn.Linear(6, 12)

        def forward(self, z: Tensor) -> Tensor:
            hidden = self.first(z)
            if len(self.first.memory) != len(z):
                raise ValueError("the first part did not run")
            return torch.tanh(self.last(hidden)).view(-1, 3, 2, 2)

    generator = cp.wrap(NeedsOrder(), lambda n, rng: torch.randn(n, 6, generator=rng))
    maps = cp.InfluenceMap(generator, "first").attribute(n_pairs=5)
    assert maps.influence.max() > 0
    assert maps.provenance["executor"].startswith("full forward")
