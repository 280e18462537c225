"""BigGAN-deep-256 with random weights: hybrids of channels after late blocks, against plain hooks.

Weights are random since the trained ones are a download; spectral norms have converged and batch
statistics are those of samples, so that activations have the scale of a trained network's.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import peers
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.placement import multiplies_bfloat16

# Early, middle and late; layers.8 is the attention.
BLOCKS = ("generator.layers.2", "generator.layers.6", "generator.layers.10", "generator.layers.12")
PRECISIONS = ("float32", "bf16-diff") if multiplies_bfloat16(torch.device("cpu")) else ("float32",)
# More than the handful of hybrids that are run as whole forwards.
CHANNELS, MORE, PAIRS, ROUNDS = 8, 24, 2, 2
LARGEST_GIB = 4.0  # of the whole process, module and hooks included


class ByLatent(nn.Module):
    """BigGAN at a fixed truncation and class, as a function of z."""

    def __init__(self, model: Any, truncation: float) -> None:
        super().__init__()
        self.generator, self.truncation = model.generator, truncation
        label = torch.zeros(1, model.embeddings.in_features)
        label[:, 105] = 1.0
        with torch.no_grad():
            self.register_buffer("embedding", model.embeddings(label))

    def forward(self, z: Tensor) -> Tensor:
        conditions = torch.cat((z, self.embedding.expand(len(z), -1)), 1)  # type: ignore[operator]
        image: Tensor = self.generator(conditions, self.truncation)
        return image


def random_biggan() -> ByLatent:
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig

    widths = [16, 16, 16, 16, 8, 8, 8, 8, 4, 4, 2, 2, 1]
    layers = [[bool(i % 2), widths[i], widths[i + 1]] for i in range(12)]
    torch.manual_seed(0)
    model = BigGAN(BigGANConfig(output_dim=256, layers=layers, attention_layer_position=8)).eval()
    with torch.no_grad():
        model.generator.bn.weight.fill_(1.0)
        model.generator.bn.bias.zero_()
        for part in model.modules():
            if hasattr(part, "weight_u"):
                part.train()
                for hook in list(part._forward_pre_hooks.values()):
                    for _ in range(5):
                        hook(part, ())
                part.eval()
        module = ByLatent(model, 0.4)
        handles = [
            part.register_forward_pre_hook(_take_statistics)
            for part in model.modules()
            if hasattr(part, "running_means")
        ]
        module(torch.randn(4, 128))
        for handle in handles:
            handle.remove()
    return module


def _take_statistics(part: Any, inputs: tuple[Tensor, ...]) -> None:
    part.running_means[:] = inputs[0].mean((0, 2, 3))
    part.running_vars[:] = inputs[0].var((0, 2, 3)) + 1e-3


def biggan_rows() -> dict[str, Any]:
    """Seconds a hybrid after each block, hooks and here taking turns, and the memory that the maps took."""
    module = random_biggan()
    gen = cp.wrap(module, lambda n, rng: torch.randn(n, 128, generator=rng), name="biggan-deep-256, random weights")
    z1, z2 = gen.sample(PAIRS, seed=0), gen.sample(PAIRS, seed=1)
    rows = {}
    for block in BLOCKS:
        seconds: dict[str, list[float]] = {name: [] for name in ("hooks", *PRECISIONS)}
        maps: dict[str, Tensor] = {}
        units = [[channel] for channel in range(CHANNELS)]
        more = [[channel] for channel in range(MORE)]
        for _ in range(ROUNDS):
            with torch.inference_mode():
                map_of = peers.hooks(module, block, z1, z2)
                start = time.perf_counter()
                maps["hooks"] = torch.stack([map_of(channel) for channel in range(CHANNELS)])
                seconds["hooks"].append((time.perf_counter() - start) / CHANNELS / PAIRS)
            for precision in PRECISIONS:
                # Setting up and clean runs are the same for few channels and for many: the rest is hybrids.
                few, maps[precision] = _attributed(gen, block, (z1, z2), units, precision)
                many, _ = _attributed(gen, block, (z1, z2), more, precision)
                seconds[precision].append((many - few) / (MORE - CHANNELS) / PAIRS)
        size = maps["hooks"].norm()
        best = {name: sorted(values)[ROUNDS // 2] for name, values in seconds.items()}
        rows[block] = {
            name: {
                "seconds_per_hybrid": value,
                "ratio": best["hooks"] / value,
                "relative_error": float((maps[name] - maps["hooks"]).norm() / size),
            }
            for name, value in best.items()
        }
        for name, row in rows[block].items():
            shown = "{seconds_per_hybrid:8.4f} s a hybrid, {ratio:5.1f} × hooks, error {relative_error:.0e}".format(
                **row
            )
            print(f"{block:22}{name:11}{shown}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the whole process {peak:.1f} GiB, at most {LARGEST_GIB:g}")
    if peak > LARGEST_GIB:
        raise SystemExit(f"the process took {peak:.1f} GiB; at most {LARGEST_GIB:g} are promised")
    return {"rows": rows, "peak_gib": peak}


def _attributed(
    gen: cp.GeneratorAdapter, block: str, pairs: tuple[Any, Any], units: Any, precision: Any
) -> tuple[float, Tensor]:
    start = time.perf_counter()
    found = cp.InfluenceMap(gen, block).attribute(*pairs, units=units, precision=precision)
    if found.provenance["executor"] != "prepared":
        raise SystemExit(f"the fast path was not taken: {found.provenance['executor']}")
    return time.perf_counter() - start, found.maps


if __name__ == "__main__":
    biggan_rows()
