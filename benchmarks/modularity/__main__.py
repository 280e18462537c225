"""How well methods find modules: planted ones, none in continua, and those of decoders whose parts are known.

    python benchmarks/modularity                     a quarter of an hour on one core; trains four small decoders first
    python benchmarks/modularity --method my.py:Mine      with a scikit-learn clusterer of yours beside the others
    python benchmarks/modularity --rows out/rows.jsonl    goes on where it was interrupted
    python benchmarks/modularity --short             a smoke test of the same
    python benchmarks/modularity --out benchmarks/measured/modularity.json --page docs/benchmark.md
            what was measured, written into the page

docs/benchmark.md says what is measured, and what a method is.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


def method_of(text: str) -> tuple[str, Any]:
    """The name and an instance of ``path.py:Class`` or ``package.module:Class``."""
    where, _, name = text.rpartition(":")
    if not where:
        raise SystemExit(f"--method is {text!r}; give path.py:Class or package.module:Class")
    module = _file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    kind = getattr(module, name, None)
    if not callable(kind):
        raise SystemExit(f"{where} has no class {name}; it has {', '.join(n for n in vars(module) if n[0].isupper())}")
    return name, kind()


def _file(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path} is no file of Python; give path.py:Class")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks/modularity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", action="append", default=[], help="a clusterer, path.py:Class or module:Class")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the methods that are there, these alone")
    parser.add_argument("--toys", type=int, default=10, help="toys of each kind (%(default)s)")
    parser.add_argument("--pairs", type=int, default=64, help="of latents, in each sample (%(default)s)")
    parser.add_argument("--models", nargs="*", help="decoders, or none; by default four")
    parser.add_argument("--steps", type=int, default=2000, help="of their training (%(default)s)")
    parser.add_argument("--models-out", type=Path, default=Path("out/modularity"), help="folder of the decoders")
    parser.add_argument("--short", action="store_true", help="a smoke test, not a result")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument(
        "--rows", type=Path, help="a file of all scores, JSON in lines: what it holds is not measured again"
    )
    parser.add_argument("--page", type=Path, help="a page whose tables and picture are made anew, from --out if there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(arguments)
    from modularity.leaderboard import tables, write
    from modularity.methods import METHODS
    from modularity.run import SHORT, Settings, measured

    if given.page is not None and given.out is not None and given.out.exists():
        write(given.page, json.loads(given.out.read_text(encoding="utf-8")))
        return
    if unknown := sorted(set(given.only or ()) - METHODS.keys()):
        raise SystemExit(f"no method is called {unknown[0]!r}; there are {'; '.join(METHODS)}")
    methods = {name: METHODS[name] for name in given.only or METHODS} | dict(map(method_of, given.method))
    settings = Settings(toys=given.toys, pairs=given.pairs, steps=given.steps, folder=given.models_out)
    if given.short:
        settings = dataclasses.replace(SHORT, folder=given.models_out)
    if given.models is not None:
        settings = dataclasses.replace(settings, models=tuple(given.models))
    result = measured(methods, settings, given.rows)
    print(tables(result)["leaderboard"])
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.page is not None:
        write(given.page, result)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks import one another by name
    main()
