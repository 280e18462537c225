"""Measure claims of the papers, and write what was measured into the ledger.

    python benchmarks/ledger.py                          which studies there are
    python benchmarks/ledger.py networks stretch         measure these, and keep the numbers
    python benchmarks/ledger.py --write                  write the rows and tables of all that was measured

Numbers go to ``benchmarks/measured/ledger.json``, each study with its seeds' single values, the machine and the
versions; other studies in the file stay. The rows of docs/ledger.md that are marked ✓, and tables of other pages, are
written from it. The folder ``claims`` has the studies, by paper.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from claims import page, record
from claims.studies import STUDIES
from pages import write_into
from threadpoolctl import threadpool_limits

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"some of {', '.join(STUDIES)}")
    parser.add_argument("--write", action="store_true", help="write rows and tables of the pages")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.studies if name not in STUDIES]:
        parser.error(f"no study is called {', '.join(unknown)}; there are {', '.join(STUDIES)}")
    warnings.filterwarnings("ignore", "NMF stopped")
    for name in options.studies:
        print(f"{name} …", file=sys.stderr)
        with threadpool_limits(1):
            found = record.measured(STUDIES[name])
        record.write(name, found)
    if options.write:
        write_pages()
    if not options.studies and not options.write:
        kept = record.read()
        for name, study in STUDIES.items():
            done = f"{kept[name]['processor_seconds']} s on {kept[name]['date']}" if name in kept else "not measured"
            print(f"{name:14} {done:24} {'; '.join(row.claim for row in study.rows)[:100]}")


def write_pages() -> None:
    """Write all that was measured into the pages."""
    kept = record.read()
    studies = [(study, record.numbers(kept, study)) for name, study in STUDIES.items() if name in kept]
    ledger = DOCS / "ledger.md"
    ledger.write_text(page.rewritten(ledger.read_text(encoding="utf-8"), studies), encoding="utf-8")
    for study, numbers in studies:
        for name, tables in study.tables.items():
            write_into(DOCS / name, tables(numbers))


if __name__ == "__main__":
    main()
