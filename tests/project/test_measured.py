"""Tables of pages are those of the files that benchmarks wrote."""

from __future__ import annotations

import json

from support.paths import BENCHMARKS, DOCS, benchmark


def test_the_page_about_evidence_shows_what_was_measured() -> None:
    script, pages = benchmark("evidence"), benchmark("pages")
    measured = json.loads((BENCHMARKS / "measured" / "evidence.json").read_text(encoding="utf-8"))
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    assert pages.written_into(page, script.tables(measured)) == page
    assert all(table in page for table in script.tables(measured).values())
    # What the page says in words.
    toys = {row["toy"]: row for row in measured["evidence"]}
    assert toys["three modules"]["right"] >= 0.9
    assert all(row["right"] >= 0.95 for row in toys.values() if row["planted"] is None)
    assert all(0.93 <= row["covered"] <= 0.97 for row in measured["rankings"] if row["pairs"] >= 64)
