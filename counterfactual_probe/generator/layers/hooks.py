"""Hooks on layers: see an activation in the one forward that is run, and put another in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn

from ...base.errors import ProbeError
from .site import Site

# Gets a view (samples, channels, …) of an activation and returns its replacement, or None to leave it.
Action: TypeAlias = Callable[[Tensor], "Tensor | None"]


@contextmanager
def hooked(modules: Mapping[str, nn.Module], actions: Iterable[tuple[Site, Action]]) -> Iterator[None]:
    """Apply each layer's action in the one forward run inside.

    Every layer must run exactly once; otherwise a ProbeError says what happened.
    """
    hooks: dict[tuple[str, bool], _Hook] = {}
    for site, action in actions:
        key = site.address.name, site.address.is_input
        hooks.setdefault(key, _Hook(modules[site.address.name])).actions.append((site, action))
    handles = []
    try:
        for (name, is_input), hook in hooks.items():
            if is_input:
                handles.append(modules[name].register_forward_pre_hook(hook.on_input, with_kwargs=True))
            else:
                handles.append(modules[name].register_forward_hook(hook.on_output))
        yield
    finally:
        for handle in handles:
            handle.remove()
    fired = Counter(layer for hook in hooks.values() for layer in hook.fired)
    require_once([site.info.name for hook in hooks.values() for site, _ in hook.actions], fired)


class _Hook:
    """The actions on one submodule's outputs, or on its inputs."""

    def __init__(self, part: nn.Module) -> None:
        self._part = part
        self.actions: list[tuple[Site, Action]] = []
        self.fired: list[str] = []
        self._runs = 0

    def __deepcopy__(self, _memo: Any) -> _Hook:
        return self  # a forward that copies a submodule copies its hooks

    def on_output(self, part: nn.Module, _given: Any, output: Any) -> Any:
        return self._act(output) if part is self._part else None

    def on_input(self, part: nn.Module, given: Any, named: Any) -> Any:
        return self._act((given, named)) if part is self._part else None

    def _act(self, handed: Any) -> Any:
        self._runs += 1
        for site, action in self.actions:
            # A submodule that runs once in the first forward is reported if it runs again.
            if not (site.is_only_call or site.address.call == self._runs):
                continue
            self.fired.append(site.info.name)
            activation = site.read(handed)
            if activation is None:
                raise ProbeError(
                    f"layer {site.info.name!r} gave a {type(handed).__name__} and not a tensor in this forward"
                )
            replacement = action(site.info.channels_first(activation))
            if replacement is not None:
                handed = site.replaced(handed, site.info.as_before(replacement))
        return handed


def require_once(layers: Iterable[str], runs: Mapping[str, int]) -> None:
    """Raise a ProbeError about the first layer that did not run exactly once in a forward."""
    for layer in layers:
        if (times := runs.get(layer, 0)) != 1:
            raise ProbeError(
                f"layer {layer!r} ran {times} times in this forward, once in the first; the forward's path "
                "depends on its input, so choose a layer that every input passes once"
            )
