"""The autoencoders of S004: one class per architecture. Their losses are in the recipes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import ProbeError
from .backbone import Backbone
from .decoders import Decoder, LadderDecoder, StructuralDecoder
from .encoders import Encoder, LadderEncoder


class Autoencoder(nn.Module):
    """The plain ("hourglass") autoencoder, or, with another loss, a WAE. ``forward`` maps codes to images.

    >>> import torch, counterfactual_probe as cp
    >>> model = cp.autoencoders.Autoencoder(8, image_size=16, width=16, convolutions=4)
    >>> gen = cp.wrap(model, lambda n, rng: torch.randn(n, 8, generator=rng), image_range=(0, 1))
    >>> model.encode(gen(gen.sample(2))).shape
    torch.Size([2, 8])

    Attributes:
        codes: (N, latent) codes of training images, for hybrid sampling; empty in a new model.

    Args:
        latent: dimensions of the code.
        image_size: side of the images: 4, 8, 16, …
        width: channels of every convolution.
        convolutions: their number in the encoder, and in the decoder. S004 has 12 for 64×64 and 16 for 128×128.
        colours: number of colours of the images, which have values 0…1.
    """

    codes: Tensor
    encoder: Encoder | LadderEncoder
    decoder: Decoder | StructuralDecoder | LadderDecoder
    variational = False

    def __init__(
        self,
        latent: int = 12,
        *,
        image_size: int = 64,
        width: int = 64,
        convolutions: int = 12,
        colours: int = 3,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(latent, image_size, width, convolutions, colours)
        self.encoder = self._encoder()
        self.decoder = self._decoder()
        self.register_buffer("codes", torch.empty(0, latent))

    def _encoder(self) -> Encoder | LadderEncoder:
        return Encoder(self.backbone, self.backbone.latent * (2 if self.variational else 1))

    def _decoder(self) -> Decoder | StructuralDecoder | LadderDecoder:
        return Decoder(self.backbone)

    def forward(self, codes: Tensor) -> Tensor:
        return self.decode(codes)

    def encode(self, images: Tensor) -> Tensor:
        """Codes (n, latent) of images (n, C, H, W) with values 0…1; for a variational model, the posterior's means."""
        return self.posterior(images)[0]

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes and None; for a variational model, the posterior's means and log-deviations."""
        size = self.backbone.image_size
        expected = (self.backbone.colours, size, size)
        images = self._floats(images, "images", "in 0…1 (bytes / 255)")
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise ProbeError(
                f"the images are {tuple(images.shape)} and this model takes (n, {expected[0]}, {size}, {size}); resize "
                "them"
            )
        encoded: Tensor = self.encoder(images)
        if not self.variational:
            return encoded, None
        mean, log_deviation = encoded.chunk(2, 1)
        return mean, log_deviation

    def decode(self, codes: Tensor) -> Tensor:
        """Images (n, C, H, W) with values 0…1."""
        codes = self._floats(codes, "codes", "(n, latent)")
        if codes.dim() != 2 or codes.shape[1] != self.backbone.latent:
            raise ProbeError(f"the codes are {tuple(codes.shape)} and this model takes (n, {self.backbone.latent})")
        images: Tensor = self.decoder(codes)
        return images

    def _floats(self, given: Any, what: str, wanted: str) -> Tensor:
        """The tensor, in the dtype of the weights."""
        if not isinstance(given, Tensor) or not given.is_floating_point():
            have = given.dtype if isinstance(given, Tensor) else f"a {type(given).__name__}"
            raise ProbeError(f"the {what} are {have}; give a tensor of floats {wanted}")
        return given.to(next(self.parameters()).dtype)


class VariationalAutoencoder(Autoencoder):
    """An autoencoder with a Gaussian posterior: a VAE, or a β-VAE."""

    variational = True


class StructuralAutoencoder(Autoencoder):
    """SAE-k: the k parts of the code enter the decoder at different depths (S004 §2.2). The default is SAE-12.

    >>> import counterfactual_probe as cp
    >>> model = cp.autoencoders.StructuralAutoencoder(32, 16, image_size=128, width=128, convolutions=16)  # CelebA's
    >>> model.backbone.pools()  # the convolutions after which maps are halved
    (1, 4, 7, 10, 13, 16)

    Args:
        variables: k; must divide the latent.
    """

    adaptive = False

    def __init__(
        self,
        latent: int = 12,
        variables: int = 12,
        *,
        image_size: int = 64,
        width: int = 64,
        convolutions: int = 12,
        colours: int = 3,
    ) -> None:
        self.variables = variables
        super().__init__(latent, image_size=image_size, width=width, convolutions=convolutions, colours=colours)

    def _decoder(self) -> Decoder | StructuralDecoder | LadderDecoder:
        return StructuralDecoder(self.backbone, self.variables, adaptive=self.adaptive)


class AdaptiveAutoencoder(StructuralAutoencoder):
    """AdaAE-k: as SAE-k, but each transform receives the whole code."""

    adaptive = True


class LadderAutoencoder(StructuralAutoencoder):
    """VLAE-k: a variational ladder autoencoder, with k variables encoded and decoded at k depths (Zhao et al. 2017)."""

    variational = True

    def _encoder(self) -> LadderEncoder:
        return LadderEncoder(self.backbone, self.variables)

    def _decoder(self) -> LadderDecoder:
        return LadderDecoder(self.backbone, self.variables)
