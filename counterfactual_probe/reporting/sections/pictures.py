"""Hybrids of given pictures: a section of the report, for generators that find latents of images (S001 §4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...base import drawing
from ...base.display.text import counted
from ...base.errors import ProbeError
from ...base.files import safe_name
from ...data import Images, open_images
from ...data.order import epoch_order
from ...data.sources import Data
from ...editing.pictures import in_range
from ...generator.adapter import GeneratorAdapter
from ...hybrids.hybridizer import Hybridizer
from ...hybrids.result import Hybrids
from ..section import CaptionedFigure, Section, SectionMaker, shown
from ..study import LayerStudy, Study

TITLE = "Hybrids of given pictures"


def encoder_of(generator: GeneratorAdapter) -> Any:
    """The generator's ``encode``; a ProbeError if it has none."""
    encode = getattr(generator, "encode", None)
    if encode is None:
        raise ProbeError(
            f"{generator.name} cannot find the latents of given images; leave out the pictures, or take a generator "
            "with encode(images), such as a VAE's"
        )
    return encode


def encoded_section(generator: GeneratorAdapter, study: Study, pictures: Data) -> Section:
    """Pictures, their reconstructions, and hybrids of pairs of them by each module.

    >>> encoded_section(gen, study, "pictures")  # doctest: +SKIP

    ``pictures`` are what :func:`data.open_images` takes; they are cropped and resized to the generator's size. As many
    pairs are shown as in the study, in an order that its seed determines.
    """
    # Another seed than the study's, which may have sampled the training images of this generator.
    return _section(generator, study, _opened(generator, pictures, 2 * study.settings.shown, study.settings.seed + 1))


def _opened(generator: GeneratorAdapter, pictures: Data, samples: int, seed: int) -> Images:
    """At least two pictures; of a generator so many samples."""
    encoder_of(generator)
    options: dict[str, Any] = {"images": samples} if _are_samples(pictures) else {}
    options |= {"size": generator.image_size[1], "colours": generator.image_size[0]}
    opened = open_images(pictures, seed=seed, skip_unreadable=True, **options)
    if len(opened) < 2:
        raise ProbeError(f"{counted(len(opened), 'picture')} given and a hybrid is of two; give at least two")
    return opened


def _are_samples(pictures: Data) -> bool:
    return isinstance(pictures, str) and pictures.startswith("generator:")


def _section(generator: GeneratorAdapter, study: Study, opened: Images) -> Section:
    encode = encoder_of(generator)
    n = min(study.settings.shown, len(opened) // 2)
    chosen = epoch_order(len(opened), seed=study.settings.seed, epoch=0)[: 2 * n]
    images = in_range(generator, opened.floats(chosen))
    z1, z2 = encode(images[:n]), encode(images[n:])
    made = {layer.layer.name: _hybrids(generator, layer, z1, z2) for layer in study.layers if any(layer.modules)}
    about = f"{'; '.join((opened.source, *opened.notes))}; latents are means of the posterior; {counted(n, 'pair')}"
    first = next(iter(made.values()), None)
    sentences = (_error_sentence(images, first),) if first is not None else ("No layer has modules.",)
    return Section(
        TITLE,
        sentences,
        figures=tuple(_figure(study, name, images, hybrids, about) for name, hybrids in made.items()),
        results={f"hybrids-{safe_name(name)}.safetensors": hybrids for name, hybrids in made.items()},
    )


def pictures_maker(pictures: Data) -> SectionMaker:
    """The section on these pictures, as the command line adds it: they are read before the study, and kept."""
    read: list[Images] = []

    def fits(generator: GeneratorAdapter) -> None:
        opened = _opened(generator, pictures, 2, 0)
        read[:] = [] if _are_samples(pictures) else [opened]  # samples are of the study's seed

    def make(generator: GeneratorAdapter, study: Study, _: Callable[[str], None]) -> Section:
        return _section(generator, study, read[0]) if read else encoded_section(generator, study, pictures)

    return SectionMaker("pictures", "hybrids of given pictures", make, fits=fits)


def _hybrids(generator: GeneratorAdapter, layer: LayerStudy, z1: Any, z2: Any) -> Hybrids:
    return Hybridizer(generator, layer.layer.name).hybridize(z1, z2, units=layer.finder.modules_)


def _error_sentence(images: Tensor, hybrids: Hybrids) -> str:
    """How well the latents reconstruct the pictures."""
    source = hybrids.source
    made = hybrids.base if source is None else torch.cat([hybrids.base, source])
    low, high = hybrids.provenance["image_range"]
    error = float((made - images).abs().mean() / (high - low))
    spread = float((images - images.mean(0)).abs().mean() / (high - low))
    return (
        f"Reconstructions differ from the pictures by {100 * error:.1f} % of the range of values on average (for "
        f"comparison, the mean of all pictures would differ by {100 * spread:.1f} %)."
    )


def _figure(study: Study, name: str, images: Tensor, hybrids: Hybrids, about: str) -> CaptionedFigure:
    n = hybrids.base.shape[0]
    source = hybrids.base if hybrids.source is None else hybrids.source
    rows = [images[:n], hybrids.base, images[n:], source, *hybrids.images]
    labels = ["base\npicture", "base", "source\npicture", "source"]
    labels += [f"{units.title(k)}\n{counted(units.size, 'channel')}" for k, units in enumerate(hybrids.units, 1)]
    stack = torch.stack([row.float().cpu() for row in rows]).numpy()
    figure, _ = drawing.plot_images(stack, labels, hybrids.provenance["image_range"])
    return shown(
        f"encoded_hybrids_{name}",
        figure,
        "Hybrids of pictures: each column is a pair; below each picture is its reconstruction, and in a module's row "
        "the base with that module's channels set to the source's values.",
        f"{study.generator}, layer {name}, {about}",
        photographs=True,
    )
