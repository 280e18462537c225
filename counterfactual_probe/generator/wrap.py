"""How a module becomes a generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..base.plugins import by_name, imported
from .adapter import GeneratorAdapter, SampleLatents
from .device import is_module, no_module

GROUP = "counterfactual_probe.wrappers"
_RANGE = (-1.0, 1.0)  # of images, unless the wrapper of another library's objects knows theirs


@dataclass(frozen=True)
class Wrapper:
    """How objects of another library that are no modules, such as pipelines, become generators.

    A package adds one with an entry point of the group ``counterfactual_probe.wrappers``, whose *name* is that of the
    library's top package: :func:`wrap` finds it by where the object's class is defined, and imports no other.

    Attributes:
        wrap: a generator from the object and the options of :func:`wrap`, or a ProbeError that says what does not fit.
        index: the file by which a folder of the library's is known, ``"model_index.json"``.
        files: patterns of what a repository of the hub must hold beside the index; none may match code or pickles.
        load: a generator from such a folder, a device and options.
    """

    wrap: Callable[..., GeneratorAdapter]
    index: str | None = None
    files: tuple[str, ...] = ()
    load: Callable[..., GeneratorAdapter] | None = None


def wrap(
    module: Any,
    sample_latents: SampleLatents | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    image: Callable[[Any], Tensor] | None = None,
    image_range: tuple[float, float] = _RANGE,
    axes: Mapping[str, str] | None = None,
    noise: Literal["latent"] | None = None,
    device: torch.device | str | None = None,
    name: str | None = None,
    **options: Any,
) -> GeneratorAdapter:
    """Make any image-generating ``nn.Module`` a generator that can be probed.

    >>> import torch, counterfactual_probe as cp
    >>> module = torch.nn.Sequential(torch.nn.ConvTranspose2d(8, 6, 4), torch.nn.ReLU(),
    ...                              torch.nn.ConvTranspose2d(6, 3, 4, 2, 1), torch.nn.Tanh())
    >>> gen = cp.wrap(module, lambda n, rng: torch.randn(n, 8, 1, 1, generator=rng))
    >>> gen(gen.sample(2, seed=0)).shape
    torch.Size([2, 3, 8, 8])

    Args:
        module: the generator. It is run in eval mode and left exactly as it was found. Wrappers of
            ``torch.compile`` and ``DataParallel`` are looked through (hooks are ignored inside them). A pipeline of
            diffusers is a generator as well: ``cp.wrap(pipeline, steps=10)``, see :func:`wrap_pipeline`.
        sample_latents: ``(n, rng) -> latents`` with ``rng`` a CPU ``torch.Generator``; latents are a
            tensor, a tuple (``module(*t)``) or a dict (``module(**d)``) of tensors, sample first,
            conditions such as the class included. They are moved to the module's device, and floating
            ones cast to its dtype.
        layers: name or names of the layers to offer; by default every layer with channels that is
            computed exactly once per forward. ``"relu#2"`` is the second call of a submodule, ``"block[1]"`` the
            second entry of an output that is a tuple, ``"rnn[1][0]"`` one of a nested tuple, ``"to_out<"`` the input of
            a submodule.
        image: output -> (n, C, H, W) tensor. By default understands a tensor, a tuple (its first
            4-D tensor), an object with ``.sample`` or ``.images``, and a dict.
        image_range: smallest and largest pixel value; recorded with every result.
        axes: what the dimensions of layers' activations are, by patterns of their names:
            ``{"blk*": "n h w c", "unet.*": "(2 n) c h w"}``. ``n`` are the samples, ``c`` the channels, and parts in
            brackets are folded into one dimension, the last running fastest. By default found from the forward:
            convolutions have channels in dimension 1, linear maps in the last. Where nothing tells, it is 1, and
            the last for tokens, with a warning (``ChannelsGuessed``) when the layer is used.
        noise: ``"latent"`` makes what the forward draws by itself, such as the first noise of a sampler, a part of
            the latents: base and source then differ in it. By default they share it.
        device: run here, on a copy; by default where the module is, on the module itself.
        name: what results call it; by default the class name.
        options: what the wrapper of another library's objects takes beside these, such as ``steps`` and ``guidance``.

    Raises:
        ProbeError: nothing image-like comes out, a layer does not exist, or two runs, or two draws of
            a latent, from the same random state differ.
    """
    given: dict[str, Any] = {
        "layers": layers,
        "image": image,
        "image_range": image_range,
        "axes": axes,
        "noise": noise,
        "device": device,
        "name": name,
    }
    if not is_module(module):
        # By identity: a value of the user's may not be comparable.
        chosen = {name: value for name, value in given.items() if value is not None and value is not _RANGE}
        return _foreign(module, sample_latents, chosen | options)
    if options:
        raise ProbeError(
            f"{', '.join(options)} is for pipelines, and {type(module).__name__} is a torch.nn.Module; leave it out"
        )
    if sample_latents is None:
        raise ProbeError(f"sample_latents is missing; give a function (n, rng) -> latents of {type(module).__name__}")
    return GeneratorAdapter(module, sample_latents, **given)


def wrappers() -> dict[str, list[EntryPoint]]:
    """The wrappers of installed packages, by the top package of the objects that they know."""
    return by_name(lambda: entry_points(group=GROUP), "a wrapper")


def _foreign(thing: Any, sample_latents: SampleLatents | None, given: dict[str, Any]) -> GeneratorAdapter:
    """A generator of an object that is no module, by the wrapper of the library that its class is from."""
    known = wrappers()
    packages = [kind.__module__.partition(".")[0] for kind in type(thing).__mro__]
    for package in packages:
        if package in known:
            wrapper = imported(known[package], "wrapper", Wrapper)
            if sample_latents is not None:
                raise ProbeError(f"a {type(thing).__name__} samples its own latents; leave sample_latents out")
            return wrapper.wrap(thing, **given)
    raise no_module(thing)
