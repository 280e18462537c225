"""What the commands share: opening a generator, common options, and writing figures.

Parsers are built without importing torch, so that help and usage errors appear at once. In this folder, whatever
needs torch or NumPy is imported in the functions that run a command.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..base.errors import ProbeError, first_line, visible
from .options.layers import layer_option
from .options.modules import modules_file_option
from .options.output import output_options
from .options.values import count, natural

if TYPE_CHECKING:
    import torch

    from ..generator.adapter import GeneratorAdapter

PAIRS = 64
NOTHING = 1  # the exit status where all went well and nothing was found
UNREAD = 141  # the exit status of programs whose output nobody reads to its end: 128 + SIGPIPE


GENERATOR = "a name that 'list' shows, a folder, hf:user/repo, or package.module:factory"


def show(text: Any, *, to: TextIO | None = None) -> None:
    """Print a line on stdout or another stream; names in it do not drive the terminal, whatever letters they hold."""
    write_line(visible(str(text)), sys.stdout if to is None else to)


def write_line(text: str, stream: TextIO) -> None:
    """Print a line of our own; letters that the stream lacks are shown by their numbers."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        give_up(stream)
        raise
    except OSError as error:
        give_up(stream)
        raise ProbeError(
            f"{stream.name} cannot be written ({error.strerror}); make room, or write elsewhere"
        ) from error


def give_up(stream: TextIO) -> None:
    """What is still in the buffer of a stream goes nowhere: Python would try again at its end, and complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_generator(name: str, device: str | None) -> GeneratorAdapter:
    """A generator that ``load`` knows, or from ``package.module:factory``, called without arguments."""
    from ..base.hub.address import HUB
    from ..generator.adapter import GeneratorAdapter
    from ..registry.folders import is_folder
    from ..registry.pretrained import load, registered

    if name.startswith(HUB) or is_folder(name):
        return load(name, device=device)
    if ":" not in name:
        registered(name, advice="'list' shows all, and package.module:factory opens one of your own")
        return load(name, device=device)
    generator = made_by(name)
    if not isinstance(generator, GeneratorAdapter):
        raise ProbeError(
            f"{name!r} returned a {type(generator).__name__}; let the factory return cp.wrap(module, sample_latents)"
        )
    if device is not None and _device(device) != generator.device:
        raise ProbeError(
            f"{name!r} made a generator on {generator.device} and --device is {device}; let the factory use that device"
        )
    return generator


def made_by(name: str) -> Any:
    """What ``package.module:factory`` returns, called without arguments."""
    from ..base.caller import blamed_on

    module_name, _, factory_name = name.partition(":")
    with _importing_from(str(Path.cwd())):  # the user's own module, in the folder they stand in
        with blamed_on(f"importing {module_name!r}", "run it in Python by itself to see why"):
            try:
                factory = getattr(importlib.import_module(module_name), factory_name)
            except (ImportError, AttributeError, ValueError) as error:
                raise ProbeError(f"{name!r} cannot be imported ({error}); give package.module:factory") from error
        with blamed_on(f"the factory {name!r}", "call it in Python by itself, without arguments, to see why"):
            return factory()


def _device(name: str) -> torch.device:
    """The device that tensors made on this name are on: 'cuda' is the current one of several."""
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ProbeError(f"--device is {name}, which cannot be used here ({first_line(error)}); try cpu") from error


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:  # by value: what runs inside may have changed the list
            sys.path.remove(folder)


def save_figure(figure: Any, path: Path) -> Path:
    from ..base.display.plot import png
    from ..base.files import write_bytes

    return write_bytes(path, png(figure, dpi=120))


def file_name(layers: Sequence[str]) -> str:
    from ..base.files import safe_name

    return safe_name(*layers)


def generator_options(parser: argparse.ArgumentParser) -> None:
    """Which generator, and where it runs."""
    parser.add_argument("generator", metavar="GENERATOR", help=GENERATOR, type=os.path.expanduser)
    device_option(parser)


def device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="device to run on, such as cpu or cuda:0 (default: the generator's own)")


def unit_options(parser: argparse.ArgumentParser) -> None:
    layer_option(parser, what="the layer of --units")
    parser.add_argument("--units", help="numbers of the layer's units, such as 3,17,40; separate sets by ';'")
    modules_file_option(parser)


def common(parser: argparse.ArgumentParser, out: str, *, pairs: bool = True) -> None:
    if pairs:
        parser.add_argument("--pairs", type=count, default=PAIRS, help=f"pairs of latents per map (default {PAIRS})")
    output_options(parser, out)
    run_options(parser)


def run_options(parser: argparse.ArgumentParser) -> None:
    """What every run has, wherever it writes."""
    parser.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars on stderr")


def chosen_units(options: argparse.Namespace) -> tuple[list[Any], list[str] | None, list[str]]:
    """Unit sets from ``--units`` with ``--layer``, or from ``--modules-file``; their labels, and their layers."""
    if (options.units is None) == (options.modules_file is None):
        raise ProbeError("it is unclear which units to set; give either --units or --modules-file")
    if options.modules_file:
        require_none(options, "layer", "with --modules-file, which names the layers")
        from ..registry.modules import named_sets

        units = named_sets(options.modules_file)
        return (
            list(units),
            [item.name for item in units],
            list(dict.fromkeys(layer for item in units for layer in item)),
        )
    if options.layer is None:
        raise ProbeError("no layer was named; give --layer with --units")
    return [_numbers(group) for group in options.units.split(";")], None, [options.layer]


def modules_of(path: str) -> dict[str, Any]:
    """The content of a file of modules."""
    from ..registry.modules import read_modules

    return read_modules(path)


def trust(content: dict[str, Any]) -> str:
    from ..reporting.words import ari_words

    ari = content.get("ari_between_draws", (content.get("agreement_between_draws") or {}).get("ari"))
    if ari is None and (expected := content.get("expected_ari")) is not None:
        return (
            f"another sample of latents is expected to give {ari_words(expected)} (adjusted Rand index {expected:.2f})"
        )
    if ari is None:
        return "how far to trust these modules is unknown: give --other, maps of another sample of latents"
    return f"two samples of latents give {ari_words(ari)} (adjusted Rand index {ari:.2f})"


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ProbeError(f"units are {text!r}; give numbers, such as 3,17,40 or 3,17;40 for two sets") from None


def require_none(options: argparse.Namespace, option: str, why: str) -> None:
    if getattr(options, option) is not None:
        raise ProbeError(f"--{option} is given {why}; leave it out")
