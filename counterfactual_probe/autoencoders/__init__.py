"""S004's structural autoencoders and the models it compares them with, on one backbone; and ways to make new codes.

>>> import torch, counterfactual_probe as cp
>>> model = cp.autoencoders.StructuralAutoencoder()  # SAE-12 at 64×64
>>> codes = model.encode(torch.rand(4, 3, 64, 64))
>>> model.decode(cp.autoencoders.hybrid_sample(codes, 8)).shape
torch.Size([8, 3, 64, 64])
"""

from .models import AdaptiveAutoencoder, Autoencoder, LadderAutoencoder, StructuralAutoencoder, VariationalAutoencoder
from .sampling import chunk_codes, hybrid_sample, plot_codes, prior_sample, traversal_codes

__all__ = [
    "AdaptiveAutoencoder",
    "Autoencoder",
    "LadderAutoencoder",
    "StructuralAutoencoder",
    "VariationalAutoencoder",
    "chunk_codes",
    "hybrid_sample",
    "plot_codes",
    "prior_sample",
    "traversal_codes",
]
