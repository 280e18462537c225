"""Layers: the outputs of a module's submodules, their channels, and hooks on them.

A layer is named as in ``module.named_modules()``. A submodule that runs several times in one
forward gives several layers, one per call: ``relu#1``, ``relu#2``, …
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..base.display.described import Described, Tabulated
from ..base.display.description import Description, Table
from ..base.errors import ProbeError, nearest
from .state.wrappers import original


@dataclass(frozen=True)
class LayerInfo:
    """A layer's name, number of channels, and the size of one channel.

    ``size`` is (H, W) for images, (T,) for tokens and () for plain vectors. The channel dimension
    is 1 for N×C×H×W and N×C, and the last for tokens N×T×D (conventions 1).
    """

    name: str
    channels: int
    size: tuple[int, ...]

    @property
    def channel_dim(self) -> int:
        return 2 if len(self.size) == 1 else 1


class Layers(Described, Tabulated, dict[str, LayerInfo]):
    """Layers by name, in execution order: a dict that prints as a table.

    >>> print(Layers({"main.8": LayerInfo("main.8", 128, (16, 16))}))
    Layers(1)
      layer   channels   size
      main.8       128  16×16
    """

    def describe(self) -> Description:
        rows = tuple((str(r["layer"]), str(r["channels"]), str(r["size"])) for r in self.records())
        return Description("Layers", str(len(self)), table=Table(("layer", "channels", "size"), rows))

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each layer."""
        for name, info in self.items():
            yield {"layer": name, "channels": info.channels, "size": "×".join(map(str, info.size)) or "–"}


@dataclass(frozen=True)
class Trace:
    """What ran in one forward: every layer call in the order in which its output was ready."""

    calls: dict[str, LayerInfo | str]  # "name#k" -> the layer, or why it has no channels
    times_run: dict[str, int]  # canonical name -> number of calls
    aliases: dict[str, str]  # any accepted name -> canonical name
    bytes_per_sample: int  # of the largest output: what limits a batch

    def once(self) -> dict[str, LayerInfo]:
        """Layers with channels that are computed exactly once per forward."""
        layers = {}
        for call, layer in self.calls.items():
            name = call.rpartition("#")[0]
            if isinstance(layer, LayerInfo) and self.times_run[name] == 1:
                layers[name] = LayerInfo(name, layer.channels, layer.size)
        return layers

    def why_none(self) -> str:
        """Why no layer is computed exactly once and what to do about it, as the end of an error message."""
        several = [call for call, layer in self.calls.items() if isinstance(layer, LayerInfo)]
        if not several:
            return (
                "submodule that gives a tensor with channels, sample first; put the parts to intervene on into "
                "submodules of their own"
            )
        name = several[-1].rpartition("#")[0]
        return (
            f"layer that runs once in a forward ({name!r} runs {self.times_run[name]} times); name calls of layers, "
            f"such as layers=[{several[-1]!r}]"
        )

    def resolve(self, name: str) -> LayerInfo:
        """The layer of this name; otherwise a ProbeError says why there is none."""
        base, hash_sign, number = name.partition("#")
        canonical = self.aliases.get(clean_name(base))
        if canonical is None:
            known = [*self.once(), *self.aliases]
            raise ProbeError(f"layer {name!r} is not in this generator; nearest: {nearest(name, dict.fromkeys(known))}")
        runs = self.times_run.get(canonical, 0)
        if runs == 0:
            raise ProbeError(
                f"layer {name!r} is in the module but never runs in its forward (its weights may be used "
                f"directly); choose one that runs, such as {nearest(name, self.once())}"
            )
        if runs > 1 and not hash_sign:
            raise ProbeError(
                f"layer {name!r} runs {runs} times in one forward; name one call as '{name}#2' (the first is #1)"
            )
        if hash_sign and not (number.isdecimal() and 1 <= int(number) <= runs):
            raise ProbeError(
                f"layer {base!r} runs {runs} time{'s' * (runs > 1)} in one forward and {name!r} asks for call "
                f"{number!r}; name one of #1 to #{runs}"
            )
        output = self.calls[f"{canonical}#{number or 1}"]
        if isinstance(output, str):
            raise ProbeError(f"layer {name!r} has no channels to set: {output}; choose a layer that gives a tensor")
        return LayerInfo(canonical if runs == 1 else f"{canonical}#{number}", output.channels, output.size)


