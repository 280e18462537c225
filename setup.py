"""What pyproject.toml cannot say: README.md with absolute links, since a page of PyPI has no files beside it."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

REPOSITORY = "https://github.com/counterfactual-probe/counterfactual-probe"
_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)]+)\)")


def absolute(text: str) -> str:
    """Markdown whose links and pictures of the repository lead to its main branch."""
    return _LINK.sub(
        lambda link: f"{link[1]}{link[2]}({REPOSITORY}/{'raw' if link[1] else 'blob'}/main/{link[3]})", text
    )


if __name__ == "__main__":
    setup(
        long_description=absolute(Path(__file__).with_name("README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
    )
