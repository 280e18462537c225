"""These tests need diffusers, which takes seconds to import: where they run, and not where they are collected."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _diffusers() -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
