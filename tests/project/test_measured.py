"""Tables of pages are those of the files that benchmarks wrote."""

from __future__ import annotations

import json
from statistics import mean

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


def test_the_page_about_the_benchmark_shows_what_was_measured() -> None:
    script, pages = benchmark("modularity.leaderboard"), benchmark("pages")
    measured = json.loads((BENCHMARKS / "measured" / "modularity.json").read_text(encoding="utf-8"))
    page = (DOCS / "benchmark.md").read_text(encoding="utf-8")
    assert pages.written_into(page, script.tables(measured)) == page
    assert all(table in page for table in script.tables(measured).values())
    # What the page says in words.
    of = {entry["method"]: entry for entry in measured["leaderboard"]}
    maps, activations = ("l2, NMF", "l2, k-means", "bits, NMF", "bits, k-means"), [n for n in of if "activations" in n]
    kinds = of["random"]["truth_of"]
    assert all(of[name]["truth_of"]["three modules, latents of all of them"][0] == 1 for name in maps)
    assert all(of[name]["truth_of"]["three modules, latents of all of them"][0] < 0.1 for name in activations)
    assert {len(activations), len(kinds)} == {3, 7}
    for name in maps:
        assert (of[name]["truth_of"]["four modules at two scales"][0] > 0.9) == name.startswith("l2")
        assert 0.7 < of[name]["truth_of"]["three overlapping modules"][0] < 0.9
        assert of[name]["decoder"]["separation"] > 0.05 > of["random"]["decoder"]["separation"]
        assert 0.55 < of[name]["continuum"]["agreement"] < 0.65
    confirmed = {name: entry["decoder"]["agreement"] for name, entry in of.items() if "decoder" in entry}
    assert max(confirmed, key=lambda name: confirmed[name]) == "single channels"
    assert of["pca, NMF"]["expected_error"][0] > 0.09
    assert all(
        entry[group].get("apart", 0) == 0 for entry in of.values() for group in entry.keys() & {"continuum", "decoder"}
    )
    assert measured["settings"]["toys"] * 6 == 60
    assert of["l2, k-means"]["iou"][0] - of["random"]["iou"][0] > 0.1
    chance, error = of["random"]["interchange"]
    in_place = of.pop("every channel, in place")["interchange_of"]
    assert all(entry["interchange"][0] < chance + error for entry in of.values())
    for decoder in ("ae", "betavae"):
        assert in_place[decoder][0] > 0.1 + of["random"]["interchange_of"][decoder][0]
    for decoder in ("sae", "vlae"):
        assert in_place[decoder][0] < 0.2
    assert all(entry["failed"] == {} for entry in of.values())


def test_the_page_about_samplers_shows_what_was_measured() -> None:
    script, pages = benchmark("samplers"), benchmark("pages")
    measured = json.loads((BENCHMARKS / "measured" / "samplers.json").read_text(encoding="utf-8"))
    page = (DOCS / "samplers.md").read_text(encoding="utf-8")
    table = script.page_table(measured)
    assert pages.written_into(page, {"samplers": table}) == page
    assert table in page
    assert all(row["error"] <= 7e-7 and row["executor"] == "prepared" for row in measured["rows"])
    memory = json.loads((BENCHMARKS / "measured" / "sampler_memory.json").read_text(encoding="utf-8"))
    first, later = (round(memory["peak_bytes"][f"{name} call"] / 1e6) for name in ("first", "later"))
    assert f"takes {first} MB beside its weights ({round(memory['weights_bytes'] / 1e6)} MB)" in page
    assert f"and {later} MB in later calls" in page


def test_the_page_about_reproducibility_shows_what_was_measured() -> None:
    script, pages = benchmark("reproducibility"), benchmark("pages")
    measured = json.loads((BENCHMARKS / "measured" / "pca.json").read_text(encoding="utf-8"))
    page = (DOCS / "reproducibility.md").read_text(encoding="utf-8")
    assert pages.written_into(page, script.tables(measured)) == page
    assert script.tables(measured)["pca"] in page
    rows = measured["rows"]
    assert abs(mean(row["expected_ari"] - row["ari"] for row in rows)) <= 0.05
    assert mean(row["sure_kept"] for row in rows) >= 0.95


def test_the_page_about_exchanges_shows_what_was_measured() -> None:
    script, pages = benchmark("exchange"), benchmark("pages")
    measured = json.loads((BENCHMARKS / "measured" / "exchange.json").read_text(encoding="utf-8"))
    page = (DOCS / "exchange.md").read_text(encoding="utf-8")
    assert pages.written_into(page, script.tables(measured)) == page
    assert all(table in page for table in script.tables(measured).values())
    # What the page says in words.
    layers = measured["layers"]
    of_vaes = [module for row in layers if row["generator"].startswith("vae") for module in row["modules"]]
    others = [module for row in layers if not row["generator"].startswith("vae") for module in row["modules"]]
    assert all(0.11 < module["separation"] < 0.4 and module["p_separation"] <= 0.02 for module in of_vaes)
    assert max(module["random_separation"] for module in of_vaes) < 0.105
    assert max(module["separation"] for module in others) < 0.05
    assert all(abs(row["interaction"] - row["random_interaction"]) < 0.03 for row in layers)
    assert all(row["hybrids_below_own"][0] > 7 * row["hybrids_below_own"][1] for row in layers)
    assert min(row["faithfulness"][group] for row in layers for group in script.OWN) > 0.99
    assert all(abs(row["hybrids"] - row["faithfulness"]["random sets"]) < 0.1 for row in layers)
    assert sum(row["hybrids"] < row["faithfulness"]["collages"] for row in layers) == 1


def test_the_page_about_scaling_shows_what_was_measured() -> None:
    large, scaling, pages = benchmark("large"), benchmark("scaling"), benchmark("pages")
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    results = [json.loads((BENCHMARKS / "measured" / f"{name}.json").read_text()) for name in ("large", "scaling")]
    for script, measured in zip((large, scaling), results, strict=True):
        tables = script.tables(measured)
        assert pages.written_into(page, tables) == page
        assert all(table in page for table in tables.values())
        assert {"processor", "torch", "threads"} <= measured["machine"].keys()
    rows = results[0]["rows"]
    assert large.growing(rows) == []
    # What the page says in words.
    assert {"StyleGAN2 1024×1024", "BigGAN-deep-512"} == {row["name"] for row in rows.values() if "name" in row}
    for row in rows.values():
        if "name" in row:
            assert row["few"]["executor"] == "prepared"
            peaks = [row[name]["bytes"] for name in ("few", "more pairs", "more units")]
            assert max(peaks) < large.BOUND * row["largest_activation_bytes"]
    assert f"below {large.BOUND:.0f} times the largest activation" in page
    fitted, error = large.slope(large.points(results[0]))
    assert f"slope is {fitted:.2f} ± {error:.2f}" in page
    for axis in ("pairs", "channels", "size", "depth"):
        assert results[1]["rows"][axis]["executor"] == "prepared"
