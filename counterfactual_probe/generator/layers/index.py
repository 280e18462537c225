"""Every layer of a generator that can be named, from a few traced forwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from ...base.errors import ProbeError, nearest
from .address import ALL_CALLS, Address, Parsed, parse
from .dimensions import axes as ax
from .info import LayerInfo
from .names import clean_name
from .samples import SampleDimensions
from .site import Site
from .trace import Seen, Trace

_CURE = "choose a layer that gives a tensor"


class LayerIndex:
    """The layers of a generator by name.

    Args:
        aliases: every name of a submodule -> its canonical name.
        trace: of several samples.
        alone: of each of them alone: they tell which dimension holds the samples, and how a folded one does.
        axes: what the dimensions of some layers are, by patterns of their names.
    """

    def __init__(
        self, aliases: Mapping[str, str], trace: Trace, alone: Sequence[Trace], axes: Mapping[str, str] | None = None
    ) -> None:
        self._aliases, self._trace = aliases, trace
        self._sites: dict[Address, Site | str] = {}
        declared = _Declared({} if axes is None else axes)
        samples = SampleDimensions(trace, alone)
        for address, seen in trace.seen.items():
            self._sites[address] = self._describe(address, seen, samples, declared)
        declared.require_used(map(self.name, trace.seen))

    @property
    def bytes_per_sample(self) -> int:
        """Of the largest output: what limits a batch."""
        return self._trace.largest // self._trace.samples

    def name(self, address: Address) -> str:
        """The canonical name of a layer."""
        return address.name + address.suffix(call=self._trace.times_run[address.name] > 1)

    def listed(self) -> dict[str, LayerInfo]:
        """Outputs with channels; those that are computed several times, alike, as one layer of all calls."""
        infos = (self._listed(site) for site in self._outputs())
        return {info.name: info for info in infos if info is not None}

    def _listed(self, site: Site) -> LayerInfo | None:
        address = site.address
        if site.is_only_call or address.call > 1:
            return site.info if site.is_only_call else None
        runs = self._trace.times_run[address.name]
        if any(_form(self._sites.get(replace(address, call=call))) != _form(site) for call in range(1, runs + 1)):
            return None
        return replace(site.info, name=f"{address.name}{ALL_CALLS}{address.suffix(call=False)}", calls=runs)

    def why_none(self) -> str:
        """Why there is no layer to list and what to do about it, as the end of an error message."""
        several = [site.address for site in self._outputs()]
        if not several:
            return (
                "submodule that gives a tensor with channels, sample first; put the parts to intervene on into "
                "submodules of their own"
            )
        last = several[-1]
        return (
            f"layer that gives the same channels in all of its runs ({last.name!r} runs "
            f"{self._trace.times_run[last.name]} times); name calls of layers, such as layers=[{self.name(last)!r}]"
        )

    def span(self, name: str) -> tuple[LayerInfo, tuple[Site, ...]]:
        """The layer of this name and the places where it stands: one, or one for each of several calls."""
        parsed = self._parse(name)
        if not parsed.is_span:
            site = self._resolved(name, parsed)
            return self._half(site.info, parsed), (site,)
        calls = self._numbers(name, parsed)
        sites = tuple(self.resolve(f"{parsed.name}#{call}{parsed.suffix}") for call in calls)
        for site in sites:
            if _form(site) != _form(sites[0]):
                raise ProbeError(
                    f"the calls of {name!r} differ: {_described(sites[0])} and {_described(site)}; name calls that "
                    "agree, or each as a layer of its own"
                )
        address = sites[0].address
        whole = f"{address.name}#{parsed.call}{address.suffix(call=False)}"
        return self._half(replace(sites[0].info, name=whole, calls=len(sites)), parsed), sites

    def _half(self, info: LayerInfo, parsed: Parsed) -> LayerInfo:
        """The same layer, or the half of it that is named."""
        if parsed.half is None:
            return info
        if info.fold is None:
            raise ProbeError(
                f"layer {info.name!r} has no {parsed.half!r} half: its batch is not folded ({info.axes}); leave it out"
            )
        name = parsed.name_of_half + info.name[len(parsed.name) :]
        return replace(info, name=name, half=parsed.half)

    def calls(self, name: str) -> list[str]:
        """The calls of a layer by name: all of them, or those that are named."""
        parsed = self._parse(name)
        if parsed.call is None and self._trace.times_run[self._canonical(name, parsed)] > 1:
            parsed = replace(parsed, call="*")
        if not parsed.is_span:
            return [self.span(name)[0].name]
        numbers = self._numbers(name, parsed)
        return [self.span(f"{parsed.name_of_half}#{call}{parsed.suffix}")[0].name for call in numbers]

    def _numbers(self, name: str, parsed: Parsed) -> range:
        """The numbers of the calls that a range names, all of which there must be."""
        runs = self._trace.times_run[self._canonical(name, parsed)]
        if numbers := parsed.calls(runs):
            return numbers
        raise ProbeError(
            f"layer {parsed.name!r} runs {runs} time{'s' * (runs != 1)} in one forward and {name!r} asks for calls "
            f"{parsed.call}; name #1-{runs} or a part of it, such as #1-1"
        )

    def resolve(self, name: str) -> Site:
        """The layer of this name; otherwise a ProbeError says why there is none."""
        parsed = self._parse(name)
        if parsed.half is not None:
            raise ProbeError(f"{name!r} is one half of a layer, which is not asked for here; leave @{parsed.half} out")
        return self._resolved(name, parsed)

    def _resolved(self, name: str, parsed: Parsed) -> Site:
        address = self._address(name, parsed)
        site = self._sites.get(address)
        if isinstance(site, Site):
            return site
        raise ProbeError(f"layer {name!r} has no channels to set: {site or self._missing(address)}")

    def at(self, address: Address) -> Site | None:
        """The layer at an address, if there is one."""
        site = self._sites.get(address)
        return site if isinstance(site, Site) else None

    def _outputs(self) -> Iterator[Site]:
        for site in self._sites.values():
            if isinstance(site, Site) and not site.address.is_input:
                yield site

    def _parse(self, name: Any) -> Parsed:
        if not isinstance(name, str):
            raise ProbeError(f"a layer is named by a string and {name!r} is a {type(name).__name__}")
        return parse(name, self._aliases, clean_name)

    def _address(self, name: str, parsed: Parsed) -> Address:
        canonical = self._canonical(name, parsed)
        runs = self._trace.times_run[canonical]
        if runs > 1 and parsed.call is None:
            raise ProbeError(
                f"layer {name!r} runs {runs} times in one forward; name one call as "
                f"'{parsed.name}#2{parsed.suffix}' (the first is #1)"
            )
        number = parsed.call or "1" if parsed.call is None else parsed.call
        if not (number.isdecimal() and 1 <= int(number) <= runs):
            raise ProbeError(
                f"layer {parsed.name!r} runs {runs} time{'s' * (runs > 1)} in one forward and {name!r} asks for call "
                f"{number!r}; name one of #1 to #{runs}"
            )
        call = int(number)
        first = self._trace.first_input.get((canonical, call)) if parsed.is_input else 0
        possible = list(parsed.possible_entries())
        for entry in possible:
            if isinstance(self._sites.get(Address(canonical, call, entry, parsed.is_input)), Site):
                return Address(canonical, call, entry, parsed.is_input)
        return Address(canonical, call, None if first in possible else possible[0], parsed.is_input)

    def _canonical(self, name: str, parsed: Parsed) -> str:
        """The canonical name of the submodule, which must run."""
        canonical = self._aliases.get(parsed.name)
        if canonical is None:
            known = [*self.listed(), *self._aliases]
            raise ProbeError(f"layer {name!r} is not in this generator; nearest: {nearest(name, dict.fromkeys(known))}")
        if self._trace.times_run[canonical] == 0:
            raise ProbeError(
                f"layer {name!r} is in the module but never runs in its forward (its weights may be used "
                f"directly); choose one that runs, such as {nearest(name, self.listed())}"
            )
        return canonical

    def _missing(self, address: Address) -> str:
        beside = [
            self.name(other)
            for other, site in self._sites.items()
            if (other.name, other.call, other.is_input) == (address.name, address.call, address.is_input)
            and isinstance(site, Site)
        ]
        what = "input" if address.is_input else "output"
        if address.entry is None or not beside:
            return f"its {what} holds no tensor; {_CURE}"
        wanted = Address("", 1, address.entry).suffix(call=False)
        return f"its {what} has no tensor {wanted}; name one of {', '.join(map(repr, beside))}"

    def _describe(
        self, address: Address, seen: Seen | None, samples: SampleDimensions, declared: _Declared
    ) -> Site | str:
        if seen is None:
            return self._no_tensor(address)
        channels = seen.channels.number
        axes = declared.of(self.name(address), address, seen.shape, self._trace.samples)
        guessed = axes is None and channels is None and len(seen.shape) > 2
        if axes is None and seen.floating and len(seen.shape) > 1:
            axes = samples.axes_of(address, seen)
        if axes is None or not seen.floating:
            what = "input" if address.is_input else "output"
            more = "; say what its dimensions are with axes={...}" if len(seen.shape) > 2 and seen.floating else ""
            return f"its {what} has shape {seen.shape} for {self._trace.samples} samples{more or '; ' + _CURE}"
        info = LayerInfo(self.name(address), *axes.channels_and_size, str(axes))
        return Site(info, address, guessed, self._trace.times_run[address.name] == 1)

    def _no_tensor(self, address: Address) -> str:
        others = [
            self.name(other)
            for other in self._trace.seen
            if (other.name, other.call) == (address.name, address.call)
            and other.entry is not None
            and not other.is_input
        ]
        if not others:
            return f"its output is not a tensor; {_CURE}"
        return f"its output is not a tensor but several; name one, such as {others[0]!r}"


def _form(site: Site | str | None) -> tuple[int, tuple[int, ...], str] | None:
    """What calls of one layer have in common."""
    return (site.info.channels, site.info.size, site.info.axes) if isinstance(site, Site) else None


def _described(site: Site) -> str:
    size = "×".join(map(str, site.info.size)) or "1"
    return f"{site.info.name!r} gives {site.info.channels} channels of {size}"


class _Declared:
    """What the user says of the axes of layers; a pattern holds for those layers that it fits."""

    def __init__(self, axes: Mapping[str, str]) -> None:
        if not isinstance(axes, Mapping) or not all(isinstance(pattern, str) for pattern in axes):
            raise ProbeError(f"axes are a {type(axes).__name__}; give {{pattern of layers' names: 'n h w c'}}")
        self._axes = {pattern: ax.parse(text) for pattern, text in axes.items()}
        self._used: set[str] = set()
        self._misfits: dict[str, str] = {}

    def of(self, name: str, address: Address, shape: Sequence[int], samples: int) -> ax.Axes | None:
        """The axes of a layer, from the first pattern that matches its name, with the call's number or without."""
        names = (name, address.name + address.suffix(call=False), address.name + address.suffix(call=True))
        for pattern, axes in self._axes.items():
            if not any(text == pattern or fnmatchcase(text, pattern) for text in names):
                continue
            try:
                fitting = axes.bound(shape, samples)
            except ValueError as error:
                misfit = f"layer {name!r} has shape {tuple(shape)} for {samples} samples, {error}"
                self._misfits.setdefault(pattern, misfit)
                continue
            self._used.add(pattern)
            return fitting
        return None

    def require_used(self, names: Iterator[str]) -> None:
        """Raise a ProbeError about the first pattern that fits no layer."""
        for pattern, axes in self._axes.items():
            if pattern in self._misfits and pattern not in self._used:
                raise ProbeError(f"axes {str(axes)!r} of {pattern!r} fit no layer: {self._misfits[pattern]}")
            if pattern not in self._used:
                raise ProbeError(f"no layer is named {pattern!r}, as axes say; nearest: {nearest(pattern, names)}")
