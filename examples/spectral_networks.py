"""Spectral dependency of trained generators and of their discriminators or encoders (S002, Figs 3a, 4, 5 and 9).

    python examples/spectral_networks.py
    python examples/spectral_networks.py --networks vae-faces --folder mine=out/mine --out out/two

For each network the example writes histograms of generator against discriminator, or decoder against encoder, level by
level from fine to coarse; two kernels and their transforms; and a table of all pairs. It also writes ``table.csv``, all
levels of all networks beside the same networks with random kernels, and ``findings.md``, a sentence on each figure and,
for each claim of the paper, whether the numbers support it. Networks that are not installed are reported and left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from saving import run, save_figure, save_rows, save_sentences
from spectral_claims import Compared, across, overview, verdicts
from spectral_levels import by_chance, levels, rows, superimposed
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.cli.spectral import finest
from counterfactual_probe.spectral import SpectralTable

NETWORKS = (
    "dcgan-faces", "dcgan-faces-small", "dcgan-cifar10", "vae-faces", "vae-faces-sharp", "vae-cifar10", "began-faces",
)  # fmt: skip
# A VAE and a GAN that were trained on the same images.
TWINS = (("vae-faces", "dcgan-faces-small"), ("vae-faces-sharp", "dcgan-faces-small"), ("vae-cifar10", "dcgan-cifar10"))


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    found = {}
    for name in dict.fromkeys([*options.networks, *options.folder]):
        try:
            gen = cp.load(Path(options.folder[name]) if name in options.folder else name)
        except cp.ProbeError as error:  # continue with the others
            print(f"left out: {error}")
            continue
        found[name] = _network(name, gen, options)
    if not found:
        names = ", ".join([*options.networks, *options.folder]) or "no network"
        raise cp.ProbeError(f"none of {names} can be loaded; name others with --networks or --folder")
    listed = []
    for one in found.values():
        listed += rows(one.name, one.building, one.chance)
        listed += rows(f"{one.name}: {one.opposite}", one.extracting, one.other_chance)
    save_rows(listed, options.out / "table")
    save_sentences(_sentences(found), options.out / "findings.md")


def _network(name: str, gen: cp.GeneratorAdapter, options: argparse.Namespace) -> Compared:
    """The figures and tables of one network."""
    sd = cp.SpectralDependency(gen, name=name)
    own, other = sd.table(), None
    other_chance = []
    building, extracting, label = levels(own), [], ""
    names = [name]
    if (opposite := _opposite(gen)) is not None:
        module, label = opposite
        example = torch.zeros(2, *gen.image_size)
        other = cp.SpectralDependency(module, example=example, name=f"{name}-{label}").table()
        other_chance = by_chance(module, example, draws=options.draws)
        extracting = levels(other)
        names = [f"{name}: {'decoder' if label == 'encoder' else 'generator'}", label]
    folder = options.out / name
    figure = superimposed([building, extracting] if extracting else [building], names)
    save_figure(figure, folder / "histograms.png")
    pair = finest(sd.pairs())
    save_figure(sd.plot_kernels(pair.earlier, pair.later)[0], folder / "kernels.png")
    for table in (own, other):
        if table is not None:
            _write(table, folder)
    chance = by_chance(gen.module, gen.sample(2), draws=options.draws)
    return Compared(name, "VAE" if label == "encoder" else "GAN", building, extracting, chance, label, other_chance)


def _opposite(gen: cp.GeneratorAdapter) -> tuple[nn.Module, str] | None:
    """The discriminator or encoder, and its name."""
    partner = gen.partner
    if partner is None:
        return None
    if hasattr(gen, "encode"):
        return partner, "encoder"
    # A BEGAN's discriminator is an autoencoder, whose decoder generates images as the generator does.
    half = getattr(partner, "encoder", None)
    return (partner, "discriminator") if half is None else (half, "discriminator's encoder")


def _write(table: SpectralTable, folder: Path) -> None:
    name = str(table.provenance["generator"]).replace("'s ", "-")
    print(table)
    print(table.to_csv(folder / f"{name}.csv"))
    print(table.to_json(folder / f"{name}.json"))


def _sentences(found: dict[str, Compared]) -> list[str]:
    said = []
    for one in found.values():
        said += [overview(one), *map(str, verdicts(one))]
    for vae, gan in TWINS:
        if vae in found and gan in found:
            said += map(str, across(found[vae], found[gan]))
    return said


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), help="names in the registry")
    parser.add_argument(
        "--folder",
        action=_Folders,
        default={},
        metavar="NAME=PATH",
        help="the folder of a trained generator, and a name for it; repeatable",
    )
    parser.add_argument("--draws", type=int, default=4, help="samples of random kernels to compare with (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/spectral-networks"))
    return parser.parse_args(arguments)


class _Folders(argparse.Action):
    """Collect NAME=PATH into a dict."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        name, equals, path = str(values).partition("=")
        if not name or not equals or not path:
            parser.error(f"{option_string} is {values!r}; give NAME=PATH, such as mine=out/mine")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), name: path})


if __name__ == "__main__":
    run(main)
