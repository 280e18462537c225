"""Which layers are studied, and how large their maps are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..base.display.text import counted
from ..base.errors import ProbeError
from ..generator.adapter import GeneratorAdapter
from ..generator.layers import LayerInfo

_LARGEST_MAP, _SMALLEST_MAP = 64, 16  # pixels of a side
_MOST_NUMBERS = 2**19  # of the maps of a layer


def default_layers(generator: GeneratorAdapter) -> list[str]:
    """The last layer of each resolution, from coarse to fine, without the image itself.

    Layers that run several times are taken only where there are no others.
    """
    last: dict[tuple[int, ...], str] = {}
    image = generator.image_size[1:]
    once = {name: info for name, info in generator.layers.items() if info.calls == 1}
    for name, info in (once or generator.layers).items():
        if info.size and not (info.size == image and info.channels == generator.image_size[0]):
            last.pop(info.size, None)
            last[info.size] = name
    return list(last.values()) or list(generator.layers)[:1]


def study_layers(
    generator: GeneratorAdapter,
    layers: Sequence[str] | None,
    n_modules: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[LayerInfo]:
    """The layers to study, each with enough channels for so many modules.

    Default layers with fewer are left out, and ``say`` reports them.
    """
    names = default_layers(generator) if layers is None else list(dict.fromkeys(layers))
    infos = [generator.layer(name) for name in names]
    small = [info for info in infos if info.channels < n_modules]
    if layers is None and len(small) < len(infos):
        for info in small:
            few = counted(info.channels, "channel")
            say(f"layer {info.name} is left out: {few} cannot make {counted(n_modules, 'module')}")
        return [info for info in infos if info not in small]
    for info in small:
        raise ProbeError(
            f"{counted(n_modules, 'module')} asked of layer {info.name!r}, which has "
            f"{counted(info.channels, 'channel')}; ask "
            "for fewer, or leave the layer out"
        )
    if not infos:
        raise ProbeError("no layer is named, or the generator lists none; name at least one")
    return infos


def map_size(generator: GeneratorAdapter, channels: int = 1) -> tuple[int, int] | None:
    """The size that maps are averaged down to, since 1024×1024 pixels hold no more modules than 64×64.

    Those of many channels, which are of coarse layers, once more: their sums over blocks would take most of the memory
    of a report. None where the maps are small enough, or no size divides that of the images.
    """
    height, width = (_largest_divisor(side, _LARGEST_MAP) for side in generator.image_size[1:])
    if channels * height * width > _MOST_NUMBERS:
        height, width = (_largest_divisor(side, max(_SMALLEST_MAP, side // 2)) for side in (height, width))
    if (height, width) == tuple(generator.image_size[1:]) or min(height, width) < _SMALLEST_MAP:
        return None
    return height, width


def _largest_divisor(side: int, most: int) -> int:
    return next(size for size in range(min(side, most), 0, -1) if side % size == 0)
