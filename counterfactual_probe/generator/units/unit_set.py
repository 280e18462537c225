"""Unit sets: which units of which layers an intervention sets (the papers' E)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...base.errors import ProbeError, visible
from .axis import CHANNEL

_FEW = 3  # units that stand for a set which has no name


@dataclass(frozen=True, eq=False)
class UnitSet(Mapping[str, tuple[int, ...]]):
    """Units per layer, as an immutable mapping ``{layer: (number, …)}``.

    >>> UnitSet({"main.8": (3, 17)})
    UnitSet(main.8: 3, 17)
    >>> UnitSet({"main.8": (3, 17)}, name="eyes and mouth") == {"main.8": (3, 17)}
    True
    >>> UnitSet({"blocks.0": (3, 17)}, kind="token")
    UnitSet(blocks.0: tokens 3, 17)

    Attributes:
        channels: the units' numbers by layer, whatever they are.
        name: what figures and tables call the set, such as "module 1"; two sets of the same units are equal
            whatever their names.
        kind: what the units are: "channel", "token", "head" or "feature".
    """

    channels: Mapping[str, tuple[int, ...]]
    name: str = ""
    kind: str = CHANNEL

    def __getitem__(self, layer: str) -> tuple[int, ...]:
        return self.channels[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.channels)

    def __len__(self) -> int:
        return len(self.channels)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UnitSet) and other.kind != self.kind:
            return False
        return Mapping.__eq__(self, other)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.channels.items())))

    def __repr__(self) -> str:
        return f"UnitSet({visible(self.label())}{f'; {self.name!r}' if self.name else ''})"

    @property
    def size(self) -> int:
        """Number of units, over all layers."""
        return sum(map(len, self.channels.values()))

    def named(self, name: str) -> UnitSet:
        """The same units under another name."""
        return UnitSet(self.channels, name, self.kind)

    def placed(self) -> UnitSet:
        """The same units without the layers that have none."""
        return UnitSet({layer: some for layer, some in self.channels.items() if some}, self.name, self.kind)

    def title(self, number: int) -> str:
        """What figures and tables call the set of this number: its name, a few units, or how many there are."""
        if self.name:
            return self.name
        if self.size > _FEW:
            return f"set {number} ({self.size} {self.kind}s)"
        # Files do not keep the order of layers.
        shown = {layer: self[layer] for layer in sorted(self) if self[layer] or not self.size}
        return UnitSet(shown, kind=self.kind).label()

    def label(self, most: int = 4) -> str:
        """The units in short, for errors."""
        parts = []
        for layer, units in self.channels.items():
            shown = ", ".join(map(str, units[:most])) if units else f"no {self.kind}"
            if units and self.kind != CHANNEL:
                shown = f"{self.kind}{'s' * (len(units) > 1)} {shown}"
            more = f", … ({len(units)} {self.kind}s)" if len(units) > most else ""
            parts.append(f"{layer}: {shown}{more}")
        return "; ".join(parts)


def titles(units: Sequence[UnitSet]) -> list[str]:
    """What figures and tables call each of the sets: units of one layer, each alone, by their numbers.

    >>> titles([UnitSet({"main.8": (3,)}), UnitSet({"main.8": (17,)})])
    ['3', '17']
    >>> titles([UnitSet({"blocks.0": (3,)}, kind="token")])
    ['token 3']
    """
    alone = all(item.size == 1 and not item.name for item in units)
    if alone and len({layer for item in units for layer in item}) == 1:
        named = [(item.kind, number) for item in units for numbers in item.values() for number in numbers]
        return [str(number) if kind == CHANNEL else f"{kind} {number}" for kind, number in named]
    return [item.title(number) for number, item in enumerate(units, 1)]


def union(sets: Iterable[UnitSet], layers: Iterable[str] = (), kind: str | None = None) -> UnitSet:
    """All units of the sets, each once; ``layers`` are kept even without a unit, and ``kind`` even without a set."""
    numbers: dict[str, dict[int, None]] = {layer: {} for layer in layers}
    kinds = [] if kind is None else [kind]
    for item in sets:
        kinds.append(item.kind)
        for layer, some in item.items():
            numbers.setdefault(layer, {}).update(dict.fromkeys(some))
    if len(set(kinds)) > 1:
        raise ProbeError(f"the sets are of {' and '.join(sorted(set(kinds)))}s; join those of one kind")
    return UnitSet({layer: tuple(some) for layer, some in numbers.items()}, kind=kinds[0] if kinds else CHANNEL)
