"""What is no module, or has no layers, is refused with the way to one that has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.classifiers.timm_models import timm_classifier
from support.toy_modules import Deconv, vectors


def sampler(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, 4, 1, 1, generator=rng)


@pytest.fixture(scope="module")
def program() -> Any:
    module = nn.Sequential(nn.ConvTranspose2d(4, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1)).eval()
    size = torch.export.Dim("n", min=1, max=64)
    return torch.export.export(module, (torch.randn(2, 4, 1, 1),), dynamic_shapes=({0: size},))


def test_exported_programs_become_modules_with_layers(program: Any) -> None:
    with pytest.raises(cp.ProbeError, match=r"the generator is an ExportedProgram; give torch\.export\.unflatten"):
        cp.wrap(program, sampler)
    with pytest.raises(cp.ProbeError, match=r"no layer, since its graph calls no submodules; give torch\.export\.unfl"):
        cp.wrap(program.module(), sampler)
    gen = cp.wrap(torch.export.unflatten(program), sampler, axes={"*": "n c h w"})
    assert list(gen.layers) == ["0", "1", "2"]
    assert cp.InfluenceMap(gen, "1").attribute(n_pairs=2).maps.any()


def test_a_graph_that_calls_submodules_has_layers() -> None:
    """Negative control: as torch.fx traces them."""
    module = nn.Sequential(nn.ConvTranspose2d(4, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1))
    assert list(cp.wrap(torch.fx.symbolic_trace(module), sampler).layers) == ["0", "1", "2"]


class FacesPipeline:
    """Named as those of diffusers and transformers are."""


def test_a_pipeline_is_told_what_to_wrap_instead() -> None:
    with pytest.raises(cp.ProbeError, match=r"is a FacesPipeline; give a torch\.nn\.Module whose forward calls it"):
        cp.wrap(FacesPipeline(), sampler)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match=r"the generator is a function; give a torch\.nn\.Module$"):
        cp.wrap(sampler, sampler)  # type: ignore[arg-type]


@pytest.mark.parametrize("colours", [1, 2, 4])
def test_classifiers_of_other_than_three_colours_load(colours: int) -> None:
    with torch.random.fork_rng(devices=[]):
        found = timm_classifier("test_resnet", pretrained=False, in_chans=colours, class_names=["a", "b"])
    assert isinstance(found.transform, cp.Preprocessing)
    assert len(found.transform.mean) == len(found.transform.std) == colours
    assert found.logits(torch.rand(2, colours, 20, 20)).shape == (2, 2)
    assert found.logits(torch.rand(2, 1, 20, 20)).shape == (2, 2), "grey images go with any"


@pytest.mark.parametrize(
    ("give", "cure"),
    [
        (lambda: Deconv, r"is a type; give what it makes, such as Deconv\(\.\.\.\), in place of the class"),
        (lambda: "model.pt", r"is a str; open names and folders with cp\.load, and weights with the torch\.nn\.Module"),
        (lambda: Deconv().state_dict(), r"is an OrderedDict; load it into its torch\.nn\.Module"),
        (lambda: cp.wrap(Deconv(), vectors(5)), "is a GeneratorAdapter; it is wrapped already, so use it as it is"),
    ],
    ids=["class", "path", "state dict", "adapter"],
)
def test_what_is_no_module_is_told_the_way_to_one(give: Callable[[], Any], cure: str) -> None:
    with pytest.raises(cp.ProbeError, match=f"the generator {cure}"):
        cp.wrap(give(), vectors(5))


@pytest.mark.parametrize(
    "of", [lambda program: program.module(), torch.export.unflatten], ids=["module", "unflattened"]
)
def test_a_program_of_one_batch_size_says_so(of: Callable[[Any], nn.Module]) -> None:
    draw = vectors(5, torch.float32)
    program = torch.export.export(Deconv().eval(), (torch.randn(2, 5),))
    with pytest.raises(
        cp.ProbeError, match="takes the number of samples of its example alone, unless its dynamic_shapes"
    ):
        cp.wrap(of(program), draw)
    plain = Deconv()
    plain.main[0] = nn.ConvTranspose2d(7, 6, 4)
    with pytest.raises(cp.ProbeError, match="by itself to see why") as error:  # the control
        cp.wrap(plain, draw)
    assert "dynamic_shapes" not in str(error.value)
