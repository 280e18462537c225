"""Whether a program computes every sample from that sample alone: proved from its operations, not by trials.

A proof needs three things of each operation: every value it reads is either the same for all samples or has its rows
in the order of the samples; so has every value it makes; and it is of a kind that never looks along the first
dimension. Whatever is of no such kind leaves the question open.
"""

from __future__ import annotations

from .operators import Affine, Convolution, EachSample, Edit, arguments
from .polyphase import PolyphaseConvolution
from .program import Op, Program, Size, leaves
from .vocabulary import RESHAPES, is_pointwise, is_view

# These work on each row of the first dimension alone, as long as the result has a row for each of them: a reduction
# along the samples, say, gives none.
_BY_ROW = """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear addmm mm bmm baddbmm
    matmul embedding group_norm layer_norm native_layer_norm rms_norm instance_norm
    sum mean prod amax amin max min any all argmax argmin logsumexp std var std_mean var_mean norm linalg_vector_norm
    avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool2d_with_indices max_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
    upsample_bicubic2d upsample_trilinear3d pixel_shuffle pixel_unshuffle channel_shuffle grid_sampler grid_sampler_2d
    im2col col2im reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d one_hot to _to_copy dropout
    alpha_dropout feature_dropout feature_alpha_dropout
"""
# These work along the dimensions that an argument names.
_ALONG = """
    softmax _softmax log_softmax _log_softmax cumsum cumprod logcumsumexp sort argsort topk flip roll cat concat stack
    glu gather index_select chunk split unbind unsafe_chunk unsafe_split
"""
# Of no value that they read.
_FILLS = "zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty"


def mixing_operation(program: Program) -> str | None:
    """The first operation that is not known to keep samples apart; None if it is proved that all do."""
    fixed, by_sample = set(program.constants), {*program.inputs, *(draw.op.out for draw in program.draws)}
    for op in program.ops:
        outs = [number for number in op.outs if number is not None]
        if fixed.issuperset(op.reads) and not _is_sized(op):
            fixed.update(outs)
        elif by_sample.union(fixed).issuperset(op.reads) and _keeps_apart(program, op, by_sample):
            by_sample.update(outs)
        else:
            return op.kind
    return None if program.image in by_sample else "a constant image"


def _keeps_apart(program: Program, op: Op, by_sample: set[int]) -> bool:
    """Whether each row of what it makes comes from the rows of the same sample, and from no number of samples."""
    read = {_rows(program, number) for number in op.reads if number in by_sample}
    made = {_rows(program, number) for number in op.outs if number is not None}
    if None in read | made:
        return False
    if op.kind in _FILLS.split():
        return not isinstance(arguments(op).get("fill_value"), Size)
    if not read:  # of values that are the same for all samples
        return op.kind == "expand" or (op.kind == "repeat" and _repeats_whole(program, op))
    if op.kind in RESHAPES:  # rows of a sample stay together in another number of them
        return True
    if read != made or (_is_sized(op) and not _sizes_are_rows(op)):
        return False
    return _is_by_row(program, op, by_sample) or _is_along_others(program, op)


def _rows(program: Program, number: int) -> int | None:
    """How many rows a value has for each sample, one sample's after the other's; None if it is of no such form."""
    first, *others = program.shapes[number] or (None,)
    regular = isinstance(first, Size) and first.more == 0 and not any(isinstance(size, Size) for size in others)
    return first.each if regular else None


def _is_sized(op: Op) -> bool:
    """Whether an argument depends on the number of samples."""
    return any(isinstance(leaf, Size) for leaf in leaves((op.args, dict(op.kwargs))))


def _sizes_are_rows(op: Op) -> bool:
    """Whether such an argument says only how many rows there are."""
    if op.kind == "native_group_norm":
        return isinstance(arguments(op)["N"], Size)
    return op.kind == "expand" or (op.kind == "slice" and arguments(op)["dim"] == 0)


def _is_by_row(program: Program, op: Op, by_sample: set[int]) -> bool:
    if isinstance(op.run, (Affine, Convolution, PolyphaseConvolution, Edit)):
        return True
    if isinstance(op.run, EachSample):  # what all samples share must be the same for every batch
        return by_sample.isdisjoint(op.reads[len(op.run.drops) :])
    if op.kind == "batch_norm":
        return arguments(op)["training"] is False
    if op.kind == "native_group_norm":
        return _is_sized(op)
    if op.kind == "scaled_dot_product_attention":  # attends along the last dimension but one
        return all(len(program.shapes[number]) > 2 for number in op.reads[:3])
    return op.kind in _BY_ROW.split() or is_pointwise(op.kind) or is_view(op.run)


def _is_along_others(program: Program, op: Op) -> bool:
    """Whether an operation along some dimensions is along none that is the sample."""
    rank = len(program.shapes[op.reads[0]]) + (op.kind == "stack")
    if op.kind == "constant_pad_nd":
        return len(op.args[1]) < 2 * rank
    if op.kind not in _ALONG.split():
        return False
    given = arguments(op)
    named: int | list[int] | None = given.get("dim", given.get("dims"))
    dims = [named] if isinstance(named, int) else named or []
    return bool(dims) and all(dim % rank != 0 for dim in dims)


def _repeats_whole(program: Program, op: Op) -> bool:
    """Whether what is repeated for every sample is one whole value."""
    shape, made = program.shapes[op.reads[0]], program.shapes[op.out]
    return len(shape) < len(made) or shape[0] == 1
