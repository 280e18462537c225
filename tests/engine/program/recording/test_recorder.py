"""What a recorded forward holds, what is refused, and what happens when a program is wrong later on."""

from __future__ import annotations

import copy
import gc
import random
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine import Checked, FullForward, Prepared, Replay, Strategy, executor_for
from counterfactual_probe.engine import select as choice
from counterfactual_probe.engine.interception import NotReplayable
from counterfactual_probe.engine.prepared import cache as preparation
from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.generator.examination import LatentsIgnored
from counterfactual_probe.generator.units import parse_layers, parse_units
from support import toys
from support.programs import agrees, build, conv, hybrids
from support.toy_modules import vectors

N = 3
TIMES = torch.tensor([0.2, 0.7], dtype=torch.float64)


# --- recorded, and right for every batch ----------------------------------------------------------------------


def branches(m: Any, x: Tensor) -> Tensor:
    chosen = x.sum((1, 2, 3), keepdim=True) > 8
    image: Tensor = m.conv(torch.where(chosen, x, -2 * x))
    return image


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Images that attend to themselves, from channels in one row."""
    weights = (q.mT @ k).softmax(-1)
    return torch.cat([v @ weights, v], 1).view(len(v), 8, 4, 4)


def marked(m: Any, x: Tensor) -> Tensor:
    """As FSDP marks its forwards, with an object that cannot be compared."""
    with torch.profiler.record_function("the last convolution"):
        image: Tensor = m.conv(x)
    return image


def written_under_a_view(part: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    wide = part.expand(len(x), 8, 4, 4)
    part.add_(1)
    return wide, x


def a_trajectory(m: Any, x: Tensor) -> Tensor:
    """As torchdiffeq keeps its solution."""
    steps = torch.empty(4, *x.shape, dtype=x.dtype)
    steps[0] = x
    for step in range(1, 4):
        steps[step] = steps[step - 1] - 0.2 * steps[step - 1].tanh()
    return m.conv(steps[-1] + steps[1])  # type: ignore[no-any-return]


def views_of_views(m: Any, x: Tensor) -> Tensor:
    """Written in one place, read in another: each view sees what was written through the others."""
    whole = x * 1
    half, grouped, last = whole[:, :4], whole.view(len(x), 2, 4, 4, 4), whole.permute(0, 2, 3, 1)[..., -1]
    whole.mul_(2)
    half.add_(1)
    grouped[:, 1] = grouped[:, 0] - 1
    last.fill_(0.5)
    return m.conv(whole + half.repeat(1, 2, 1, 1))  # type: ignore[no-any-return]


def pieces_in_place(m: Any, x: Tensor) -> Tensor:
    """The tensor that the pieces are of is gone when they are written."""
    one, two = (x * 2).chunk(2, 1)
    first, *_ = (x * 3).unbind(1)
    return m.conv(torch.cat([one.tanh_(), two], 1) + first.abs_()[:, None])  # type: ignore[no-any-return]


def blended_tiles(m: Any, x: Tensor) -> Tensor:
    """As tiled decoders blend the rows where their tiles meet."""
    above, below = (m.conv(x[:, :, rows]) for rows in (slice(0, 3), slice(1, 4)))
    for row in range(2):
        below[:, :, row] = above[:, :, row + 1] * (1 - row / 2) + below[:, :, row] * (row / 2)
    return torch.cat([above[:, :, :1], below], 2)


def by_frequencies(m: Any, x: Tensor) -> Tensor:
    """As the Fourier convolutions of LaMa."""
    spectrum = torch.fft.rfft2(x)
    return m.conv(torch.fft.irfft2(torch.complex(spectrum.real.relu(), spectrum.imag), s=(4, 4)))  # type: ignore[no-any-return]


def quantised_by_straight_through(m: Any, x: Tensor) -> Tensor:
    """As vector quantisers: the nearest code forwards, its distance written as a constant."""
    codes = m.book.weight * 0.2
    nearest = torch.cdist(x.flatten(2).mT, codes[None].expand(len(x), -1, -1)).argmin(-1)
    quantised = codes[nearest].mT.view_as(x)
    return m.conv(x + (quantised - x).detach())  # type: ignore[no-any-return]


def guided(m: Any, x: Tensor) -> Tensor:
    """As pipelines: a copy of a schedule for each run, classes from a list, and both halves of guidance at once."""
    schedule = copy.deepcopy(TIMES)
    nothing, last = torch.tensor([3] * len(x)), torch.full((len(x),), 5)
    times = m.book(torch.cat([last, nothing]))[:, :, None, None] * schedule[1]
    without, given = m.conv(torch.cat([x, x]) * times).chunk(2)
    return without + 2 * (given - without)  # type: ignore[no-any-return]


def another_type_in_place(m: Any, x: Tensor) -> Tensor:
    """The type of what is written stays."""
    return m.conv(x.float().mul_(torch.tensor([2.0], dtype=torch.float64)).double())  # type: ignore[no-any-return]


RECORDED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a view in place": lambda m, x: (x[:, :1].mul_(2.0), m.conv(x))[1],
    "a tensor that has views, in place": lambda m, x: (x.flatten(1), x.mul_(2.0), m.conv(x))[2],
    "a trajectory written step by step": a_trajectory,
    "views of views in place": views_of_views,
    "pieces in place": pieces_in_place,
    "some pixels in place": lambda m, x: m.conv(x.clone().masked_fill_(x < 0.2, 0)),
    "another type in place": another_type_in_place,
    "both halves of guidance": guided,
    "blended tiles": blended_tiles,
    "frequencies": by_frequencies,
    "codes of a quantiser": quantised_by_straight_through,
    "a path for each sample, by where": branches,
    "zeros with a row for each sample": lambda m, x: m.conv(x) + torch.zeros(len(x), 3, 4, 4, dtype=x.dtype) + 1.0,
    "rows counted twice": lambda m, x: m.conv(torch.cat([x, x]).view(2, len(x), 8, 4, 4).sum(0)),
    "in place on a tensor of its own": lambda m, x: m.conv(x * 2).mul_(0.5).tanh_(),
    "pieces": lambda m, x: m.conv(torch.cat(x.chunk(2, 1)[::-1], 1)),
    "dropout in eval mode": lambda m, x: m.conv(m.drop(x)),
    "views of pieces": lambda m, x: m.conv(
        torch.cat([part.reshape(len(x), 4, 16) for part in x.split(4, 1)], 1).view_as(x)
    ),
    "attention": lambda m, x: m.conv(attention(*(part.reshape(len(x), 4, 16) for part in m.wide(x).chunk(3, 1)))),
    "a view of a maximum": lambda m, x: m.conv(x * x.max(1).values.view(len(x), 1, 4, 4)),
    "a view of moments": lambda m, x: m.conv(x - torch.var_mean(x, (2, 3))[1].view(len(x), 8, 1, 1)),
    "a view of group norm": lambda m, x: m.conv(
        torch.native_group_norm(x, None, None, len(x), 8, 16, 2, 1e-5)[0].view(len(x), 8, 16).view_as(x)
    ),
    "a view of sorted values": lambda m, x: m.conv(x.flatten(2).sort(2).values.view_as(x)),
    "a view of a recurrent layer": lambda m, x: m.conv(m.lstm(x.flatten(2).mT)[0].mT.reshape(len(x), 8, 4, 4)),
    "several outputs of an operation with named arguments": lambda m, x: m.conv(
        x / (1 + x.aminmax(dim=2, keepdim=True).max.view(len(x), 8, 1, 4))
    ),
    "a profiler's mark": marked,
    "a row for each sample on another axis": lambda m, x: m.conv(
        (x.transpose(0, 1) + m.wide(torch.ones_like(x)).mean((1, 2, 3)).view(1, len(x), 1, 1)).transpose(0, 1)
    ),
    "a number from a table": lambda m, x: m.conv(x) * torch.linspace(1, 2, 5).sqrt()[torch.tensor(3)].item(),
    "a path by a parameter": lambda m, x: m.conv(x if bool(m.conv.bias.sum() > 1e6) else 2 * x),
}


@pytest.mark.parametrize("name", RECORDED)
def test_these_are_recorded_and_right(name: str) -> None:
    parts: dict[str, nn.Module] = {
        "wide": conv(8, 12),
        "lstm": nn.LSTM(8, 8, batch_first=True),
        "drop": nn.Dropout(0.5),
    }
    parts["book"] = nn.Embedding(16, 8)
    generator = build(RECORDED[name], conv=conv(), **parts)
    assert agrees(generator, "act") == "prepared"


def test_values_that_are_laid_out_otherwise_are_viewed_all_the_same() -> None:
    """A codebook's entries, channels last: images of them lie in another order, which no view could follow."""

    def quantised(m: Any, x: Tensor) -> Tensor:
        codes = m.book((x.mean(1) * 100).long() % 16)
        return m.conv(codes.view(len(x), 16, 8).mT.reshape(len(x), 8, 4, 4))  # type: ignore[no-any-return]

    generator = build(quantised, conv=conv(), book=nn.Embedding(16, 8))
    assert agrees(generator, "book") == "prepared"


