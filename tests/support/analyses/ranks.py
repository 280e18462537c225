"""Runs of influence maps that several processes share."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch

import counterfactual_probe as cp
from support import toys

# Thirty-two sets are shared on up to four ranks; of fewer, the pairs are.
MANY = [{"main.6": list(chosen)} for size in range(6) for chosen in combinations(range(5), size)]


CASES: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "sets": ("PLAIN", "main.6", {"n_pairs": 64, "units": MANY, "tolerance": 0.1, "normalise": "pair", "seed": 3}),
    "sets, in blocks": ("PLAIN", "main.6", {"n_pairs": 33, "units": MANY, "blocks": 8, "normalise": "pair"}),
    "sets, in components": ("PLAIN", "main.6", {"n_pairs": 9, "units": MANY, "blocks": 4, "components": 4}),
    "pairs": ("PLAIN", "main.6", {"n_pairs": 150, "hybrids_per_eval": 40, "normalise": "pair", "seed": 3}),
    "pairs, in blocks": ("PLAIN", "main.6", {"n_pairs": 70, "blocks": 32, "normalise": "pair", "map_size": 8}),
    "pairs, in components": ("PLAIN", "main.6", {"n_pairs": 9, "components": 4, "seed": 3}),
    "pairs, in small batches": ("PLAIN", "main.6", {"n_pairs": 37, "hybrids_per_eval": 2}),
    "pairs, with a tolerance": ("PLAIN", "main.6", {"n_pairs": 64, "tolerance": 0.1, "normalise": "pair", "seed": 3}),
    "fewer pairs than ranks": ("PLAIN", "main.6", {"n_pairs": 3, "units": [[0, 1]]}),
    "one pair": ("PLAIN", "main.6", {"n_pairs": 1, "units": [[0, 1]]}),
    "no channels": ("PLAIN", "main.6", {"n_pairs": 9, "units": [{"main.6": []}, [0]], "normalise": "pair"}),
    "nothing but no channels": ("PLAIN", "main.6", {"n_pairs": 9, "units": [{"main.6": []}]}),
    "two layers": ("PLAIN", None, {"n_pairs": 9, "units": [{"main.2": [0]}, {"main.6": [1]}, {"main.2": [1]}]}),
    "noise": ("NOISY", "main.2", {"n_pairs": 20, "units": [[0], [1, 2]], "seed": 5}),
    "half precision": ("HALF", "main.6", {"n_pairs": 9, "units": [[0], [1]], "normalise": "pair"}),
}


HALF = toys.Toy("float16", toys.Deconv, dtype=torch.float16)


def generator(name: str) -> cp.GeneratorAdapter:
    return HALF.generator() if name == "HALF" else getattr(toys, name).generator()
