"""A Hugging Face hub of one repository, on this machine: what its client asks for is answered from a folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = "user/repo"
COMMIT = "1" * 40


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a hub that holds ``folder`` as user/repo, for as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Answers(BaseHTTPRequestHandler):
    def __init__(self, folder: Path, *arguments: Any) -> None:
        self._folder = folder
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = {file.name: file.read_bytes() for file in sorted(self._folder.iterdir())}
        if path in {f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/main"}:
            names = [{"rfilename": name} for name in files]
            self._say(json.dumps({"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": names}).encode())
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            tree = [{"type": "file", "path": name, "size": len(c), "oid": _oid(c)} for name, c in files.items()]
            self._say(json.dumps(tree).encode())
        elif (name := path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")) in files:
            self._say(files[name], {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _say(self, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: a test's output is its own."""


def _oid(content: bytes) -> str:
    return sha1(content, usedforsecurity=False).hexdigest()