def test_one_recording_serves_every_batch_size() -> None:
    generator = build(RECORDED["zeros with a row for each sample"], conv=conv())
    z1, z2 = generator.sample(9, seed=0), generator.sample(9, seed=1)
    assert isinstance(z1, Tensor)
    assert isinstance(z2, Tensor)
    hybridizer = cp.Hybridizer(generator, "act")
    units = [*([c] for c in range(8)), [1, 2]]
    whole = hybridizer.hybridize(z1, z2, units=units)
    for i in (0, 4, 8):
        alone = hybridizer.hybridize(z1[i : i + 1], z2[i : i + 1], units=units)
        assert alone.provenance["executor"] == whole.provenance["executor"] == "prepared"
        assert (whole.images[:, i : i + 1] - alone.images).abs().max() <= 1e-11


def test_recording_leaves_the_module_as_it_was() -> None:
    module = toys.SKIP_CROSSES.plain()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    attributes = {name: set(vars(part)) for name, part in module.named_modules()}
    hooks = sum(len(part._forward_hooks) for part in module.modules())
    generator = cp.wrap(module, vectors(5))
    assert agrees(generator, "middle") == "prepared"
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert {name: set(vars(part)) for name, part in module.named_modules()} == attributes
    assert sum(len(part._forward_hooks) for part in module.modules()) == hooks
    assert module.training


