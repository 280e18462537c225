"""The folder of a training as a repository of the hub."""

from __future__ import annotations

import re
from pathlib import Path

from ...base.files import read_bytes
from ...base.hub.address import HUB, repository_of
from ...base.hub.card import placed_card
from ...base.hub.client import push
from ...registry.folders import CARD, CONFIG, read_object
from .output import LOSSES, STATE

_GRID = re.compile(r"!\[[a-z]+\]\(([a-z]+-\d+\.png)\)")  # in a card


def push_training(
    folder: Path, repository: str, *, licence: str | None = None, private: bool = False, revision: str | None = None
) -> str:
    """Push what ``load`` opens, the card with its pictures, and the losses, as one commit; not what resuming needs."""
    address = f"{HUB}{repository_of(repository)}"
    card, config = read_bytes(folder / CARD).decode(), read_object(folder / CONFIG)
    names = [CONFIG, LOSSES, *sorted(path.name for path in folder.glob("*.safetensors") if path.name != STATE)]
    names += [name for name in dict.fromkeys(_GRID.findall(card)) if (folder / name).is_file()]
    files: dict[str, bytes | Path] = {name: folder / name for name in names}
    files[CARD] = placed_card(card, address, [str(config.get("architecture", ""))], licence).encode()
    name = str(config.get("name", folder.name))
    return push(repository, files, message=f"Add {name}", private=private, revision=revision)
