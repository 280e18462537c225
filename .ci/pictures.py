"""Make the pictures of README.md and of the pages anew: python .ci/pictures.py [NAME ...]

Each name is a command of the library or an example, and the pictures that are taken from its output into docs/images;
without a name, all of them run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.cli import main

ROOT = Path(__file__).parent.parent
OUT, IMAGES = ROOT / "out", ROOT / "docs/images"
# Of docs/examples.md: a picture that the example has made, and which part of it is shown: left, top, right, bottom.
GALLERY: dict[str, tuple[str, tuple[float, float, float, float]]] = {
    "ganspace_components": ("docs/images/ganspace-hybrids.webp", (0, 0, 1, 1)),
    "toy_model": ("docs/images/toy-model.png", (0, 0, 1, 0.55)),
    "space": ("docs/images/explorer-region.webp", (0, 0, 1, 0.82)),
    "flow_steps": ("docs/images/samplers-maps.webp", (0, 0, 1, 0.67)),
    "which_word_where": ("docs/images/samplers-words.webp", (0, 0, 0.6, 1)),
    "eye_colour_robustness": ("docs/images/robustness-recognition.png", (0, 0, 0.51, 1)),
    "spectral_networks": ("docs/images/spectral_dcgan.png", (0, 0, 0.52, 1)),
    "spectral_vae_sweep": ("docs/images/spectral_vae_sweep.png", (0, 0, 0.6, 1)),
    "spectral_dcgan_dropout": ("docs/images/spectral_dropout.png", (0, 0, 0.5, 1)),
    "spectral_training": ("docs/images/spectral_training_faces.png", (0, 0, 0.75, 0.75)),
    "structural_autoencoders": ("docs/images/structural-samples.jpg", (0, 0, 1, 0.8)),
    "structural_extrapolation": ("docs/images/structural-extrapolation.jpg", (0, 0, 1, 1)),
    "many_devices": ("docs/images/modules-influence.webp", (0, 0, 0.6, 0.6)),
    "eye_colours": ("out/gallery/eye_colours/colours.png", (0, 0, 1, 1)),
    "diffusion_pipeline": ("out/gallery/diffusion_pipeline/calls.png", (0, 0, 1, 1)),
    "sparse_autoencoder": ("out/gallery/sparse_autoencoder/features.png", (0, 0, 1, 1)),
    "your_own_generator": ("out/gallery/your_own_generator/stylegan2.png", (0, 0, 1, 1)),
    "biggan_koala_teddy": ("out/gallery/biggan_koala_teddy/genblock-4.png", (0, 0, 1, 1)),
    "biggan_cifar10": ("out/gallery/biggan_cifar10/genblock-5.png", (0, 0, 1, 1)),
}
THUMBNAIL = (480, 300)
QUICK: dict[str, tuple[str, ...]] = {
    "eye_colours": ("--pairs", "16", "--images", "6"),
    "diffusion_pipeline": (),
    "sparse_autoencoder": (),
    "your_own_generator": (),
    "biggan_koala_teddy": ("--random-weights",),
    "biggan_cifar10": ("--blocks", "5"),
}
# Of the study of one layer, in docs/modules.md.
LAYER, PAIRS = "main.8", 256
# Of examples/flow_steps.py, in docs/samplers.md; "webp" are photographs and what has as many colours.
FLOW = ("--channels", "128", "--pairs", "16", "--hybrids", "32")
PLOTS = ("calls", "modules-kept", "modules-courses", "modules-templates", "layout", "source_call")
PHOTOGRAPHS = ("maps", "hybrids")
FINDINGS = re.compile(r"(<!-- findings of [^>]*-->\n).*?(<!-- end of findings -->)", re.DOTALL)
MODULES = ("influence", "templates", "hybrids", "confidence", "selection", "stability")


def hybrids() -> None:
    """The picture at the top of README.md and of the site: the demo's, of the most reproducible layer."""
    _command("demo", "--out", str(OUT / "demo"))
    text = (OUT / "demo/report.html").read_text()
    best = min(cp.load("dcgan-faces").layers, key=lambda name: _place(text, f">Layer {name}</h2>"))
    _take(OUT / f"demo/figures/hybrids_{best}.webp", "hybrids")


def modules() -> None:
    """The pictures of docs/modules.md: the papers' study of one layer of the faces."""
    out = OUT / "modules"
    _command("study", "dcgan-faces", "--layers", LAYER, "--papers-pairs", str(PAIRS), "--out", str(out))
    for name in MODULES:
        (figure,) = (out / "figures").glob(f"papers-{name}_{LAYER}.*")
        _take(figure, f"modules-{name}")