class Int8(torch.Tensor):
    """A weight in eight bits and a scale that stand for a float one, as quantisation libraries have it: known to few
    operations."""

    def __new__(cls, values: Tensor, scale: Tensor) -> Int8:
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=scale.dtype)  # type: ignore[attr-defined,no-any-return]

    def __init__(self, values: Tensor, scale: Tensor) -> None:
        self.values_, self.scale = values, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values_", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("detach", "alias"):
            return args[0]
        if func.overloadpacket.__name__ not in ("linear", "mm", "addmm", "t"):
            raise NotImplementedError(f"no {func} of eight bits")
        plain = [value.values_ * value.scale if isinstance(value, Int8) else value for value in args]
        return func(*plain, **(kwargs or {}))


def test_weights_of_a_quantised_type_are_read_by_their_parts() -> None:
    linear = nn.Linear(128, 48).double()
    scale = linear.weight.detach().abs().max() / 127
    weight = Int8((linear.weight.detach() / scale).round().to(torch.int8), scale)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    generator = build(lambda m, x: m.linear(x.flatten(1)).view(len(x), 3, 4, 4), linear=linear)
    assert agrees(generator, "act") == "prepared"
    before = generator.weights_hash()
    with torch.no_grad():
        weight.values_.neg_()
    assert generator.weights_hash() != before


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_packed_weights_cannot_be_compared_and_are_replayed() -> None:
    torch.manual_seed(0)
    packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(torch.randn(48, 128), 0.05, 0, torch.qint8))

    def in_eight_bits(_: Any, x: Tensor) -> Tensor:
        rows = torch.quantize_per_tensor(x.flatten(1).float(), 0.01, 0, torch.quint8)
        return torch.ops.quantized.linear(rows, packed, 0.1, 128).dequantize().double().view(len(x), 3, 4, 4)  # type: ignore[no-any-return]

    expected = "replay (not prepared: an operation takes a ScriptObject, which cannot be compared)"
    assert agrees(build(in_eight_bits), "act") == expected


# --- refused ----------------------------------------------------------------------------------------------------


def numbered(x: Tensor, numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=x.dtype).view(-1, 1, 1, 1)


