"""Run a request for influence maps: this rank's share of it, progress in a file, and the maps of all ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..base.checkpoint import Checkpoint
from ..base.errors import Interrupted, ProbeError
from ..base.files import as_path
from ..base.memory import in_words
from ..base.progress import progress_bar
from ..distributed.exchange import Exchange
from ..distributed.ranks import Ranks
from ..engine import Stream
from ..generator.examination import is_same
from ..generator.images import thumbnails
from .components import components_on_all_ranks
from .estimate import Estimate, SharedEstimate, pairs_are_shared
from .maps import InfluenceMaps
from .progress.files import ProgressFiles
from .request import MapRequest

_LARGE = 2**30  # bytes of maps

CheckpointPath = str | os.PathLike[str] | None


class Run:
    """A request on these ranks.

    Attributes:
        by_pairs: whether ranks share the pairs, not the unit sets.
        sets: the unit sets that this rank runs.
    """

    def __init__(self, request: MapRequest, exchange: Exchange) -> None:
        self.request, self.exchange, self.ranks = request, exchange, exchange.ranks
        ranks = exchange.ranks
        self.by_pairs = pairs_are_shared(len(request.sets), request.pairs.n, ranks, request.options.tolerance)
        dealt = ranks.dealt(len(request.sets))
        self.sets = list(request.sets) if self.by_pairs else [request.sets[chosen] for chosen in dealt]

    @torch.inference_mode(False)  # sums are added to in place, inside of a session and outside
    def maps(self, checkpoint: CheckpointPath, show_progress: bool) -> InfluenceMaps:
        """The maps of all ranks, on each of them."""
        request, ranks, device = self.request, self.ranks, self.request.generator.device
        about = request.generator.provenance()
        identity: dict[str, Any] = {}
        if checkpoint is not None or ranks.world > 1:  # long runs only: it reads all given latents
            identity = request.identity(about)
            self.exchange.require_same(identity)
            self._require_same_images()
        files = None if checkpoint is None else self.progress_files(checkpoint, identity)
        self._require_one_path(checkpoint)
        own = None if files is None else files.of(ranks)
        request.options.require_room(len(request.sets), device, None if own is None else own.checkpoint.path)
        estimate = self._estimate()
        estimate.resume(own, [] if files is None else files.of_other_numbers(ranks.world))
        file = None if own is None else own.checkpoint
        _complete(estimate, file, show_progress and ranks.rank == 0, self.exchange)
        arrays = estimate.accumulator.finish()
        provenance = about | self._about(estimate)
        if not self.by_pairs:
            arrays = arrays.gathered(self.exchange, len(request.sets), device)
        return InfluenceMaps(**vars(arrays), units=tuple(request.sets), provenance=self.exchange.from_first(provenance))

    def _require_same_images(self) -> None:
        """Hooks and ways to read images have no names that could be compared; what they give can be."""
        if self.ranks.world == 1:
            return
        generator = self.request.generator
        images = self.exchange.objects(thumbnails(generator(generator.example)).cpu().numpy())
        if (rank := _differing(images)) is not None:
            raise ProbeError(
                f"rank {rank} gives other images of the same latents than rank 0; make the same generator on every "
                "rank, with the same image= and hooks"
            )
        for layer, codes in self.request.space.codes().items():
            if (rank := _differing(self.exchange.objects(codes.numpy()))) is not None:
                raise ProbeError(
                    f"rank {rank} gives other features of layer {layer!r} than rank 0; give features= the same object "
                    "on every rank, such as one that was fitted once, saved, and is loaded by all"
                )

    def _require_one_path(self, checkpoint: CheckpointPath) -> None:
        """Ranks that are given a file are given the same, or those of two runs could be mixed up: from wherever they
        were started, to which a relative path belongs."""
        paths = self.exchange.objects(None if checkpoint is None else str(as_path(checkpoint).absolute()))
        given = {rank: path for rank, path in enumerate(paths) if path is not None}
        if len(set(given.values())) > 1:
            first = min(given)
            other = next(rank for rank in given if given[rank] != given[first])
            raise ProbeError(
                f"rank {other} has another checkpoint than rank {first} ({given[other]!r} and {given[first]!r}); give "
                "every rank the same absolute path, to which each adds its number"
            )

    def _estimate(self) -> Estimate:
        request, exchange = self.request, self.exchange
        components = components_on_all_ranks(request, exchange)
        swap = request.swap(self.sets)
        stream = Stream(
            request.generator,
            swap,
            request.pairs,
            seed=request.seed,
            hybrids_per_eval=request.hybrids_per_eval,
            precision=request.precision,
        )
        if self.by_pairs:
            return SharedEstimate(stream, swap, request.options, components, exchange)
        return Estimate(stream, swap, request.options, components)

    def progress_files(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> ProgressFiles:
        """Where ranks keep the progress of this request."""
        sets, n, tolerance = len(self.request.sets), self.request.pairs.n, self.request.options.tolerance
        return ProgressFiles(
            as_path(path), identity, sets, lambda world: pairs_are_shared(sets, n, Ranks(0, world), tolerance)
        )

    def _about(self, estimate: Estimate) -> dict[str, Any]:
        """What the run adds to the provenance."""
        request, stream, components = self.request, estimate.stream, estimate.accumulator.arrays.components
        batchable = request.generator.batchable
        return {
            "layers": [layer.name for layer in request.space.layers],
            **request.space.provenance(),
            **request.extent.about,
            "n_pairs": request.pairs.n,
            "precision": estimate.precision,
            "hybrids_per_eval": stream.hybrids_per_eval,
            "executor": str(stream.executor.choice),
            "first_linear_difference": stream.executor.by_difference,
            "convolutions": stream.executor.convolutions,
            "noise_in_forward": not batchable,
            "tolerance": request.options.tolerance,
            "blocks": request.options.blocks or None,
            "map_size": list(request.options.size),
            "components": None if components is None else len(components),
            "seed": request.seed if request.sampled or not batchable else None,
            "pairs": "drawn" if request.sampled else "given",
            **request.digests(),
            "ranks": self.ranks.world,
        }


def _differing(arrays: Sequence[np.ndarray[Any, Any]]) -> int | None:
    """The first rank whose array is another than that of rank 0, by more than rounding."""
    first, *others = map(torch.from_numpy, arrays)
    for rank, other in enumerate(others, 1):
        if first.shape != other.shape or not is_same(first, other, None):
            return rank
    return None


def _complete(estimate: Estimate, file: Checkpoint | None, show_progress: bool, exchange: Exchange) -> None:
    """Take the estimate from where it is to its end."""
    with (
        _progress_named(file),
        estimate.stream.generator.session(),
        progress_bar(estimate.total, _title(estimate), "hybrid", show_progress) as bar,
    ):

        def ran(hybrids: int) -> None:
            bar.update(hybrids)
            exchange.look()

        bar.update(estimate.settled)
        while not estimate.done:
            estimate.advance(ran)
            bar.update(estimate.settled - bar.n)  # what unit sets that have stopped need not run
            if file is not None:
                estimate.keep(file)


def _title(estimate: Estimate) -> str:
    """Of the progress bar; with the size of the maps where it is large, so that it is known before they are there."""
    size = estimate.options.bytes_of(len(estimate.accumulator.arrays.maps))
    return f"influence maps ({in_words(size)})" if size >= _LARGE else "influence maps"


@contextmanager
def _progress_named(file: Checkpoint | None) -> Iterator[None]:
    """On Ctrl-C, say where the progress is, if any has been written."""
    try:
        yield
    except Interrupted as stop:
        if file is None or not file.path.exists():
            raise
        raise Interrupted(f"interrupted; progress is in {file.path}, and the same call goes on from it") from stop
