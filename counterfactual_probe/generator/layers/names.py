"""Names of submodules, and several that one submodule has."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ...base.errors import ProbeError
from ..state.wrappers import original


def listed(layers: str | Iterable[str]) -> list[str]:
    """One layer's name or several, as a list."""
    if isinstance(layers, str):
        return [layers]
    try:
        return list(layers)
    except Exception:  # a TypeError, or what an object of the user's raises
        raise ProbeError(f"layers are a {type(layers).__name__}; give a layer's name, or a list of names") from None


def clean_name(name: str) -> str:
    """A submodule's name without the wrappers that torch.compile puts into it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def named_layers(module: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Canonical names of the submodules, and every alias (a shared submodule has several)."""
    canonical: dict[int, str] = {}
    modules: dict[str, nn.Module] = {}
    aliases: dict[str, str] = {}
    for raw, submodule in module.named_modules(remove_duplicate=False):
        name = clean_name(raw)
        part = original(submodule)
        if not name:
            continue
        first = canonical.setdefault(id(part), name)
        modules.setdefault(first, part)
        aliases[name] = first
    return modules, aliases