def hidden(x: Tensor) -> Tensor:
    try:
        return x if x.max().item() < 1e6 else -x
    except Exception:  # ours, too
        return x


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "item": (lambda m, x: m.conv(x) * (1.0 if x.isfinite().all().item() else 0.0), "reads a value"),
    "a number of noise": (lambda m, x: m.conv(x) * torch.rand(1).item(), "reads a value"),
    "what latents were written to": (
        lambda m, x: m.conv(x) * torch.zeros(()).copy_(x.isfinite().all()).item(),
        "reads a value",
    ),
    "a view by strides in place": (
        lambda m, x: (x.as_strided((1,), (1,)).mul_(2.0), m.conv(x))[1],
        "share in an unknown way",
    ),
    "a tensor that has expanded views": (
        lambda m, x: m.conv(torch.add(*written_under_a_view(torch.zeros(1, 8, 1, 1, dtype=x.dtype), x))),
        "share in an unknown way",
    ),
    "numpy": (lambda m, x: m.conv(torch.from_numpy(x.numpy() * 2)), "reads values with numpy"),
    "numpy last": (lambda m, x: torch.from_numpy(m.conv(x).numpy() * 2), "reads values with numpy"),
    "numpy of a condition": (
        lambda m, x: m.conv(x if np.asarray(x).max() < 1e6 else -x),
        "reads values with __array__",
    ),
    "a list": (lambda m, x: m.conv(x if max(x.flatten().tolist()) < 1e6 else -x), "reads values with tolist"),
    "a copy": (lambda m, x: m.conv(copy.deepcopy(x)), "reads values with __deepcopy__"),
    "memory": (lambda m, x: m.conv(x if x.untyped_storage().nbytes() else -x), "reads values with untyped_storage"),
    "how many": (lambda m, x: m.conv(x if len((x > 1e6).nonzero()) == 0 else -x), "shape depends on values"),
    "how many, as a tuple": (lambda m, x: m.conv(x if len(torch.where(x > 1e6)[0]) == 0 else -x), "shape depends"),
    "how many of a mask": (lambda m, x: m.conv(x if len(x[x > 1e6]) == 0 else -x), "shape depends on values"),
    "what a forward hides": (lambda m, x: m.conv(hidden(x)), "reads a value"),
    "noise shared by a batch": (lambda m, x: m.conv(x) + torch.randn(1, 3, 4, 4), "not one for each sample"),
    "one number of noise": (lambda m, x: m.conv(x) + torch.randn(()), "not one for each sample"),
    "noise that hangs on values": (lambda m, x: m.conv(torch.normal(x, 0.1)), "depends on other values"),
    "a coin for each value": (lambda m, x: m.conv(torch.bernoulli(x.sigmoid())), "draws noise with"),
    "noise of numpy": (lambda m, x: m.conv(x) + float(np.random.rand()), "other arguments"),
    "noise of numpy, unread": (lambda m, x: [m.conv(x), np.random.rand()][0], "outside torch's operations"),
    "a buffer in place": (lambda m, x: m.conv(x + 0 * m.conv.calls.add_(1)), "was there before the forward"),
    "another path for more": (lambda m, x: m.conv(x if len(x) < N else x + 0), "another path for another batch"),
    "another number for more": (lambda m, x: m.conv(x).clamp(max=1e6 + len(x)), "other arguments for another batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_these_are_refused(name: str) -> None:
    rest, why = REFUSED[name]
    part = conv()
    part.register_buffer("calls", torch.zeros(()))
    generator = build(rest, conv=part)
    with generator.session(), pytest.raises(NotReplayable, match=re.escape(why)):
        record(generator)


@pytest.mark.parametrize(
    "numbers", [range, lambda n: [n] * n, lambda n: [3] * (n - 1) + [4]], ids=["which", "how many", "the last"]
)
def test_rows_that_differ_are_no_constant(numbers: Callable[[int], Sequence[float]]) -> None:
    generator = build(lambda m, x: m.conv(x) + numbered(x, numbers(len(x))), conv=conv())
    generator.batchable = True  # what mixes samples is recorded as well, to be looked at
    with generator.session(), pytest.raises(NotReplayable, match="does not come from torch operations"):
        record(generator)


# --- noise ------------------------------------------------------------------------------------------------------

NOISE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "like another": lambda m, x: m.conv(x + torch.randn_like(x) + torch.rand_like(x)),
    "by sizes": lambda m, x: m.conv(x + torch.randn(len(x), 1, 4, 4)) * torch.randint(1, 9, (len(x), 1, 1, 1)),
    "of a mean": lambda m, x: m.conv(x + torch.normal(0.5, 1.0, (len(x), 1, 4, 4))),
    "into new tensors": lambda m, x: m.conv(x + x.new_empty(len(x), 1, 4, 4).normal_().mul_(0.5)),
    "uniform": lambda m, x: m.conv(x + torch.empty_like(x).uniform_(-1, 2)),
    "dropout that is on": lambda m, x: m.conv(F.dropout(F.dropout2d(x, 0.5, True), 0.5, True)),
    "dropout in place": lambda m, x: m.conv(F.dropout(x * 1, 0.5, True, inplace=True)),
    "a mask": lambda m, x: m.conv(x * torch.empty_like(x).bernoulli_(0.5)),
    "drawn and not read": lambda m, x: m.conv(x + [torch.rand_like(x), torch.rand_like(x)][1]),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_is_that_of_each_sample_alone(name: str) -> None:
    generator = build(NOISE[name], conv=conv())
    assert not generator.batchable
    assert agrees(generator, "act") == "prepared"
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    hybridizer = cp.Hybridizer(generator, "act")
    found, same, other = (hybridizer.hybridize(z1, z2, units=[[0], [1, 2], [3]], seed=seed) for seed in (5, 5, 6))
    assert found.provenance["hybrids_per_eval"] > 1
    assert torch.equal(found.images, same.images)
    assert (found.images - other.images).abs().max() > 1e-3, "other noise must show"


def test_noise_that_torch_does_not_draw_is_found_out() -> None:
    """A coin of Python's decides the path: two recorded forwards may well have taken the same."""
    generator = build(
        lambda m, x: m.conv(x + torch.randn_like(x)) * (2.0 if random.random() < 0.9 else 1.0), conv=conv()
    )
    assert agrees(generator, "act").startswith("full forward")


def test_noise_of_samples_that_influence_one_another_is_found_out() -> None:
    """Run together they would not give what each gives alone, which is what a noisy forward is."""
    with pytest.warns(LatentsIgnored):  # of one sample, whose mean it is
        generator = build(lambda m, x: m.conv(x - x.mean(0) + torch.randn_like(x)), conv=conv())
    assert agrees(generator, "act").startswith("full forward (prepared disagreed: a difference of")


# --- made once --------------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many forwards are recorded from here on."""
    recorded: list[int] = []

    def counting(*arguments: Any) -> Any:
        recorded.append(1)
        return record(*arguments)

    monkeypatch.setattr(preparation, "record", counting)
    return recorded


def test_a_program_is_made_once_for_the_same_weights_and_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = counted(monkeypatch)
    generator = build(lambda m, x: m.conv(x), conv=conv())
    first = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    second = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    assert len(recorded) == 1
    assert torch.equal(first.maps, second.maps)
    with torch.no_grad():
        generator.module.get_submodule("conv").weight.data.mul_(2)  # .data: torch counts no version
    third = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    assert len(recorded) == 2
    torch.testing.assert_close(third.maps, 2 * first.maps)
    cp.InfluenceMap(generator, "first").attribute(n_pairs=3)
    assert len(recorded) == 3


def test_programs_of_both_precisions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "multiplies_bfloat16", lambda device: True)
    recorded = counted(monkeypatch)
    generator = build(lambda m, x: m.conv(x), conv=conv())
    found = []
    for precision in ("float32", "bf16-diff", "float32", "bf16-diff"):
        maps = cp.InfluenceMap(generator, "act").attribute(n_pairs=3, precision=precision)
        assert maps.provenance["precision"] == ("bf16-diff" if precision == "bf16-diff" else "float64")
        found.append(maps.maps)
    assert len(recorded) == 2
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_remembered_program_of_another_forward_is_made_again(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = counted(monkeypatch)
    generator, now = changing()
    first = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    now[where] = 2.0
    second = cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    assert len(recorded) == 2
    assert second.provenance["executor"] == "prepared"
    fresh, now = changing()
    now[where] = 2.0
    torch.testing.assert_close(second.maps, cp.InfluenceMap(fresh, "act").attribute(n_pairs=3).maps)
    assert (second.maps - first.maps).abs().max() > 1e-3


def test_what_is_remembered_goes_with_the_generator() -> None:
    generator = build(lambda m, x: m.conv(x), conv=conv())
    cp.InfluenceMap(generator, "act").attribute(n_pairs=3)
    gone = weakref.ref(generator)
    before = len(preparation.Preparations._latest)
    del generator
    gc.collect()
    assert gone() is None
    assert len(preparation.Preparations._latest) < before


# --- wrong later on ---------------------------------------------------------------------------------------------


def changing() -> tuple[cp.GeneratorAdapter, dict[str, float]]:
    """A forward with Python numbers in it, before and after the layer ``act``."""
    now = {"before": 1.0, "after": 1.0}
    generator = build(lambda m, x: m.conv(x) * now["after"], conv=conv())
    generator.module.get_submodule("first").register_forward_pre_hook(lambda _, inputs: (inputs[0] * now["before"],))
    return generator, now


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_forward_that_changes_after_recording_is_found_out(where: str) -> None:
    """Whatever the program said, the source's values included, comes from the forward as it is now."""
    generator, now = changing()
    sets = parse_units(None, parse_layers(generator, "act"))
    executor = executor_for(generator, sets)
    now[where] = 2.0
    found, full = hybrids(generator, sets, executor), hybrids(generator, sets, FullForward(generator))
    assert str(executor.choice).startswith("replay (prepared disagreed: a difference of")
    assert (found - full).abs().max() <= 1e-10


@pytest.mark.parametrize("replays", [True, False])
def test_wrong_images_are_never_handed_on(replays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = build(lambda m, x: m.conv(x), conv=conv())
    sets = parse_units(None, parse_layers(generator, "act"))
    program = Prepared(generator, [frozenset(["act"])])
    candidates = {Strategy.PREPARED: lambda: program, Strategy.REPLAY: lambda: Replay(generator, ["act"])}
    executor = Checked(generator, candidates if replays else {Strategy.PREPARED: lambda: program})
    paths = program._preparation.paths
    for key, path in list(paths.items()):
        monkeypatch.setitem(paths, key, lambda batch, path=path: path(batch) + 0.01)
    found, full = hybrids(generator, sets, executor), hybrids(generator, sets, FullForward(generator))
    assert str(executor.choice).startswith(
        f"{'replay' if replays else 'full forward'} (prepared disagreed: a difference of 0.01"
    )
    assert torch.equal(found, full) if not replays else (found - full).abs().max() <= 1e-10


# --- latents in other forms -------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.ConvTranspose2d(5, 6, 4), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        image: Tensor = self.last(torch.relu(self.first((a - 3 * b.abs())[:, :, None, None])))
        return image


def two_by_name(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    return {key: torch.randn(n, 5, generator=rng, dtype=torch.float64) for key in "ab"}


@pytest.mark.parametrize("reverse", ["base", "source", "both"])
def test_a_dict_of_latents_may_be_in_any_order(reverse: str) -> None:
    torch.manual_seed(0)
    generator = cp.wrap(Two().double(), two_by_name)
    z1, z2 = generator.sample(N, seed=0), generator.sample(N, seed=1)
    assert isinstance(z1, dict)
    assert isinstance(z2, dict)
    turned1 = dict(reversed(z1.items())) if reverse != "source" else z1
    turned2 = dict(reversed(z2.items())) if reverse != "base" else z2
    hybridizer = cp.Hybridizer(generator, "first")
    expected = hybridizer.hybridize(z1, z2, units=[[0], [1], [0, 1]])
    found = hybridizer.hybridize(turned1, turned2, units=[[0], [1], [0, 1]])
    assert expected.provenance["executor"] == found.provenance["executor"] == "prepared"
    assert torch.equal(found.images, expected.images)


def test_a_layer_that_hands_on_its_input_is_not_mixed_up_with_it() -> None:
    """Setting channels of its output must not change what else reads its input."""
    generator = build(lambda m, x: m.conv(m.same(x) * 0.5 + x), conv=conv(), same=nn.Identity())
    assert agrees(generator, "same").startswith(("prepared", "replay"))


# --- memory that is kept ----------------------------------------------------------------------------------------


def test_sessions_nest_and_numbers_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = build(lambda m, x: m.conv(x), conv=conv())
    z = generator.sample(N)
    kept = generator(z)
    with generator.session(), generator.session():
        assert torch.equal(generator(z), kept)
    assert torch.equal(generator(z), kept)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # the user's own settings are left alone
    assert torch.equal(generator(z), kept)
