"""SpectralDependency: how far the kernels of successive convolutions depend on each other (S002 §3, S000 §3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import ProbeError, nearest, one_of, text
from ..base.memory import room_for
from ..base.progress import progress_bar
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from ..generator.state.settings import plain_arithmetic
from ..generator.units.axis import AXES, CHANNEL
from .activations import measure_activations
from .distribution import ABOVE, BELOW, Gatherer
from .filters import DRAWS, KEPT, remove_filters
from .ratios import ActivationRatios, SpectralRatios, SpectralTable
from .removal import FilterRemoval
from .tracing.network import Network
from .tracing.pathways import ConvolutionPair, Pathways
from .tracing.routes import Route
from .tracing.tracer import LAYER, Traced, Tracer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ratios that ``measure`` returns as one array: half a gigabyte in float64.
MOST_PATHWAYS = 2**26


class SpectralDependency:
    """Measures spectral dependency ratios of a network's successive convolutions.

    >>> import torch, counterfactual_probe as cp
    >>> from torch import nn
    >>> decoder = nn.Sequential(nn.ConvTranspose2d(8, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.Tanh())
    >>> sd = cp.SpectralDependency(decoder)
    >>> [str(pair) for pair in sd.pairs()]
    ['0 → 2: 8→6→3 channels, up 2']
    >>> sd.measure("0", "2").ratio.shape
    torch.Size([8, 6, 3])

    The ratio of a kernel g and a later kernel h is ⟨|ĝ|²|ĥ|²⟩ / (⟨|ĝ|²⟩⟨|ĥ|²⟩) on the grid of the finer one, with
    whatever interpolation lies between counted to g (conventions 15 to 18). It is 1 where h neither favours nor
    avoids the frequencies that g makes. It is computed in closed form, in float64; weights may change between calls.

    Args:
        model: a generator, or any module: a discriminator, an encoder, a decoder.
        example: an input of a plain module, if its first layer does not tell one.
        name: what results call the network.
        axis: "channel", which is what kernels of convolutions connect; there is no other.
    """

    @plain_arithmetic()
    def __init__(
        self,
        model: GeneratorAdapter | nn.Module,
        *,
        example: Latents | None = None,
        name: str | None = None,
        axis: Literal["channel"] = "channel",
    ) -> None:
        _require_channels(axis)
        self._network = Network(model, example, name)
        self._known: tuple[object, Traced] | None = None
        self._require_pairs(self._traced())

    def __repr__(self) -> str:
        return f"SpectralDependency({self._network.name!r}, {counted(len(self._all()), 'pair')} of convolutions)"

    def pairs(self) -> list[ConvolutionPair]:
        """Successive convolutions that can be compared, in execution order; those that skip others say so."""
        return [pathways.describe() for pathways in self._all()]

    @property
    def blocked(self) -> list[tuple[str, str, str]]:
        """(earlier, later, why) of convolutions between which something stands that is no resampling or norm."""
        traced, reasons = self._traced(), {}
        for later, routes in traced.reached.items():
            for route in routes:
                if reason := _blocked(route, traced, later):
                    reasons[route.source, later] = reason
        connected = {(item.earlier.name, item.later.name) for item in self._all()}
        return [(*names, reason) for names, reason in reasons.items() if names not in connected]

    @plain_arithmetic()
    def measure(self, earlier: str, later: str) -> SpectralRatios:
        """The ratio of every pathway in → mid → out between two successive convolutions.

        >>> sd.measure("main.3", "main.6").ratio.shape  # doctest: +SKIP
        torch.Size([512, 256, 128])

        Raises:
            ProbeError: there is no such pair (the message says what stands between), or there are more ratios than
                fit into an array: :meth:`table` gives their distribution.
        """
        pathways = self.pathways(earlier, later)
        if (count := pathways.shape[0] * pathways.shape[1] * pathways.shape[2]) > MOST_PATHWAYS:
            raise ProbeError(
                f"{pathways.earlier.name!r} and {pathways.later.name!r} have {count:,} pathways and an array holds at "
                f"most {MOST_PATHWAYS:,}; ask for their distribution, .table([({earlier!r}, {later!r})])"
            )
        return SpectralRatios(pathways.dense(), pathways.count, self._about(pathways))

    @plain_arithmetic()
    def table(
        self, pairs: Sequence[tuple[str, str] | ConvolutionPair] | None = None, *, show_progress: bool = False
    ) -> SpectralTable:
        """Mean, spread, shares and histogram of each pair, by default of all; never all ratios at once.

        >>> print(sd.table())  # doctest: +SKIP
        """
        chosen = self._all() if pairs is None else [self.pathways(*_names(pair)) for pair in pairs]
        rows, histograms = [], []
        with progress_bar(sum(pathways.count for pathways in chosen), "ratios", "pathway", show_progress) as bar:
            for pathways in chosen:
                gathered = Gatherer()
                for done in pathways.gather(gathered):
                    bar.update(done)
                rows.append(_table_row(pathways.describe()) | gathered.summary())
                histograms.append(gathered.histogram)
        about = self._network.provenance() | {
            "direction": self._direction(),
            "blocked": [list(item) for item in self.blocked],
        }
        return SpectralTable(rows, torch.stack(histograms), about)

    @plain_arithmetic()
    def measure_activations(self, layer: str, inputs: Latents, *, later: str | None = None) -> ActivationRatios:
        """The ratio of a layer's activation maps and the filters of the next convolution (S000 eq. 8).

        >>> sd.measure_activations("main.5", gen.sample(64)).ratio.shape  # doctest: +SKIP
        torch.Size([256, 128])

        Power spectra are means over the samples (Bartlett's), of zero-padded maps with their mean (conventions 19).

        Args:
            layer: whose output is the cause.
            inputs: latents of a generator, or inputs of a plain module.
            later: the convolution, where the layer's output goes into several.
        """
        label = self._layer(layer)
        traced = self._trace({label})
        route = self._next(layer, label, traced, later)
        ratio, n = measure_activations(self._network, label, route[0], route[1], inputs)
        about = self._network.provenance() | {"layers": [layer, route[1].name], "between": list(route[0].steps)}
        return ActivationRatios(ratio, n, about)

    @plain_arithmetic()
    def remove_filters(
        self,
        earlier: str,
        later: str,
        latents: Latents,
        *,
        kept: float = KEPT,
        below: float = BELOW,
        above: float = ABOVE,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> FilterRemoval:
        """Images without the earlier layer's filters of low energy, low ratio and high ratio (S002 §4.2).

        >>> removal = sd.remove_filters("main.9", "main.12", gen.sample(64))  # doctest: +SKIP
        >>> removal.plot()  # doctest: +SKIP

        Each removal by ratio stands beside ``draws`` random ones of filters of the same energies (conventions 21).

        Args:
            kept: the share of filters, by energy, that the removals start from; the paper's.
            below, above: of which ratio filters are removed.
            seed: of the random controls, and of noise inside the forward, if any.
        """
        return remove_filters(
            self._network,
            self.pathways(earlier, later),
            latents,
            kept=kept,
            below=below,
            above=above,
            draws=draws,
            seed=seed,
        )

    @plain_arithmetic()
    def plot_kernels(
        self,
        earlier: str,
        later: str,
        *,
        pathway: tuple[int, int, int] | None = None,
        near: float = 0.88,
        axes: Sequence[Axes] | None = None,
    ) -> Plot[list[Axes]]:
        """Two kernels, their convolution and the Fourier transforms of the three (S002 Fig. 3a).

        ``pathway`` is (in, mid, out); by default that whose ratio is nearest to ``near``.
        """
        from .plots import plot_kernels

        pathways = self.pathways(earlier, later)
        chosen = pathway or pathways.nearest(near)
        coarse, fine, joint, ratio = pathways.example(chosen)
        names = (pathways.earlier.name, pathways.later.name)
        return plot_kernels(coarse, fine, joint, ratio=ratio, names=names, pathway=chosen, axes=axes)

    def pathways(self, earlier: str, later: str) -> Pathways:
        """The kernels of a pair, ready to be compared; a ProbeError if there is no such pair."""
        traced = self._traced()
        for name in (earlier, later):
            self._require_convolution(name, traced)
        for pathways in self._all():
            if (pathways.earlier.name, pathways.later.name) == (earlier, later):
                return pathways
        why = {(one, two): reason for one, two, reason in self.blocked}.get((earlier, later))
        if why is None:
            follows = {pathways.later.name for pathways in self._all() if pathways.earlier.name == earlier}
            why = f"{earlier!r} is followed by {', '.join(map(repr, sorted(follows))) or 'no convolution'}"
        raise ProbeError(
            f"{earlier!r} and {later!r} are not successive convolutions ({why}); .pairs() lists those that are"
        )

    # --- inside -----------------------------------------------------------------------------------

    @room_for("a forward of two samples")
    def _trace(self, layers: set[str]) -> Traced:
        network = self._network
        inputs = network.example()
        with network.session():
            tracer = Tracer([value for _, value in lt.named_tensors(inputs)], layers)
            with tracer.watching(network.modules):
                network.forward(inputs)
            return tracer.result()

    def _traced(self) -> Traced:
        """The network as it is now: traced again when weights have changed."""
        module = self._network.module
        values = [*module.parameters(), *module.buffers()]
        now = tuple((id(value), 0 if value.is_inference() else value._version) for value in values)
        if self._known is None or self._known[0] != now:
            self._known = (now, self._trace(set()))
        return self._known[1]

    def _all(self) -> list[Pathways]:
        traced = self._traced()
        connected: dict[tuple[str, str], Pathways] = {}
        for later, routes in traced.reached.items():
            for route in routes:
                if _blocked(route, traced, later) is None:
                    pathways = Pathways(traced.convolutions[route.source], traced.convolutions[later], route)
                    first = connected.setdefault((route.source, later), pathways)
                    first.others += first is not pathways
        follows: dict[str, set[str]] = {}
        for earlier, later in connected:
            follows.setdefault(earlier, set()).add(later)
        for (earlier, later), pathways in connected.items():
            pathways.skip = any(_reaches(follows, other, later) for other in follows[earlier] - {later})
        return list(connected.values())

    def _require_convolution(self, name: str, traced: Traced) -> None:
        if text(name, "the convolution") in traced.convolutions:
            return
        if name in traced.refused:
            raise ProbeError(f"{name!r} cannot be measured: {traced.refused[name]}; .pairs() lists what can be")
        raise ProbeError(
            f"{name!r} is no convolution of {self._network.name}; nearest: {nearest(name, traced.convolutions)}"
        )

    def _require_pairs(self, traced: Traced) -> None:
        if self._all():
            return
        reasons = [f"between {one!r} and {two!r} stands {why}" for one, two, why in self.blocked]
        reasons += [f"{name!r}: {why}" for name, why in traced.refused.items()]
        said = "; ".join(reasons[:3]) or f"it has {len(traced.convolutions)} 2-D convolution" + "s" * (
            len(traced.convolutions) != 1
        )
        raise ProbeError(
            f"{self._network.name} has no two successive convolutions that can be compared ({said}); give a network "
            "with one after another"
        )

    def _layer(self, layer: str) -> str:
        """The call of a layer whose output is meant, as "name#call"."""
        name, hash_sign, number = text(layer, "the layer").partition("#")
        if self._network.generator is not None:
            info = self._network.generator.layer(layer)
            name, _, number = info.name.partition("#")
        elif name not in self._network.modules:
            raise ProbeError(
                f"layer {layer!r} is not in {self._network.name}; nearest: {nearest(layer, self._network.modules)}"
            )
        del hash_sign
        return f"{name}#{number or 1}"

    def _next(self, layer: str, label: str, traced: Traced, later: str | None) -> tuple[Route, Any]:
        """The route from a layer to the convolution that reads it."""
        if later is not None:
            self._require_convolution(later, traced)
        good: dict[str, Route] = {}
        why: list[str] = []
        for name, routes in traced.reached.items():
            for route in routes:
                if route.source == LAYER + label and later in (None, name):
                    reason = _blocked(route, traced, name)
                    if reason is None:
                        good.setdefault(name, route)
                    else:
                        why.append(reason)
        if len(good) == 1:
            name, route = good.popitem()
            return route, traced.convolutions[name]
        if good:
            raise ProbeError(
                f"layer {layer!r} goes into {len(good)} convolutions ({', '.join(map(repr, good))}); say which with "
                "later=..."
            )
        nobody = "none reads it" if later is None else f"{later!r} does not read it"
        said = f"before the next stands {why[0]}" if why else nobody
        raise ProbeError(f"layer {layer!r} goes into no convolution ({said}); name an earlier layer")

    def _direction(self) -> str:
        """Whether the network's maps grow ("up") or shrink ("down") from its first convolution to its last."""
        convolutions = list(self._traced().convolutions.values())
        first, last = convolutions[0].input_size, convolutions[-1].output_size
        return "down" if last[0] * last[1] < first[0] * first[1] else "up"

    def _about(self, pathways: Pathways) -> dict[str, Any]:
        described = pathways.describe()
        return self._network.provenance() | {
            "layers": [described.earlier, described.later],
            "direction": described.direction,
            "stride": list(described.stride),
            "between": list(described.between),
            "skip": described.skip,
        }


def _require_channels(axis: Any) -> None:
    if one_of(axis, "axis", AXES) != CHANNEL:
        raise ProbeError(
            f"axis is {axis!r}, and SpectralDependency compares kernels of convolutions, whose units are channels; "
            f"leave axis out, or ask InfluenceMap(generator, layer, axis={axis!r}) where {axis}s act"
        )


def _blocked(route: Route, traced: Traced, later: str) -> str | None:
    if route.blocked:
        return route.blocked
    convolution = traced.convolutions[later]
    if convolution.transposed and convolution.stride != (1, 1) and route.down != (1, 1):
        return f"the stride of {later!r} after {route.steps[-1]}: the resolution goes down and up again"
    return None


def _reaches(follows: dict[str, set[str]], start: str, end: str) -> bool:
    """Whether one convolution comes after another, through any number of others."""
    seen, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        if here == end:
            return True
        fresh = follows.get(here, set()) - seen
        seen |= fresh
        waiting += fresh
    return False


def _names(pair: tuple[str, str] | ConvolutionPair) -> tuple[str, str]:
    if isinstance(pair, ConvolutionPair):
        return pair.earlier, pair.later
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ProbeError(f"a pair is {pair!r}; give (earlier, later), two names of convolutions")
    return pair[0], pair[1]


def _table_row(pair: ConvolutionPair) -> dict[str, Any]:
    row: dict[str, Any] = {"earlier": pair.earlier, "later": pair.later, "direction": pair.direction}
    row |= dict(zip(("in", "mid", "out"), pair.channels, strict=True))
    row |= {"stride": list(pair.stride), "size": list(pair.size), "pathways": pair.pathways}
    return row | {"between": list(pair.between), "skip": pair.skip}
