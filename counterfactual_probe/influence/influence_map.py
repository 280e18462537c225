"""Influence maps: where in the image a unit set acts, as mean |hybrid − original| (S003 eq. 2)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ..base.checkpoint import Checkpoint
from ..base.errors import Interrupted, ProbeError, whole
from ..base.memory import free_memory
from ..base.progress import progress_bar
from ..engine import Pairs, Stream, Swap
from ..engine.pairs import given_pairs
from ..generator import latents as lt
from ..generator.adapter import BASE, NOISE, SOURCE, GeneratorAdapter, stream_seed
from ..generator.latents import Latents
from ..generator.results import units_to_json
from ..generator.units import UnitSet, UnitsLike, parse_layers, parse_units
from .components import components_for_all
from .estimate import Estimate, SharedEstimate, Wanted, pairs_are_shared
from .maps import InfluenceMaps
from .ranks import Ranks, current_ranks

DEFAULT_PAIRS = 256


class InfluenceMap:
    """Where in the image the channels of a layer act.

    Under ``torchrun`` make the same call on every rank: the unit sets, or the pairs when there are few
    sets, are shared among them, and all get the same maps.

    >>> maps = cp.InfluenceMap(gen, "main.8").attribute(n_pairs=64, seed=0)  # doctest: +SKIP
    >>> maps.maps.shape, maps.standard_error.shape  # doctest: +SKIP
    (torch.Size([128, 64, 64]), torch.Size([128, 64, 64]))

    Args:
        generator: from :func:`wrap` or :func:`load`.
        layer: a layer's name, or several.
    """

    def __init__(self, generator: GeneratorAdapter, layer: str | Sequence[str]) -> None:
        self.generator = generator
        self.layers = parse_layers(generator, layer)

    def attribute(
        self,
        z1: Latents | None = None,
        z2: Latents | None = None,
        *,
        n_pairs: int | None = None,
        units: UnitsLike = None,
        seed: int = 0,
        tolerance: float | None = None,
        precision: Literal["float32", "bf16-diff"] = "float32",
        blocks: int | None = None,
        normalise: Literal["pair"] | None = None,
        map_size: int | tuple[int, int] | None = None,
        components: int | Tensor | None = None,
        hybrids_per_eval: int | None = None,
        show_progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> InfluenceMaps:
        """Mean |hybrid − original| over pairs of latents, one map per unit set (S003 eq. 2).

        Args:
            z1, z2: base and source latents, taken in pairs. Without them ``n_pairs`` pairs
                (256 by default) are drawn with ``seed``.
            units: unit sets (see :func:`units.parse_units`); by default each channel alone.
            seed: of the pairs drawn, and of noise inside the forward.
            tolerance: stop a unit set when ‖standard error‖₂ / ‖map‖₂ is at most this; ``n_pairs`` is
                then the limit, and ``.missed`` lists the sets that reached it. Decided every 16 pairs.
            precision: "float32" is the generator's own type, exactly. With "bf16-diff" clean runs keep it and
                what the channels change travels in bfloat16: maps are off by about 0.1 % (worst channel 0.3 %),
                and faster. A processor that does not multiply bfloat16, and a generator whose
                forward is no fixed program, stay exact: ``provenance["precision"]`` says what was used.
            blocks: also sum the pairs up in so many blocks, which is what :class:`ModuleFinder` needs to say
                how sure it is of a channel. 32 is a good number; each takes the memory of a map.
            normalise: "pair" also gives the mean of pair maps scaled to unit L2 norm: where a channel acts,
                every pair counting once. Pairs that change nothing are left out, and counted.
            map_size: (height, width) or one number for both, dividing those of the image: maps are averaged
                down, pixel block by pixel block, before anything is made of them.
            components: also say how the energy of what hybrids change is shared among so many leading principal
                components of all changes (64 is a good number), for ``ModuleFinder(features="pca")``. Those of
                earlier maps, ``maps.components``, make both comparable.
            hybrids_per_eval: hybrids in one forward; by default from shapes and a memory limit.
            show_progress: a progress bar on stderr.
            checkpoint: a file that takes progress, about every 15 seconds. The same call goes on from it
                after any interruption, and ends with the same bits as without one (on one machine). It
                stays when the run is complete, and gives its maps at once. Of several ranks each writes PATH.rankIofN;
                when they share the pairs, rank 0 alone.

        Raises:
            ProbeError: unknown layer or channel, unequal numbers of latents, a NaN image, a checkpoint of
                another run.
        """
        _require_options(normalise, tolerance)
        seed = whole(seed, "the seed", 0)
        sets = parse_units(units, self.layers, self.generator)
        pairs, drawn = self._pairs(z1, z2, n_pairs, seed)
        wanted = self._wanted(tolerance, normalise == "pair", blocks, map_size, pairs.n)
        chosen = _components(components, self.generator.image_size, wanted.cell)
        with self.generator.unchanged():
            ranks = current_ranks(self.generator.device)
            about = self.generator.provenance()
            identity: dict[str, Any] = {}
            if checkpoint is not None or ranks.world > 1:  # long runs only: it reads all given latents
                identity = _identity(about, sets, seed, pairs, (z1, z2)) | {"hybrids_per_eval": hybrids_per_eval}
                identity |= {"tolerance": tolerance, "normalise": normalise, "requested precision": precision}
                identity |= {"blocks": blocks, "map_size": list(wanted.size)}
                identity |= {"components": lt.fingerprint(chosen) if isinstance(chosen, Tensor) else chosen}
                ranks.require_same(identity)
            by_pairs = pairs_are_shared(len(sets), pairs.n, ranks, tolerance)
            own = sets if by_pairs else [sets[chosen] for chosen in ranks.dealt(len(sets))]
            with ranks.together() as meeting:
                self._require_room(wanted, len(own))
                components = components_for_all(
                    self.generator, sets, pairs, chosen, seed=seed, cell=wanted.cell, meeting=meeting
                )
                wanted = dataclasses.replace(wanted, components=components)
                stream = Stream(
                    self.generator, Swap(own), pairs, seed=seed, hybrids_per_eval=hybrids_per_eval, precision=precision
                )
                estimate = (
                    SharedEstimate(self.generator, own, stream, meeting, wanted)
                    if by_pairs
                    else Estimate(self.generator, own, stream, wanted)
                )
                file = _checkpoint(checkpoint, ranks, identity, by_pairs)
                self._complete(estimate, file, show_progress and ranks.rank == 0)
                arrays = estimate.running.result()
                provenance = (
                    about
                    | self._about(stream, estimate)
                    | {
                        "seed": seed if drawn or not self.generator.batchable else None,
                        "pairs": "drawn" if drawn else "given",
                        "ranks": ranks.world,
                    }
                )
            of_all: dict[str, Any] = {"components": arrays.pop("components")}  # the others hold a row for each set
            of_all |= arrays if by_pairs else ranks.gather(arrays, len(sets), self.generator.device)
            return InfluenceMaps(**of_all, units=tuple(sets), provenance=ranks.first(provenance))

    def growing(
        self, max_pairs: int, *, seed: int = 0, blocks: int = 32, show_progress: bool = False, **options: Any
    ) -> Iterator[InfluenceMaps]:
        """The maps of ever more pairs, doubled from two a block on, up to ``max_pairs``: each run adds its pairs
        to those before.

        >>> for maps in cp.InfluenceMap(gen, "main.8").growing(1024):  # doctest: +SKIP
        ...     if maps.relative_error.max() < 0.1:
        ...         break

        ``options`` are those of :meth:`attribute`. Every run has a ``checkpoint`` of its own: PATH.N up to pair N.
        """
        for name in ("z1", "z2", "n_pairs"):
            if name in options:
                raise ProbeError(f"{name} is given and pairs are drawn here; leave it out, or call attribute")
        file = options.pop("checkpoint", None)
        blocks = whole(blocks, "blocks", 2)
        least = 2 * blocks
        if max_pairs < least:
            raise ProbeError(f"max_pairs is {max_pairs} with {blocks} blocks; a block needs two pairs: give {least}")
        maps: InfluenceMaps | None = None
        sample = self.generator.sample
        done, stop = 0, least
        while done < max_pairs:
            stop = stop if max_pairs - stop >= least else max_pairs  # what is left must fill its blocks, too
            z1, z2 = (sample(stop - done, seed=seed, stream=stream, start=done) for stream in (BASE, SOURCE))
            # Noise in the forward is numbered from 0 in every run: another seed gives other noise.
            noise = seed if not done else stream_seed(seed, NOISE, done) % 2**32
            options["checkpoint"] = None if file is None else f"{os.fspath(file)}.{stop}"
            more = self.attribute(z1, z2, seed=noise, blocks=blocks, show_progress=show_progress, **options)
            maps = more if maps is None else maps.pooled(more)
            if maps.components is not None:
                options["components"] = maps.components
            maps = dataclasses.replace(maps, provenance=maps.provenance | {"seed": seed, "pairs": "drawn"})
            yield maps
            done, stop = stop, 2 * stop

    def _wanted(
        self, tolerance: float | None, normalise: bool, blocks: int | None, map_size: Any, n_pairs: int
    ) -> Wanted:
        """The options that say what is kept, checked."""
        number = 0 if blocks is None else whole(blocks, "blocks", 2)
        if n_pairs < 2 * number:
            raise ProbeError(
                f"{n_pairs} pairs are given for {number} blocks; a block needs two, so give n_pairs={2 * number} or "
                f"more, or fewer blocks"
            )
        image = self.generator.image_size[1:]
        size = _map_size(map_size, image)
        return Wanted(tolerance, normalise, number, size, (image[0] // size[0], image[1] // size[1]))

    def _require_room(self, wanted: Wanted, sets: int) -> None:
        """Block sums that do not fit are refused before anything runs."""
        needed, free = wanted.bytes(sets), free_memory(self.generator.device)
        if free is None or needed <= free:
            return
        height, width = wanted.size
        fitting = [
            (height // step, width // step)
            for step in range(2, height + 1)
            if height % step == 0 and width % step == 0 and needed / step**2 <= free
        ]
        cure = f"map_size={fitting[0]} fits" if fitting else "give fewer channels or blocks"
        raise ProbeError(
            f"the sums of {wanted.blocks} blocks for {sets} unit sets take {needed:,} bytes and {free:,} are free; "
            f"{cure}"
        )

    def _about(self, stream: Stream, estimate: Estimate) -> dict[str, Any]:
        """What the run itself adds to the provenance."""
        return {
            "layers": [layer.name for layer in self.layers],
            "n_pairs": stream.pairs.n,
            "precision": estimate.precision,
            "hybrids_per_eval": stream.hybrids_per_eval,
            "executor": str(stream.executor.choice),
            "noise_in_forward": not self.generator.batchable,
            "tolerance": estimate.wanted.tolerance,
            "blocks": estimate.wanted.blocks or None,
            "map_size": list(estimate.wanted.size),
            "components": None if (found := estimate.running.components) is None else len(found),
        }

    def _complete(self, estimate: Estimate, file: Checkpoint | None, show_progress: bool) -> None:
        """Take the estimate from wherever the checkpoint left it to its end."""
        estimate.resume(file)
        with (
            _told_where(file),
            self.generator.session(),
            progress_bar(estimate.total, "influence maps", "hybrid", show_progress) as bar,
        ):
            bar.update(estimate.settled)
            while not estimate.done:
                estimate.advance()
                bar.update(estimate.settled - bar.n)
                if file is not None:
                    estimate.keep(file)

    def _pairs(self, z1: Latents | None, z2: Latents | None, n_pairs: int | None, seed: int) -> tuple[Pairs, bool]:
        if z1 is None and z2 is None:
            n = DEFAULT_PAIRS if n_pairs is None else whole(n_pairs, "n_pairs", 1)
            sample = self.generator.sample
            return (
                Pairs(
                    n,
                    lambda start, stop: sample(stop - start, seed=seed, stream=BASE, start=start),
                    lambda start, stop: sample(stop - start, seed=seed, stream=SOURCE, start=start),
                ),
                True,
            )
        if n_pairs is not None:
            raise ProbeError(f"latents are given and n_pairs={n_pairs} too; give one or the other")
        return given_pairs(self.generator, z1, z2), False


def _require_options(normalise: Any, tolerance: Any) -> None:
    if normalise not in (None, "pair"):
        raise ProbeError(f"normalise is {normalise!r}; give 'pair' or None")
    if tolerance is not None and not (isinstance(tolerance, (int, float, np.floating)) and tolerance > 0):
        raise ProbeError(f"tolerance is {tolerance!r}; give a number above 0, such as 0.1, or None")


def _map_size(given: Any, image: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the maps: the image's, or one that divides it."""
    if given is None:
        return image
    height, width = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given, given)
    found = whole(height, "map_size", 1), whole(width, "map_size", 1)
    if image[0] % found[0] or image[1] % found[1]:
        raise ProbeError(
            f"map_size is {found} and images are {image[0]}×{image[1]}; give a size that divides them, such as "
            f"{tuple(side // 2 if side % 2 == 0 else side for side in image)}"
        )
    return found


