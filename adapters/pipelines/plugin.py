"""What the library finds by the entry point ``diffusers``."""

from counterfactual_probe.generator.wrap import Wrapper

from .folder import INDEX, load_pipeline
from .wrapping import wrap_pipeline

# Configurations, tokenizers and weights of components; not those of single-file checkpoints beside them.
FILES = ("*.json", "*.txt", "*/*.model", "*/*.safetensors")

WRAPPER = Wrapper(wrap_pipeline, index=INDEX, files=FILES, load=load_pipeline)
