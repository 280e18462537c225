"""Influence maps: where in the image a unit set acts, as mean |hybrid − original| (S003 eq. 2)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..base.files import as_path
from ..distributed.exchange import together, told_to_all
from ..distributed.ranks import current_ranks
from ..generator.adapter import BASE, NOISE, SOURCE, GeneratorAdapter
from ..generator.latents import Latents, stream_seed
from ..generator.units import Basis, Strength, UnitsLike, Where, extent_of, unit_space
from .maps import InfluenceMaps
from .request import MapRequest, latent_pairs, map_options
from .run import Run


class InfluenceMap:
    """Where in the image the units of a layer act.

    Under ``torchrun`` make the same call on every rank: ranks share the unit sets, or the pairs when there are few
    sets, and all get the same maps.

    >>> maps = cp.InfluenceMap(gen, "main.8").attribute(n_pairs=64, seed=0)  # doctest: +SKIP
    >>> maps.maps.shape, maps.standard_error.shape  # doctest: +SKIP
    (torch.Size([128, 64, 64]), torch.Size([128, 64, 64]))

    Args:
        generator: from :func:`wrap` or :func:`load`.
        layer: a layer's name, or several.
        axis, heads, features: what the units of a layer are, as for :class:`Hybridizer`.
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        layer: str | Sequence[str],
        *,
        axis: Literal["channel", "token", "head"] = "channel",
        heads: int | None = None,
        features: Basis | Mapping[str, Basis] | None = None,
    ) -> None:
        self.generator = generator
        with told_to_all(getattr(generator, "device", torch.device("cpu"))):  # what is no generator has none
            self.space = unit_space(generator, layer, axis, heads=heads, features=features)
        self.layers = self.space.layers

    def attribute(
        self,
        z1: Latents | None = None,
        z2: Latents | None = None,
        *,
        n_pairs: int | None = None,
        units: UnitsLike = None,
        where: Where = None,
        strength: Strength = 1.0,
        seed: int = 0,
        tolerance: float | None = None,
        precision: Literal["float32", "tf32", "bf16-diff"] = "float32",
        blocks: int | None = None,
        normalise: Literal["pair"] | None = None,
        map_size: int | tuple[int, ...] | None = None,
        components: int | Tensor | None = None,
        hybrids_per_eval: int | None = None,
        show_progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> InfluenceMaps:
        """Mean |hybrid − original| over pairs of latents, one map per unit set (S003 eq. 2).

        Args:
            z1, z2: base and source latents, in pairs; without them ``n_pairs`` pairs (256) are sampled with ``seed``.
            units: unit sets (see :func:`units.parse_units`); by default each unit alone.
            where, strength: where in the layer, and how far, as in :meth:`Hybridizer.hybridize`.
            seed: of the sampled pairs, and of noise inside the forward.
            tolerance: stop a unit set when ‖standard error‖₂ / ‖map‖₂ is at most this, checked every 16 pairs;
                ``n_pairs`` is then the limit, and ``.missed`` lists the sets that reached it.
            precision: "float32" is exact, in the generator's own dtype. With "bf16-diff" differences are propagated in
                bfloat16: faster, and maps are off by about 0.1 % (worst channel 0.3 %). "tf32" lets a GPU round factors
                to ten bits. Where that is not possible maps stay exact; ``provenance["precision"]`` says what was used.
            blocks: also sum the pairs in this many blocks, on which :class:`ModuleFinder` measures confidence; 32 is a
                good number, and each takes the memory of a map.
            normalise: "pair" also gives the mean of pair maps scaled to unit L2 norm, so that every pair counts
                equally; pairs that change nothing are left out, and counted.
            map_size: (height, width), or one number for both, which divide the image's: maps are averaged over blocks.
            components: also the energy of changes in each of this many leading principal components (64 is a good
                number), for ``ModuleFinder(features="pca")``; or ``maps.components`` of others, to compare templates.
            hybrids_per_eval: hybrids in one forward; by default from shapes and a memory limit.
            show_progress: a progress bar on stderr.
            checkpoint: a file for the progress, written about every 15 seconds. After any interruption the same call
                resumes from it, and ends with the same bits as an uninterrupted run (on one machine). Several ranks
                write PATH.rankIofN each; any other number of them goes on from there, with maps within 1e-6.

        Raises:
            ProbeError: unknown layer or unit, unequal numbers of latents, a NaN image, a checkpoint of another run.
        """
        # All that can fail stands inside, also what is wrong with the arguments: it may be so on one rank alone.
        with together(current_ranks(self.generator.device)) as exchange:
            seed = whole(seed, "the seed", 0)
            pairs = latent_pairs(self.generator, z1, z2, n_pairs, seed)
            options = map_options(
                self.generator.image_size,
                pairs.n,
                tolerance=tolerance,
                normalise=normalise,
                blocks=blocks,
                map_size=map_size,
                components=components,
            )
            request = MapRequest(
                generator=self.generator,
                space=self.space,
                sets=self.space.parse(units),
                extent=extent_of(self.space, where, strength, pairs.n),
                pairs=pairs,
                latents=(z1, z2),
                seed=seed,
                options=options,
                precision=precision,
                hybrids_per_eval=hybrids_per_eval,
            )
            with self.generator.unchanged():
                return Run(request, exchange).maps(checkpoint, show_progress)

    def growing(
        self, max_pairs: int, *, seed: int = 0, blocks: int = 32, show_progress: bool = False, **options: Any
    ) -> Iterator[InfluenceMaps]:
        """Maps of more and more pairs, from two per block, doubling up to ``max_pairs``: each run adds its pairs to
        the earlier ones.

        >>> for maps in cp.InfluenceMap(gen, "main.8").growing(1024):  # doctest: +SKIP
        ...     if maps.relative_error.max() < 0.1:
        ...         break

        ``options`` are those of :meth:`attribute`. Every run has its own ``checkpoint``: PATH.N up to pair N.
        """
        device, sample = self.generator.device, self.generator.sample
        with told_to_all(device):
            least = _least_of_growing(max_pairs, blocks, options)
            given = options.pop("checkpoint", None)
            file = None if given is None else as_path(given)
        maps: InfluenceMaps | None = None
        done, stop = 0, least
        while done < max_pairs:
            stop = stop if max_pairs - stop >= least else max_pairs  # the remaining pairs must fill their blocks, too
            with told_to_all(device):
                z1, z2 = (sample(stop - done, seed=seed, stream=stream, start=done) for stream in (BASE, SOURCE))
            # Noise in the forward is numbered from 0 in every run, so each run needs another seed.
            noise = seed if not done else stream_seed(seed, NOISE, done) % 2**32
            options["checkpoint"] = None if file is None else f"{file}.{stop}"
            more = self.attribute(z1, z2, seed=noise, blocks=blocks, show_progress=show_progress, **options)
            maps = more if maps is None else maps.pooled(more)
            del more  # whose sums over blocks would stay in memory while the caller works with those of all pairs
            if maps.components is not None:
                options["components"] = maps.all_components
            about = {key: value for key, value in maps.provenance.items() if key != "pair_digests"}
            maps = dataclasses.replace(maps, provenance=about | {"seed": seed, "pairs": "drawn"})
            yield maps
            done, stop = stop, 2 * stop


def _least_of_growing(max_pairs: int, blocks: int, options: dict[str, Any]) -> int:
    """The pairs of the first run, two per block; a ProbeError if there are not as many."""
    for name in ("z1", "z2", "n_pairs"):
        if name in options:
            raise ProbeError(f"{name} is given and pairs are sampled here; leave it out, or call attribute")
    least = 2 * whole(blocks, "blocks", 2)
    if max_pairs < least:
        raise ProbeError(f"max_pairs is {max_pairs} with {blocks} blocks; a block needs two pairs: give {least}")
    return least
