"""Is the installed library whole, and does it probe? Usage: probe.py REPOSITORY"""

import sys
from importlib.metadata import files, version
from importlib.util import find_spec
from pathlib import Path

import torch

import counterfactual_probe as cp

repository = Path(sys.argv[1]).resolve()
assert repository not in Path(cp.__file__).resolve().parents, f"{cp.__file__} is the checkout's"
assert version("counterfactual-probe") == cp.__version__

installed = {str(file) for file in files("counterfactual-probe") or []}
sources = {
    f"{package}/{path.relative_to(repository / folder)}"
    for folder, package in [
        ("counterfactual_probe", "counterfactual_probe"),
        ("adapters", "counterfactual_probe/adapters"),
    ]
    for path in (repository / folder).rglob("*.py")
}
assert sources <= installed, f"not in the wheel: {sorted(sources - installed)}"
adapters = find_spec("counterfactual_probe.adapters")
assert adapters is not None
assert adapters.origin is not None
own = (repository / "adapters/__init__.py").read_text()
assert Path(adapters.origin).read_text() == own, "the wheel holds what stands in for the adapters in a clone"
assert "counterfactual_probe/py.typed" in installed
front = repository / "counterfactual_probe" / "explorer" / "front"
pages = {str(path.relative_to(repository)) for path in front.rglob("*.*") if path.is_file()}
assert pages <= installed, f"not in the wheel: {sorted(pages - installed)}"
assert find_spec("adapters") is None, "'adapters' is another project's import name"

assert "dcgan-faces" in cp.available()
gen = cp.load("dcgan-faces")
channels = [[0], [1], [2, 3]]
maps = cp.InfluenceMap(gen, "main.8").attribute(n_pairs=2, seed=0, units=channels)
assert maps.maps.shape == (3, 64, 64)
assert (maps.influence > 0).all()

z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
hybrids = cp.Hybridizer(gen, "main.8").hybridize(z1, z2, units=[*channels, list(range(128))])
torch.testing.assert_close(hybrids.images[-1], gen(z2))  # all of the source's channels: the source
assert not torch.equal(hybrids.images[0], hybrids.base)
print(f"counterfactual-probe {cp.__version__}: {len(sources)} files in the wheel, maps and hybrids computed")
