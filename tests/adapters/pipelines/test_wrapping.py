"""Pipelines of diffusers as generators: their own images, exact hybrids, and the pipeline left as it was."""

from __future__ import annotations

import pickle
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp

TEXT = {"max_sequence_length": 12, "height": 16, "width": 16}
OPTIONS: dict[str, dict[str, Any]] = {
    "stable_diffusion_3": TEXT,
    "flux": TEXT,
    "pixart": TEXT | {"use_resolution_binning": False, "clean_caption": False},
}
# The layer that is intervened on, at the second of two steps, and how its batch is folded.
UNET = "unet.mid_block#2"
LAYERS = {
    "ddim": (UNET, 1),
    "dit": ("transformer.transformer_blocks.0.attn1#2", 2),
    "stable_diffusion": (UNET, 2),
    "stable_diffusion_xl": ("unet.up_blocks.0#2", 2),
    "stable_diffusion_3": ("transformer.transformer_blocks.0.attn#2[0]", 2),
    "flux": ("transformer.single_transformer_blocks.0.attn#2", 1),
    "pixart": ("transformer.transformer_blocks.0.attn1#2", 2),
    "consistency": (UNET, 1),
    "ddpm": (UNET, 1),
}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Pipelines by name, each built once, and wrapped ones."""
    return {}


def pipeline(made: dict[str, Any], name: str) -> Any:
    from support.adapters import pipelines

    if name not in made:
        made[name] = pipelines.ALL[name]()
    return made[name]


def generator(made: dict[str, Any], name: str, **more: Any) -> cp.GeneratorAdapter:
    """Wrapped with one layer and two steps, once for all tests that ask for the same."""
    key = f"{name} wrapped with {more!r}"
    if key not in made:
        made[key] = wrapped(made, name, **more)
    return cast("cp.GeneratorAdapter", made[key])


def wrapped(made: dict[str, Any], name: str, **more: Any) -> cp.GeneratorAdapter:
    axes = {"transformer.single_transformer_blocks.0.attn": "n t c"} if name == "flux" else None
    given: dict[str, Any] = {"axes": axes, "steps": 2, "layers": [LAYERS[name][0]], "options": OPTIONS.get(name)} | more
    return cp.wrap(pipeline(made, name), **given)


def conditions(name: str) -> dict[str, Any]:
    if name in ("dit", "consistency"):
        return {"classes": [1, 2]}
    return {} if name in ("ddim", "ddpm") else {"prompts": ["a cat on the moon", "a red dog"]}


@pytest.mark.long
@pytest.mark.parametrize("name", LAYERS)
def test_the_images_are_the_pipelines_own(name: str, made: dict[str, Any]) -> None:
    """Of one step where the scheduler draws noise between steps, which no two runs share."""
    steps = 1 if name in ("ddpm", "consistency") else 2
    gen = generator(made, name, steps=steps, layers=None if steps == 1 else [LAYERS[name][0]])
    latents = gen.sample(2, seed=0, **conditions(name))
    assert isinstance(latents, dict)
    latents["noise"] = torch.randn(latents["noise"].shape, generator=torch.Generator().manual_seed(3))
    own: dict[str, Any] = {"num_inference_steps": steps, "output_type": "pt"} | OPTIONS.get(name, {})
    asked = conditions(name)
    own |= {"prompt": asked["prompts"]} if "prompts" in asked else {}
    own |= {"class_labels": asked["classes"]} if "classes" in asked else {}
    own |= {"batch_size": 2} if name in ("ddim", "ddpm", "consistency") else {}
    with torch.no_grad():
        expected = pipeline(made, name)(generator=torch.Generator().manual_seed(3), **own).images
    assert gen(latents).shape == (2, *gen.image_size)
    torch.testing.assert_close(gen(latents), expected, rtol=0, atol=2e-6)
    if asked:  # negative control: it depends on what is asked for
        other = gen.sample(2, seed=0, **{key: value[::-1] for key, value in asked.items()})
        assert isinstance(other, dict)
        assert (gen({**other, "noise": latents["noise"]}) - expected).abs().max() > 1e-4


def hooked(gen: cp.GeneratorAdapter, layer: str, latents: Any, values: Tensor | None, units: list[int]) -> Any:
    """By plain hooks: the layer's second output, and the images if its channels are set to those of ``values``.

    Where the scheduler draws noise, each sample is run alone, from the seed of its own.
    """
    if not gen.draws_noise:
        return run_hooked(gen, layer, latents, values, units)
    rows = []
    for i in range(len(latents["noise"])):
        alone = {name: value[i : i + 1] for name, value in latents.items()}
        with gen.session():
            gen.seed_noise(gen.noise_seeds(alone, [i], 0)[0])
            rows.append(run_hooked(gen, layer, alone, None if values is None else values[i : i + 1], units))
    return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))


def run_hooked(gen: cp.GeneratorAdapter, layer: str, latents: Any, values: Tensor | None, units: list[int]) -> Any:
    name = layer.partition("#")[0]
    seen: list[Tensor] = []
    calls = iter(range(99))

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if next(calls) != 1:
            return None
        tensor = output[0] if isinstance(output, tuple) else output
        seen.append(tensor.clone())
        if values is None:
            return None
        tensor = tensor.clone()
        dim = 1 if tensor.dim() == 4 else 2
        tensor.index_copy_(dim, torch.tensor(units), values.index_select(dim, torch.tensor(units)))
        return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

    handle = gen.module.get_submodule(name).register_forward_hook(hook)
    try:
        with torch.no_grad():
            images = gen.module(**latents)
    finally:
        handle.remove()
    return seen[0], images


@pytest.mark.parametrize(
    ("name", "more"),
    [
        # The same network as stable_diffusion's, of twice the time.
        *(pytest.param(name, {}, marks=[pytest.mark.long] if name == "stable_diffusion_xl" else []) for name in LAYERS),
        # Without guidance, where the pipeline has it.
        *(
            pytest.param(name, {"guidance": 1.0}, marks=[pytest.mark.long] if name != "stable_diffusion" else [])
            for name, (_, folded) in LAYERS.items()
            if folded == 2
        ),
    ],
)
def test_hybrids_equal_plain_hooks(name: str, more: dict[str, Any], made: dict[str, Any]) -> None:
    gen = generator(made, name, **more)
    layer = LAYERS[name][0]
    z1 = gen.sample(2, seed=0, **conditions(name))
    z2 = gen.sample(2, seed=1, **{key: value[::-1] for key, value in conditions(name).items()})
    sets = [[c] for c in range(13)] + [[c, 15 - c] for c in range(12)] + [[*range(16)]]
    hybrids = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=sets)
    assert hybrids.provenance["executor"] == "prepared"
    source, images = hooked(gen, layer, z2, None, [])
    torch.testing.assert_close(hybrids.source, images, rtol=0, atol=2e-5)
    # Negative control. Guidance enlarges what single channels of these tiny networks do.
    least = {0: 1e-7, 5: 1e-7, 20: 1e-7, 25: 1e-6} if more else dict.fromkeys((0, 5, 20, 25), 1e-6)
    for k, change in least.items():
        _, images = hooked(gen, layer, z1, source, sets[k])
        torch.testing.assert_close(hybrids.images[k], images, rtol=0, atol=2e-5)
        assert (images - hybrids.base).abs().max() > change
    assert (hybrids.images[3] - hybrids.images[5]).abs().max() > 1e-7


def test_noise_of_the_scheduler_is_shared_by_base_and_hybrid(made: dict[str, Any]) -> None:
    gen = generator(made, "ddpm")
    assert gen.draws_noise
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    hybrids = cp.Hybridizer(gen, UNET).hybridize(z1, z2, units=[{UNET: []}, [0], range(16)])
    assert torch.equal(hybrids.images[0], hybrids.base)
    assert not torch.equal(hybrids.images[1], hybrids.base)


def test_guidance_changes_images_and_folds_the_batch(made: dict[str, Any]) -> None:
    free = generator(made, "stable_diffusion", guidance=1.0)
    guided = generator(made, "stable_diffusion")  # by the pipeline's own 7.5
    assert free.layers[UNET].axes == "n c h w"
    assert guided.layers[UNET].axes == "(2 n) c h w"
    first, second = (gen(gen.sample(2, seed=0, prompts="a cat")) for gen in (free, guided))
    assert not torch.equal(first, second)


def test_the_prompt_is_a_layer_of_tokens(made: dict[str, Any]) -> None:
    gen = generator(made, "stable_diffusion", layers=["prompt.prompt_embeds"], prompts=["a cat", "a dog"])
    info = gen.layers["prompt.prompt_embeds"]
    assert (info.channels, info.size) == (32, (12,))
    z1, z2 = gen.sample(2, seed=0, prompts="a cat"), gen.sample(2, seed=0, prompts="a dog")
    hybrids = cp.Hybridizer(gen, "prompt.prompt_embeds").hybridize(z1, z2, units=range(32))
    torch.testing.assert_close(hybrids.images[0], hybrids.source, rtol=0, atol=2e-5)


def test_prompts_are_drawn_from_those_that_are_given(made: dict[str, Any]) -> None:
    gen = generator(made, "stable_diffusion", layers=["prompt.prompt_embeds"], prompts=["a cat", "a dog"])
    by_name = {text: gen.sample(1, seed=0, prompts=text)["prompt_embeds"] for text in ("a cat", "a dog", "")}
    drawn = gen.sample(12, seed=0)["prompt_embeds"]
    cats = [bool(torch.equal(row, by_name["a cat"][0])) for row in drawn]
    dogs = [bool(torch.equal(row, by_name["a dog"][0])) for row in drawn]
    assert all(one != two for one, two in zip(cats, dogs, strict=True))
    assert 0 < sum(cats) < 12
    assert torch.equal(gen.sample(3, seed=0, start=5)["prompt_embeds"], drawn[5:8])


def appearance(pipe: Any) -> tuple[Any, ...]:
    """What a user could see of it: attributes, configuration, the scheduler's state."""
    return dict(vars(pipe)), dict(pipe.config), {key: str(value) for key, value in vars(pipe.scheduler).items()}


