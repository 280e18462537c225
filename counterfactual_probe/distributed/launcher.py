"""What a launcher such as torchrun says about this process: its rank, how many there are, and where they meet."""

from __future__ import annotations

import math
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import torch.distributed as dist

from ..base.errors import ProbeError, first_line

stores: Any = dist  # torch's types do not export its stores
Store: TypeAlias = Any

PATIENCE = "COUNTERFACTUAL_PROBE_PATIENCE"
_SECONDS = 1800.0  # as torch.distributed's own
_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OWN_STORE = timedelta(seconds=10)  # for rank 0 to reach the store that it keeps itself
_MOST_SECONDS = 10**7


@dataclass(frozen=True)
class Launched:
    """One process of several, as the environment describes it."""

    rank: int
    world: int
    host: str
    port: int

    def store(self) -> Store:
        """Where ranks leave notes for each other, once all of them have come.

        Raises:
            ProbeError: the address cannot be reached, or some ranks do not come; the message names them.
        """
        patience = patience_of_ranks()
        at_agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun keeps one beside the ranks
        keeps = self.rank == 0 and not at_agents
        try:
            socket.getaddrinfo(self.host, self.port)
            store = stores.TCPStore(
                self.host,
                self.port,
                self.world,
                keeps,
                timeout=min(patience, _OWN_STORE) if keeps or at_agents else patience,
                wait_for_workers=False,
                multi_tenant=True,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ProbeError(
                f"rank {self.rank} cannot reach rank 0 at {self.host!r}, port {self.port} ({first_line(error)[:120]}); "
                "set MASTER_ADDR and MASTER_PORT to where rank 0 runs and to a free port there, on every rank, or "
                "unset RANK to run alone"
            ) from error
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        shared = stores.PrefixStore(f"counterfactual-probe/{attempt}", store)
        self._await_all(shared, patience)
        return shared

    def _await_all(self, store: Store, patience: timedelta) -> None:
        store.set(f"here/{self.rank}", "")
        keys = [f"here/{rank}" for rank in range(self.world)]
        try:
            store.wait(keys, patience)
        except RuntimeError as error:
            raise ProbeError(
                f"{missing_ranks(store, 'here', self.world) or 'another rank'} did not come within "
                f"{patience.total_seconds():g} s; make the same calls on every rank, or set {PATIENCE} to more seconds"
            ) from error


def launched() -> Launched | None:
    """This process as a launcher has described it, or None without one; a ProbeError if that makes no sense."""
    if not os.environ.keys() >= set(_NAMES):
        return None
    rank, world, port = (_number(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    host = os.environ["MASTER_ADDR"].strip()
    if not 0 <= rank < world:
        raise ProbeError(
            f"RANK is {rank} and WORLD_SIZE {world}; give each process a rank from 0 to WORLD_SIZE − 1, as torchrun "
            "does, or unset RANK to run alone"
        )
    if not 0 < port < 2**16 or not host:
        raise ProbeError(
            f"MASTER_ADDR is {host!r} and MASTER_PORT {port}; give the name of the machine of rank 0 and a free port "
            "there, as torchrun does, or unset RANK to run alone"
        )
    return Launched(rank, world, host, port)


def patience_of_ranks() -> timedelta:
    """How long a rank waits for the others: the environment's number of seconds, or half an hour."""
    given = os.environ.get(PATIENCE, "")
    try:
        seconds = float(given) if given else _SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST_SECONDS:
        raise ProbeError(f"{PATIENCE} is {given!r}; give a number of seconds above 0, up to {_MOST_SECONDS}")
    return timedelta(seconds=seconds)


def missing_ranks(store: Store, what: str, world: int) -> str:
    """The ranks that have not left a note of this kind, in words; nothing if the store cannot be asked."""
    try:
        missing = [str(rank) for rank in range(world) if not store.check([f"{what}/{rank}"])]
    except RuntimeError:  # of a store whose rank has ended
        return ""
    few = missing if len(missing) <= 8 else [*missing[:8], f"{len(missing) - 8} more"]
    return f"rank{'s' * (len(missing) > 1)} {', '.join(few)}" if missing else ""


def _number(name: str) -> int:
    text = os.environ[name]
    try:
        return int(text)
    except ValueError:
        raise ProbeError(
            f"{name} is {text!r} and not a number; let torchrun set it, or unset RANK to run alone"
        ) from None
