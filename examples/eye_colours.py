"""Which channels carry the colour of a painted eye? Hybrids of eyes of two colours, by module.

    python examples/eye_colours.py --base brown --source blue --out out/eyes

Modules of one layer are found from pairs with a base of one class and a source of another. ``hybrids.png`` shows
hybrids with other eyes as sources. ``colours.png`` shows hybrids with the same eyes in the other colour: base and
source have the same latent and differ only in the class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import counterfactual_probe as cp


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="brown", help="class of the base, by name or number")
    parser.add_argument("--source", default="blue", help="class of the source")
    parser.add_argument("--layer", default="main.12")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--modules", type=int, default=3)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/eyes"))
    options = parser.parse_args(arguments)

    gen = cp.load("cdcgan-eyes")
    base, source = (int(name) if name.isdecimal() else name for name in (options.base, options.source))
    maps = cp.InfluenceMap(gen, options.layer).attribute(
        gen.sample(options.pairs, seed=options.seed, stream=0, classes=base),
        gen.sample(options.pairs, seed=options.seed, stream=1, classes=source),
        show_progress=True,
    )
    finder = cp.ModuleFinder(n_modules=options.modules).fit(maps)
    print(maps)
    print(finder)

    z = gen.sample(options.images, seed=options.seed + 1, stream=0, classes=base)
    others = gen.sample(options.images, seed=options.seed + 1, stream=1, classes=source)
    recoloured = gen.sample(options.images, seed=options.seed + 1, stream=0, classes=source)
    hybridizer = cp.Hybridizer(gen, options.layer)
    options.out.mkdir(parents=True, exist_ok=True)
    finder.plot().savefig(options.out / "modules.png")
    for file, other in (("hybrids.png", others), ("colours.png", recoloured)):
        hybrids = hybridizer.hybridize(z, other, units=finder.modules_)
        names = [f"module {k + 1} ({units.size} channels)" for k, units in enumerate(hybrids.units)]
        hybrids.plot(labels=names).savefig(options.out / file)
        print(options.out / file)


if __name__ == "__main__":
    main()
