"""The tutorials: notebooks that Colab opens, the same as their pages; the site's build executes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.paths import DOCS, ROOT, module_of

FOLDER = DOCS / "tutorials"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "index")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
COLAB = "https://colab.research.google.com/github/counterfactual-probe/counterfactual-probe/blob/main/"


def test_there_are_six_and_all_are_listed() -> None:
    assert len(PAGES) == 6
    index = (FOLDER / "index.md").read_text()
    for page in PAGES:
        assert f"]({page.name})" in index
        assert f" <{page.stem}>\n" in index


@each_page
def test_a_page_opens_in_colab_and_installs_what_it_needs_first(page: Path) -> None:
    text = page.read_text()
    (link,) = re.findall(rf"\[Open it in Colab\]\({re.escape(COLAB)}(\S+)\)", text)
    assert (ROOT / link).is_file()
    first = re.findall(r"^```\{code-cell\} python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0]
    assert first.startswith(":tags: [skip-execution]\n"), "the site has it all"
    assert "%pip install" in first
    weights = {name for name in ("dcgan-faces", "cdcgan-eyes") if f'cp.load("{name}")' in text}
    wheels = {"dcgan-faces": "gan-face-generate", "cdcgan-eyes": "omniart-eye-generator"}
    assert {wheel for wheel in wheels.values() if wheel in first} == {wheels[name] for name in weights}
    assert ("[robustness]" in first) == ("load_classifier" in text)


@each_page
def test_a_notebook_is_its_page_without_outputs(page: Path) -> None:
    pytest.importorskip("myst_nb")
    notebook = FOLDER / "notebooks" / f"{page.stem}.ipynb"
    text = notebook.read_text(encoding="utf-8")
    made = module_of(ROOT / ".ci/notebooks.py").as_notebook(page)
    assert text == made, "run python .ci/notebooks.py"
    cells = json.loads(text)["cells"]
    assert all(cell.get("outputs", []) == [] for cell in cells)
    prose = "".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert not re.findall(r"\]\((?!https://)", prose), "links lead to the site"


def test_a_page_that_has_changed_is_found(tmp_path: Path) -> None:
    pytest.importorskip("myst_nb")
    as_notebook = module_of(ROOT / ".ci/notebooks.py").as_notebook
    changed = FOLDER / "changed-for-a-test.md"
    page = PAGES[0]
    try:
        changed.write_text(page.read_text().replace("import counterfactual_probe as cp", "import counterfactual_probe"))
        assert as_notebook(changed) != as_notebook(page)
    finally:
        changed.unlink()
