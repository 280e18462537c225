"""A BigGAN-deep of the package itself, in double precision, small enough for tests, and its forwards word by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from counterfactual_probe.adapters.biggan_deep import CONFIGS, BigGANDeep
from counterfactual_probe.adapters.biggan_deep.module import BigGANDeepModule, original
from torch import Tensor

from support import twins

SMALL: dict[str, Any] = CONFIGS["small"] | {
    "output_dim": 16,
    "channel_width": 4,
    "z_dim": 6,
    "class_embed_dim": 6,
    "layers": [[False, 16, 8], [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 1]],
    "attention_layer_position": 2,
}


def package_model(config: Mapping[str, Any] = SMALL) -> Any:
    """The package's own module with random weights and with statistics that differ from step to step."""
    rng = torch.Generator().manual_seed(0)
    model = original(config).double()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_vars"):
                value.uniform_(0.5, 2, generator=rng)
            elif value.dim() == 1 and "weight_" not in name:
                value.uniform_(0.3, 0.6, generator=rng)
            else:
                value.normal_(generator=rng)
    model.train()
    for part in model.modules():  # spectral norms that have converged, as training leaves them
        if hasattr(part, "weight_orig"):
            for hook in list(part._forward_pre_hooks.values()) * 5:
                hook(part, ())
    return model.eval()


def adapted() -> BigGANDeep:
    """The same weights as a generator of ours, still in double precision."""
    return BigGANDeep(BigGANDeepModule(package_model()), name="double")


def publish(folder: Path, model: Any, *, name: str = "pytorch_model.bin", legacy: bool = False) -> Path:
    """A folder as the package's own conversion leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(model.config.to_json_string())
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(model.state_dict(), folder / name)
    else:
        torch.save(model.state_dict(), folder / name, _use_new_zipfile_serialization=not legacy)
    return folder


def forward(model: Any, latents: Any, i: int, actions: Mapping[str, twins.Action] | None = None) -> Tensor:
    """Sample i by itself, with a Python number as truncation and a one-hot vector as class."""
    one_hot = torch.zeros(1, model.config.num_classes, dtype=torch.float64)
    one_hot[0, latents["label"][i]] = 1
    arguments = latents["z"][i : i + 1].double(), one_hot, float(latents["truncation"][i])
    return twins.forward(model, arguments, actions or {})  # type: ignore[no-any-return]


def images(model: Any, latents: Any) -> Tensor:
    return torch.cat([forward(model, latents, i) for i in range(len(latents["z"]))])


def hybrids(model: Any, z1: Any, z2: Any, sets: Sequence[Mapping[str, Sequence[int]]]) -> Tensor:
    """(sets, n, C, H, W) by hooks on the package's own parts (conventions 2 and 3)."""
    rows = []
    for units in sets:
        row = []
        for i in range(len(z1["z"])):
            donor: dict[str, Tensor] = {}
            forward(model, z2, i, {layer: twins.record(donor, layer) for layer in units})
            row.append(forward(model, z1, i, {layer: twins.put(donor[layer], units[layer]) for layer in units}))
        rows.append(torch.cat(row))
    return torch.stack(rows)
