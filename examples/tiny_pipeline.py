"""Common code of two examples: the pipeline that they probe, a tiny one with random weights unless one is named.

A tiny pipeline shows how everything works, without a download and in seconds. Its images mean nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

import counterfactual_probe as cp

WORDS = ["<start>", "<end>", "<unknown>", "a", "red", "blue", "cat", "dog", "on", "the", "moon", "grass"]
POSITIONS = 8  # of the longest prompt, with start and end
RANDOM = "a tiny pipeline with random weights: how it works is real, what the images show is not"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pipeline", help="a folder of save_pretrained, or hf:user/repo (default: a tiny random one)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps (%(default)s)")
    parser.add_argument("--guidance", type=float, default=7.5, help="scale of the guidance (%(default)s)")


def opened(args: argparse.Namespace, **options: Any) -> cp.GeneratorAdapter:
    """The pipeline that is asked for, as a generator; of a tiny one, it is said on stderr what it is."""
    given = {"steps": args.steps, "guidance": args.guidance, **options}
    if args.pipeline:
        return cp.load(args.pipeline, **given)
    print(RANDOM, file=sys.stderr)
    generator: cp.GeneratorAdapter = cp.wrap(tiny(), name="tiny-random", **given)
    return generator


def words_of(generator: cp.GeneratorAdapter, prompt: str) -> list[str]:
    """The tokens of a prompt, as its pipeline reads them, in the order of their positions."""
    sampler: Any = generator.module
    tokenizer = sampler.runner.pipeline.tokenizer
    ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
    return [token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(ids)]


def tiny() -> Any:
    """Stable Diffusion's classes at 16×16, with a word for each token."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text: Any
    vae: Any
    unet: Any
    blocks: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=POSITIONS, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
            **blocks,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=8, layers_per_block=1, cross_attention_dim=32, attention_head_dim=4, **blocks,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=text.eval(), tokenizer=_tokenizer(), unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    start, end, unknown = WORDS[:3]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 1)]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=core, bos_token=start, eos_token=end, pad_token=end, unk_token=unknown,
        model_max_length=POSITIONS,
    )  # fmt: skip
