"""Run the demo, and take the first picture of README.md and of the site from it: python .ci/pictures.py"""

from __future__ import annotations

from pathlib import Path

import counterfactual_probe as cp
from counterfactual_probe.cli import main

ROOT = Path(__file__).parent.parent


def take() -> None:
    if status := main(["demo", "--out", str(ROOT / "out/demo")]):
        raise SystemExit(status)
    text = (ROOT / "out/demo/report.html").read_text()
    best = min(cp.load("dcgan-faces").layers, key=lambda name: _place(text, f">Layer {name}</h2>"))
    (ROOT / "docs/images/hybrids.webp").write_bytes((ROOT / f"out/demo/figures/hybrids_{best}.webp").read_bytes())
    print(f"docs/images/hybrids.webp: {best}")


def _place(text: str, heading: str) -> int:
    """Where a chapter stands on the page, whose first is that of the most reproducible layer."""
    return text.index(heading) if heading in text else len(text)


if __name__ == "__main__":
    take()
