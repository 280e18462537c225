"""The command line."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; also where Ctrl-C comes while the commands are imported."""
    try:
        from .entry import main as run
    except KeyboardInterrupt:
        import sys

        print("counterfactual-probe: interrupted", file=sys.stderr)
        return 130
    return run(arguments)
