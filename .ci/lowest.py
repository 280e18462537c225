"""Print the oldest versions that pyproject.toml allows, as constraints for pip: python .ci/lowest.py >lowest.txt"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
_BOUND = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)$")


def lowest(project: dict[str, list[str]]) -> list[str]:
    """A constraint for each lower bound, of the library and of its extras; of two bounds, the higher."""
    found: dict[str, str] = {}
    for needs in project.values():
        for name, version in (bound.groups() for need in needs if (bound := _BOUND.match(need))):
            found[name] = max(found.get(name, version), version, key=_parts)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def bounds() -> dict[str, list[str]]:
    """What the library needs, and each extra."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


if __name__ == "__main__":
    print(*lowest(bounds()), sep="\n")
