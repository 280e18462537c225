"""Model 1 of S003: a generator whose modules are known, to test methods that find modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base.errors import ProbeError, whole
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import stream_seed
from ..generator.state.randomness import fitting
from ..generator.wrap import wrap
from ..modules.clustering import Labels

LAYER = "hidden"
_PLACED = 40  # random stream, used by nothing else
_SMALLEST, _LARGEST = 0.3, 0.55  # radii of discs, as shares of the side
_TRIES = 1000
# Latents and parameters are multiples of powers of 2 that leave enough bits for sums of products: so sums are exact in
# any order, and a unit's influence is exactly 0 where it does not act.
_LATENT, _INTO, _OUT, _SLOPE = 2.0**-12, 2.0**-10, 2.0**-14, 0.25


class Model1(nn.Module):
    """S003 §3.4: Y = Σ_k W^k V_k with V_k = S(H_k Z_k), with one latent for each module; S is a leaky ReLU.

    >>> from counterfactual_probe.testing import Model1
    >>> model = Model1.drawn(n_modules=3, seed=0)
    >>> maps = cp.InfluenceMap(model.generator(), "hidden").attribute(n_pairs=4)
    >>> finder = cp.ModuleFinder(3, window=1, percentile=0).fit(maps)  # binarised maps IM > 0 (Prop. 3)
    >>> model.recovered_by(finder.labels_)
    True

    Z_k is uniform in −1…1; H_k, and the columns of W^k on the pixels I_k, are normal. The units are in random order, so
    that their numbers say nothing about modules. All is in float64.

    Args:
        supports: (K, H, W) booleans, the pixels I_k that each module acts on. Prop. 3 holds if the model is
            ``identifiable``.
        units: the number of units in each module, n.
        seed: for H, W and the order of the units.

    Attributes:
        truth: (K·n,) module of each channel of the layer "hidden".
        identifiable: whether each module has a pixel where no other acts, condition (2) of Model 1.
    """

    def __init__(self, supports: Tensor, *, units: int = 5, seed: int = 0) -> None:
        super().__init__()
        self.supports = _checked_supports(supports, whole(units, "units", 2))
        k, height, width = self.supports.shape
        rng = torch.Generator().manual_seed(fitting(whole(seed, "the seed", 0), 64))
        self.order = torch.arange(k).repeat_interleave(units)[torch.randperm(k * units, generator=rng)]
        self.into = nn.Parameter(_normal((k * units,), _INTO, rng))
        weights = _normal((k * units, height, width), _OUT, rng)
        self.out = nn.Parameter(weights * self.supports[self.order])
        self.hidden = nn.LeakyReLU(_SLOPE)

    @classmethod
    def drawn(cls, n_modules: int = 3, *, units: int = 5, side: int = 16, seed: int = 0) -> Model1:
        """A model whose I_k are discs at random places; they may overlap, but each has pixels that no other has."""
        return cls(random_supports(n_modules, side=side, seed=seed), units=units, seed=seed)

    @property
    def truth(self) -> Labels:
        return self.order.numpy()

    @property
    def n_modules(self) -> int:
        return len(self.supports)

    @property
    def identifiable(self) -> bool:
        return _own_pixels(self.supports)

    def forward(self, z: Tensor) -> Tensor:
        v = self.hidden(z[:, self.order] * self.into)
        return torch.einsum("nu,uhw->nhw", v, self.out)[:, None]

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Latents (n, K)."""
        z = 2 * torch.rand(n, self.n_modules, generator=rng, dtype=torch.float64) - 1
        return (z / _LATENT).round() * _LATENT

    def generator(self) -> GeneratorAdapter:
        """The wrapped model, with an image_range that contains all images."""
        largest = float((self.into.abs()[:, None, None] * self.out.abs()).sum(0).max().detach())
        return wrap(self.eval(), self.sample, layers=[LAYER], image_range=(-largest, largest), name="model-1")

    def recovered_by(self, labels: Labels) -> bool:
        """Whether the labels (K·n,) are the true partition of the channels, up to the numbering of modules."""
        pairs = {(int(true), int(label)) for true, label in zip(self.truth, labels, strict=True)}
        return len(pairs) == self.n_modules == len({label for _, label in pairs}) and (labels >= 0).all().item()


def random_supports(n_modules: int = 3, *, side: int = 16, seed: int = 0) -> Tensor:
    """(K, side, side) discs at random places, sampled until each has a pixel that no other has."""
    n_modules, side = whole(n_modules, "n_modules", 1), whole(side, "side", 4)
    rng = torch.Generator().manual_seed(stream_seed(seed, _PLACED, 0))
    grid = torch.stack(torch.meshgrid(*2 * [torch.arange(side)], indexing="ij"))
    for _ in range(_TRIES):
        centres = side * torch.rand(n_modules, 2, 1, 1, generator=rng)
        share = _SMALLEST + (_LARGEST - _SMALLEST) * torch.rand(n_modules, 1, 1, generator=rng)
        discs: Tensor = (grid - centres).square().sum(1) < (side * share / n_modules**0.5) ** 2
        if _own_pixels(discs):
            return discs
    raise ProbeError(
        f"{n_modules} discs that each have a pixel of their own were not found on {side}×{side}; give a larger side"
    )


def _normal(shape: tuple[int, ...], step: float, rng: torch.Generator) -> Tensor:
    """Normal numbers, rounded to multiples of ``step``, none of them 0."""
    steps = (torch.randn(shape, generator=rng, dtype=torch.float64) / step).round()
    return torch.where(steps == 0, 1.0, steps) * step


def _own_pixels(supports: Tensor) -> bool:
    alone = supports & (supports.sum(0) == 1)
    return bool(alone.flatten(1).any(1).all())


def _checked_supports(supports: Tensor, units: int) -> Tensor:
    if supports.dtype != torch.bool or supports.dim() != 3:
        raise ProbeError(f"the supports are {supports.dtype} {tuple(supports.shape)}; give booleans (K, H, W)")
    if not supports.flatten(1).any(1).all():
        raise ProbeError(
            f"module {int((~supports.flatten(1).any(1)).nonzero()[0])} has no pixel to act on; give each at least one"
        )
    pixels = supports[0].numel()
    if pixels <= units * len(supports):
        raise ProbeError(
            f"{len(supports)} modules of {units} units do not fit on {pixels} pixels; Model 1 has more pixels than "
            "units: give larger supports or fewer units"
        )
    return supports