def listed(layers: str | Iterable[str]) -> list[str]:
    """One layer's name or several, as a list."""
    if isinstance(layers, str):
        return [layers]
    try:
        return list(layers)
    except TypeError:
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


def activation_of(output: Any) -> Tensor | None:
    """The tensor that carries a layer's channels: the output, or the first entry of a tuple."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_activation(output: Any, activation: Tensor) -> Any:
    """The layer's output with its channel tensor replaced."""
    if isinstance(output, Tensor):
        return activation
    rest = [activation, *output[1:]]
    return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)


def channels_first(activation: Tensor) -> Tensor:
    """A view with the channels as dimension 1, whatever the kind of layer."""
    return activation.movedim(2, 1) if activation.dim() == 3 else activation


def trace(module: nn.Module, call: Callable[[], Any], samples: int) -> tuple[Any, Trace]:
    """Run ``call`` once and note every layer that ran; returns its output and the trace."""
    modules, aliases = named_layers(module)
    names = {id(part): name for name, part in modules.items()}
    runs: Counter[str] = Counter()
    calls: dict[str, LayerInfo | str] = {}
    largest = 1

    def note(part: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        name = names[id(part)]
        runs[name] += 1
        activation = activation_of(output)
        calls[f"{name}#{runs[name]}"] = _describe(name, activation, samples)
        if activation is not None:
            largest = max(largest, activation.numel() * activation.element_size() // samples)

    handles = [part.register_forward_hook(note) for part in modules.values()]
    try:
        output = call()
    finally:
        for handle in handles:
            handle.remove()
    return output, Trace(calls, dict(runs), aliases, largest)


def _describe(name: str, activation: Tensor | None, samples: int) -> LayerInfo | str:
    if activation is None:
        return "its output is not a tensor"
    if not activation.is_floating_point() or activation.dim() < 2 or activation.shape[0] != samples:
        return f"its output has shape {tuple(activation.shape)} for {samples} samples"
    shape = activation.shape
    if activation.dim() == 3:
        return LayerInfo(name, shape[2], (shape[1],))
    return LayerInfo(name, shape[1], tuple(shape[2:]))


@contextmanager
def hooked(
    modules: Mapping[str, nn.Module], actions: Mapping[str, Callable[[Tensor], Tensor | None]]
) -> Iterator[None]:
    """Apply each action to its layer's activation in the one forward run inside.

    An action gets the activation and returns its replacement, or None to leave it. Every layer
    must run exactly once; otherwise a ProbeError says what happened.
    """
    seen: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    wanted: dict[str, dict[str, str]] = {}
    for layer in actions:
        name, _, number = layer.partition("#")
        wanted.setdefault(name, {})[number] = layer

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_part: nn.Module, _inputs: Any, output: Any) -> Any:
            seen[name] += 1
            calls = wanted[name]
            layer = calls.get(str(seen[name])) or calls.get("")
            if layer is None:
                return None
            fired[layer] += 1
            activation = activation_of(output)
            if activation is None:
                raise ProbeError(f"layer {layer!r} gave a {type(output).__name__} and not a tensor in this forward")
            replacement = actions[layer](activation)
            return None if replacement is None else with_activation(output, replacement)

        return hook

    handles = [modules[name].register_forward_hook(hook_for(name)) for name in wanted]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    require_once(actions, fired)


def require_once(layers: Iterable[str], runs: Mapping[str, int]) -> None:
    """Raise a ProbeError about the first layer that did not run exactly once in a forward."""
    for layer in layers:
        if (times := runs.get(layer, 0)) != 1:
            raise ProbeError(
                f"layer {layer!r} ran {times} times in this forward, once in the first; the forward's path "
                "depends on its input, so choose a layer that every input passes once"
            )
