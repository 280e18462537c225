"""Pairs of successive convolutions, and the ratio of every pathway in → mid → out between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from ...base.errors import ProbeError, visible
from ..distribution import Gatherer
from .autocorrelation import Overlap, Size, autocorrelation, overlap
from .kernels import Convolution
from .operations import shown
from .resampling import convolved, spread
from .routes import Route

# Ratios at once: 2 MB in float64, which stays in a processor's cache. Larger blocks are several times slower.
_AT_ONCE = 2**18


@dataclass(frozen=True)
class ConvolutionPair:
    """Two convolutions with none between: the earlier one's outputs are the later one's inputs.

    Attributes:
        earlier, later: the convolutions' names.
        direction: "up" if the resolution grows from the earlier kernels' grid to the later ones' (a generator, a
            decoder), "down" if it falls (a discriminator, an encoder), or "same".
        stride: by how much, vertically and horizontally.
        channels: in, mid, out.
        pathways: how many kernels g → h there are to compare; fewer than in·mid·out with groups.
        size: of the maps that the finer of the two kernels works on.
        between: what changes the resolution, or stands for something else, in words.
        skip: whether the later one is also reached from the earlier one through other convolutions.
    """

    earlier: str
    later: str
    direction: str
    stride: Size
    channels: tuple[int, int, int]
    pathways: int
    size: Size
    between: tuple[str, ...] = ()
    skip: bool = False

    def __str__(self) -> str:
        rate = self.direction if self.direction == "same" else f"{self.direction} {shown(self.stride)}"
        more = [*self.between, *(["past other convolutions"] if self.skip else [])]
        about = f" ({', '.join(more)})" if more else ""
        return visible(f"{self.earlier} → {self.later}: {'→'.join(map(str, self.channels))} channels, {rate}{about}")


@dataclass(eq=False)
class Pathways:
    """The kernels of a pair, ready to be compared."""

    earlier: Convolution
    later: Convolution
    route: Route
    skip: bool = False
    others: int = 0  # further routes between the same two, which are not compared

    @cached_property
    def overlap(self) -> Overlap:
        cause_step, later_step = self.steps
        kernel = self.route.kernel
        if kernel is not None and self.later.transposed:
            kernel = spread(kernel, self.later.stride)
        return overlap(self.earlier.size, cause_step, self.later.size, later_step, kernel)

    @property
    def up(self) -> Size:
        """How much finer the later kernels' grid is than the earlier ones'."""
        own = self.later.stride if self.later.transposed else (1, 1)
        return self.route.up[0] * own[0], self.route.up[1] * own[1]

    @property
    def steps(self) -> tuple[Size, Size]:
        """Distances on the finest grid between neighbouring entries of the earlier and of the later kernels."""
        up, down = self.up, self.route.down
        one, two = self.earlier.dilation, self.later.dilation
        return (up[0] * one[0], up[1] * one[1]), (down[0] * two[0], down[1] * two[1])

    @cached_property
    def mids(self) -> list[tuple[int, int]]:
        """(output channel of the earlier, input channel of the later) for every channel between."""
        channels = range(self.earlier.out_channels) if self.route.channels is None else self.route.channels
        return [(source, place) for place, source in enumerate(channels) if source >= 0]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.earlier.in_channels, len(self.mids), self.later.out_channels

    @property
    def count(self) -> int:
        one, two = self.earlier, self.later
        return (one.in_channels // one.groups) * len(self.mids) * (two.out_channels // two.groups)

    def describe(self) -> ConvolutionPair:
        up, down = self.up, self.route.down
        if up == down == (1, 1):
            direction, stride = "same", (1, 1)
        else:
            direction, stride = ("down", down) if up == (1, 1) else ("up", up)
        between = tuple(step for step in self.route.steps if not step.startswith("its stride"))
        if self.others:
            between += (f"the first of {self.others + 1} routes between the two",)
        if direction == "down":
            # The finer grid is that on which the earlier convolution's kernels lie, before its stride.
            size = self.earlier.output_size if self.earlier.transposed else self.earlier.input_size
        else:
            size = self.later.output_size if self.later.transposed else self.later.input_size
        return ConvolutionPair(
            self.earlier.name, self.later.name, direction, stride, self.shape, self.count, size, between, self.skip
        )

    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Mids, inputs within the group, and their ratios (mids, inputs, out / groups) in float64; NaN where dead.

        A block is overwritten by the next one.
        """
        self.earlier.require_finite()
        self.later.require_finite()
        ins, outs = self._each
        rows = max(1, min(ins, _AT_ONCE // outs))
        step = max(1, _AT_ONCE // (ins * outs))
        memory = torch.empty(step * rows * outs, dtype=torch.float64)
        for first, one, two in self._spectra():
            for start in range(0, len(one), step):
                causes, kernels = one[start : start + step], two[start : start + step].mT
                mids = slice(first + start, first + start + len(causes))
                for top in range(0, ins, rows):
                    part = causes[:, top : top + rows]
                    block = memory[: len(part) * part.shape[1] * outs].view(len(part), part.shape[1], outs)
                    yield mids, slice(top, top + part.shape[1]), torch.bmm(part, kernels, out=block)

    @property
    def _each(self) -> tuple[int, int]:
        """Of one channel between: how many inputs make it, and how many outputs it goes into."""
        return self.earlier.in_channels // self.earlier.groups, self.later.out_channels // self.later.groups

    def _spectra(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Some channels between at a time: the first one's place, and the kernels' autocorrelations on both sides."""
        found = self.overlap
        entries = self._each[0] * self.earlier.size[0] * self.earlier.size[1]
        entries += self._each[1] * self.later.size[0] * self.later.size[1]
        step = max(1, 2 * _AT_ONCE // entries)
        for start in range(0, len(self.mids), step):
            sources, places = zip(*self.mids[start : start + step], strict=True)
            one = found.cause_spectrum(autocorrelation(self.earlier.incoming(sources), found.cause))
            yield start, one, found.later_spectrum(autocorrelation(self.later.outgoing(places), found.later))

    def dense(self) -> Tensor:
        """All ratios, (in, mid, out); NaN for dead kernels and, with groups, where there is no pathway."""
        ratio = torch.full(self.shape, float("nan"), dtype=torch.float64)
        for index, rows, block in self.blocks():
            if self.earlier.groups == self.later.groups == 1:
                ratio[rows, index] = block.movedim(0, 1)
                continue
            for mid, values in zip(range(index.start, index.stop), block, strict=True):
                source, place = self.mids[mid]
                first = self.earlier.inputs_of(source).start
                ratio[first + rows.start : first + rows.stop, mid, self.later.outputs_of(place)] = values
        return ratio

    def gather(self, into: Gatherer) -> Iterator[int]:
        """Add all ratios to a distribution; yields how many were done."""
        if self.overlap.trivial:  # ratios are exactly 1, or dead: only energies need a look
            yield self._gather_ones(into)
            return
        for _, _, block in self.blocks():
            into.add(block)
            yield block.numel()

    def _gather_ones(self, into: Gatherer) -> int:
        self.earlier.require_finite()
        self.later.require_finite()
        for start in range(0, len(self.mids), 64):
            sources, places = zip(*self.mids[start : start + 64], strict=True)
            one = (self.earlier.incoming(sources) != 0).flatten(2).any(2).sum(1)
            two = (self.later.outgoing(places) != 0).flatten(2).any(2).sum(1)
            alive = int((one * two).sum())
            into.add_ones(alive, len(sources) * (self.count // len(self.mids)) - alive)
        return self.count

    def nearest(self, value: float) -> tuple[int, int, int]:
        """The pathway whose ratio is nearest to a value."""
        best, found = float("inf"), None
        for index, rows, block in self.blocks():
            distance = torch.nan_to_num((block - value).abs(), nan=float("inf"))
            least, place = distance.reshape(-1).min(0)
            if float(least) < best:
                best = float(least)
                mid, one, two = (int(i) for i in torch.unravel_index(place, block.shape))
                found = (mid + index.start, one + rows.start, two)
        if found is None:
            raise ProbeError(f"every pathway from {self.earlier.name!r} to {self.later.name!r} is dead: all zeros")
        mid, one, two = found
        source, reads = self.mids[mid]
        return self.earlier.inputs_of(source).start + one, mid, self.later.outputs_of(reads).start + two

    def example(self, pathway: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor, float]:
        """One pathway's kernels (earlier, later), both convolved on the finest grid, and their ratio."""
        for axis, (index, size) in enumerate(zip(pathway, self.shape, strict=True)):
            if not 0 <= index < size:
                raise ProbeError(f"pathway {pathway} asks for {('in', 'mid', 'out')[axis]} channel {index} of {size}")
        source, place = self.mids[pathway[1]]
        one = pathway[0] - self.earlier.inputs_of(source).start
        two = pathway[2] - self.later.outputs_of(place).start
        if not (0 <= one < self.earlier.in_channels // self.earlier.groups) or not (
            0 <= two < self.later.out_channels // self.later.groups
        ):
            raise ProbeError(f"there is no pathway {pathway}: its channels are in different groups")
        g, h = self.earlier.incoming([source])[0, one], self.later.outgoing([place])[0, two]
        coarse, fine = (spread(kernel, step) for kernel, step in zip((g, h), self.steps, strict=True))
        kernel = self.route.kernel
        if kernel is not None and self.later.transposed:
            kernel = spread(kernel, self.later.stride)
        cause = cast(Tensor, convolved(coarse, kernel))
        joint = cast(Tensor, convolved(cause, fine))
        ratio = float((joint**2).sum() / ((cause**2).sum() * (fine**2).sum()))
        return g, h, joint, ratio
