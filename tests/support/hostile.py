"""Hostile values for arguments, and the public calls that are given them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

import counterfactual_probe as cp
from support.toys import PLAIN, TOKENS


class Refuses:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")

    def __bool__(self) -> bool:
        raise RuntimeError("no")


def raising(*_: Any, **__: Any) -> Any:
    raise ValueError("a function of the user's that fails")


# In reach of every test; a count of 10¹⁸ is a wish, not a mistake, so that counts get small numbers only.
COUNTS = {
    "n_pairs",
    "max_pairs",
    "n_images",
    "repetitions",
    "controls",
    "draws",
    "resamples",
    "n",
    "sources",
    "start",
    "blocks",
    "seed",
    "keep",
    "most",
    "components",
}


def scalars() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 12),
        st.floats(allow_nan=True, allow_infinity=True, width=32),
        st.sampled_from([0.0, -0.0, 0.5, 1.0, 1e-9, math.pi, 1 + 2j, np.int8(3), np.float16(0.5), np.bool_(True)]),
        st.sampled_from(
            ["", "main.2", "main.2#1", "main.99", "main.5[1]", "main.5<", "\0", "\ud800", "a" * 300, "#", "[", "<"]
        ),
        st.text(max_size=8),
        st.binary(max_size=4),
    )


def tensors() -> st.SearchStrategy[Any]:
    shapes = st.lists(st.integers(0, 5), max_size=4)
    dtypes = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16, torch.complex64])

    def made(shape: list[int], dtype: torch.dtype, kind: str) -> torch.Tensor:
        if kind == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        value = torch.ones(shape).to(dtype)
        if kind == "nan" and value.is_floating_point():
            value = value * math.nan
        return value.to_sparse() if kind == "sparse" else value

    return st.builds(made, shapes, dtypes, st.sampled_from(["plain", "plain", "nan", "meta", "sparse"]))


def arrays() -> st.SearchStrategy[Any]:
    return st.sampled_from(
        [
            np.zeros(0),
            np.ones((3, 4)),
            np.ones((2, 3, 4, 4))[::-1],
            np.ones(3, dtype=">f4"),
            np.ones(3, dtype=np.longdouble),
            np.array([1, "a"], dtype=object),
            np.ma.masked_all(3),
            np.ones((2, 2), dtype=complex),
            np.array(3),
            np.array(["a", "b"]),
            np.full((4, 4, 4), np.nan),
            np.datetime64("2026-01-01"),
        ]
    )


def objects() -> st.SearchStrategy[Any]:
    made: list[Callable[[], Any]] = [
        object,
        Refuses,
        lambda: raising,
        lambda: len,
        lambda: int,
        nn.Identity,
        lambda: iter([1, 2]),
        lambda: range(3),
        lambda: slice(2),
        lambda: Ellipsis,
        lambda: Path("nowhere"),
        lambda: torch.device("cpu"),
        lambda: torch.float32,
        torch.Generator,
        dict,
        list,
        tuple,
        set,
        lambda: {1: 2},
        lambda: {"main.2": [0]},
        lambda: {"main.2": 0},
    ]
    return st.sampled_from(made).map(lambda make: make())


def values() -> st.SearchStrategy[Any]:
    """Anything that somebody might hand over by mistake, in containers too."""
    single = st.one_of(scalars(), tensors(), arrays(), objects())
    return st.one_of(
        single,
        single,
        st.lists(single, max_size=3),
        st.lists(st.lists(scalars(), max_size=2), max_size=2),
        st.dictionaries(st.one_of(st.sampled_from(["main.2", "main.5", 3]), st.text(max_size=3)), single, max_size=2),
        st.tuples(single, single),
    )


@dataclass(frozen=True)
class Call:
    """A public call and arguments that it accepts."""

    name: str
    function: Callable[..., Any] = field(repr=False)
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)


@cache
def generator() -> cp.GeneratorAdapter:
    return PLAIN.generator()


@cache
def maps() -> cp.InfluenceMaps:
    return cp.InfluenceMap(generator(), "main.2").attribute(n_pairs=4, blocks=2, normalise="pair")


@cache
def finder() -> cp.ModuleFinder:
    return cp.ModuleFinder(n_modules=2).fit(maps())


@cache
def calls() -> tuple[Call, ...]:
    """Every public call that takes arguments which people write by hand."""
    gen, few, fitted = generator(), maps(), finder()
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    hybrids = cp.Hybridizer(gen, "main.2").hybridize(z1, z2, units=[[0], [1]])
    dependency = cp.SpectralDependency(gen)
    codes, factors = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60)[:, None] // [1, 3, 9] % 3
    others = cp.InfluenceMap(gen, "main.2").attribute(n_pairs=4, blocks=2, normalise="pair", seed=1)
    half = len(few) // 2  # as if the second half of the channels were another call of the first
    calls = tuple(cp.UnitSet({f"main.2#{1 + row // half}": (row % half,)}) for row in range(len(few)))
    along = dataclasses.replace(few, units=calls)
    masks = np.zeros((2, 16, 16))
    masks[0, :8] = masks[1, 8:] = 1
    return (
        Call(
            "wrap",
            cp.wrap,
            {
                "module": PLAIN.plain(),
                "sample_latents": PLAIN.sampler,
                "layers": None,
                "image": None,
                "image_range": (-1, 1),
                "axes": None,
                "noise": None,
                "device": None,
                "name": None,
            },
        ),
        Call("sample", gen.sample, {"n": 2, "seed": 0, "stream": 0, "start": 0}),
        Call("layer", gen.layer, {"name": "main.2"}),
        Call("generator", gen, {"latents": z1, "seed": 0}),
        Call("show", gen.show, {"n": 2, "seed": 0}),
        Call("Hybridizer", cp.Hybridizer, {"generator": gen, "layer": "main.2"}),
        Call(
            "hybridize",
            cp.Hybridizer(gen, ["main.2", "main.5"]).hybridize,
            {
                "z1": z1,
                "z2": z2,
                "units": [{"main.2": [0]}],
                "seed": 0,
                "hybrids_per_eval": None,
            },
        ),
        Call("intervene", cp.Hybridizer(gen, "main.2").intervene, {"z1": z1, "units": [0], "value": 0.0, "seed": 0}),
        Call("plot hybrids", hybrids.plot, {"layout": "rows", "labels": None}),
        Call("InfluenceMap", cp.InfluenceMap, {"generator": gen, "layer": "main.2"}),
        Call(
            "attribute",
            cp.InfluenceMap(gen, "main.2").attribute,
            {
                "n_pairs": 3,
                "units": [[0], [1]],
                "seed": 0,
                "tolerance": None,
                "precision": "float32",
                "blocks": None,
                "normalise": None,
                "hybrids_per_eval": None,
                "checkpoint": None,
                "map_size": None,
                "components": None,
            },
        ),
        Call("attribute pairs", cp.InfluenceMap(gen, "main.2").attribute, {"z1": z1, "z2": z2, "units": [[0]]}),
        Call("pooled", few.pooled, {"other": others}),
        Call("plot maps", few.plot, {"most": 4}),
        Call(
            "ModuleFinder",
            cp.ModuleFinder,
            {
                "n_modules": 2,
                "method": "nmf",
                "features": "bits",
                "window": None,
                "percentile": 75.0,
                "seed": 0,
            },
        ),
        Call("fit", cp.ModuleFinder(n_modules=2).fit, {"maps": few}),
        Call("stability", fitted.stability, {"maps": few, "n_modules": [2], "repetitions": 2, "other": None}),
        Call("choose", cp.ModuleFinder.choose, {"maps": few, "n_modules": [2], "repetitions": 2}),
        Call(
            "quality",
            fitted.quality,
            {"influence": cp.InfluenceMap(gen, "main.2"), "n_pairs": 2, "controls": 2, "seed": 1},
        ),
        Call("name_modules", cp.ModuleFinder(n_modules=2).fit(few).name_modules, {"names": ["a", "b"]}),
        Call("match_modules", cp.match_modules, {"first": fitted, "second": fitted}),
        Call("modules_by_call", cp.modules_by_call, {"maps": along, "n_modules": 2, "permutations": 10}),
        Call("SpectralDependency", cp.SpectralDependency, {"model": gen, "example": None, "name": None}),
        Call("measure", dependency.measure, {"earlier": "main.4", "later": "main.7"}),
        Call("measure_activations", dependency.measure_activations, {"layer": "main.4", "inputs": z1, "later": None}),
        Call(
            "remove_filters",
            dependency.remove_filters,
            {
                "earlier": "main.4",
                "later": "main.7",
                "latents": z1,
                "kept": 0.5,
                "below": 0.9,
                "above": 1.45,
                "draws": 1,
                "seed": 0,
            },
        ),
        Call(
            "spectral_independence_loss",
            cp.spectral_independence_loss,
            {
                "activations": torch.randn(2, 3, 4, 4),
                "weight": torch.randn(3, 2, 4, 4),
                "stride": 2,
                "form": "printed",
            },
        ),
        Call("StretchTest", cp.StretchTest, {"generator": gen, "layer": "main.5", "levels": None, "wavelet": "haar"}),
        Call(
            "measure stretch",
            cp.StretchTest(gen, "main.5").measure,
            {"latents": None, "n_images": 2, "seed": 0, "keep": 1},
        ),
        Call("frechet_distance", cp.frechet_distance, {"features_a": codes, "features_b": codes[::-1]}),
        Call("mig", cp.metrics.mig, {"codes": codes, "factors": factors, "seed": 0}),
        Call("dci", cp.metrics.dci, {"codes": codes, "factors": factors, "seed": 0}),
        Call("sap", cp.metrics.sap, {"codes": codes, "factors": factors, "seed": 0}),
        Call(
            "hybrid_sample",
            cp.autoencoders.hybrid_sample,
            {"codes": torch.randn(5, 4), "n": 3, "groups": None, "seed": 0},
        ),
        Call(
            "parts_agreement",
            cp.parts_agreement,
            {
                "modules": fitted,
                "masks": masks,
                "maps": None,
                "names": None,
                "controls": 2,
                "seed": 0,
            },
        ),
        Call(
            "Classifier",
            cp.Classifier,
            {
                "module": nn.Flatten(),
                "transform": cp.Preprocessing((4, 4), mean=(0.5,), std=(0.5,)),
                "class_names": None,
                "name": None,
                "device": None,
            },
        ),
        Call(
            "Preprocessing",
            cp.Preprocessing,
            {"size": (8, 8), "crop": 1.0, "mode": "center", "mean": (0.5,), "std": (0.5,)},
        ),
        Call("load", cp.load, {"name": "no-such-generator", "device": None}),
        Call(
            "load_classifier",
            cp.load_classifier,
            {"name": "no-such-classifier", "checkpoint": None, "class_names": None},
        ),
        Call("available", cp.available, {"pattern": "*"}),
        Call("pretrained", cp.pretrained, {"name": "dcgan-faces"}),
        Call(
            "tokens",
            cp.Hybridizer(TOKENS.generator(), "mlp").hybridize,
            {
                "z1": TOKENS.generator().sample(2),
                "z2": TOKENS.generator().sample(2, seed=1),
                "units": [[0]],
            },
        ),
    )