def samplers() -> None:
    """The pictures and findings of docs/samplers.md: two examples on generators that take steps."""
    _example("flow_steps", *FLOW, "--out", str(OUT / "flow-steps"))
    for name in PLOTS:
        _take(OUT / f"flow-steps/{name}.png", f"samplers-{name}")
    for name in PHOTOGRAPHS:
        _take(_as_webp(OUT / f"flow-steps/{name}.png"), f"samplers-{name}")
    _example("which_word_where", "--out", str(OUT / "which-word-where"))
    _take(_as_webp(OUT / "which-word-where/words.png"), "samplers-words")
    page, findings = ROOT / "docs/samplers.md", (OUT / "flow-steps/findings.md").read_text()
    text, count = FINDINGS.subn(lambda match: f"{match[1]}{findings}{match[2]}", page.read_text())
    if count != 1:
        raise SystemExit(f"{page} has {count} places for findings; it must have one")
    page.write_text(text)


def gallery() -> None:
    """The pictures of docs/examples.md: of those above, and of examples that run in a minute or two."""
    for name, options in QUICK.items():
        _example(name, *options, "--out", str(OUT / "gallery" / name))
    thumbnails()


def thumbnails() -> None:
    """All pictures of the gallery, of one size, from those that there are."""
    from PIL import ImageOps

    for name, (picture, (left, top, right, bottom)) in GALLERY.items():
        with Image.open(ROOT / picture) as image:
            width, height = image.size
            part = image.convert("RGB").crop(
                (int(left * width), int(top * height), int(right * width), int(bottom * height))
            )
        target = IMAGES / "gallery" / f"{name}.webp"
        target.parent.mkdir(exist_ok=True)
        ImageOps.pad(part, THUMBNAIL, color="white").save(target, quality=85, method=6)
        print(f"{target.relative_to(ROOT)}: {picture}")


def _example(name: str, *arguments: str) -> None:
    command = [sys.executable, str(ROOT / f"examples/{name}.py"), *arguments]
    if status := subprocess.run(command, check=False).returncode:
        raise SystemExit(status)


def _as_webp(picture: Path) -> Path:
    target = picture.with_suffix(".webp")
    with Image.open(picture) as image:
        image.convert("RGB").save(target, quality=88, method=6)
    return target


def editing() -> None:
    """The picture of docs/editing.md: faces whose latents are searched, and edited by the name of a module."""
    found, out = OUT / "editing/modules", OUT / "editing"
    _command("modules", "dcgan-faces", "--layer", LAYER, "--features", "l2", "--out", str(found))
    given = ["--modules-file", str(found / f"modules-{LAYER}.json"), "--pictures", "generator:dcgan-faces", "-n", "6"]
    _command("edit", "dcgan-faces", "--module", "eyes and mouth", *given, "--out", str(out))
    _take(_as_webp(out / "edited.png"), "editing")


def exchange() -> None:
    """The pictures of docs/exchange.md: three modules of a VAE among random sets, and the nearest own images."""
    layer, found, out = "decoder.level2", OUT / "exchange/modules", OUT / "exchange"
    _command("modules", "vae-faces", "--layer", layer, "--features", "l2", "--out", str(found))
    given = ["--modules-file", str(found / f"modules-{layer}.json"), "--images", "4", "--steps", "50", "--seed", "1"]
    _command("exchange", "vae-faces", *given, "--out", str(out))
    _take(out / f"exchange-{layer}.png", "exchange-separation")
    _take(_as_webp(out / f"nearest-{layer}.png"), "exchange-nearest")


def explorer() -> None:
    """The animation at the top of README.md, and the pictures of docs/explorer.md; it needs playwright and chromium."""
    from visit import pictures

    file = OUT / "explorer/explorer.html"
    _command("explore", "dcgan-faces", "--save", str(file))
    for picture in pictures(file, file.parent):
        _take(picture, picture.stem)


def _command(*arguments: str) -> None:
    if status := main(list(arguments)):
        raise SystemExit(status)


def _take(figure: Path, name: str) -> None:
    """Put a picture in the place of the page's, whose suffix may have been another."""
    for old in IMAGES.glob(f"{name}.*"):
        old.unlink()
    target = IMAGES / f"{name}{figure.suffix}"
    target.write_bytes(figure.read_bytes())
    print(f"{target.relative_to(ROOT)}: {figure.relative_to(ROOT)}")


def _place(text: str, heading: str) -> int:
    """Where a chapter stands on the page, whose first is that of the most reproducible layer."""
    return text.index(heading) if heading in text else len(text)


PICTURES: dict[str, Callable[[], None]] = {
    take.__name__: take for take in (hybrids, modules, samplers, editing, exchange, explorer, gallery)
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)} (default: all)")
    for name in parser.parse_args().names or PICTURES:
        if name not in PICTURES:
            parser.error(f"no pictures are named {name!r}; give some of {', '.join(PICTURES)}")
        PICTURES[name]()
