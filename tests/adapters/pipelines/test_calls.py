"""Calls of a pipeline's layers: which can be asked for, what a map of words costs, and schedulers that keep state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp

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


def test_a_map_of_words_costs_its_hybrids_and_clean_runs(
    text: cp.GeneratorAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sample that goes through the denoiser counts, those of recording and checking as well."""
    z1 = text.sample(PAIRS, seed=0, prompts="a cat on the moon")
    z2 = text.sample(PAIRS, seed=0, prompts="the red dog on a moon")
    run: list[int] = []

    def count(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        run.append(len(kwargs["encoder_hidden_states"]) // 2)  # both halves of guidance

    forwards = text.forward

    def counted(self: Any, latents: Any, *args: Any, noise: Any, **options: Any) -> Tensor:
        handle = text.module.unet.register_forward_pre_hook(count, with_kwargs=True)
        try:
            return forwards(latents, *args, noise=noise, **options)
        finally:
            handle.remove()

    monkeypatch.setattr(cp.GeneratorAdapter, "forward", counted)
    probe = cp.InfluenceMap(text, "prompt.prompt_embeds", axis="token")
    maps = probe.attribute(z1, z2, units=[[word] for word in range(WORDS)])
    assert maps.provenance["executor"] == "prepared"
    assert 0 < sum(run) <= STEPS * (WORDS * PAIRS + 2 * PAIRS)
    assert float(maps.influence[1:5].max()) > 0  # of tokens that differ
    assert float(maps.influence[0]) == 0  # of the first one, which both prompts have


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
