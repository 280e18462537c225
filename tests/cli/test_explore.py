"""The command that makes an explorer's page."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterfactual_probe.cli import main


def test_a_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "page.html"
    given = ["--layers", "second", "--pairs", "2", "--precision", "float32", "--no-progress", "--save", str(path)]
    assert main(["explore", "support.explored:faces", *given]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == str(path)
    assert "Explorer('toy-faces', 1 layer)" in out
    text = path.read_text()
    assert '"type":"float32"' in text
    assert text.startswith("<!DOCTYPE html>")


def test_what_is_wrong_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["explore", "support.explored:faces", "--save", str(tmp_path / "file" / "page.html")]) != 0
    assert "cannot be written" in capsys.readouterr().err
    assert main(["explore", "support.explored:faces", "--layers", "third", "--save", str(tmp_path / "a.html")]) != 0
    assert "layer 'third' is not in this generator" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()
    with pytest.raises(SystemExit):
        main(["explore", "support.explored:faces"])
    assert "--save" in capsys.readouterr().err
