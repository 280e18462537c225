"""The config.json of a classifier's folder: timm's format, and which of its arguments may come from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from msgspec import Meta

from ..base.errors import ProbeError, first_line
from ..base.files import read_json
from ..base.formats.schema import OpenSchema, Schema, conform
from ..base.formats.types import Name, Number, Pair, Side, Width

CONFIG = "config.json"
_Depth: TypeAlias = Annotated[int, Meta(ge=0, le=512)]
_Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
_Widths: TypeAlias = Annotated[list[Width], Meta(max_length=32)]
_Depths: TypeAlias = Annotated[list[_Depth], Meta(max_length=32)]
# The name of a layer or of a way to pool, which timm looks up in a table of its own.
_Word: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{0,40}$")]
Classes: TypeAlias = Annotated[int, Meta(ge=2, le=10**6)]


class ModelArguments(Schema):
    """Arguments of ``timm.create_model`` that describe an architecture.

    All others are refused: some are paths of files that timm opens (``checkpoint_path``, ``cache_dir``), or decide what
    it fetches and calls (``pretrained``, ``pretrained_cfg``, ``pretrained_custom_load``).
    """

    act_layer: _Word | None = None
    attn_drop_rate: _Share | None = None
    block_size: Width | None = None
    cardinality: Width | None = None
    class_token: bool | None = None
    depth: _Depth | None = None
    depths: _Depths | None = None
    dims: _Widths | None = None
    drop_path_rate: _Share | None = None
    drop_rate: _Share | None = None
    dynamic_img_pad: bool | None = None
    dynamic_img_size: bool | None = None
    embed_dim: Width | _Widths | None = None
    fc_norm: bool | None = None
    global_pool: _Word | None = None
    head_hidden_size: Width | None = None
    img_size: Side | Pair[Side] | None = None
    in_chans: Annotated[int, Meta(ge=1, le=16)] | None = None
    init_values: Number | None = None
    kernel_sizes: _Depth | _Depths | None = None
    layers: _Depths | None = None
    mlp_ratio: Annotated[float, Meta(gt=0, le=64)] | None = None
    no_embed_class: bool | None = None
    norm_layer: _Word | None = None
    num_heads: _Depth | _Depths | None = None
    output_stride: Annotated[int, Meta(ge=1, le=64)] | None = None
    patch_size: Side | Pair[Side] | None = None
    pos_embed: _Word | None = None
    pre_norm: bool | None = None
    proj_drop_rate: _Share | None = None
    qk_norm: bool | None = None
    qkv_bias: bool | None = None
    reg_tokens: _Depth | None = None
    stem_type: _Word | None = None
    stem_width: Width | None = None
    width: Width | None = None
    window_size: Side | Pair[Side] | None = None


class DataConfiguration(OpenSchema):
    """What a classifier's preprocessing follows from. The other entries of timm's ``pretrained_cfg`` are not used."""

    input_size: Annotated[list[Side], Meta(min_length=3, max_length=3)] | None = None  # colours, height, width
    crop_pct: Annotated[float, Meta(gt=0, le=1)] | None = None
    crop_mode: _Word | None = None
    interpolation: _Word | None = None
    mean: Annotated[list[Number], Meta(max_length=16)] | None = None
    std: Annotated[list[Number], Meta(max_length=16)] | None = None
    num_classes: Classes | None = None
    fixed_input_size: bool | None = None


class ClassifierConfiguration(OpenSchema):
    """The entries of config.json that are read."""

    architecture: Name
    num_classes: Classes
    label_names: Annotated[list[Name], Meta(max_length=10**6)] | None = None
    model_args: dict[str, Any] | None = None
    pretrained_cfg: DataConfiguration | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``timm.create_model``, each of its declared type."""
        given = self.model_args or {}
        conform(given, ModelArguments, "model_args")
        return given

    def preprocessing(self) -> dict[str, Any]:
        """The entries of ``pretrained_cfg`` that are used."""
        prepared = self.pretrained_cfg
        names = DataConfiguration.__struct_fields__ if prepared is not None else ()
        return {name: value for name in names if (value := getattr(prepared, name)) is not None}


def read_configuration(folder: Path) -> tuple[ClassifierConfiguration, dict[str, Any]]:
    """The configuration in a folder, and the arguments of ``timm.create_model`` in it."""
    path = folder / CONFIG
    try:
        config = conform(read_json(path), ClassifierConfiguration)
        return config, config.arguments()
    except ValueError as error:
        raise ProbeError(
            f"{path} describes no classifier of timm ({first_line(error)}); write it with save_classifier, or in the "
            "format of timm's hub repositories"
        ) from error


def require_storable(model_args: Mapping[str, Any], what: str) -> None:
    """Raise a ProbeError where a folder could not be read again for these arguments of ``timm.create_model``."""
    try:
        conform(dict(model_args), ModelArguments)
    except ValueError as error:
        raise ProbeError(
            f"{what} was made with arguments that no folder may hold ({first_line(error)}); save its state dict with "
            "safetensors yourself"
        ) from error
