"""Which programs are proved to keep samples apart, and that nothing which mixes them is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine import FullForward
from counterfactual_probe.engine.program.independence import mixing_operation
from counterfactual_probe.engine.program.recording import record
from support.programs import build, conv

Rest = Callable[[Any, Tensor], Tensor]


def attention(m: Any, x: Tensor) -> Tensor:
    """Heads folded into the samples' dimension, as multi-head attention does it."""
    n, heads = len(x), x.reshape(len(x) * 2, 4, 16)
    return m.conv((heads @ (heads.mT @ heads / 4).softmax(-1)).reshape(n, 8, 4, 4))  # type: ignore[no-any-return]


def guided(m: Any, x: Tensor, join: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Both halves of guidance in one batch, with attention and a norm inside, and a time that is the same for all."""
    both = torch.cat([x, x * 2])
    times = m.wide.bias.expand(len(both), 8).sigmoid()[:, :, None, None]
    both = F.group_norm(attention_of(both) * times, 2)
    if join is not None:
        return m.conv(join(both))  # type: ignore[no-any-return]
    without, given = m.conv(both).chunk(2)
    return without + 2 * (given - without)  # type: ignore[no-any-return]


def attention_of(x: Tensor) -> Tensor:
    heads = x.reshape(len(x) * 2, 4, 16)
    return (heads @ (heads.mT @ heads / 4).softmax(-1)).reshape(len(x), 8, 4, 4)


def in_pairs(x: Tensor) -> Tensor:
    """Two rows for each sample, one after the other."""
    return torch.stack([x, x], 1).flatten(0, 1)


APART: dict[str, Rest] = {
    "convolutions and norms": lambda m, x: m.conv(F.layer_norm(F.group_norm(x, 2), (4,))),
    "a batch norm of fixed statistics": lambda m, x: m.conv(m.norm(x)),
    "attention": attention,
    "fused attention": lambda m, x: m.conv(
        F.scaled_dot_product_attention(x.flatten(2), x.flatten(2), x.flatten(2)).view_as(x)
    ),
    "a gate of pooled channels": lambda m, x: m.conv(x * m.wide(x).mean((2, 3), keepdim=True).sigmoid()),
    "a scale of each sample's own": lambda m, x: m.conv(x / x.abs().amax((1, 2, 3), keepdim=True)),
    "along channels": lambda m, x: m.conv(torch.cat([x.cumsum(1)[:, :4], x.flip(1)[:, 4:].softmax(-1)], 1)),
    "an image for all": lambda m, x: m.conv(x + m.wide.bias.view(1, 8, 1, 1).expand(len(x), 8, 4, 4)),
    "zeros of so many samples": lambda m, x: m.conv(x) + x.new_zeros(len(x), 3, 1, 1),
    "both halves of guidance": guided,
    "one half, by a slice": lambda m, x: guided(m, x, lambda both: both[len(x) :]),
    "three thirds": lambda m, x: m.conv(sum(torch.cat([x, x, 2 * x]).split(len(x)))),
    "pieces along channels": lambda m, x: m.conv(torch.cat(x.split([3, 5], 1)[::-1], 1)),
}
MIXED: dict[str, Rest] = {
    "a scale that all share": lambda m, x: m.conv(x / x.abs().max()),
    "the mean of the batch": lambda m, x: m.conv(x - 0.5 * x.mean(0, keepdim=True)),
    "the first sample": lambda m, x: m.conv(x + x[:1]),
    "the statistics of the batch": lambda m, x: m.conv(F.batch_norm(x, None, None, training=True)),
    "softmax over samples": lambda m, x: m.conv(x + x.softmax(0)),
    "turned over": lambda m, x: m.conv(x + x.flip(0)),
    "rolled": lambda m, x: m.conv(x + x.roll(1)),
    "rolled, by dimension": lambda m, x: m.conv(x + x.roll(1, 0)),
    "samples attend to each other": lambda m, x: m.conv(
        F.scaled_dot_product_attention(x.flatten(1), x.flatten(1), x.flatten(1)).view_as(x)
    ),
    "samples on another axis": lambda m, x: m.conv(x.transpose(0, 1).cumsum(1).transpose(0, 1)),
    "how many there are": lambda m, x: m.conv(x / len(x)),
    "which channel by how many": lambda m, x: m.conv(x * x[:, len(x), None]),
    "numbered samples": lambda m, x: m.conv(x * torch.arange(1, len(x) + 1, dtype=x.dtype).view(-1, 1, 1, 1)),
    "a norm over all samples": lambda m, x: m.conv(
        torch.native_group_norm(x, None, None, 1, 8, 16 * len(x), 2, 1e-5)[0].view_as(x)
    ),
    "sorted samples": lambda m, x: m.conv(x + x.sort(0).values),
    "halves, read as pairs": lambda m, x: guided(m, x, lambda both: both.view(len(x), 2, 8, 4, 4).sum(1)),
    "halves, from the second sample on": lambda m, x: m.conv(torch.cat([x, x])[1:].narrow(0, 0, len(x))),
    "halves beside pairs": lambda m, x: m.conv((torch.cat([x, x]) + in_pairs(x)).chunk(2)[0]),
    "pairs joined to halves": lambda m, x: m.conv(torch.cat([torch.cat([x, x]), in_pairs(x)]).chunk(4)[2]),
    "pairs taken for halves": lambda m, x: m.conv(in_pairs(x).chunk(2)[0]),
    "a norm over both halves": lambda m, x: m.conv(
        torch.native_group_norm(torch.cat([x, x]), None, None, len(x), 16, 16, 2, 1e-5)[0].chunk(2)[0]
    ),
    "rows of two samples": lambda m, x: m.conv(torch.cat([x, x]).view(len(x), 2, 8, 4, 4).sum(1)),
}


def program_of(rest: Rest) -> Any:
    generator = build(rest, conv=conv(), wide=conv(8, 8), norm=nn.BatchNorm2d(8))
    generator.batchable = True  # what mixes is recorded as well, to be looked at
    with generator.session():
        return record(generator)


@pytest.mark.parametrize("name", APART)
def test_these_are_proved(name: str) -> None:
    assert mixing_operation(program_of(APART[name])) is None


@pytest.mark.parametrize("name", MIXED)
def test_these_are_not(name: str) -> None:
    assert mixing_operation(program_of(MIXED[name])) is not None


def whole_forwards(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """How many samples a call runs as whole forwards, and what it records of its executor."""
    generator, rows = build(rest, conv=conv(), wide=conv(8, 8)), 0
    forward = cp.GeneratorAdapter.forward

    def counted(self: Any, *args: Any, noise: Any, **options: Any) -> Tensor:
        nonlocal rows
        rows += len(noise)
        return forward(self, *args, noise=noise, **options)

    z1, z2 = generator.sample(6, seed=0), generator.sample(6, seed=1)
    probe = cp.InfluenceMap(generator, "act")
    probe.attribute(z1, z2)  # records, and compares the first hybrids
    with monkeypatch.context() as patched:
        patched.setattr(cp.GeneratorAdapter, "forward", counted)
        maps = probe.attribute(z1, z2)
    return rows, str(maps.provenance["executor"])


def test_what_is_proved_is_not_tried_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, executor = whole_forwards(lambda m, x: m.conv(x), monkeypatch)
    assert (rows, executor) == (1, "prepared")  # the first sample, for what may have changed since


def test_what_is_not_proved_is_tried_out_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a kind that no proof knows, though each sample is on its own.
    rows, executor = whole_forwards(
        lambda m, x: m.conv(torch.einsum("nchw,cd->ndhw", x, torch.eye(8).double())), monkeypatch
    )
    assert executor == "prepared"
    assert rows >= 4  # one sample of base and of source, and one hybrid of each size, beside the first


def test_whole_forwards_prove_nothing() -> None:
    assert not FullForward(build(lambda m, x: m.conv(x), conv=conv())).independent
