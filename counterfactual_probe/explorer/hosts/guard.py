"""Who may ask a server: pages that it made itself, reached by its own address, and nobody else.

Another page in the same browser can send requests to any port of this machine. It does not know the token; its requests
name it as their origin; and where its own name is made to lead to this machine, they name that as the host.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Guard:
    """The address of a server, and the token in it.

    Attributes:
        host: as it was asked for; "0.0.0.0" and "::" are all addresses of this machine.
    """

    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def is_loopback(self) -> bool:
        return f"[{self.host}]" in LOOPBACK or self.host in LOOPBACK

    @property
    def address(self) -> str:
        """What a browser opens."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{self.token}/"

    def knows(self, token: str) -> bool:
        """Whether this is the token, in a time that does not tell how much of it is right."""
        return secrets.compare_digest(token.encode(), self.token.encode())

    def refusal(self, method: str, headers: Mapping[str, str]) -> str | None:
        """Why a request with these headers is not answered; None if it may be."""
        name, _, port = headers.get("host", "").rpartition(":")
        if port != str(self.port) or not self._is_own(name):
            return "this host is not the explorer's"
        if method == "POST":
            if headers.get("origin") != f"http://{headers['host']}":
                return "this origin is not the explorer's"
            if headers.get("content-type") != "application/json":
                return "requests are application/json"
        return None

    def _is_own(self, name: str) -> bool:
        if self.is_loopback:
            return name in LOOPBACK
        # A name in a foreign hand can be made to lead here, the number of an address cannot.
        return name == self.host or name in LOOPBACK or _is_number(name)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
