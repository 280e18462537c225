"""A server on this machine, which gives the page and answers what it asks for."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
import warnings
import webbrowser
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...base.errors import ProbeError, whole
from ..bundle import served_page
from .guard import Guard
from .requests import Answers
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PORT = 8765
_TRIED = 20  # ports, from the one that was asked for on
_LARGEST_REQUEST = 2**22  # bytes: a region and all channels of many layers
_LOOKS = 0.2  # seconds between looks at whether the page is still there
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Server:
    """The explorer on a port of this machine.

    Args:
        port: the first to try; if it is in use, the next one is taken. 0 lets the system choose.
        host: the loopback address; any other is reached from other machines, and warned of.
    """

    def __init__(self, answers: Answers, *, port: int = PORT, host: str = "127.0.0.1") -> None:
        require_libraries()
        self._answers = answers
        self._socket = _listening(host, whole(port, "port", 0))
        self.guard = Guard(host, self._socket.getsockname()[1])
        if not self.guard.is_loopback:
            warnings.warn(
                f"the explorer listens on {host}, not on this machine alone: whoever has its address can use it",
                stacklevel=4,
            )
        self._page, self._policy = served_page(answers.page())
        self._worker: Worker[Any] = Worker()

    @property
    def address(self) -> str:
        return self.guard.address

    def run(self, *, open_browser: bool, say: Callable[[str], None]) -> None:
        """Serve until Ctrl-C."""
        say(f"the explorer is at {self.address}\nend it with Ctrl-C")
        if open_browser and _has_display():
            with suppress(webbrowser.Error, OSError):  # no browser: the address is said
                webbrowser.open(self.address)
        server = self.uvicorn()
        with suppress(KeyboardInterrupt):
            server.run(sockets=[self._socket])
        self._worker.stop()

    def uvicorn(self) -> Any:
        """What runs it; ``should_exit`` ends it."""
        import uvicorn

        config = uvicorn.Config(
            self.app(),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http="h11",
            timeout_graceful_shutdown=1,
        )
        return uvicorn.Server(config)

    @property
    def socket(self) -> socket.socket:
        return self._socket

    def app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/{token}/", self._guarded(self._give_page), methods=["GET"]),
                Route("/{token}/answers", self._guarded(self._answer), methods=["POST"]),
            ]
        )

    def _guarded(self, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        from starlette.responses import PlainTextResponse

        async def answer(request: Request) -> Response:
            refusal = self.guard.refusal(request.method, request.headers)
            if refusal is not None:
                made: Response = PlainTextResponse(refusal, 403)
            elif not self.guard.knows(request.path_params["token"]):
                made = PlainTextResponse("not found", 404)
            else:
                made = await endpoint(request)
            made.headers.update(_HEADERS)
            return made

        return answer

    async def _give_page(self, _: Request) -> Response:
        from starlette.responses import HTMLResponse

        policy = f"{self._policy}; frame-ancestors 'none'"
        return HTMLResponse(self._page, headers={"content-security-policy": policy})

    async def _answer(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse, Response

        try:
            asked = json.loads(await _body(request))
        except (ValueError, RecursionError):
            return PlainTextResponse("the request is no JSON of at most 4 MiB", 400)
        future = self._worker.submit(lambda: self._computed(asked))
        waiting = asyncio.wrap_future(future)
        while not (await asyncio.wait({waiting}, timeout=_LOOKS))[0]:
            if await request.is_disconnected():
                future.cancel()  # if it has not begun: nobody would see it
                return Response(status_code=204)
        try:
            pixels, milliseconds = waiting.result()
        except ProbeError as error:
            return PlainTextResponse(str(error), 400)
        return Response(
            pixels, headers={"x-milliseconds": f"{milliseconds:.1f}"}, media_type="application/octet-stream"
        )

    def _computed(self, asked: Any) -> tuple[bytes, float]:
        start = time.perf_counter()
        pixels = self._answers.pixels(asked).numpy().astype("<f4").tobytes()
        return pixels, 1000 * (time.perf_counter() - start)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _LARGEST_REQUEST:
            raise ValueError("too large")
        parts.append(part)
    return b"".join(parts)


def _listening(host: str, port: int) -> socket.socket:
    """A socket on the first free port from this one on."""
    last = port if port == 0 else port + _TRIED - 1
    if last > 65535:
        raise ProbeError(f"port is {port}; give one of at most {65535 - _TRIED + 1}, or 0 for any that is free")
    for number in range(port, last + 1):
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of one that has just ended, not of one in use
        try:
            made.bind((host, number))
            made.listen(64)
        except OSError as error:
            made.close()
            reason = error.strerror
            continue
        return made
    ports = f"port {port}" if last == port else f"none of the ports {port} to {last}"
    raise ProbeError(f"{host} cannot be listened on at {ports} ({reason}); give another port or host")


def _has_display() -> bool:
    """Without one, a browser of text would take over the terminal."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def require_libraries() -> None:
    """Raise a ProbeError that says what to install, if Starlette or uvicorn is missing."""
    from importlib.util import find_spec

    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise ProbeError(
            f"the explorer's server needs {' and '.join(missing)}; run: pip install 'counterfactual-probe[explore]'; "
            "or save a file"
        )
