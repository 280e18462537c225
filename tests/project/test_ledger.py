"""Rows of the ledger that a study backs say what its file has; no row more than before goes without."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from support.paths import BENCHMARKS, DOCS, benchmark

LEDGER = benchmark("ledger")
FILE: dict[str, Any] = json.loads((BENCHMARKS / "measured" / "ledger.json").read_text(encoding="utf-8"))
# Of those that were measured: a study may wait for somebody with the time.
STUDIES: dict[str, Any] = {name: study for name, study in LEDGER.STUDIES.items() if name in FILE}
PAGE = (DOCS / "ledger.md").read_text(encoding="utf-8")
ROWS = [pytest.param(study, row, id=f"{study.name}: {row.claim}") for study in STUDIES.values() for row in study.rows]
# Verdicts whose words and numbers no file backs yet. Only ever lower this.
NOT_BACKED = 40


def lines_of(page: str, claim: str) -> list[str]:
    """The marked lines of a claim."""
    (found,) = [block for block in LEDGER.page.blocks(page) if LEDGER.page.claim_of(block) == claim]
    return [line for line in found if LEDGER.page.is_backed(line)]


@pytest.mark.parametrize(("study", "row"), ROWS)
def test_a_row_says_what_was_measured(study: Any, row: Any) -> None:
    written = study.written(row, LEDGER.record.numbers(FILE, study))
    assert lines_of(PAGE, row.claim) == written
    assert all(LEDGER.page.is_backed(line) for line in written)


def test_what_is_marked_has_a_study() -> None:
    backed = [line for line in PAGE.splitlines() if LEDGER.page.is_backed(line)]
    written = {
        line for study in STUDIES.values() for row in study.rows
        for line in study.written(row, LEDGER.record.numbers(FILE, study))
    }  # fmt: skip
    assert len(backed) >= 10
    assert set(backed) == written


def test_a_figure_edited_by_hand_is_found() -> None:
    study = STUDIES["networks"]
    row = study.rows[-1]
    (line, *_) = lines_of(PAGE, row.claim)
    digit = re.search(r"\d(?= and 0\.)", line)
    assert digit is not None
    other = str((int(digit[0]) + 1) % 10)
    edited = PAGE.replace(line, line[: digit.start()] + other + line[digit.end() :])
    assert edited != PAGE
    assert lines_of(edited, row.claim) != study.written(row, LEDGER.record.numbers(FILE, study))
    studies = [(one, LEDGER.record.numbers(FILE, one)) for one in STUDIES.values()]
    assert LEDGER.page.rewritten(edited, studies) == PAGE == LEDGER.page.rewritten(PAGE, studies)
    with pytest.raises(ValueError, match="the ledger has no row for"):
        LEDGER.page.rewritten(PAGE.replace(row.claim, "another claim"), studies)


def test_every_study_of_the_file_is_there_and_every_claim_has_a_row() -> None:
    assert FILE.keys() <= LEDGER.STUDIES.keys()
    claims = [row.claim for study in LEDGER.STUDIES.values() for row in study.rows]
    assert len(set(claims)) == len(claims)
    assert set(claims) <= {LEDGER.page.claim_of(block) for block in LEDGER.page.blocks(PAGE)}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_kept_with_its_seeds_and_its_machine(name: str) -> None:
    kept = FILE[name]
    assert kept["repeats"] == STUDIES[name].repeats
    assert kept["repeats"] == 0 or kept["repeats"] >= 5
    assert {"processor", "torch", "counterfactual_probe", "numpy", "scikit-learn"} <= kept["machine"].keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["date"])


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.tables])
def test_tables_of_other_pages_are_those_of_the_file(name: str) -> None:
    study, pages = STUDIES[name], benchmark("pages")
    for file, tables in study.tables.items():
        page = (DOCS / file).read_text(encoding="utf-8")
        made = tables(LEDGER.record.numbers(FILE, study))
        assert pages.written_into(page, made) == page
        assert all(table in page for table in made.values())


def test_rows_without_a_file_do_not_grow_in_number() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| claim", "|---"))]
    tried = [line for line in rows if not LEDGER.page.is_backed(line) and " | not tried | " not in line]
    assert len(tried) <= NOT_BACKED, "a new row needs a study in benchmarks/claims"


def test_a_study_alone_is_put_into_the_file(tmp_path: Any) -> None:
    path = tmp_path / "ledger.json"
    LEDGER.record.write("two", {"numbers": {"a": 1}}, path)
    LEDGER.record.write("one", {"numbers": {"a": 2}}, path)
    LEDGER.record.write("two", {"numbers": {"a": 3}}, path)
    assert list(LEDGER.record.read(path)) == ["one", "two"]
    assert LEDGER.record.read(path)["two"] == {"numbers": {"a": 3}}


def test_the_sweep_is_read_from_the_examples_table() -> None:
    sweep = sys.modules["claims.s002.sweep"]
    rng = np.random.default_rng(0)
    table = [
        {"channels": channels, "beta": beta, "seed": seed, "reconstruction": beta + rng.normal(0, 1e-6), "kl": 1.0,
         "variety": 0.2 + 100 * beta + rng.normal(0, 1e-4), "network": network, "level": level,
         "std": {"16↔32": 0.3, "8↔16": 0.1 + 10 * beta}[level] + rng.normal(0, 1e-4)}
        for seed in range(5) for channels in (64, 32) for beta in (0.00005, 0.0005)
        for network in ("decoder", "encoder") for level in ("16↔32", "8↔16")
    ]  # fmt: skip
    numbers = sweep.numbers_of(table)
    assert [(model["channels"], model["beta"]) for model in numbers["models"]] == [
        (32, 0.0005), (32, 0.00005), (64, 0.0005), (64, 0.00005),
    ]  # fmt: skip
    said = {row.claim.partition(":")[0]: row.lines(numbers)[0] for row in sweep.STUDY.rows[::2]}
    assert said["§4.3, Fig. 7"].verdict == "does not hold"  # the smaller β varies less
    assert "difference −0.04" in said["§4.3, Fig. 7"].measured
    assert said["§4.3, Fig. 8"].verdict == "holds"  # coarse ratios grow with β alone
    assert sweep.STUDY.rows[1].lines(numbers)[0].verdict == "undecided"  # channels change nothing
    assert sweep.STUDY.rows[3].lines(numbers)[0].verdict == "in part"  # fine ratios are chance


def test_an_error_bar_is_students() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (4000, 5))
    sampled = sys.modules["claims.sampled"]
    bars = [sampled.Sampled.of(row) for row in values]
    assert bars[0].margin == pytest.approx(t.ppf(0.975, 4) * values[0].std(ddof=1) / 5**0.5)
    held = np.mean([abs(bar.mean - 0.3) <= bar.margin for bar in bars])
    assert held == pytest.approx(0.95, abs=0.012)
    # A verdict of a claim that is as often wrong as right: 2.5 % "holds" and 2.5 % "does not hold".
    verdicts = [sampled.verdict([sampled.Sampled.of(row - 0.3).sign]) for row in values]
    assert verdicts.count("holds") == pytest.approx(100, abs=40)
    assert verdicts.count("undecided") == pytest.approx(3800, abs=60)
    with pytest.raises(ValueError, match="has no error bar"):
        sampled.Sampled.of([1.0])
