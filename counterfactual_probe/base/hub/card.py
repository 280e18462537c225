"""The top of a model card on the hub: what its search reads, and how the repository is opened."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..errors import ProbeError, brief

LIBRARY = "counterfactual-probe"
PLACEHOLDER = "path/to/this/folder"  # in a card that is written before it is known where it will be
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")


def front_matter(tags: Sequence[str], licence: str | None = None) -> str:
    """The metadata of a card; whatever is in it, each value is a quoted text.

    >>> print(front_matter(["dcgan"], "mit"))
    ---
    library_name: "counterfactual-probe"
    pipeline_tag: "unconditional-image-generation"
    license: "mit"
    tags:
    - "counterfactual-probe"
    - "interpretability"
    - "dcgan"
    ---
    """
    given = [] if licence is None else [f"license: {json.dumps(licence_of(licence))}"]
    named = [f"- {json.dumps(tag)}" for tag in dict.fromkeys([LIBRARY, "interpretability", *tags])]
    about = [f"library_name: {json.dumps(LIBRARY)}", 'pipeline_tag: "unconditional-image-generation"']
    return "\n".join(["---", *about, *given, "tags:", *named, "---"])


def licence_of(licence: object) -> str:
    """An identifier of a licence as the hub has them."""
    if not isinstance(licence, str) or not _LICENCE.fullmatch(licence):
        raise ProbeError(f"licence is {brief(licence)}; give an identifier of the hub, such as 'mit' or 'cc-by-4.0'")
    return licence


def placed_card(card: str, address: str, tags: Sequence[str], licence: str | None = None) -> str:
    """A card that was written for a folder, as one of a repository; its own metadata, if it has any, stay."""
    text = card.replace(f'"{PLACEHOLDER}"', json.dumps(address))
    return text if text.startswith("---\n") else f"{front_matter(tags, licence)}\n\n{text}"
