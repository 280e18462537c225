"""Toy generators: one small module for every thing that people's generators do, in one table.

Each is at most 16×16 pixels and float64 unless it is about another precision, so that identities
are sharp. ``plain()`` gives the eager, unwrapped module that literal twins run; ``module()`` gives
the same weights as a user would hand them over (compiled, parallel, in train mode).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import (
    Conditional,
    Deconv,
    Fused,
    HiddenPath,
    InPlace,
    Mapping,
    Noisy,
    Outputs,
    OverWidth,
    Sampler,
    Shared,
    SkipLatent,
    Tokens,
    TupleLayer,
    UNet,
    as_dict,
    as_nested,
    as_object,
    as_tuple,
    coupled,
    from_nested,
    labelled,
    odd_size,
    twofold,
    vectors,
)

Module = TypeVar("Module", bound=nn.Module)


def identity(value: Any) -> Any:
    return value


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


def compiled_part(module: nn.Module) -> nn.Module:
    module.main = compiled(module.main)
    return module


def compiled_part_in_place(module: nn.Module) -> nn.Module:
    module.get_submodule("main.6").compile(backend="eager")
    return module


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights that are made inside are those of the seed; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def untrained(make: Callable[[], Module], seed: int = 5, dtype: torch.dtype = torch.float64) -> Module:
    """What ``make`` gives, in eval mode, with weights of the seed whose effects are visible."""
    with seeded(seed):
        module = make().to(dtype)
        unlike_new(module)
    return module.eval()


def unlike_new(module: nn.Module) -> None:
    """Weights and statistics that make effects visible."""
    with torch.no_grad():
        for weight in module.parameters():
            # Effects of the order of the image itself, far above any tolerance.
            weight.mul_(3 if weight.dim() > 1 else 1)
    for part in module.modules():
        # Statistics unlike those of a batch, so that train mode would change every number.
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)


@dataclass(frozen=True)
class Toy:
    """One case. ``layer`` is probed; ``deeper`` comes later and is used with it in one unit set.

    ``conditions`` are the latents (keys or positions) that must be equal for a layer to be a full
    cut; ``read`` takes the image off the output, for the literal twin.
    """

    name: str
    build: Callable[[], nn.Module]
    layer: str = "main.2"
    deeper: str = "main.6"
    full_cut: bool = True
    sampler: Sampler = field(default_factory=lambda: vectors(5))
    conditions: tuple[str | int, ...] = ()
    read: Callable[[Any], Tensor] = identity
    handed_over: Callable[[nn.Module], nn.Module] = identity
    dtype: torch.dtype = torch.float64
    wrap: dict[str, Any] = field(default_factory=dict)
    batchable: bool = True
    trained: bool = False  # ``build`` gives weights that must be left alone
    device: str = "cpu"  # where generator and twin run; see ``devices.cases``

    @property
    def tolerance(self) -> float:
        """Largest difference from a literal twin: only the order of sums differs."""
        return {torch.float64: 1e-10, torch.float32: 1e-5}.get(self.dtype, 0.05)

    def plain(self) -> nn.Module:
        """The eager module in train mode; every call gives the same weights."""
        with seeded(11):
            module = self.build().to(self.dtype)
            if not self.trained:
                unlike_new(module)
        return (module if self.device == "cpu" else module.to("cuda")).train()

    def module(self) -> nn.Module:
        return self.handed_over(self.plain())

    def generator(self) -> cp.GeneratorAdapter:
        return cp.wrap(self.module(), self.sampler, **self.wrap)

    def same_conditions(self, z1: Any, z2: Any) -> Any:
        """``z2`` with the classes and skip inputs of ``z1``."""
        if isinstance(z2, dict):
            return {key: (z1 if key in self.conditions else z2)[key] for key in z2}
        if isinstance(z2, tuple):
            return tuple((z1 if i in self.conditions else z2)[i] for i in range(len(z2)))
        return z2


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
PLAIN = Toy("deconvolutions, batch norm, in-place ReLU", Deconv)
CONDITIONAL = Toy("conditional, dict of latents", Conditional, "first", "second", sampler=labelled, conditions=("y",))
SKIP_CROSSES = Toy("skip crosses the layer", UNet, "middle", "up", full_cut=False)
SHARED = Toy("one ReLU for all", Shared, "relu#2", "relu#3")
NOISY = Toy("noise in the forward", Noisy, batchable=False)
COUPLED = Toy("samples of a batch are coupled", coupled, batchable=False)
DROPOUT = Toy("dropout, in train mode", lambda: Deconv(dropout=0.5))
TOKENS = Toy("tokens, attention", Tokens, "mlp", "attend2.value")
FLOAT32 = Toy("float32", Deconv, dtype=F32)
HIDDEN_PATH = Toy("reads what a layer left on itself", HiddenPath, "second", "up", full_cut=False)
OVER_WIDTH = Toy("linear over the width", OverWidth, "act", "width")
VECTOR = Toy("vector layer", Mapping, "mapping.1", "up")

TOYS = [
    PLAIN,
    CONDITIONAL,
    SKIP_CROSSES,
    SHARED,
    NOISY,
    COUPLED,
    DROPOUT,
    TOKENS,
    FLOAT32,
    VECTOR,
    HIDDEN_PATH,
    Toy("tuple of latents, skip-z", SkipLatent, "first", "second", sampler=twofold, conditions=(1,)),
    Toy("returns a tuple", lambda: Outputs(as_tuple), read=lambda output: output[1]),
    Toy("returns a dict", lambda: Outputs(as_dict), read=lambda output: output["image"]),
    Toy("returns an object", lambda: Outputs(as_object), read=lambda output: output.sample),
    Toy("needs image=", lambda: Outputs(as_nested), read=from_nested, wrap={"image": from_nested}),
    Toy("layer overwritten in place", InPlace, "first", "second"),
    Toy("layer returns (tokens, weights)", Tokens, "attend1", "attend2"),
    Toy("layer returns a named tuple", TupleLayer, "pair", "last"),
    Toy("grey", lambda: Deconv(1)),
    Toy("five colours, odd size", odd_size),
    Toy("bfloat16", Deconv, dtype=BF16),
    Toy("float16", Deconv, dtype=F16),
    Toy("DataParallel", Deconv, handed_over=nn.DataParallel),
    Toy("compiled", Deconv, handed_over=compiled),
    Toy("compiled in place", Deconv, handed_over=compiled_in_place),
    Toy("compiled part", Deconv, handed_over=compiled_part),
    Toy("compiled part, in place", Deconv, handed_over=compiled_part_in_place),
    Toy("fused transformer layers", Fused, "encoder.layers.0.linear1", "encoder.layers.1.norm1", full_cut=False),
    OVER_WIDTH,
    Toy("compiled, then DataParallel", Deconv, handed_over=lambda module: nn.DataParallel(compiled(module))),
]
FULL_CUTS = [toy for toy in TOYS if toy.full_cut]
