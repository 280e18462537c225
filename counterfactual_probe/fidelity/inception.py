"""The usual features of Fréchet inception distances, from torch-fidelity."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..base.errors import ProbeError, first_line
from ..base.files import as_path
from ..base.formats.elsewhere import plain_tensor
from ..data.images import to_bytes
from ..generator import latents as lt
from ..generator.state.settings import fresh_settings
from ..registry.weights import load_weights, tensors_only

EXTRACTOR, LAYER = "inception-v3-compat", "2048"
# Of weights-inception-2015-12-05-6726825d.pth, as torch-fidelity publishes it.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_BATCH = 32


class Inception:
    """InceptionV3 as in TensorFlow, 2048 features, for distances comparable with published FIDs.

    >>> cp.FidelityTest(gen, "main.8", features="inception")  # the same  # doctest: +SKIP
    >>> Inception(weights="weights-inception-2015-12-05-6726825d.pth").features(images)  # doctest: +SKIP

    Args:
        weights: the file that torch-fidelity publishes; by default the one in torch's hub cache, downloaded if absent.
        device: cpu or cuda.
    """

    @fresh_settings()
    def __init__(
        self, *, weights: str | os.PathLike[str] | None = None, device: torch.device | str | None = None
    ) -> None:
        fidelity = _torch_fidelity()
        self.name = EXTRACTOR
        self.device = torch.device(device or "cpu")
        file, sha256 = (_published(), SHA256) if weights is None else (as_path(weights), None)
        state = tensors_only(load_weights(file, sha256))
        self._weights = lt.fingerprint(dict(state))
        # torch-fidelity would unpickle the file; it gets one written anew from tensors alone.
        copy = io.BytesIO()
        torch.save(dict(state), copy)
        copy.seek(0)
        try:
            self.module = fidelity.create_feature_extractor(
                EXTRACTOR, [LAYER], cuda=self.device.type == "cuda", feature_extractor_weights_path=copy, verbose=False
            )
        except (RuntimeError, KeyError) as error:
            raise ProbeError(
                f"the weights given are not those of Inception ({first_line(error)}); give the file that "
                "torch-fidelity publishes, weights-inception-2015-12-05-6726825d.pth"
            ) from error

    def features(self, images: Tensor, *, image_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """(n, 2048) float32, of images (n, C, H, W) rounded to bytes; grey becomes three equal colours."""
        images = plain_tensor(images, "the images")
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ProbeError(f"images are {tuple(images.shape)}; give (n, C, H, W) with 1 or 3 colours")
        pixels = to_bytes(images.detach().float().cpu(), image_range).expand(-1, 3, -1, -1)
        with fresh_settings():  # a data loader draws from the global generator
            features: Tensor = _torch_fidelity().get_featuresdict_from_dataset(
                _ByteImages(pixels), self.module, _BATCH, self.device.type == "cuda", True, False
            )[LAYER]
        return features

    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "source": "torch-fidelity", "weights_sha256": self._weights, "layer": LAYER}


class _ByteImages(Dataset[Tensor]):
    """Images of bytes as the data set that torch-fidelity expects."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


def _torch_fidelity() -> Any:
    try:
        import torch_fidelity.utils
    except ImportError:
        raise ProbeError(
            "Inception's features come from torch-fidelity, which is not installed; run: pip install "
            '"counterfactual-probe[fidelity]", or take a classifier\'s features, such as features="efficientnet-lite0"'
        ) from None
    return torch_fidelity.utils


def _published() -> Path:
    """The published weights in torch's hub cache, downloaded if absent."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    url = str(URL_INCEPTION_V3)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=SHA256, progress=False)
    except (OSError, RuntimeError) as error:
        raise ProbeError(
            f"the weights of Inception cannot be fetched ({first_line(error)}); check the connection, put "
            f'{path.name} into {path.parent}, or take a classifier\'s features, such as features="efficientnet-lite0"'
        ) from error
    return path
