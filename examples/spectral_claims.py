"""S002's claims about ratios in its §4.1 and §4.2: one function per claim decides whether the numbers support it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from spectral_levels import BAR, Level, distance, margin, shared


@dataclass(frozen=True)
class Compared:
    """A generator and its discriminator, or a decoder and its encoder.

    Attributes:
        kind: "VAE" or "GAN".
        building: the levels of the generator or decoder.
        extracting: the levels of the discriminator or encoder, if there is one.
        chance: the levels of the generator with random kernels, a list for each sample of kernels.
        opposite: the name of the other network.
        other_chance: as ``chance``, of the other network.
    """

    name: str
    kind: str
    building: list[Level]
    extracting: list[Level] = field(default_factory=list)
    chance: list[list[Level]] = field(default_factory=list)
    opposite: str = ""
    other_chance: list[list[Level]] = field(default_factory=list)

    @property
    def pairs(self) -> list[tuple[Level, Level]]:
        return shared(self.building, self.extracting)

    @property
    def apart(self) -> dict[str, float]:
        """By shared level, the distance between the two networks' ratios."""
        return {one.name: distance(one, two) for one, two in self.pairs}


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper about some networks, whether it holds, and the numbers that decide it."""

    networks: str
    claim: str
    holds: str
    numbers: str

    def __str__(self) -> str:
        return f"{self.networks}: “{self.claim}” {self.holds}. {self.numbers}"


def overview(one: Compared) -> str:
    """A sentence that describes the figure."""
    parts = []
    for i, level in enumerate(one.building):
        drawn = f", random kernels {np.mean([draw[i].std for draw in one.chance]):.2f}" if one.chance else ""
        parts.append(f"{level.name} {level.mean:.2f} ± {level.std:.2f}{drawn}")
    text = f"{one.name}: mean ± spread of the ratios from fine to coarse: {'; '.join(parts)}"
    if one.extracting:
        other = "; ".join(f"{level.name} {level.mean:.2f} ± {level.std:.2f}" for level in one.extracting)
        text += f". Its {one.opposite}: {other}"
    return text + "."


def verdicts(one: Compared) -> list[Verdict]:
    """All claims about one generator and its discriminator or encoder."""
    found = [concentrated(one)] if one.chance else []
    if len(one.building) > 1 and one.kind == "GAN":
        found.append(finest_depends_most(one))
    if one.pairs and one.kind == "GAN":
        found += [broader(one), negative_tail(one)]
    if one.pairs and one.kind == "VAE":
        found.append(modes(one))
    return found


def concentrated(one: Compared) -> Verdict:
    """§4.1, compared with random kernels: these are independent, but their ratios spread too, as kernels are small."""
    said, at = [], []
    for i, level in enumerate(one.building):
        spreads = [draw[i].std for draw in one.chance]
        at.append(level.std <= max(spreads))
        said.append(f"{level.name} {level.std:.2f} ({min(spreads):.2f} to {max(spreads):.2f})")
    claim = "a rather good concentration around 1, which suggests independence"
    numbers = f"Spread, and that of {len(one.chance)} samples of random kernels: {'; '.join(said)}."
    return Verdict(one.name, claim, _where(at, [level.name for level in one.building]), numbers)


def finest_depends_most(one: Compared) -> Verdict:
    """§4.2: "we observed more dependency between GAN layers at fine scales"."""
    # With interpolation and small kernels, ratios of random kernels spread too, and differently at each level.
    values = [level.deviation / random(level, one.chance) for level in one.building]
    pairs = zip(one.building, values, strict=True)
    said = "; ".join(f"{level.name} {level.deviation:.2f} ({value:.1f})" for level, value in pairs)
    holds = values[0] == max(values)
    claim = "more dependency between GAN layers at fine scales"
    return Verdict(
        one.name, claim, _holds(holds), f"Root mean square of ratio − 1 (relative to random kernels' spread): {said}."
    )


def broader(one: Compared) -> Verdict:
    """§4.1, Fig. 4: broader by more than samples of random kernels differ from each other."""
    at, said = [], []
    for own, two in one.pairs:
        mine, other = random(own, one.chance), random(two, one.other_chance)
        at.append(two.std / other - own.std / mine > margin(own, one.chance) / mine)
        said.append(f"{own.name} {own.std:.2f} ({own.std / mine:.1f}) and {two.std:.2f} ({two.std / other:.1f})")
    claim = "the discriminator's distribution is broader, especially at fine scales"
    numbers = f"Spread of generator and {one.opposite} (relative to random kernels): {'; '.join(said)}."
    return Verdict(one.name, claim, _where(at, [own.name for own, _ in one.pairs]), numbers)


def negative_tail(one: Compared) -> Verdict:
    """§4.2, at the finest level."""
    own, two = one.pairs[0]
    said = {
        (True, True): "holds",
        (True, False): "holds only in its first half",
        (False, True): "holds only in its second half",
        (False, False): "does not hold",
    }[two.below > own.below, own.above > two.above]
    claim = "more negative correlations in the finest discriminator layers, a strong positive tail in the generator's"
    numbers = (
        f"Share below 0.9: {own.below:.2f} and {two.below:.2f}; above 1.45: {own.above:.2f} and {two.above:.2f} "
        f"({own.name})."
    )
    return Verdict(one.name, claim, said, numbers)


def modes(one: Compared) -> Verdict:
    """§4.1, Fig. 5: the shapes that Shajarisales et al. (2015) predict."""
    at = [abs(own.mode - 1) <= BAR and two.mode < 1 for own, two in one.pairs]
    said = "; ".join(f"{own.name} {own.mode:.2f} and {two.mode:.2f}" for own, two in one.pairs)
    claim = "a mode around one for the decoder, below one for the encoder"
    numbers = f"Modes, to a resolution of {BAR}: {said}."
    return Verdict(one.name, claim, _where(at, [own.name for own, _ in one.pairs]), numbers)


def across(vae: Compared, gan: Compared) -> list[Verdict]:
    """§4.1, for a VAE and a GAN that were trained on the same images, at the levels that both have."""
    names = f"{vae.name} and {gan.name}"
    found = []
    one, two = vae.apart, gan.apart
    matched = [key for key in one if key in two]
    if matched:
        claim = "much sharper differences between decoder and encoder than between generator and discriminator"
        said = "; ".join(f"{key} {one[key]:.3f} and {two[key]:.3f}" for key in matched)
        numbers = f"Distance of the two distributions: {said}."
        found.append(Verdict(names, claim, _where([one[key] > two[key] for key in matched], matched), numbers))
    levels = shared(vae.building, gan.building)
    if levels:
        # Levels that one network has alone, such as one of smaller kernels, say nothing about the other.
        at, parts = [], []
        for own, other in levels:
            mine, others = random(own, vae.chance), random(other, gan.chance)
            least = max(margin(own, vae.chance) / mine, margin(other, gan.chance) / others)
            at.append(own.std / mine - other.std / others > least)
            parts.append(
                f"{own.name} {own.std:.3f} ({own.std / mine:.2f}) and {other.std:.3f} ({other.std / others:.2f})"
            )
        claim = "a much broader distribution in the VAE's decoder than in the GAN's generator"
        numbers = f"Spread of decoder and generator (relative to random kernels): {'; '.join(parts)}."
        found.append(Verdict(names, claim, _where(at, [own.name for own, _ in levels]), numbers))
    return found


def random(level: Level, chance: Sequence[Sequence[Level]]) -> float:
    """The spread of random kernels at a level, mean over samples; 1 without samples."""
    spreads = [other.std for draw in chance for other in draw if other.key == level.key]
    return float(np.mean(spreads)) if spreads else 1.0


def _holds(claim: bool) -> str:
    return "holds" if claim else "does not hold"


def _where(at: Sequence[bool], levels: Sequence[str]) -> str:
    """The levels at which a claim holds, by their names."""
    if all(at) or not any(at):
        return _holds(all(at))
    names = [level for level, holds in zip(levels, at, strict=True) if holds]
    return f"holds at {' and '.join(names)} and nowhere else"
