"""The explorer in a notebook: a widget whose page Python answers, and a picture for where nothing computes."""

from __future__ import annotations

import base64
import time
from typing import Any

from ...base.errors import ProbeError
from ...generator.units import UnitsLike
from ...hybrids.hybridizer import Hybridizer
from ..bundle import module, style
from ..contents import Contents
from .requests import Answers

_PAIRS = 4  # in the picture


def widget_of(answers: Answers) -> Any:
    """An anywidget for one explorer; ``.state`` is what a person has chosen, as JSON."""
    import anywidget
    import traitlets

    class ExplorerWidget(anywidget.AnyWidget):
        _esm = module("widget.js")
        _css = style()
        contents = traitlets.Dict().tag(sync=True)
        state = traitlets.Unicode("").tag(sync=True)

    made = ExplorerWidget(contents=answers.page())
    made.on_msg(lambda widget, request, _: _answer(answers, widget, request))
    return made


def _answer(answers: Answers, widget: Any, request: dict[str, Any]) -> None:
    """Answer a message of the page by one with the same number, and the pixels beside it."""
    number = request.pop("id", None)
    start = time.perf_counter()
    try:
        pixels = answers.pixels(request).numpy().astype("<f4").tobytes()
    except ProbeError as error:
        widget.send({"id": number, "error": str(error)})
        return
    widget.send({"id": number, "milliseconds": 1000 * (time.perf_counter() - start)}, buffers=[pixels])


def still_picture(contents: Contents) -> str:
    """PNG, as text: what the page begins with, for a few pairs, for where nothing computes (GitHub, nbconvert)."""
    from ...base.display.plot import png

    generator, (part, partition) = contents.generator, contents.beginning()
    z1, z2 = (generator.sample(_PAIRS, seed=contents.seed, start=start) for start in (0, _PAIRS))
    units: UnitsLike = [0] if partition is None else [partition.telling_module()]
    hybrids = Hybridizer(generator, part.layer.name).hybridize(z1, z2, units=units)
    figure, _ = hybrids.plot()
    return base64.b64encode(png(figure)).decode()
