"""The command that makes an explorer's page."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from counterfactual_probe.cli import main
from support import forks


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
    given = ["explore", "support.explored:faces", "--port", "80", "--save", str(tmp_path / "a.html")]
    assert main(given) == 2
    assert "--port is given with --save" in capsys.readouterr().err


def test_a_page_is_shown_until_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="starlette is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    said = tmp_path / "said"
    arguments = ["explore", "support.explored:faces", "--pairs", "2", "--port", "0", "--no-browser", "--no-progress"]
    program = forks.Fork(
        f"""
        import sys
        from counterfactual_probe.cli import main
        sys.stderr = open({str(said)!r}, "w", buffering=1)
        raise SystemExit(main({arguments!r}))
        """
    )
    try:
        until = time.monotonic() + 60
        while not (said.exists() and "Ctrl-C" in said.read_text()) and program.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        address = said.read_text().split()[4]
        with urlopen(address, timeout=10) as page:
            assert b"toy-faces" in page.read()
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0
    finally:
        program.kill()
    assert said.read_text().splitlines()[2:] == []