def test_the_pipeline_is_left_as_it_was(made: dict[str, Any]) -> None:
    pipe = pipeline(made, "stable_diffusion")
    before = appearance(pipe)
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    modes = [module.training for module in pipe.unet.modules()]
    random = torch.random.get_rng_state()
    gen = wrapped(made, "stable_diffusion")
    gen(gen.sample(1, seed=0))
    assert appearance(pipe) == before
    assert all(torch.equal(value, weights[name]) for name, value in pipe.unet.state_dict().items())
    assert [module.training for module in pipe.unet.modules()] == modes
    assert not any(module._forward_hooks for module in pipe.unet.modules())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_copies_and_pickles_run(made: dict[str, Any]) -> None:
    gen = generator(made, "dit")
    z = gen.sample(2, seed=0, classes=[3, 4])
    again = pickle.loads(pickle.dumps(gen))
    assert torch.equal(again(again.sample(2, seed=0, classes=[3, 4])), gen(z))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("ddim", {"steps": 0}, "steps is 0"),
        ("ddim", {"steps": 1001}, "steps is 1001 and DDIMScheduler was made for 1000; give at most that"),
        ("ddim", {"guidance": 3.0}, r"guidance is 3\.0 and DDIMPipeline has none; leave it out"),
        ("ddim", {"options": {"hight": 3}}, "DDIMPipeline takes no option 'hight'"),
        ("ddim", {"prompts": []}, "prompts hold no text"),
        ("ddim", {"sample_latents": print}, "a DDIMPipeline samples its own latents; leave sample_latents out"),
        ("stable_diffusion", {"options": {"height": 7, "width": 7}}, "StableDiffusionPipeline does not run"),
        ("stable_diffusion", {"guidance": float("nan")}, "guidance"),
    ],
)
def test_what_a_pipeline_has_no_use_for(name: str, given: dict[str, Any], message: str, made: dict[str, Any]) -> None:
    pipe = pipeline(made, name)
    before = appearance(pipe)
    with pytest.raises(cp.ProbeError, match=message):
        cp.wrap(pipe, **{"steps": 1} | given)
    assert appearance(pipe) == before


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("ddim", {"prompts": "a cat"}, "DDIMPipeline takes no prompts; leave them out"),
        ("ddim", {"classes": 1}, "DDIMPipeline takes no classes; leave them out"),
        ("stable_diffusion", {"prompts": ["a cat"]}, "prompts holds 1 values for 2 samples"),
        ("stable_diffusion", {"prompts": [1, 2]}, "a prompt is"),
        ("dit", {"classes": 1000}, "class 1000 is asked for and DiTPipeline has 1000, from 0 on"),
        ("dit", {"classes": -1}, "a class is -1"),
    ],
)
def test_what_samples_cannot_be_made_of(name: str, asked: dict[str, Any], message: str, made: dict[str, Any]) -> None:
    gen, pipe = generator(made, name), pipeline(made, name)
    before = appearance(pipe)
    with pytest.raises(cp.ProbeError, match=message):
        gen.sample(2, seed=0, **asked)
    assert appearance(pipe) == before


