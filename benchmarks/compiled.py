"""What torch.compile would gain: the part of a forward after a layer, as the library runs it, against Inductor's code.

    python benchmarks/compiled.py --threads 1 --out benchmarks/measured/compiled.json

The operations after the layer are those of the library's simplified program, on a batch of hybrids' size. Both take
turns after warm-up; ``seconds to compile`` is what the first call costs. The library does not use torch.compile: see
RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compare import write
from counterfactual_probe.adapters.biggan_deep import random_biggan_deep
from throughput import machine, seconds_of
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.engine.forms.form import Form
from counterfactual_probe.engine.prepared.batch import laid_out
from counterfactual_probe.engine.prepared.cache import Preparations
from counterfactual_probe.engine.program.program import outputs
from counterfactual_probe.engine.program.recording import in_order

UNFINISHED = Path(__file__).resolve().parents[1] / "unfinished/biggan-cifar10"
# Name, how it is opened, the layer, and hybrids of a batch.
ROWS: tuple[tuple[str, Callable[[], Any], str, int], ...] = (
    ("dcgan-faces", lambda: cp.load("dcgan-faces"), "main.2", 64),
    ("vae-faces", lambda: cp.load("vae-faces"), "decoder.level2", 64),
    ("began-faces", lambda: cp.load("began-faces"), "blocks.1.3", 64),
    ("biggan-cifar10", lambda: cp.load(UNFINISHED), "generator.layers.2", 64),
    ("biggan-deep-256, random weights", lambda: random_biggan_deep("biggan-deep-256"), "generator.layers.10", 8),
)


def tail(gen: cp.GeneratorAdapter, layer: str, n: int) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """What runs after a layer, and its arguments for n samples."""
    prepared = Preparations(gen, [frozenset([layer])], None, {}, Form.PLAIN).anew()
    program = prepared.simplified.program
    values = dict(program.constants)
    values.update(zip(program.inputs, in_order(gen.sample(n, seed=0)), strict=True))
    for op in program.ops:
        values.update(outputs(op, op(values, n)))
    start = next(op.out for op in program.ops if op.kind == "edit")
    reached = program.reached([start])
    after = [op for op in program.ops if reached.intersection(op.reads)]
    others = sorted({number for op in after for number in op.reads} - reached - program.constants.keys())

    def run(activation: Tensor, *more: Tensor) -> Tensor:
        made = {**program.constants, start: activation, **dict(zip(others, more, strict=True))}
        for op in after:
            made.update(outputs(op, op(made, n)))
        return made[program.image]

    return run, tuple(laid_out(values[number]) for number in (start, *others))


def measured(gen: cp.GeneratorAdapter, layer: str, n: int, rounds: int) -> dict[str, Any]:
    with gen.session():
        run, arguments = tail(gen, layer, n)
        compiled = torch.compile(run, dynamic=False)
        expected = run(*arguments)
        start = time.perf_counter()
        error = float((compiled(*arguments) - expected).abs().max())
        took = time.perf_counter() - start
        turns = [
            tuple(seconds_of(partial(function, *arguments), gen.device) for function in (run, compiled))
            for _ in range(rounds)
        ]
    ratios = [plain / other for plain, other in turns]
    return {
        "layer": layer, "hybrids": n, "seconds": statistics.median(plain for plain, _ in turns),
        "ratio": statistics.median(ratios), "range": [min(ratios), max(ratios)],
        "seconds to compile": took, "error": error,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"machine": machine(torch.device("cpu")), "rows": {}}
    for name, opened, layer, n in ROWS:
        row = found["rows"][name] = measured(opened(), layer, n, options.rounds)
        low, high = row["range"]
        shown = f"{row['ratio']:.2f} × ({low:.2f}–{high:.2f}), compiled in {row['seconds to compile']:.0f} s"
        print(f"{name:34} {layer:22} {shown}")
        write(found, options.out)


if __name__ == "__main__":
    main()
