"""What the package says of itself: extras, links, citation and workflows agree with each other and with the files."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

import counterfactual_probe as cp

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"bench", "dev", "docs", "examples", "test"}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def needs(extra: str) -> set[str]:
    """The packages of an extra, those of extras that it names included."""
    found: set[str] = set()
    for need in PROJECT["optional-dependencies"][extra]:
        if inner := re.fullmatch(r"counterfactual-probe\[(.*)\]", need):
            found |= set().union(*(needs(name) for name in inner[1].split(",")))
        else:
            found.add(need)
    return found


def test_all_extras_are_all_of_them() -> None:
    extras = {*PROJECT["optional-dependencies"]} - FOR_DEVELOPERS - {"all"}
    assert needs("all") == set().union(*map(needs, extras))


def test_the_readme_says_what_each_extra_is_for() -> None:
    table = (ROOT / "README.md").read_text().partition("| extra | for |\n|---|---|\n")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {*PROJECT["optional-dependencies"]} - FOR_DEVELOPERS


def test_links_of_the_readme_lead_somewhere_on_pypi() -> None:
    made = runpy.run_path(str(ROOT / "setup.py"))
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert len(links) > 20
    for link in links:
        assert (ROOT / link).exists(), link
    absolute = made["absolute"](text)
    assert not re.findall(r"\]\((?!https?:|#)", absolute)
    assert "![Hybrids" in absolute
    assert f"]({made['REPOSITORY']}/raw/main/docs/images/hybrids.webp)" in absolute
    assert f"]({made['REPOSITORY']}/blob/main/docs/modules.md)" in absolute
    assert PROJECT["urls"]["Repository"] == made["REPOSITORY"]


def test_the_citation_is_of_this_version_and_names_the_papers() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == cp.__version__
    assert cited["license"] == PROJECT["license"]
    assert cited["repository-code"] == PROJECT["urls"]["Repository"]
    assert [re.match(r"S\d{3}", paper["notes"])[0] for paper in cited["references"]] == [
        "S003",
        "S004",
        "S000",
        "S001",
        "S002",
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_may_do_little(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    text = path.read_text()
    for action in re.findall(r"uses: (\S+)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        writes = {key for key, value in job.get("permissions", {}).items() if value == "write"}
        assert writes <= ({"id-token", "pages"} if name in ("publish", "deploy") else set()), name
        commands = " ".join(step.get("run", "") for step in job["steps"])
        assert "${{ github." not in commands, "text from outside does not become a command"
        if name == "publish":
            assert "run" not in {key for step in job["steps"] for key in step}, "nothing runs beside the token"