def test_modules_take_no_options_of_pipelines() -> None:
    module = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 3, 4))
    with pytest.raises(cp.ProbeError, match=r"steps is for pipelines, and Sequential is a torch\.nn\.Module"):
        cp.wrap(module, lambda n, rng: torch.randn(n, 4, 1, 1, generator=rng), steps=3)
    with pytest.raises(cp.ProbeError, match=r"sample_latents is missing; give a function \(n, rng\) -> latents"):
        cp.wrap(module)


@pytest.mark.long
@pytest.mark.parametrize(("name", "conditional"), [("stable_diffusion", 1), ("dit", 0), ("pixart", 1)])
def test_one_half_of_a_folded_batch_equals_plain_hooks(name: str, conditional: int, made: dict[str, Any]) -> None:
    gen = generator(made, name)
    assert gen.halves == {"conditional": conditional, "unconditional": 1 - conditional}
    layer = LAYERS[name][0]
    base, _, call = layer.partition("#")
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    source, _ = hooked(gen, layer, z2, None, [])
    clean, _ = hooked(gen, layer, z1, None, [])
    images = {}
    for half, number in gen.halves.items():
        address = f"{base}@{half}#{call}"
        hybrids = cp.Hybridizer(gen, address).hybridize(z1, z2, units=[[c] for c in range(13)])
        mixed = clean.clone()
        mixed[2 * number : 2 * number + 2] = source[2 * number : 2 * number + 2]
        _, expected = hooked(gen, layer, z1, mixed, [5])
        torch.testing.assert_close(hybrids.images[5], expected, rtol=0, atol=2e-5)
        assert dict(hybrids.units[5]) == {address: (5,)}
        images[half] = hybrids.images[5]
    assert (images["conditional"] - images["unconditional"]).abs().max() > 1e-6  # negative control


def test_halves_that_are_not_there(made: dict[str, Any]) -> None:
    gen = generator(made, "stable_diffusion")
    base = UNET.partition("#")[0]
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    with pytest.raises(cp.ProbeError, match="names the half 'upper', and those known are conditional, unconditional"):
        cp.Hybridizer(gen, f"{base}@upper#2").hybridize(z1, z2, units=[0])
    both = [f"{base}@conditional#2", f"{base}@unconditional#1-2"]
    with pytest.raises(cp.ProbeError, match=r"name different halves of 'unet\.mid_block#2'"):
        cp.Hybridizer(gen, both).hybridize(z1, z2, units={both[0]: [0], both[1]: [1]})
    free = generator(made, "stable_diffusion", guidance=1.0)
    assert free.halves == {}
    with pytest.raises(cp.ProbeError, match=r"has no 'conditional' half: its batch is not folded \(n c h w\)"):
        cp.Hybridizer(free, f"{base}@conditional#2")
