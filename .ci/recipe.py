"""Build the conda package of recipe/ from the sdist in dist/: python .ci/recipe.py --out out/conda

It takes py-rattler-build and a channel with Python, by default conda-forge's. The package is tested by the recipe's own
tests where ``--test`` is given: they need a channel with all that the library needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rattler_build import Stage0Recipe, ToolConfiguration, VariantConfig

RECIPE = Path(__file__).resolve().parents[1] / "recipe"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--channel", default="conda-forge", help="where packages come from (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/conda"), help="folder of the package (%(default)s)")
    parser.add_argument("--test", action="store_true", help="install the package and run the recipe's tests")
    options = parser.parse_args()
    recipe = Stage0Recipe.from_file(str(RECIPE / "recipe.yaml"))
    tools = ToolConfiguration(test_strategy="native" if options.test else "skip")
    made = [
        path
        for variant in recipe.render(VariantConfig.from_file(str(RECIPE / "variants.yaml")))
        for path in variant.run_build(tool_config=tools, output_dir=options.out, channels=[options.channel]).packages
    ]
    print(*made, sep="\n")
    sys.exit(0 if made else 1)


if __name__ == "__main__":
    main()
