"""The model card of a generator that is shared: what is known of it, and what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from ..base.display.markdown import escaped
from ..base.display.text import counted
from ..base.hub.card import front_matter
from ..generator.adapter import GeneratorAdapter
from ..modules.confidence import ENOUGH
from ..reporting.words import reproducible_words
from ..version import __version__
from .modules import SharedModules

_SHOWN = 12  # layers


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says that is not measured.

    Attributes:
        address: of the repository, ``hf:user/name``.
        summary, trained_on, terms, source: of the generator, in words; empty where nothing is known.
        licence: an identifier of the hub.
    """

    address: str
    architecture: str
    summary: str = ""
    trained_on: str = ""
    terms: str = ""
    source: str = ""
    licence: str | None = None


def model_card(
    generator: GeneratorAdapter,
    facts: CardFacts,
    *,
    samples: tuple[str, int],
    modules: SharedModules | None = None,
    hybrids: tuple[str, int] | None = None,
) -> str:
    """The text of README.md; ``samples`` and ``hybrids`` are a picture's file and how many images or pairs it shows."""
    lines = [front_matter([facts.architecture], facts.licence), "", f"# {escaped(generator.name)}", ""]
    size = "×".join(map(str, generator.image_size))
    about = f"An image generator ({escaped(facts.architecture)}), {size}, "
    lines += [f"{about}opened and taken apart by counterfactual-probe.", ""]
    lines += [escaped(f"{facts.summary}."), ""] if facts.summary else []
    lines += _samples_lines(*samples) + _loading_lines(facts, modules)
    lines += ["## Data", "", f"- Trained on: {escaped(facts.trained_on or 'not stated')}."]
    lines += [f"- Terms: {escaped(facts.terms or 'not stated')}."]
    lines += [f"- Source: {escaped(facts.source)}."] if facts.source else []
    lines += ["", *_modules_lines(modules, hybrids), *_layers_lines(generator)]
    lines += ["## Made with", "", f"- counterfactual-probe {__version__}, torch {torch.__version__}."]
    lines += [f"- SHA-256 of the weights, as results record it: `{generator.weights_hash()}`."]
    return "\n".join(lines) + "\n"


def _samples_lines(file: str, count: int) -> list[str]:
    return [f"![samples]({file})", "", f"*The images of `gen.sample({count}, seed=0)`, not selected.*", ""]


def _loading_lines(facts: CardFacts, modules: SharedModules | None) -> list[str]:
    lines = ["## Use", "", "`pip install counterfactual-probe[hub]`", "", "```python"]
    lines += ["import counterfactual_probe as cp", ""]
    lines += [f"gen = cp.load({json.dumps(facts.address)})", "images = gen(gen.sample(8, seed=0))"]
    if modules is not None:
        # Any name is a text of Python's in quotation marks.
        name = json.dumps(modules.sets[0].name)
        lines += ["", "z1, z2 = gen.sample(8, seed=1), gen.sample(8, seed=2)  # or pictures"]
        lines += [f"edited = gen.edit(z1, {name}, source=z2, strength=0.7)"]
    return [*lines, "```", ""]


def _modules_lines(modules: SharedModules | None, hybrids: tuple[str, int] | None) -> list[str]:
    if modules is None:
        return []
    known = [modules.confidence(number) for number in range(len(modules.sets))]
    rows = [
        f"| {escaped(item.name)} | {escaped(', '.join(item))} | {counted(item.size, item.kind)} | "
        f"{'not measured' if confidence is None else f'{confidence:.2f}'} |"
        for item, confidence in zip(modules.sets, known, strict=True)
    ]
    head = ["| module | layer | units | mean confidence |", "|---|---|---|---|"]
    lines = ["## Modules", "", "Groups of units that act on the same part of the image, in `modules.json`.", ""]
    lines += [*head, *rows, "", _reproducibility(modules.expected_ari), ""]
    if hybrids is not None:
        file, count = hybrids
        lines += [f"![hybrids]({file})", ""]
        lines += [f"*Hybrids of {counted(count, 'pair')} of random latents, not selected: base, source, and in each "]
        lines[-1] += "row the base with that module's units set to the source's values.*"
        lines += [""]
    return lines


def _reproducibility(ari: float | None) -> str:
    if ari is None:
        return "How reproducible they are was not measured."
    words, _ = reproducible_words(ari)
    return (
        f"With other random images these modules are expected to be {words}: adjusted Rand index {ari:.2f}, where 1 is "
        f"the same modules, 0 is chance, and {ENOUGH:g} or more is called reproducible."
    )


def _layers_lines(generator: GeneratorAdapter) -> list[str]:
    infos = [generator.layer(name) for name in generator.layers]
    lines = ["## Layers", "", "| layer | channels | size |", "|---|---|---|"]
    lines += [
        f"| {escaped(info.name)} | {info.channels} | {'×'.join(map(str, info.size)) or '–'} |"
        for info in infos[:_SHOWN]
    ]
    return [*lines, *([f"| and {len(infos) - _SHOWN} more | | |"] if len(infos) > _SHOWN else []), ""]
