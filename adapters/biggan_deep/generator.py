"""BigGAN-deep (Brock et al. 2019), class-conditional: on ImageNet at 128, 256 and 512 pixels, or as it was trained.

Latents are ``{"z": (n, 128), "label": (n,), "truncation": (n,)}``. In a hybrid run the class, the truncation and the z
that enters every block are the base's (conventions 3). Blocks are numbered from 1 as in S003: see :func:`genblock`.

The output of a block is that of its ``conv_3`` plus the block's input, so setting channels of the block is not the same
as setting those of ``conv_3``. In a block that halves the channels, only the first half of the input is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.base.formats.types import Name, Side, Width
from counterfactual_probe.classifiers.labels import class_number
from counterfactual_probe.generator import latents as lt
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.generator.latents import Latents
from counterfactual_probe.generator.state.randomness import fitting
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.registry.folders import Architecture, Configuration
from counterfactual_probe.registry.weights import built

from ..imagenet import class_index
from .discriminator import biggan_discriminator
from .module import BigGANDeepModule, StoredBatchNorm, original, require_consistent

# As in the published demonstrations: images are clear and still varied.
TRUNCATION = 0.4
CONVOLUTIONS = ("conv_0", "conv_1", "conv_2", "conv_3")


def _config(output_dim: int, widths: str, **others: Any) -> dict[str, Any]:
    """A configuration with a block from each width to the next; every second block doubles the size."""
    steps = [int(width) for width in widths.split()]
    layers = [[bool(i % 2), steps[i], steps[i + 1]] for i in range(len(steps) - 1)]
    sizes = {"z_dim": 128, "class_embed_dim": 128, "channel_width": 128, "num_classes": 1000, "n_stats": 51}
    return {**sizes, "output_dim": output_dim, "layers": layers, "attention_layer_position": 8, "eps": 1e-4, **others}


CONFIGS = {
    "biggan-deep-128": _config(128, "16 16 16 16 8 8 4 4 2 2 1"),
    "biggan-deep-256": _config(256, "16 16 16 16 8 8 8 8 4 4 2 2 1"),
    "biggan-deep-512": _config(512, "16 16 16 16 8 8 8 8 4 4 2 2 1 1 1"),
    # There are no trained weights for this one: it is for quick tests.
    "small": _config(
        64,
        "16 16 8 8 4 4 2 2 1",
        z_dim=16,
        class_embed_dim=16,
        channel_width=8,
        attention_layer_position=4,
    ),
}


@dataclass(frozen=True, eq=False)
class LatentSampler:
    """Samples latents: a truncated normal ``z``, a class and a truncation."""

    z_dim: int
    n_classes: int
    names: tuple[str, ...]
    generator: str

    def __call__(self, n: int, rng: torch.Generator, classes: Any = None, truncation: Any = TRUNCATION) -> Latents:
        strength = _truncation(truncation)
        # z is sampled first and scaled last, so that it is the same for all classes and, up to scale, truncations.
        z = truncated_normal(n, self.z_dim, rng)
        drawn = torch.randint(self.n_classes, (n,), generator=rng)
        label = drawn if classes is None else torch.full((n,), self._number(classes))
        return {"z": strength * z, "label": label, "truncation": torch.full((n,), strength, dtype=torch.float64)}

    def _number(self, wanted: Any) -> int:
        if self.names:
            return class_number(wanted, self.names, self.n_classes, self.generator)
        return class_index(wanted, self.n_classes)


class BigGANDeep(GeneratorAdapter):
    """A BigGAN-deep that raises an error for latents with an impossible class or truncation.

    ``sample(n, classes=None, truncation=0.4)`` takes one class and one truncation for all samples, or a list with one
    for each. A class is a number or a name, ImageNet's where ``classes`` is empty; by default each sample has a random
    class.

    Batch-norm statistics are stored for truncations that are multiples of 0.02. In between, images are those of
    pytorch-pretrained-biggan, which interpolates with the weights of the two neighbours swapped.
    """

    def __init__(
        self,
        module: BigGANDeepModule,
        *,
        name: str,
        classes: Sequence[str] = (),
        device: torch.device | str | None = None,
    ) -> None:
        self.n_classes, self.classes = module.n_classes, tuple(classes)
        if self.classes and len(self.classes) != self.n_classes:
            raise ProbeError(
                f"{len(self.classes)} classes are named and {name} has {self.n_classes}; name all of them, or none"
            )
        sampler = LatentSampler(module.z_dim, module.n_classes, self.classes, name)
        super().__init__(module.eval(), sampler, layers=_listed(module), name=name, device=device)

    def check(self, latents: Latents, what: str = "the latents") -> int:
        n = super().check(latents, what)
        label, truncation = (dict(lt.named_tensors(latents))[f"latents[{name!r}]"] for name in ("label", "truncation"))
        if label.is_floating_point() or label.dim() != 1:
            raise ProbeError(
                f"label of {what} is {label.dtype} of shape {tuple(label.shape)}; give class numbers, integers of "
                f"shape ({n},)"
            )
        if truncation.dim() != 1:
            raise ProbeError(f"truncation of {what} has shape {tuple(truncation.shape)}; give one number each, ({n},)")
        for number in label.tolist():
            class_index(number, self.n_classes)
        for value in truncation.tolist():
            _truncation(value)
        return n


def truncated_normal(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Standard normal numbers (n, size); those beyond ±2 are sampled again."""
    z = torch.randn(n, size, generator=rng)
    while int((beyond := z.abs() > 2).sum()):
        z[beyond] = torch.randn(int(beyond.sum()), generator=rng)
    return z


