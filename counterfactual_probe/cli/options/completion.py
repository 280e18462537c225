"""Completion in the shell, by shtab where that is installed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

_SHELLS = ("bash", "zsh", "tcsh")


class _Print(argparse.Action):
    """Print the shell's script of completions, and end."""

    def __call__(self, parser: argparse.ArgumentParser, _options: Any, shell: Any, _option: Any = None) -> None:
        try:
            import shtab
        except ImportError:
            parser.error("--print-completion needs shtab; install counterfactual-probe[completion]")
        parser._print_message(shtab.complete(parser, shell), sys.stdout)
        parser.exit()


def completion_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--print-completion``."""
    parser.add_argument(
        "--print-completion",
        action=_Print,
        choices=_SHELLS,
        help="print a script that completes commands and options; source it in the shell's start-up file",
    )
