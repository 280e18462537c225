"""A Hugging Face hub of one repository, on this machine: what its client asks for is answered from a folder.

Pushed files are written there, and a hub that refuses, or knows who may write, says so as the real one does.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = "user/repo"
COMMIT = "1" * 40
TOKEN = "hf_for_a_test"


@dataclass
class Hub:
    """What was asked of the hub.

    Attributes:
        folder: of the repository's files.
        address: of the server.
        created: what repositories were made of, in order.
        commits: the message, the description and the names of the files of each.
        token: that writing takes; None takes any or none.
    """

    folder: Path
    token: str | None = None
    address: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def commit(self) -> str:
        """The name of the newest commit."""
        return COMMIT if not self.commits else sha1(str(len(self.commits)).encode(), usedforsecurity=False).hexdigest()

    def files(self) -> dict[str, bytes]:
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a hub that holds ``folder`` as user/repo, for as long as the block runs."""
    with hub_of(folder) as hub:
        yield hub.address


@contextmanager
def hub_of(folder: Path, token: str | None = None) -> Iterator[Hub]:
    """The same, with what was asked of it."""
    hub = Hub(folder, token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: Any) -> None:
        self._hub = hub
        super().__init__(*arguments)

    def do_GET(self) -> None:
        hub, path = self._hub, self.path.partition("?")[0].replace("%2F", "/")
        files, commit = hub.files(), hub.commit
        revisions = {f"/api/models/{REPOSITORY}", *(f"/api/models/{REPOSITORY}/revision/{r}" for r in ("main", commit))}
        if path in revisions:
            names = [{"rfilename": name} for name in files]
            self._say({"id": REPOSITORY, "modelId": REPOSITORY, "sha": commit, "siblings": names})
        elif path == f"/api/models/{REPOSITORY}/tree/{commit}":
            self._say([{"type": "file", "path": name, "size": len(c), "oid": _oid(c)} for name, c in files.items()])
        elif (name := path.removeprefix(f"/{REPOSITORY}/resolve/{commit}/")) in files:
            self._send(files[name], {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": commit})
        else:
            self._refuse(404, "Repository not found", {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        hub, path = self._hub, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self._say({"errors": _faults(json.loads(body)["content"]), "warnings": []})
        elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(401, "Invalid username or password.", {})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == f"/api/models/{REPOSITORY}/preupload/main":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._say({"files": files})
        elif path == f"/api/models/{REPOSITORY}/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "Not found", {"X-Error-Code": "RepoNotFound"})

    def _create(self, asked: dict[str, Any]) -> None:
        url = {"url": f"{self._hub.address}/{REPOSITORY}", "name": REPOSITORY}
        if f"{asked.get('organization')}/{asked['name']}" != REPOSITORY:
            self._refuse(403, "You don't have the rights to create a model under this namespace", {})
        elif self._hub.created:
            self._say(url, status=409)
        else:
            self._hub.created.append(asked)
            self._say(url)

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        (header,) = [line["value"] for line in lines if line["key"] == "header"]
        files = [line["value"] for line in lines if line["key"] == "file"]
        for one in files:
            target = self._hub.folder / one["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(base64.b64decode(one["content"]))
        self._hub.commits.append((header["summary"], [one["path"] for one in files]))
        oid = self._hub.commit
        self._say({"commitUrl": f"{self._hub.address}/{REPOSITORY}/commit/{oid}", "commitOid": oid})

    def _say(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"}, status)

    def _refuse(self, status: int, message: str, headers: dict[str, str]) -> None:
        self._send(json.dumps({"error": message}).encode(), {"X-Error-Message": message, **headers}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: a test's output is its own."""


def _faults(card: str) -> list[dict[str, str]]:
    """What the hub does not accept at the top of a card."""
    import yaml

    _, found, rest = card.partition("---\n")
    try:
        about = yaml.safe_load(rest.partition("\n---\n")[0]) if found and card.startswith("---\n") else {}
    except yaml.YAMLError as error:
        return [{"message": f"the metadata is no YAML ({error})"}]
    return [] if isinstance(about, dict) else [{"message": "the metadata is no object"}]


def _oid(content: bytes) -> str:
    return sha1(content, usedforsecurity=False).hexdigest()
