"""The command line: ``counterfactual-probe demo | list | layers | influence | modules | hybridize | report | …``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from ..base.errors import ProbeError, visible
from ..version import __version__
from .common import UNREAD, give_up, show, write_line
from .fidelity import add_fidelity
from .invariance import add_invariance
from .options.completion import completion_option
from .pages.explore import add_explore
from .parts.edit import add_edit
from .parts.exchange import add_exchange
from .parts.hybridize import add_hybridize
from .parts.influence import add_influence
from .parts.invert import add_invert
from .parts.listing import add_listing
from .parts.modules import add_modules
from .parts.sweep import add_sweep
from .report import add_report
from .robustness import add_robustness
from .spectral import add_spectral
from .train import add_train

NAME = "counterfactual-probe"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; an error that the user can fix is one sentence on stderr and exit status 2."""
    try:
        typed = sys.argv[1:] if arguments is None else list(arguments)
        try:
            options = parser().parse_args(typed, argparse.Namespace(typed=typed))
        except SystemExit as done:  # with help, or with a sentence on what cannot be parsed
            return int(done.code or 0)
        return options.run(options) or 0
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        give_up(sys.stdout)
        return UNREAD
    except KeyboardInterrupt as stop:
        return _failed(str(stop) or "interrupted", 130)
    except ProbeError as error:
        return _failed(str(error), 2)


def _failed(sentence: str, status: int) -> int:
    with suppress(OSError, ProbeError):  # stderr may be closed, or full
        show(f"{NAME}: {sentence}", to=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, like all others.

    argparse quotes some arguments as they are: names of files, by a wildcard, say.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{NAME}: {visible(message)}; '{self.prog} --help' shows what can be given\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Of help and errors, as all else is printed: on terminals of any encoding, and on disks that are full."""
        if message:
            write_line(message.removesuffix("\n"), file or sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands, from which help, completion and the page of the site are made."""
    made = _Parser(
        prog=NAME,
        description="Open a pretrained image generator and find the parts it is made of.",
        epilog="GENERATOR is a name that 'list' shows, a folder, hf:user/repo, or package.module:factory, a function "
        "that returns counterfactual_probe.wrap(module, sample_latents).",
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="show the version")
    completion_option(made)
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None], text: str, example: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"Example: {NAME} {example}"
        )
        added.set_defaults(run=run)
        return added

    for add in (
        *(add_listing, add_influence, add_modules, add_hybridize, add_exchange, add_edit, add_invert),
        *(add_fidelity, add_invariance, add_report, add_explore, add_robustness, add_spectral, add_train, add_sweep),
    ):
        add(command)
    return made


if __name__ == "__main__":
    sys.exit(main())