def _components(given: Any, image: tuple[int, int, int], cell: tuple[int, int]) -> int | Tensor | None:
    """How many components, or those of an earlier run."""
    if given is None:
        return None
    if not isinstance(given, Tensor):
        return whole(given, "components", 1)
    size = (image[0], image[1] // cell[0], image[2] // cell[1])
    if given.dim() != 4 or tuple(given.shape[1:]) != size:
        raise ProbeError(
            f"the components have shape {tuple(given.shape)} and changes are {size}; give the .components of maps of "
            "this generator and map_size, or a number"
        )
    return given.float()


def _identity(
    about: dict[str, Any],
    sets: Sequence[UnitSet],
    seed: int,
    pairs: Pairs,
    given: tuple[Latents | None, Latents | None],
) -> dict[str, Any]:
    """What decides a run's bits, beside its options: a checkpoint of anything else is refused."""
    plain: dict[str, Any] = {key: value for key, value in about.items() if key != "versions"} | about["versions"]
    latents = [None if value is None else lt.fingerprint(value) for value in given]
    plain |= {"units": units_to_json(sets), "seed": seed, "n_pairs": pairs.n, "latents": latents}
    return plain


def _checkpoint(
    path: str | os.PathLike[str] | None, ranks: Ranks, identity: dict[str, Any], by_pairs: bool
) -> Checkpoint | None:
    if path is None:
        return None
    identity = identity | {"ranks": ranks.world}
    if ranks.world == 1:
        return Checkpoint(path, identity)
    # Ranks that share the sets keep their own progress each; of those that share pairs, rank 0 keeps that of all.
    rank = 0 if by_pairs else ranks.rank
    return Checkpoint(
        f"{os.fspath(path)}.rank{rank}of{ranks.world}", identity | {"shared": "pairs" if by_pairs else "sets"}
    )


@contextmanager
def _told_where(file: Checkpoint | None) -> Iterator[None]:
    """Ctrl-C says where the progress is, if any has been written."""
    try:
        yield
    except Interrupted as stop:
        if file is None or not file.path.exists():
            raise
        raise Interrupted(f"interrupted; progress is in {file.path}, and the same call goes on from it") from stop
