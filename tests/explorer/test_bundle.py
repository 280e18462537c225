"""The page's script and policy: made of every source file, the same each time, and without ways out of the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import counterfactual_probe.explorer as room
from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.explorer import bundle

FRONT = Path(str(room.__file__)).parent / "front"
SOURCES = {path.relative_to(FRONT).as_posix(): path.read_text() for path in FRONT.rglob("*.js")}
# Ways to run text, to read text as HTML, and to reach other machines.
FORBIDDEN = (
    r"\beval\b", r"new Function", r"innerHTML", r"outerHTML", r"insertAdjacentHTML", r"document\.write", r"DOMParser",
    r"\bfetch\(", r"XMLHttpRequest", r"WebSocket", r"EventSource", r"sendBeacon", r"import\(", r"https?://",
)  # fmt: skip


def test_the_script_holds_every_module_once() -> None:
    made = (
        bundle.script("file.js") + bundle.script("server.js") + bundle.value("widget.js") + bundle.value("embedded.js")
    )
    names = re.findall(r"^const (module_\w+) = \(\(\) => \{$", made, re.MULTILINE)
    assert sorted({*names}) == sorted(map(bundle._variable, SOURCES))
    for entry in ("file.js", "server.js"):
        assert bundle.script.__wrapped__(entry) == bundle.script(entry)
        assert len(re.findall(rf"^const {bundle._variable(entry)} =", bundle.script(entry), re.MULTILINE)) == 1
    assert bundle.module("widget.js").startswith("export default (() => {")


@pytest.mark.parametrize("name", SOURCES)
def test_no_source_reaches_out_of_the_page(name: str) -> None:
    found = [pattern for pattern in FORBIDDEN if re.search(pattern, SOURCES[name])]
    # The page of a server asks that server, and no other page asks any.
    assert found == ([r"\bfetch\("] if name == "hosts/server.js" else [])
    assert len(SOURCES[name].splitlines()) <= 400
    assert SOURCES[name].startswith("// ")  # what it is for


def test_the_search_for_ways_out_finds_some() -> None:
    assert [pattern for pattern in FORBIDDEN if re.search(pattern, "el.innerHTML = text; fetch('https://x')")]


def test_imports_in_other_forms_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_front", lambda: tmp_path)
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\nexport const a = b + 1;\n')
    (tmp_path / "b.js").write_text("export const b = 1;\n")
    made = bundle.script.__wrapped__("a.js")
    assert made.index("module_b =") < made.index("module_a =")
    for text, said in (
        ('import b from "./b.js";\n', "in a form that bundles do not know"),
        ("export default 3;\n", "in a form that bundles do not know"),
        ("const a = '</script>';\n", "would end its script element"),
    ):
        (tmp_path / "a.js").write_text(text)
        with pytest.raises(ProbeError, match=said):
            bundle.script.__wrapped__("a.js")


def test_text_in_the_page_ends_no_element() -> None:
    given = {"name": "</script><script>alert(1)</script><!--", "more": "\u2028&"}
    written = bundle.embedded(given)
    assert not re.search(r"[<>&]", written)
    assert json.loads(written) == given


def test_the_policy_knows_script_and_style_and_nothing_else() -> None:
    contents: dict[str, Any] = {"name": "<b>{{ script }}</b>"}
    page = bundle.single_file(contents, None)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    for element, rule in (("style", "style-src"), ('script id="script"', "script-src")):
        inside = re.search(rf"<{element}>(.*?)</{element.split()[0]}>", page, re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    # Names are neither elements nor places of the template.
    assert "<b>" not in page
    assert page.count('<script id="script">') == 1
