"""Put trained models into the package: python .ci/ship.py out/vae-faces out/dcgan-cifar10 --alone out/biggan-cifar10

Kernels are kept in float16; biases and the statistics of norms, which cost nothing, in float32. Of the grids only the
last are taken, as JPEG, and the checksums are written anew. Models after ``--alone`` come without their partners, and a
training that has not ended is said to go on. Such a one can be kept beside the package, ``--into unfinished``, for
``counterfactual-probe train --start``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path

import safetensors.torch
import torch
from counterfactual_probe.adapters.trained import CHECKSUMS, FOLDER
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.base.hub.card import PLACEHOLDER
from counterfactual_probe.registry.folders import DISCRIMINATOR


def ship(trained: Path, into: Path, *, alone: bool) -> None:
    name = json.loads((trained / "config.json").read_text())["name"]
    out = into / name
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    for path in sorted(trained.glob("*.safetensors")):
        if path.name != "state.safetensors" and not (alone and path.name == DISCRIMINATOR):
            half = {
                key: value.half() if value.dim() > 1 else value
                for key, value in safetensors.torch.load_file(path).items()
            }
            (out / path.name).write_bytes(safetensors.torch.save(half))
    card = (trained / "README.md").read_text().replace(PLACEHOLDER, name if into == FOLDER else out.as_posix())
    for kind in ("samples", "reconstructions"):
        for path in sorted(trained.glob(f"{kind}-*.png"))[-1:]:
            Image.open(path).convert("RGB").save(out / f"{kind}.jpg", quality=85)
            card = card.replace(f"]({path.name})", f"]({kind}.jpg)")
    (out / "README.md").write_text(unfinished(card))
    (out / "config.json").write_bytes((trained / "config.json").read_bytes())
    before, after = cp.load(trained), cp.load(out)
    z = before.sample(64)
    error = float((before(z) - after(z)).abs().max())
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{name}: {size / 1e6:.1f} MB, images off by at most {error:.1e}, partner {type(after.partner).__name__}")


def unfinished(card: str) -> str:
    """The card of a training that has not come to its end says so at the top."""
    done = re.search(r"- (\d+) of (\d+) steps", card)
    if done is None or done[1] == done[2]:
        return card
    title, rest = card.split("\n", 1)
    return f"{title}\n\n**Not trained to its end**: after {done[1]} of {done[2]} steps. The training goes on.\n{rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--alone", nargs="*", type=Path, default=[], help="without the partners")
    parser.add_argument("--into", type=Path, default=FOLDER, help="a folder that is no part of the package, instead")
    options = parser.parse_args()
    for folder in (*options.folders, *options.alone):
        ship(folder, options.into, alone=folder in options.alone)
    if options.into != FOLDER:
        return
    files = sorted(FOLDER.glob("*/*.safetensors"))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(FOLDER)}" for file in files]
    CHECKSUMS.write_text("".join(f"{line}\n" for line in lines))
    print(f"{sum(path.stat().st_size for path in FOLDER.rglob('*') if path.is_file()) / 1e6:.1f} MB in all")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
