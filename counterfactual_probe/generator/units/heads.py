"""How many heads the channels of a layer are, as the attention around it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...base.errors import ProbeError, whole
from .axis import HEAD, Coordinates

if TYPE_CHECKING:
    from ..adapter import GeneratorAdapter
    from ..layers.info import LayerInfo

# What attention modules call the number of their heads, or the width of one.
_NUMBERS = ("num_heads", "heads", "n_heads", "n_head", "nhead", "num_attention_heads")
_WIDTHS = ("head_dim", "dim_head", "d_head", "head_size", "attention_head_size", "attention_head_dim")


def heads_of(generator: GeneratorAdapter, layer: LayerInfo, heads: Any) -> Coordinates:
    """The heads of an attention's output: groups of as many successive channels each.

    ``heads`` is their number; None takes it from the module of the layer, or from the nearest one around it.
    """
    if not layer.size:
        raise ProbeError(f"layer {layer.name!r} gives vectors and no attention's output; use axis='channel'")
    found, where = (whole(heads, "heads", 1), "given") if heads is not None else _found(generator, layer)
    if layer.channels % found:
        raise ProbeError(
            f"{found} heads ({where}) do not divide the {layer.channels} channels of layer {layer.name!r}; name "
            "another layer, such as the input of the output projection, or give heads="
        )
    return Coordinates(layer, HEAD, found)


def _found(generator: GeneratorAdapter, layer: LayerInfo) -> tuple[int, str]:
    name = generator.span(layer.name)[1][0].address.name
    for owner in _outwards(name):
        part = generator.submodules.get(owner, generator.module if not owner else None)
        if (number := _attribute(part, _NUMBERS)) is not None:
            return number, f"of {owner or 'the module'}"
        width = _attribute(part, _WIDTHS)
        if width is not None and layer.channels % width == 0:
            return layer.channels // width, f"of {width} channels each, as {owner or 'the module'} says"
    raise ProbeError(
        f"no module around layer {layer.name!r} says how many heads its {layer.channels} channels are; give heads=, "
        "their number"
    )


def _outwards(name: str) -> Iterator[str]:
    """The name of a submodule, of the one around it, and so on."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _attribute(part: Any, names: tuple[str, ...]) -> int | None:
    """The first attribute of these names that is a number of at least 1."""
    for name in names:
        value = getattr(part, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
