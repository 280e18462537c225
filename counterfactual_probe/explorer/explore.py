"""The explorer of a generator: a page on which modules and channels are set, and what comes of it is seen at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..base import html
from ..base.display.described import Described
from ..base.display.description import Description
from ..base.display.text import counted
from ..base.errors import ProbeError, whole
from ..base.files import write_text
from ..generator.adapter import GeneratorAdapter
from ..registry.segmentation import RegionsLike, regions_of
from ..reporting.choice import default_layers
from .bundle import single_file
from .contents import Contents, require_colours
from .hosts.embedding import Embedding
from .hosts.requests import Answers
from .hosts.server import PORT, Server
from .hosts.widget import still_picture, widget_of
from .layer import layer_part
from .portable.program import CannotCarry, Precision, portable_program

_NO_WIDGET = "To see it in a notebook, install counterfactual-probe[notebook], or .save() it, and open the file."
_MOST_HYBRIDS = 2**14  # of the maps of a default layer: pairs × channels
_FEWEST_PAIRS = 16  # with which confidence is measured


class Explorer(Described):
    """A page for one generator, made by :func:`explore`.

    >>> cp.explore(gen).save("explorer.html")  # doctest: +SKIP
    PosixPath('explorer.html')
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    @property
    def computes(self) -> bool:
        """Whether a saved page carries the generator, and computes any hybrid; else it holds pictures of some."""
        return self._contents.program is not None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as one HTML file, which needs neither a server nor a connection.

        >>> cp.explore(cp.load("dcgan-faces-small")).save("explorer.html")  # doctest: +SKIP

        It carries the generator, as a list of operations and their weights, if these are at most 16.8 million and the
        page has every operation; otherwise pictures of some hybrids, which it says.

        Raises:
            ProbeError: a path that cannot be written.
        """
        return write_text(path, single_file(*self._contents.for_file()))

    def serve(
        self,
        port: int = PORT,
        *,
        host: str = "127.0.0.1",
        open_browser: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Show the page in a browser, with the generator itself computing, until Ctrl-C.

        >>> cp.explore(gen).serve()  # doctest: +SKIP
        the explorer is at http://127.0.0.1:8765/…/

        The address holds a random token, without which nothing is answered. Several tabs may be open; one image is
        computed at a time.

        Args:
            port: if it is in use, the next one that is free; 0 is any that is free.
            host: any other than this machine's own address can be reached from other machines, which is warned of.
            say: gets the address; by default it goes to stderr.

        Raises:
            ProbeError: Starlette or uvicorn is missing (the extra ``explore``); no port is free.
        """
        Server(Answers(self._contents), port=port, host=host).run(open_browser=open_browser, say=say or _to_stderr)

    def widget(self) -> Any:
        """The page as a widget of a notebook, which shows itself; its ``state`` is what a person has chosen, as JSON.

        Raises:
            ProbeError: anywidget is missing (the extra ``notebook``).
        """
        if find_spec("anywidget") is None:
            raise ProbeError(
                "the explorer's widget needs anywidget; run: pip install 'counterfactual-probe[notebook]'; or save it"
            )
        return widget_of(Answers(self._contents))

    def embedding(self) -> Embedding:
        """The page inside one of another program, such as Gradio: a script, and a function that answers it."""
        return Embedding(Answers(self._contents))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The widget where it can be shown, and a picture for where nothing computes, such as a notebook on GitHub."""
        shown = {"text/plain": repr(self), "image/png": still_picture(self._contents)}
        if find_spec("anywidget") is None:
            return shown | {"text/html": self._repr_html_() + str(html.paragraph(_NO_WIDGET))}
        made = self.widget()._repr_mimebundle_()
        return (made[0] if isinstance(made, tuple) else made or {}) | shown

    def describe(self) -> Description:
        contents = self._contents
        names = ", ".join(part.layer.name for part in contents.parts)
        carried = "the page carries the generator" if self.computes else f"a saved page holds pictures: {contents.why}"
        return Description(
            "Explorer",
            f"{contents.generator.name!r}, {counted(len(contents.parts), 'layer')}",
            facts=(("layers", names), ("saved", carried)),
            page="explorer",
        )


def explore(
    generator: GeneratorAdapter,
    layers: Sequence[str] | str | None = None,
    *,
    n_pairs: int = 64,
    seed: int = 0,
    regions: RegionsLike | None = None,
    precision: Precision = "float16",
    show_progress: bool = False,
) -> Explorer:
    """A page on which a person sets modules and channels of a generator, and sees at once what comes of it.

    >>> cp.explore(cp.load("dcgan-faces-small")).save("explorer.html")  # doctest: +SKIP

    Args:
        layers: names; by default the last of each resolution with at most 1024 channels.
        n_pairs: pairs of latents for the influence maps of each layer. Default layers of many channels get fewer, so
            that their maps take no more than 16,384 hybrids, but at least 16: with fewer, confidence is not measured.
        seed: of these pairs; the samples that the page shows are drawn with ``seed + 1``.
        regions: named parts of the image, as in :func:`report`.
        precision: of the weights that a saved page carries, "float16" or "float32". Those of which float16 would change
            an image by more than 0.2 % of its range are kept as float32.
        show_progress: progress bars on stderr.

    Raises:
        ProbeError: an unknown layer; images of neither 1 nor 3 channels.
    """
    require_colours(generator)
    if precision not in ("float16", "float32"):
        raise ProbeError(f"precision is {precision!r}; give 'float16' or 'float32'")
    n_pairs, seed = whole(n_pairs, "n_pairs", 1), whole(seed, "the seed", 0)
    pairs = _pairs_by_layer(generator, layers, n_pairs)
    missing = [] if layers is not None else [name for name in default_layers(generator) if name not in pairs]
    named = regions_of(generator, regions)
    with generator.unchanged():
        program, why = None, ""
        try:
            program = portable_program(generator, list(pairs), precision)
        except CannotCarry as reason:
            why = str(reason)
        parts = [
            layer_part(generator, generator.layer(name), named, n_pairs=count, seed=seed, show_progress=show_progress)
            for name, count in pairs.items()
        ]
    return Explorer(Contents(generator, parts, named, seed + 1, program, why, missing))


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _pairs_by_layer(generator: GeneratorAdapter, layers: Sequence[str] | str | None, n_pairs: int) -> dict[str, int]:
    """The layers to show, in the order of the forward's layers where they are listed, and the pairs for their maps."""
    if layers is not None:
        given = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
        if not given:
            raise ProbeError("layers is empty; name at least one, or leave it out")
        return {generator.layer(name).name: n_pairs for name in given}
    channels = {name: generator.layer(name).channels for name in default_layers(generator)}
    pairs = {name: min(n_pairs, max(_FEWEST_PAIRS, _MOST_HYBRIDS // count)) for name, count in channels.items()}
    cheap = {name: count for name, count in pairs.items() if channels[name] * count <= _MOST_HYBRIDS}
    return cheap or {min(channels, key=lambda name: channels[name]): n_pairs}
