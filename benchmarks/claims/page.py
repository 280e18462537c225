"""The ledger's page: a claim's lines, found by the claim, and written anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .row import MARK, Numbers, Study

_NO_CLAIM = "| | "  # a further line of the claim above


def blocks(page: str) -> list[list[str]]:
    """The page's lines, those of one claim together."""
    found: list[list[str]] = []
    for line in page.split("\n"):
        if line.startswith(_NO_CLAIM) and found:
            found[-1].append(line)
        else:
            found.append([line])
    return found


def claim_of(block: Sequence[str]) -> str:
    """The claim of a block; of other text, nothing."""
    first = block[0]
    return first.removeprefix("| ").partition(" | ")[0].strip() if first.startswith("| ") else ""


def is_backed(line: str) -> bool:
    """Whether a line of a table is marked as written from a file."""
    return f" {MARK} | " in line


def rewritten(page: str, studies: Iterable[tuple[Study, Numbers]]) -> str:
    """The page with all rows of these studies written from their numbers.

    Further lines of a claim that were written by hand, on other networks, stay below.
    """
    made = {row.claim: study.written(row, numbers) for study, numbers in studies for row in study.rows}
    found = blocks(page)
    if missing := made.keys() - {claim_of(block) for block in found}:
        raise ValueError(f"the ledger has no row for {', '.join(sorted(missing))}; add it, with any text in its cells")
    return "\n".join(line for block in found for line in _anew(block, made.get(claim_of(block))))


def _anew(block: list[str], written: list[str] | None) -> list[str]:
    if written is None:
        return block
    return written + [line for line in block[1:] if not is_backed(line)]
