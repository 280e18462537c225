"""timm's classifiers by name, from the hub, a file of weights, or a folder. timm is imported only when used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from ..base.errors import ProbeError, first_line, nearest
from ..base.files import write_bytes, write_json
from ..base.hub.address import HUB
from ..generator.state.settings import fresh_settings
from ..registry.folders import CONFIG, WEIGHTS
from ..registry.hub import hub_folder
from ..registry.weights import built, load_weights, nested_state, tensors_only
from .classifier import Classifier
from .configuration import read_configuration, require_storable
from .preprocessing import Preprocessing

PREFIX = "timm:"
# The first that reads pretrained weights as tensors only; earlier ones unpickle whatever the file holds.
FIRST_SAFE = (1, 0, 26)


def timm_names() -> list[str]:
    """Every architecture of timm, by itself and with the tag of each of its weights."""
    timm = _timm("any name of a classifier")
    return [*timm.list_models(), *timm.list_pretrained()]


def timm_classifier(
    name: str,
    *,
    pretrained: bool = True,
    checkpoint: Path | None = None,
    class_names: Sequence[str] | None = None,
    size: int | None = None,
    device: torch.device | str | None = None,
    **model_args: Any,
) -> Classifier:
    """A model of timm, with the preprocessing of timm's data configuration.

    >>> timm_classifier("resnetv2_50")  # its pretrained weights, from the hub or its cache  # doctest: +SKIP
    >>> timm_classifier("resnet18", checkpoint=Path("mine.safetensors"), class_names=["cat", "dog"])  # doctest: +SKIP

    Args:
        name: a name in ``timm.list_models()`` or ``timm.list_pretrained()``.
        pretrained: with False and without a checkpoint, weights are random, from torch's global generator.
        checkpoint: a state dict of torch or safetensors, read as tensors only.
        class_names: by default ImageNet's, if the weights are for ImageNet.
        size: side of the classifier's input, if not that of the configuration.
        model_args: for ``timm.create_model``.
    """
    name = name.removeprefix(PREFIX)
    timm = _timm(f"classifier {name!r}")
    _require_known(timm, name)
    if checkpoint is not None:
        model, source = _of_checkpoint(timm, name, checkpoint, model_args)
    elif pretrained:
        model, source = _pretrained(timm, name, model_args)
    else:
        chosen = {} if class_names is None else {"num_classes": len(class_names)}
        model, source = _made(timm, name, **chosen, **model_args), f"timm {name}, random weights"
    names = class_names or (_imagenet_names(model) if pretrained and checkpoint is None else None)
    return _classifier(model, size, model_args, class_names=names, name=name, device=device, source=source)


@fresh_settings()
def load_timm_folder(folder: Path, *, device: torch.device | str | None = None) -> Classifier:
    """The classifier in a folder with timm's config.json and model.safetensors, as in timm's hub repositories."""
    timm = _timm(f"the classifier in {folder}")
    config, model_args = read_configuration(folder)
    name, n_classes = config.architecture, config.num_classes
    weights = [folder / file for file in WEIGHTS if (folder / file).is_file()]
    if not weights:
        raise ProbeError(f"{folder} holds no weights; put {WEIGHTS[0]} beside its {CONFIG}")
    _require_known(timm, name)
    model = built(
        lambda: _made(timm, name, num_classes=n_classes, pretrained_cfg_overlay=config.preprocessing(), **model_args),
        tensors_only(load_weights(weights[0])),
        f"timm's {name} with {n_classes} classes",
    )
    about = {
        "class_names": config.label_names,
        "name": folder.name,
        "source": f"folder {folder.name}",
        "device": device,
    }
    return _classifier(model, None, model_args, **about)


def save_classifier(classifier: Classifier, folder: Path) -> Path:
    """Write a folder that :func:`load_classifier` reads, in timm's format.

    >>> save_classifier(classifier, Path("my-classifier"))  # doctest: +SKIP
    """
    known: Any = getattr(classifier.module, "pretrained_cfg", None)
    if not known or not isinstance(classifier.transform, Preprocessing):
        raise ProbeError(
            f"classifier {classifier.name!r} is not a model of timm with a Preprocessing; save its state dict with "
            "safetensors yourself"
        )
    require_storable(classifier.made_with, f"classifier {classifier.name!r}")
    transform = classifier.transform
    prepared = {
        "input_size": [len(transform.mean), *transform.size],
        "crop_pct": transform.crop,
        "crop_mode": transform.mode,
        "interpolation": transform.interpolation,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "num_classes": classifier.n_classes,
    }
    config = {
        "architecture": known["architecture"],
        "num_classes": classifier.n_classes,
        "label_names": None if classifier.class_names is None else list(classifier.class_names),
        "model_args": classifier.made_with,
        "pretrained_cfg": prepared,
    }
    state = {key: value.detach().cpu().contiguous().clone() for key, value in classifier.module.state_dict().items()}
    write_bytes(folder / WEIGHTS[0], safetensors.torch.save(state))
    write_json(folder / CONFIG, config)
    return folder


def architecture(name: str, **options: Any) -> nn.Module:
    """A module of timm with random weights."""
    return _made(_timm(f"the architecture {name!r}"), name, **options)


def imagenet_names(subset: str = "imagenet-1k") -> tuple[str, ...]:
    """ImageNet's classes, each with its synonyms, from timm's list."""
    info: Any = _timm("a list of ImageNet's classes").data.ImageNetInfo(subset)
    return tuple(info.index_to_description(number) for number in range(info.num_classes()))


def _timm(what: str) -> Any:
    try:
        import timm
    except ImportError:
        raise ProbeError(
            f"{what} comes from timm, which is not installed; run: pip install 'counterfactual-probe[robustness]'"
        ) from None
    return timm


def _require_known(timm: Any, name: str) -> None:
    base = name.partition(".")[0]
    if not timm.is_model(base):
        raise ProbeError(f"no model of timm is named {name!r}; nearest: {nearest(name, timm.list_models())}")
    if base != name and name not in timm.list_pretrained(f"{base}.*"):
        raise ProbeError(f"timm has no weights {name!r}; nearest: {nearest(name, timm.list_pretrained(f'{base}.*'))}")


def _made(timm: Any, name: str, **options: Any) -> nn.Module:
    overlay = options.pop("pretrained_cfg_overlay", None)
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:  # whatever an architecture makes of arguments that it does not expect
        raise ProbeError(
            f"timm cannot make {name!r} with {options!r} ({first_line(error)}); leave out options that it does not have"
        ) from error
    return model


@fresh_settings()
def _of_checkpoint(timm: Any, name: str, checkpoint: Path, model_args: Mapping[str, Any]) -> tuple[nn.Module, str]:
    state = tensors_only(nested_state(load_weights(checkpoint)))
    classes = _classes(timm, name, state, checkpoint)
    model = built(lambda: _made(timm, name, num_classes=classes, **model_args), state, f"timm's {name}")
    return model, f"timm {name}, {checkpoint.name}"


@fresh_settings()
def _pretrained(timm: Any, name: str, model_args: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """Weights from the hub or its cache. timm itself would retry a download without a connection for a minute."""
    if tuple(map(int, re.findall(r"\d+", timm.__version__)[:3])) < FIRST_SAFE:
        raise ProbeError(
            f"timm {timm.__version__} is installed, which runs code that a file of pretrained weights holds, and "
            f"{'.'.join(map(str, FIRST_SAFE))} does not; run: pip install --upgrade timm"
        )
    config: Any = timm.get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    options: dict[str, Any] = dict(model_args)
    if repository and not config.hf_hub_filename:
        folder = hub_folder(f"{HUB}{repository}")
        options["pretrained_cfg_overlay"] = {"file": str(next(p for w in WEIGHTS if (p := folder / w).is_file()))}
    try:
        model = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # from timm, the hub's client, or the HTTP library of either
        raise ProbeError(
            f"the weights of timm's {name!r} cannot be loaded ({type(error).__name__}: {first_line(error)}); check the "
            "connection, or give checkpoint=, a file of weights"
        ) from error
    return model, f"timm {name}" + (f", {repository} on the Hugging Face hub" if repository else "")


def _classes(timm: Any, name: str, state: Mapping[str, Any], checkpoint: Path) -> int:
    """The number of classes of a state dict: the length of its last layer."""
    config: Any = timm.get_pretrained_cfg(name)
    layers = getattr(config, "classifier", None)
    layer = layers if isinstance(layers, str) else (layers or [""])[0]
    if f"{layer}.weight" not in state:
        raise ProbeError(
            f"{checkpoint.name} has no {layer}.weight, so it is not that of timm's {name}; give a complete one"
        )
    return len(state[f"{layer}.weight"])


def _imagenet_names(model: nn.Module) -> tuple[str, ...] | None:
    subset = _timm("a list of ImageNet's classes").data.infer_imagenet_subset(model)
    return imagenet_names(subset) if subset else None


def _classifier(model: nn.Module, size: int | None, model_args: Mapping[str, Any], **about: Any) -> Classifier:
    """The classifier with the preprocessing of timm's data configuration."""
    config = dict(_timm("a data configuration").data.resolve_model_data_config(model))
    if (colours := model_args.get("in_chans")) is not None:
        config |= {name: _of_colours(config[name], int(colours)) for name in ("mean", "std")}
    if size is not None:
        config["input_size"] = (config["input_size"][0], size, size)
    classifier = Classifier(model.eval(), Preprocessing.of_timm(config), **about)
    classifier.made_with = dict(model_args)
    return classifier


def _of_colours(values: Sequence[float], colours: int) -> list[float]:
    """A mean or deviation of three colours for as many as the model takes: for one, their average."""
    if colours == 1:
        return [sum(values) / len(values)]
    return [values[colour % len(values)] for colour in range(colours)]  # in turn, as timm repeats weights
