"""A test kit for your own generators: does an adapter have all the properties that the analyses rely on?

>>> import torch, counterfactual_probe as cp
>>> from counterfactual_probe.testing import check_adapter
>>> module = torch.nn.Sequential(torch.nn.ConvTranspose2d(8, 6, 4), torch.nn.ReLU(),
...                              torch.nn.ConvTranspose2d(6, 3, 4, 2, 1), torch.nn.Tanh())
>>> gen = cp.wrap(module, lambda n, rng: torch.randn(n, 8, 1, 1, generator=rng))
>>> check_adapter(gen).passed
True

Call ``check_adapter(my_generator())`` in a test of your package: it raises a ``ProbeError`` that says, for each failed
check, what to change. :class:`Model1` is a generator whose modules are known, to test methods that find modules.
"""

from .kit import check_adapter
from .model1 import Model1, random_supports
from .outcome import AdapterReport, Check

__all__ = ["AdapterReport", "Check", "Model1", "check_adapter", "random_supports"]
