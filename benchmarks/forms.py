"""Forms of the convolutions after a layer, taking turns: which is fastest where, as shares of the best convolution.

    python benchmarks/forms.py --threads 2 --out benchmarks/measured/forms.json

First single convolutions, transposed ones of ``dcgan-faces`` and ordinary ones of BigGAN-deep-256, in every form that
was thought of; then maps of ``dcgan-faces`` in the forms that the library has. Run it on another kind of processor to
see what belongs into ``engine/forms/processors.json`` for it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from compare import LAYERS, roofline, write
from throughput import machine, seconds_of
from torch import Tensor
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.base.memory import memory_kept
from counterfactual_probe.engine.forms.form import Form, processor
from counterfactual_probe.engine.forms.packed import PackedConvolution
from counterfactual_probe.engine.prepared import executor
from counterfactual_probe.engine.program.operators import Convolution
from counterfactual_probe.engine.program.polyphase import of_transposed, polyphase_convolution

ENLARGING = ((256, 128, 8), (128, 64, 16))  # inputs, outputs, side, of kernels of 4×4 that enlarge by 2
ORDINARY = ((256, 256, 64, 3), (64, 64, 128, 3), (512, 128, 32, 1), (64, 256, 128, 1))  # and side of the kernel
ROWS = 32
CPU = torch.device("cpu")

Call = Callable[[], Tensor]


def last(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def enlarging(inputs: int, outputs: int, side: int) -> tuple[dict[str, Call], float]:
    """Calls of each form of a transposed convolution, and its multiplications and additions."""
    x, weight, bias = last(ROWS, inputs, side, side), last(inputs, outputs, 4, 4), torch.randn(outputs)
    run = Convolution((2, 2), (1, 1), (1, 1), transposed=True)
    phases, kernels = polyphase_convolution(weight.transpose(0, 1), 2, of_transposed(4, 2, 1))
    kernels = kernels.contiguous(memory_format=torch.channels_last)
    wide = torch.zeros(4 * outputs, inputs, 3, 3)  # all phases by one kernel of 3×3, most of whose border is zeros
    for phase in range(4):
        p, q = divmod(phase, 2)
        part = slice(phase * outputs, (phase + 1) * outputs)
        wide[part, :, p : p + 2, q : q + 2] = kernels[part]
    order = [outputs * phase + channel for channel in range(outputs) for phase in range(4)]  # as pixel_shuffle has it
    shuffled, repeated = wide[order].contiguous(memory_format=torch.channels_last), bias.repeat_interleave(4)
    packed, alone, kernel = PackedConvolution(run, weight, bias, "none", {}), x.contiguous(), weight.contiguous()
    calls: dict[str, Call] = {
        "transposed, as it is": lambda: run(x, weight, bias),
        "transposed, packed": lambda: packed(x),
        "transposed, contiguous": lambda: run(alone, kernel, bias),
        "phases of 2×2": lambda: phases(x, kernels, bias.repeat(4)),
        "one of 3×3 and pixel_shuffle": lambda: F.pixel_shuffle(F.conv2d(x, shuffled, repeated, padding=1), 2),
    }
    return calls, 2.0 * ROWS * (2 * side) ** 2 * outputs * inputs * 4


def ordinary(inputs: int, outputs: int, side: int, kernel: int) -> tuple[dict[str, Call], float]:
    """The same of an ordinary convolution, on one image."""
    x, weight, bias = last(1, inputs, side, side), last(outputs, inputs, kernel, kernel), torch.randn(outputs)
    run = Convolution((1, 1), (kernel // 2, kernel // 2), (1, 1))
    packed, alone, plain = PackedConvolution(run, weight, bias, "none", {}), x.contiguous(), weight.contiguous()
    calls: dict[str, Call] = {
        "as it is": lambda: run(x, weight, bias),
        "packed": lambda: packed(x),
        "contiguous": lambda: run(alone, plain, bias),
    }
    if kernel == 1:
        pixels, matrix = x.permute(0, 2, 3, 1).reshape(-1, inputs), weight.view(outputs, inputs).t()
        calls["matrix product"] = lambda: (
            torch.addmm(bias, pixels, matrix).view(1, side, side, outputs).permute(0, 3, 1, 2)
        )
    return calls, 2.0 * side**2 * kernel**2 * inputs * outputs


def rates(calls: Mapping[str, Call], work: float, rounds: int) -> dict[str, float]:
    """GFLOP/s of each, the median of rounds in which they take turns; all must give the same."""
    expected = next(iter(calls.values()))()
    for name, call in calls.items():
        if not torch.allclose(call(), expected, atol=1e-3 * float(expected.abs().max())):
            raise SystemExit(f"{name} gives another image")
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call, CPU))
    return {name: work / median(values) / 1e9 for name, values in seconds.items()}


def single(rounds: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with torch.inference_mode(), memory_kept(CPU):
        for shape in ENLARGING:
            rows.append({"shape": "{}→{} channels, {}×{} to twice that".format(*shape[:2], shape[2], shape[2])})
            rows[-1] |= {"rates": rates(*enlarging(*shape), rounds)}
        for one in ORDINARY:
            rows.append({"shape": "{0}→{1} channels, {2}×{2}, kernel {3}×{3}".format(*one)})
            rows[-1] |= {"rates": rates(*ordinary(*one), rounds)}
    return rows


def maps(pairs: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds of maps in each form of the library, and how many times as fast as plain packed is."""
    rows: list[dict[str, Any]] = []
    generators = {form: cp.load("dcgan-faces") for form in Form}  # each remembers its program
    for layers in (LAYERS, *((layer,) for layer in LAYERS)):
        seconds: dict[Form, list[float]] = {form: [] for form in Form}
        for round_ in range(rounds + 1):
            for form, gen in generators.items():
                setattr(executor, "form_on", lambda _, form=form: form)  # noqa: B010 - in place of the table
                z1, z2 = gen.sample(pairs, seed=0), gen.sample(pairs, seed=1)
                start = time.perf_counter()
                found = cp.InfluenceMap(gen, layers).attribute(z1, z2)
                if round_:  # the first records the program
                    seconds[form].append(time.perf_counter() - start)
                if found.provenance["convolutions"] != form.value:
                    raise SystemExit(f"{form.value} was asked for, and not taken")
        ratios = [plain / packed for plain, packed in zip(*seconds.values(), strict=True)]
        rows.append({"layers": list(layers), "ratio": median(ratios), "range": [min(ratios), max(ratios)]})
        rows[-1] |= {form.value: median(values) for form, values in seconds.items()}
    rows[0]["roofline"] = roofline(next(iter(generators.values())), pairs, rows[0]["packed"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    result: dict[str, Any] = {
        "machine": machine(CPU),
        "processor": processor(),
        "rows": ROWS,
        "single": single(3 * args.rounds),
    }
    for row in result["single"]:
        print(row["shape"] + ": " + ", ".join(f"{name} {rate:.0f}" for name, rate in row["rates"].items()) + " GFLOP/s")
    result |= {"pairs": args.pairs, "rounds": args.rounds, "maps": maps(args.pairs, args.rounds)}
    for row in result["maps"]:
        low, high = row["range"]
        print(
            f"{' '.join(row['layers'])}: plain {row['plain']:.2f} s, packed {row['packed']:.2f} s, "
            f"{row['ratio']:.2f} × as fast ({low:.2f}–{high:.2f})"
        )
    print(
        "packed: {share:.2f} of the best convolution ({best_gflops:.0f} GFLOP/s)".format(
            **result["maps"][0]["roofline"]
        )
    )
    write(result, args.out)


if __name__ == "__main__":
    main()
