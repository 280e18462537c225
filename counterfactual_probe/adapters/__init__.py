"""The adapters of a clone, which lie beside the package, for Python that runs where the clone is.

There Python imports the package from the current folder, and not what pip installed. Distributions do not hold this
file: what they install in its place is the folder ``adapters``.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "adapters")]
