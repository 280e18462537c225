"""What help texts and choices tell of modules that would import torch. The tests compare each with its module's own."""

COMPONENTS = 64
EXCHANGE_CONTROLS = 99
FEATURES = ("bits", "l2", "pca")
FIDELITY_IMAGES = 1024
FIDELITY_RESAMPLES = 20
INVARIANCE_IMAGES = 64
REMOVAL_DRAWS = 8
PRECISIONS = ("float32", "tf32", "bf16-diff")
ROBUSTNESS_HYBRIDS = 4096
TRAINING_IMAGES = 20_000
TRAINING_PRECISIONS = ("float32", "bf16")
REPORT_PAIRS = 256
REPORT_HYBRIDS = 2**15
