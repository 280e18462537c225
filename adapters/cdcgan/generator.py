"""Class-conditional DCGAN generators (Mirza and Osindero 2014), from a state dict and the names of the classes."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError, nearest, whole
from counterfactual_probe.base.formats.types import Name
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.generator.wrap import wrap
from counterfactual_probe.registry.folders import Architecture, Configuration
from counterfactual_probe.registry.weights import built, require_image, tensors_only

from ..dcgan.generator import numbered_kernels


class ConditionalDCGANGenerator(nn.Module):
    """A DCGAN whose input is a latent (n, latent), concatenated with a class (n,) as a one-hot vector.

    ``main`` is numbered as in the usual implementations. ``dropout`` lists the ReLUs, counted from 0, that are followed
    by a dropout, which takes a number as well.
    """

    one_hot: Tensor

    def __init__(
        self,
        latent: int,
        classes: int,
        widths: Sequence[int],
        colours: int,
        *,
        bias: bool = False,
        dropout: Collection[int] = (),
    ) -> None:
        super().__init__()
        # A look-up table, so that a class that does not exist raises an error.
        self.register_buffer("one_hot", torch.eye(classes), persistent=False)
        stages: list[nn.Module] = []
        self.relus: list[str] = []
        previous, stride, padding = latent + classes, 1, 0
        for i, width in enumerate(widths):
            stages += [
                nn.ConvTranspose2d(previous, width, 4, stride, padding, bias=bias),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            self.relus.append(f"main.{len(stages) - 1}")
            if i in dropout:
                stages.append(nn.Dropout(0.2))
            previous, stride, padding = width, 2, 1
        stages += [nn.ConvTranspose2d(previous, colours, 4, stride, padding, bias=bias), nn.Tanh()]
        self.main = nn.Sequential(*stages)

    def forward(self, z: Tensor, classes: Tensor) -> Tensor:
        joined = torch.cat([z, F.embedding(classes, self.one_hot)], 1)
        images: Tensor = self.main(joined[:, :, None, None])
        return images


class ClassSampler:
    """Samples latents ``{"z": (n, latent), "classes": (n,)}``; a class is given by its number or its name."""

    def __init__(self, latent: int, names: Sequence[str]) -> None:
        self.latent, self.names = latent, tuple(names)

    def __call__(self, n: int, rng: torch.Generator, classes: Any = None) -> dict[str, Tensor]:
        z = torch.randn(n, self.latent, generator=rng)  # before the classes, so that z does not depend on them
        if classes is None:
            drawn = torch.randint(len(self.names), (n,), generator=rng)
        else:
            drawn = torch.full((n,), self.number(classes))
        return {"z": z, "classes": drawn}

    def number(self, given: Any) -> int:
        """The number of a class."""
        if isinstance(given, str):
            if given not in self.names:
                raise ProbeError(f"no class is named {given!r}; nearest: {nearest(given, self.names)}")
            return self.names.index(given)
        try:
            number = operator.index(given)
        except TypeError:
            number = -1
        if not 0 <= number < len(self.names):
            raise ProbeError(
                f"class {given!r} is not one of the generator's {len(self.names)}; give a number from 0 to "
                f"{len(self.names) - 1} or a name: {', '.join(self.names)}"
            )
        return number


@fresh_settings()
def cdcgan(
    state_dict: Mapping[str, Any],
    classes: int | Sequence[str],
    *,
    device: torch.device | str | None = None,
    name: str = "cdcgan",
) -> GeneratorAdapter:
    """A generator from the state dict of a class-conditional DCGAN; ``classes`` is their number, or a list of names.

    >>> from counterfactual_probe.adapters.cdcgan import ConditionalDCGANGenerator, cdcgan
    >>> state = ConditionalDCGANGenerator(16, 2, [32, 16], 3).state_dict()
    >>> gen = cdcgan(state, ["day", "night"])
    >>> gen.sample(3, classes=["night", "day", 1])["classes"]
    tensor([1, 0, 1])

    Without ``classes=``, each sample has a random class. For the same seed, samples of two classes have the same ``z``.
    ``layers`` lists the ReLUs. The class enters together with ``z``, before all of them: in a hybrid the channels that
    are set carry the source's class, and everything else the base's (conventions 3).

    Raises:
        ProbeError: the tensors are not those of a DCGAN with this number of classes; an unknown class.
    """
    state = tensors_only(state_dict)
    prefix, kernels = numbered_kernels(state, "conditional DCGAN")
    numbers, shapes = list(kernels), list(kernels.values())
    names = _class_names(classes, most=shapes[0][0] - 1)
    latent = shapes[0][0] - len(names)
    require_image(2 * 2 ** len(shapes), shapes[-1][0], "a conditional DCGAN")
    renamed = {f"main.{key.removeprefix(prefix)}": value for key, value in state.items()}
    module = built(
        lambda: ConditionalDCGANGenerator(
            latent,
            len(names),
            [shape[1] for shape in shapes[:-1]],
            shapes[-1][1],
            bias=f"{prefix}{numbers[0]}.bias" in state,
            dropout={i for i, (before, after) in enumerate(pairwise(numbers)) if after - before == 4},
        ),
        renamed,
        "a conditional DCGAN of its kernels' sizes",
    )
    return wrap(module.eval(), ClassSampler(latent, names), layers=module.relus, device=device, name=name)


def _class_names(classes: Any, most: int) -> tuple[str, ...]:
    """The names, at most so many; the first kernel has one input more for the latent."""
    if isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes):
        if not classes or len(set(classes)) < len(classes):
            raise ProbeError(f"the classes are named {list(classes)!r}; give at least one, each name once")
        count = len(classes)
    else:
        count = whole(classes, "the number of classes", 1)
    if count > most:
        raise ProbeError(
            f"the first kernel has {most + 1} inputs and {count} classes are given; give fewer classes than inputs, "
            "since the remaining inputs are the latent's"
        )
    return tuple(classes) if isinstance(classes, (list, tuple)) else tuple(map(str, range(count)))


def _build(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device | str | None
) -> GeneratorAdapter:
    if "classes" not in config:
        raise ProbeError('the configuration of a "cdcgan" has no "classes"; add their number, or a list of their names')
    return cdcgan(tensors, config["classes"], device=device, name=str(config.get("name", "cdcgan")))


class CDCGANConfiguration(Configuration):
    """Entries of config.json: the number of classes, or their names."""

    classes: Annotated[int, Meta(ge=1, le=2**16)] | Annotated[list[Name], Meta(max_length=2**16)] | None = None


CDCGAN = Architecture("cdcgan", _build, configuration=CDCGANConfiguration)