def genblock(generator: GeneratorAdapter, number: int, part: str | None = None) -> str:
    """The name of the layer that S003 calls GenBlock ``number`` (counted from 1), or of one of its parts.

    >>> from counterfactual_probe.adapters.biggan_deep import genblock, random_biggan_deep
    >>> gen = random_biggan_deep("small")
    >>> genblock(gen, 4), genblock(gen, 5), genblock(gen, 5, "conv_2")  # generator.layers.4 is the attention
    ('generator.layers.3', 'generator.layers.5', 'generator.layers.5.conv_2')
    """
    blocks = [name.rpartition(".")[0] for name in generator.submodules if name.endswith(".conv_0")]
    if not blocks:
        raise ProbeError(f"{generator.name} has no GenBlocks; give a BigGAN-deep")
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(blocks):
        raise ProbeError(f"{generator.name} has GenBlocks 1 to {len(blocks)}, not {number!r}; give one of these")
    block = blocks[number - 1]
    return block if part is None else generator.layer(f"{block}.{part}").name


@fresh_settings()
def biggan_deep(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device | str | None = None,
    name: str | None = None,
) -> BigGANDeep:
    """The generator with a published configuration and state dict; no tensor may be missing or left over.

    >>> cp.load("path/to/biggan-deep-256")  # a folder with config.json and pytorch_model.bin  # doctest: +SKIP

    Raises:
        ProbeError: the configuration is not that of a BigGAN-deep, or the tensors do not fit it; the message says what
            differs.
    """
    title = f"biggan-deep-{require_consistent(config)['output_dim']}"
    model = built(lambda: original(config), tensors, f"{title} as its configuration has it")
    classes = config.get("classes") or ()
    if not isinstance(classes, (list, tuple)) or not all(isinstance(each, str) for each in classes):
        raise ProbeError(f"the classes of the configuration are {classes!r}; give a list of their names")
    chosen = name or str(config.get("name", title))
    return BigGANDeep(BigGANDeepModule(model), name=chosen, classes=classes, device=device)


@fresh_settings()
def random_biggan_deep(
    config: str | Mapping[str, Any] = "small", *, seed: int = 0, device: torch.device | str | None = None
) -> BigGANDeep:
    """An untrained BigGAN-deep, for tests and for measuring time; its name says so.

    >>> from counterfactual_probe.adapters.biggan_deep import random_biggan_deep
    >>> random_biggan_deep("small").name
    'biggan-deep small, random weights'

    Spectral norms have converged and batch statistics are those of samples, so that activations are scaled as in a
    trained network. ``config`` is a key of ``CONFIGS`` or a configuration.
    """
    if isinstance(config, str) and config not in CONFIGS:
        raise ProbeError(f"no configuration is named {config!r}; give one of {', '.join(map(repr, CONFIGS))}")
    chosen = CONFIGS[config] if isinstance(config, str) else config
    title = config.replace("small", "biggan-deep small") if isinstance(config, str) else "biggan-deep"
    rng = torch.Generator().manual_seed(fitting(whole(seed, "the seed", 0), 64))
    module = BigGANDeepModule(_with_random_weights(original(chosen), rng))
    generator = BigGANDeep(module, name=f"{title}, random weights", device=device)
    _take_statistics(generator)
    return generator


