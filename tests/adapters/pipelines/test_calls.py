"""Calls of a pipeline's layers: which can be asked for, what a map of words costs, and schedulers that keep state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import counterfactual_probe as cp
from counterfactual_probe.engine.forms.form import Form
from counterfactual_probe.engine.program.rewrites.narrow import of_blocks

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
WORDS, PAIRS, STEPS = 8, 4, 2


@pytest.fixture(scope="module")
def text() -> cp.GeneratorAdapter:
    from support.adapters import pipelines

    return cp.wrap(pipelines.stable_diffusion(), steps=STEPS, layers=["prompt.prompt_embeds"])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("unet.mid_block#3", r"'unet\.mid_block' runs 2 times .* asks for call.* #1 to #2"),
        (
            "unet.mid_block#1-3",
            r"'unet\.mid_block' runs 2 times .* 'unet\.mid_block#1-3' asks for calls 1-3; name #1-2",
        ),
        ("unet.up_blocks.0.resnets.0.nonlinearity#*", r"the calls of .*nonlinearity#\*' differ: .*; name calls that"),
    ],
)
def test_calls_that_are_not_there(layer: str, message: str, text: cp.GeneratorAdapter) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.Hybridizer(text, layer)


class Rows(TorchDispatchMode):
    """Counts the rows that convolutions of a kernel read, in the module's own forward or in a program."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.shapes, self.count = {tuple(of.shape) for of in (kernel, of_blocks(kernel, 2))}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default and tuple(args[1].shape) in self.shapes:
            self.count += len(args[0])
        return func(*args, **kwargs or {})


def test_a_map_of_words_costs_its_hybrids_and_clean_runs(
    text: cp.GeneratorAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each word of each pair a hybrid, and no more than a clean run of each base and each source."""
    # Packed kernels have no shape by which a convolution could be told.
    monkeypatch.setattr("counterfactual_probe.engine.prepared.executor.form_on", lambda _: Form.PLAIN)
    z1 = text.sample(PAIRS, seed=0, prompts="a cat on the moon")
    z2 = text.sample(PAIRS, seed=0, prompts="the red dog on a moon")
    probe, words = cp.InfluenceMap(text, "prompt.prompt_embeds", axis="token"), range(1, WORDS + 1)
    first = probe.attribute(z1, z2, units=[[word] for word in words])  # which writes the forward down
    module: Any = text.module
    unet, vae = module.unet, module.vae
    counted = {}
    for name, kernel, folded in (("unet", unet.conv_out.weight, 2 * STEPS), ("vae", vae.decoder.conv_out.weight, 1)):
        with Rows(kernel) as rows:
            text(z1)
        assert rows.count == folded * PAIRS  # a forward of each, in both halves of guidance and every step
        with Rows(kernel) as rows:
            maps = probe.attribute(z1, z2, units=[[word] for word in words])
        counted[name] = rows.count / folded
    assert maps.provenance["executor"] == first.provenance["executor"] == "prepared"
    assert float(maps.influence.min()) > 0  # all of them differ, so that none is left out
    checked = 1  # a clean run that every call compares with a whole forward
    assert WORDS * PAIRS <= counted["unet"] == counted["vae"] <= WORDS * PAIRS + 2 * PAIRS + checked
    start = probe.attribute(z1, z2, units=[[0]] * 3 + [[1]] * 3)
    assert float(start.influence[0]) == 0 < float(start.influence[3])  # both prompts have the first token


def test_state_of_a_scheduler_is_reset_for_every_run() -> None:
    """Multistep schedulers remember earlier outputs; each run has a copy that remembers none."""
    from diffusers import DPMSolverMultistepScheduler

    from support.adapters import pipelines

    pipe = pipelines.stable_diffusion()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    gen = cp.wrap(pipe, steps=3, layers=["unet.mid_block#2"])
    z = gen.sample(2, seed=0)
    assert torch.equal(gen(z), gen(z))
    z2 = gen.sample(2, seed=1)
    hybrids = cp.Hybridizer(gen, "unet.mid_block#2").hybridize(z, z2, units=[{"unet.mid_block#2": []}, [0], [1, 2]])
    torch.testing.assert_close(hybrids.images[0], gen(z), rtol=0, atol=2e-5)
    assert (hybrids.images[1] - hybrids.base).abs().max() > 1e-7


def test_a_scheduler_whose_state_outlives_the_run_is_refused() -> None:
    from diffusers import DDIMScheduler

    from support.adapters import pipelines

    class Ageing(DDIMScheduler):  # type: ignore[misc]
        steps_taken = 0

        def step(self, *args: Any, **kwargs: Any) -> Any:
            type(self).steps_taken += 1
            made = super().step(*args, **kwargs)
            scaled = made[0] * (1 + 0.01 * type(self).steps_taken)
            return (scaled, *made[1:]) if isinstance(made, tuple) else type(made)(prev_sample=scaled)

    pipe = pipelines.ddim()
    pipe.scheduler = Ageing.from_config(pipe.scheduler.config)
    with pytest.raises(cp.ProbeError, match="DDIMPipeline gives two images for one latent"):
        cp.wrap(pipe, steps=1)
