"""Networks that are no wrapped generators: run them once, on an input that the first layer tells of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...base.caller import blamed_on
from ...base.errors import ProbeError, first_line, text
from ...base.memory import in_slices
from ...generator import latents as lt
from ...generator.adapter import GeneratorAdapter
from ...generator.device import home, is_module, on_device, unwrapped
from ...generator.latents import Latents
from ...generator.layers import clean_name, named_layers
from ...generator.state.session import borrowed, called

# Sides of images that networks are commonly made for.
_SIDES = (64, 32, 128, 256, 28, 224, 16, 512)


class Network:
    """A generator, or any module with an input that it takes: what is traced."""

    def __init__(self, model: GeneratorAdapter | nn.Module, example: Latents | None, name: str | None) -> None:
        if isinstance(model, GeneratorAdapter):
            if example is not None:
                raise ProbeError("an example is given for a generator, which samples its own latents; leave it out")
            self.generator: GeneratorAdapter | None = model
            self.module, self.modules = model.module, model.submodules
            self.name = text("" if name is None else name, "name") or model.name
            return
        if not is_module(model):
            raise ProbeError(f"the network is a {type(model).__name__}; give a generator or a torch.nn.Module")
        self.generator = None
        self.module = on_device(unwrapped(model), None)  # checked, and left where it is
        self.modules, _ = named_layers(self.module)
        self.name = text("" if name is None else name, "name") or type(self.module).__name__
        self._example = self._placed(example) if example is not None else self._inferred()

    def example(self) -> Latents:
        """The fewest samples that a forward takes."""
        if self.generator is None:
            return lt.apply(self._example, torch.clone)  # a first layer may work in place
        samples = 2 if self.generator.batchable else 1
        return lt.take(self.generator.example, slice(0, samples))

    @contextmanager
    def session(self) -> Iterator[None]:
        """The module in eval mode, without gradients; as it was found at the end."""
        manager: AbstractContextManager[Any]
        manager = borrowed(self.module) if self.generator is None else self.generator.session()
        with manager:
            yield

    def forward(self, inputs: Latents, *, seed: int = 0, first: int = 0) -> Any:
        """One forward inside a session; ``first`` numbers the first sample's noise."""
        if self.generator is not None:
            n = lt.count(inputs)
            return self.generator.forward(inputs, noise=range(first, first + n), seed=seed)
        with blamed_on(f"the forward of {self.name}", "give example=..., an input that the module takes"):
            return _call(self.module, inputs)

    def batches(self, inputs: Latents, run: Callable[[Latents, int], None]) -> int:
        """Run on all samples in batches that fit; returns how many there were."""
        if self.generator is not None:
            n = self.generator.check(inputs)
            for _ in self.generator.batches(n, lambda index: run(lt.take(inputs, index), index.start)):
                pass
            return n
        placed = self._placed(inputs)
        n = lt.count(placed, "the inputs")

        def part(index: slice) -> None:
            run(lt.apply(lt.take(placed, index), torch.clone), index.start)

        for _ in in_slices(n, 16, part, "the run of a single input"):
            pass
        return n

    def provenance(self) -> dict[str, Any]:
        from ...version import __version__

        if self.generator is not None:
            return self.generator.provenance() | {"generator": self.name}
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {
            "generator": self.name,
            "weights_sha256": lt.fingerprint({clean_name(name): value for name, value in named}),
            "versions": {"counterfactual-probe": __version__, "torch": str(torch.__version__)},
        }

    def _placed(self, inputs: Latents) -> Latents:
        lt.count(inputs, "the example")
        device, dtype = home(self.module)
        return lt.apply(
            inputs, lambda value: value.to(device, dtype if value.is_floating_point() and dtype else value.dtype)
        )

    def _inferred(self) -> Tensor:
        """The first input, made from the first layer's form, on which the module runs."""
        device, dtype = home(self.module)
        said = "it has no convolution and no linear layer"
        for shape in _shapes(self.module):
            example = torch.zeros(2, *shape, device=device, dtype=dtype)
            try:
                with borrowed(self.module):
                    called(self.module, example)
            except Exception as error:  # whatever a module raises for an input that it does not take
                said = f"on {tuple(example.shape)} it raises {type(error).__name__}: {first_line(error)}"
            else:
                return example
        raise ProbeError(
            f"no input for {self.name} could be told from its first layer ({said}); give example=..., a tensor such as "
            "torch.zeros(2, 3, 64, 64)"
        )


def _shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    """Shapes of a sample that the first layer would take."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            yield (part.in_features,)
            return
        if isinstance(part, nn.ConvTranspose2d):
            for side in (1, 4, 8, 16, 32):
                yield part.in_channels, side, side
            return
        if isinstance(part, nn.Conv2d):
            for side in _SIDES:
                yield part.in_channels, side, side
            return


def _call(module: nn.Module, inputs: Latents) -> Any:
    if isinstance(inputs, Tensor):
        return called(module, inputs)
    return called(module, **inputs) if isinstance(inputs, dict) else called(module, *inputs)
