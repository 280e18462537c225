"""Write the tutorials as notebooks, which Colab opens: python .ci/notebooks.py

Each docs/tutorials/NAME.md becomes docs/tutorials/notebooks/NAME.ipynb, without outputs; the site executes the pages.
"""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook

ROOT = Path(__file__).parent.parent
TUTORIALS = ROOT / "docs/tutorials"
SITE = "https://counterfactual-probe.github.io/counterfactual-probe"
REPOSITORY: str = runpy.run_path(str(ROOT / "setup.py"))["REPOSITORY"]
_LINK = re.compile(r"(!?\[[^\]]*\])\((?!https?:|#)([^)]+)\)")


def as_notebook(page: Path) -> str:
    """The page as the text of a notebook whose links lead to the site."""
    made = read_myst_markdown_notebook(page.read_text(encoding="utf-8"))
    made.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"
        if cell["cell_type"] == "markdown":
            cell["source"] = _LINK.sub(lambda link: f"{link[1]}({_on_the_site(link[2], page)})", cell["source"])
        else:
            cell["metadata"] = {}
    made["nbformat_minor"] = 5
    nbformat.validate(made)
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _on_the_site(link: str, page: Path) -> str:
    path, _, part = link.partition("#")
    target = (page.parent / path).resolve().relative_to(ROOT)
    address = f"{SITE}/{target.with_suffix('.html')}" if target.suffix in {".md", ".rst", ".py"} else ""
    if not address:
        address = f"{REPOSITORY}/blob/main/{target}"
    return f"{address}#{part}" if part else address


if __name__ == "__main__":
    for page in sorted(TUTORIALS.glob("*.md")):
        if page.stem != "index":
            notebook = TUTORIALS / "notebooks" / f"{page.stem}.ipynb"
            notebook.parent.mkdir(exist_ok=True)
            notebook.write_text(as_notebook(page), encoding="utf-8")
            print(notebook.relative_to(ROOT))