def _with_random_weights(model: Any, rng: torch.Generator) -> Any:
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("generator.bn.weight", "gamma")):
                value.fill_(0.4)  # images of medium contrast
            elif value.dim() == 1:
                value.zero_()
            else:
                value.normal_(generator=rng)
        for part in model.modules():
            if hasattr(part, "weight_orig"):
                _converge(part)
        model.embeddings.weight.mul_(0.3)  # the class counts about as much as z
    return model


def _converge(part: Any, rounds: int = 5) -> None:
    """Run the power iteration of a spectral norm until it has converged, as training would have."""
    matrix, v = part.weight_orig.flatten(1), torch.ones_like(part.weight_v)
    for _ in range(rounds):
        u = F.normalize(matrix @ v, dim=0)
        v = F.normalize(matrix.t() @ u, dim=0)
    part.weight_u.copy_(F.normalize(matrix @ v, dim=0))
    part.weight_v.copy_(v)


def _take_statistics(generator: BigGANDeep) -> None:
    """Set every batch norm's statistics to those of four samples, whatever the truncation."""

    def take(part: StoredBatchNorm, inputs: tuple[Any, ...]) -> None:
        part.running_means[:] = inputs[0].mean((0, 2, 3))
        part.running_vars[:] = inputs[0].var((0, 2, 3)) + 1e-3

    norms = [part for part in generator.module.modules() if isinstance(part, StoredBatchNorm)]
    handles = [part.register_forward_pre_hook(take) for part in norms]
    try:
        latents = generator.sample(4)
        with torch.no_grad():  # the bare module: the generator would restore its buffers afterwards
            generator.module(**latents)  # type: ignore[arg-type]
    finally:
        for handle in handles:
            handle.remove()


def _truncation(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ProbeError(f"truncation is {value!r}; give a number in (0, 1]") from None
    if not 0 < number <= 1 or isinstance(value, (bool, str)):
        raise ProbeError(f"truncation {value!r} is outside (0, 1]; 1 gives the most various images, 0.4 clear ones")
    return number


def _listed(module: nn.Module) -> list[str]:
    """The layers in the order of the forward: of each block its convolutions, then the block; and the attention."""
    layers: list[str] = []
    for name, part in module.get_submodule("generator.layers").named_children():
        block = f"generator.layers.{name}"
        layers += [f"{block}.{conv}" for conv in CONVOLUTIONS if hasattr(part, conv)]
        layers.append(block)
    return layers


class BigGANConfiguration(Configuration):
    """Entries of config.json, as the published ones have them; what they mean together, the module says."""

    output_dim: Side | None = None
    z_dim: Width | None = None
    class_embed_dim: Width | None = None
    channel_width: Width | None = None
    num_classes: Annotated[int, Meta(ge=1, le=2**20)] | None = None
    n_stats: Width | None = None
    layers: Annotated[list[Any], Meta(max_length=64)] | None = None
    attention_layer_position: Annotated[int, Meta(ge=-1, le=64)] | None = None
    eps: Annotated[float, Meta(gt=0, le=1)] | None = None
    classes: Annotated[list[Name], Meta(max_length=2**20)] | None = None


_TELLING = frozenset(["channel_width", "n_stats", "attention_layer_position", "layers"])
ARCHITECTURE = Architecture(
    "biggan-deep",
    lambda config, tensors, device: biggan_deep(config, tensors, device=device),
    claims=lambda config: config.keys() >= _TELLING,
    discriminator=biggan_discriminator,
    configuration=BigGANConfiguration,
)
