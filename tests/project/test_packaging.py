"""What the package says of itself: extras, links, citation and workflows agree with each other and with the files."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import counterfactual_probe as cp
from support.paths import module_of

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


def test_python_in_the_clone_finds_the_adapters() -> None:
    """There it imports the package from the current folder, whatever pip installed and wherever that is."""
    code = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in f"{finder} {finder.__class__.__module__}"]
sys.path.insert(0, "")
from counterfactual_probe.adapters.dcgan import generator
from counterfactual_probe.adapters import cards
print(generator.__file__, *cards.__path__, sep="\\n")
"""
    made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert made.stdout.splitlines() == [str(ROOT / "adapters/dcgan/generator.py"), str(ROOT / "adapters/cards")]


# --- lower bounds, and the recipe for conda-forge ---------------------------------------------------

# conda-forge's names, where they are not PyPI's.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "PyWavelets": "pywavelets"}


def test_the_recipe_needs_what_the_package_needs() -> None:
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((ROOT / "recipe/recipe.yaml").read_text())
    needs = [re.fullmatch(r"([\w-]+)(>=.+)", need) for need in PROJECT["dependencies"]]
    expected = {f"{CONDA.get(need[1], need[1])} {need[2]}" for need in needs if need}
    assert len(expected) == len(PROJECT["dependencies"])
    python = "python >=${{ python_min }}"
    assert set(recipe["requirements"]["run"]) == {*expected, python}
    (oldest,) = yaml.safe_load((ROOT / "recipe/variants.yaml").read_text())["python_min"]
    assert PROJECT["requires-python"] == f">={oldest}"
    assert recipe["context"]["version"] == cp.__version__
    assert recipe["package"]["name"] == PROJECT["name"]
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {need.replace(">=", " >=") for need in build} <= set(recipe["requirements"]["host"])
    (command,) = recipe["build"]["python"]["entry_points"]
    name, _, target = command.partition(" = ")
    assert PROJECT["scripts"] == {name: target}


def test_the_oldest_versions_are_all_lower_bounds() -> None:
    made = module_of(ROOT / ".ci/lowest.py")
    pins = dict(pin.split("==") for pin in made.lowest(made.bounds()))
    bounds = {
        match[1]: match[2]
        for extra in ["", *PROJECT["optional-dependencies"]]
        for need in (PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"])
        if (match := re.fullmatch(r"([\w.-]+)>=(.+)", need))
    }
    assert pins.keys() == bounds.keys()
    assert pins["torch"] == bounds["torch"]
    assert made.lowest({"": ["a>=1.9", "b==3"], "more": ["a>=1.10", "c"]}) == ["a==1.10"], "of two bounds the higher"


def test_jobs_that_run_the_tests_have_the_weights_that_these_load() -> None:
    yaml = pytest.importorskip("yaml")
    makefile = (ROOT / "Makefile").read_text()
    (weights,) = re.findall(r"^WEIGHTS := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    pins = set(weights.replace("\\", "").split())
    assert len(pins) == 5
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    steps = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    tested = {name for name, commands in steps.items() if any("pytest" in command for command in commands)}
    assert tested == {"systems", "lowest"}, "the others use make, which installs them"
    for name in tested:
        assert any(pins <= {*command.split()} for command in steps[name]), name


def test_the_lowest_versions_are_tried_where_ci_runs() -> None:
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    steps = " ".join(step.get("run", "") for step in jobs["lowest"]["steps"])
    assert ".ci/lowest.py" in steps
    assert "pytest" in steps
    (setup,) = [step["with"]["python-version"] for step in jobs["lowest"]["steps"] if "python" in step.get("uses", "")]
    assert PROJECT["requires-python"] == f">={setup}"


def test_what_jobs_run_is_there() -> None:
    """Scripts, targets of make, extras and files of versions."""
    yaml = pytest.importorskip("yaml")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    seen: set[str] = set()
    for workflow in WORKFLOWS:
        for job in yaml.safe_load(workflow.read_text())["jobs"].values():
            commands = " ".join(step.get("run", "") for step in job["steps"])
            for script in re.findall(r"(?:bash|python) (\.ci/\S+)", commands):
                assert (ROOT / script).is_file(), script
            for wanted in re.findall(r"^make (.+)$", commands, re.MULTILINE):
                assert set(wanted.split()) <= targets, wanted
            for extras in re.findall(r"\"\.\[(.+?)\]\"", commands):
                assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys(), extras
            for file in re.findall(r"--constraint (\S+)", commands):
                assert (ROOT / file).is_file() or f">{file}" in commands, file
            seen.update(re.findall(r"make|\.ci/\w+|\[\w+\]|constraints\.txt", commands))
    assert {"make", ".ci/run", ".ci/lowest", ".ci/recipe", "[test]", "constraints.txt"} <= seen
