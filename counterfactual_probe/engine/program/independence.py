"""Whether a program computes every sample from that sample alone: proved from its operations, not by trials.

A proof needs three things of each operation: every value it reads is either the same for all samples or has its rows
in the order of the samples, a fixed number of blocks of them, and all in one such order; so has every value it makes;
and it is of a kind that never looks along the first dimension, or only joins such blocks and takes them apart.
Whatever is of no such kind leaves the question open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from .operators import Affine, Convolution, EachSample, Edit, arguments
from .polyphase import PolyphaseConvolution
from .program import Op, Program, Size, leaves
from .vocabulary import CONCATENATIONS, RESHAPES, is_pointwise, is_view

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
    glu gather index_select chunk split split_with_sizes unbind unsafe_chunk unsafe_split unsafe_split_with_sizes
"""
# These take the first dimension apart into blocks, in order.
_PARTS = "slice chunk split split_with_sizes unsafe_chunk unsafe_split unsafe_split_with_sizes"
# These reshape their first argument to the shape of the second.
_LIKE_OTHERS = ("view_as", "reshape_as")
# Of no value that they read.
_FILLS = "zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty"


class Rows(NamedTuple):
    """How the rows of a value belong to samples: ``outer`` · samples · ``inner`` of them, the last running fastest.

    Guidance puts two halves into one batch: its values have two rows for each sample, ``outer`` being 2. Heads of
    attention that are folded into the batch are ``inner``. All rows of a value are ``alike`` if it is the same for
    every sample and half, as a time is; then any other order of them is as good.
    """

    outer: int
    inner: int
    alike: bool = False

    @property
    def each(self) -> int:
        """How many there are for each sample."""
        return self.outer * self.inner


ONE_EACH = Rows(1, 1)


def mixing_operation(program: Program) -> str | None:
    """The first operation that is not known to keep samples apart; None if it is proved that all do."""
    rows, mixing = rows_of_samples(program)
    if mixing is not None:
        return mixing
    of_image = rows.get(program.image)
    return None if of_image is not None and of_image.each == 1 else "a constant image"


def rows_of_samples(program: Program) -> tuple[dict[int, Rows], str | None]:
    """How the rows of values belong to samples, where that is proved; and the first operation that may mix samples."""
    fixed, mixing = set(program.constants), None
    rows = dict.fromkeys((*program.inputs, *(draw.op.out for draw in program.draws)), ONE_EACH)
    for op in program.ops:
        outs = [number for number in op.outs if number is not None]
        if fixed.issuperset(op.reads) and not _is_sized(op):
            fixed.update(outs)
            continue
        made = _made(program, op, rows) if rows.keys() | fixed >= set(op.reads) else None
        if made is None:
            mixing = mixing or op.kind
        else:
            rows.update(zip(outs, made, strict=True))
    return rows, mixing


def _made(program: Program, op: Op, rows: Mapping[int, Rows]) -> list[Rows] | None:
    """How the rows of what an operation makes belong to samples; None if it may look at other rows than a sample's."""
    each = [_each(program, number) for number in op.outs if number is not None]
    numbers = [count for count in each if count is not None]
    if len(numbers) < len(each):
        return None
    read = [rows[number] for number in op.reads if number in rows]
    if op.kind in _FILLS.split() or not read:
        return [Rows(count, 1, alike=True) for count in numbers] if _is_same_for_all(program, op) else None
    if op.kind in (*RESHAPES, *_LIKE_OTHERS):
        return _reshaped(rows.get(op.reads[0]), numbers[0])
    if _is_along_samples(program, op):
        return _joined(op, rows, numbers) if op.kind in CONCATENATIONS else _parts(op, read[0], numbers)
    return _in_step(program, op, rows, numbers)


def _in_step(program: Program, op: Op, rows: Mapping[int, Rows], numbers: Sequence[int]) -> list[Rows] | None:
    """The rows of an operation that works on each row alone are those of what it reads."""
    read = [rows[number] for number in op.reads if number in rows]
    common = _common(read)
    if common is None or set(numbers) != {common.each} or (_is_sized(op) and not _sizes_are_rows(op, common.each)):
        return None
    if not (_is_by_row(program, op, rows.keys()) or _is_along_others(program, op)):
        return None
    if isinstance(op.run, Edit) and common.alike:  # each hybrid may set it to something else
        return [ONE_EACH] if common.each == 1 else None
    return [common] * len(numbers)


def _is_same_for_all(program: Program, op: Op) -> bool:
    """Whether an operation fills its rows with what is the same for all, or repeats it."""
    if op.kind in _FILLS.split():
        return not isinstance(arguments(op).get("fill_value"), Size)
    return op.kind == "expand" or (op.kind == "repeat" and _repeats_whole(program, op))


def _common(read: Sequence[Rows]) -> Rows | None:
    """How the rows of several values belong to samples, if it is the same for all."""
    if len({rows.each for rows in read}) > 1:
        return None
    kinds = {rows for rows in read if not rows.alike}
    if len(kinds) > 1:
        return None
    return kinds.pop() if kinds else read[0]


def _reshaped(before: Rows | None, each: int) -> list[Rows] | None:
    """A sample's rows of one half stay together, in another number of rows."""
    if before is not None and before.alike and before.each == each:
        return [before]
    if before is None or each % before.outer or (before.alike and before.each > 1):
        return None
    return [Rows(before.outer, each // before.outer)]


def _is_along_samples(program: Program, op: Op) -> bool:
    """Whether an operation joins or takes apart whole blocks of rows."""
    if op.kind not in (*CONCATENATIONS, *_PARTS.split()):
        return False
    dim = arguments(op).get("dim", 0)
    return isinstance(dim, int) and dim % len(program.shapes[op.reads[0]]) == 0


def _joined(op: Op, rows: Mapping[int, Rows], each: Sequence[int]) -> list[Rows] | None:
    """Blocks of rows of all samples, one after the other."""
    if any(number not in rows for number in op.reads):
        return None
    read = [rows[number] for number in op.reads]
    inner = {part.inner for part in read if not part.alike} or {1}
    if len(inner) > 1 or any(part.each % min(inner) for part in read) or sum(part.each for part in read) != each[0]:
        return None
    return [Rows(each[0] // min(inner), min(inner))]


def _parts(op: Op, whole: Rows, each: Sequence[int]) -> list[Rows] | None:
    """Whole blocks of rows of all samples."""
    if any(count % whole.inner for count in each):
        return None
    if op.kind == "slice":
        given = arguments(op)
        start = given["start"] or 0
        first = start.each if isinstance(start, Size) and start.more == 0 else start
        if given["step"] != 1 or not (start == 0 or isinstance(start, Size)):
            return None
        if not isinstance(first, int) or first % whole.inner:
            return None
    elif sum(each) != whole.each:
        return None
    return [Rows(count // whole.inner, whole.inner, whole.alike) for count in each]


def _each(program: Program, number: int) -> int | None:
    """How many rows a value has for each sample; None if its shape is no such multiple."""
    first, *others = program.shapes[number] or (None,)
    regular = isinstance(first, Size) and first.more == 0 and not any(isinstance(size, Size) for size in others)
    return first.each if regular else None


def _is_sized(op: Op) -> bool:
    """Whether an argument depends on the number of samples."""
    return any(isinstance(leaf, Size) for leaf in leaves((op.args, dict(op.kwargs))))


def _sizes_are_rows(op: Op, each: int) -> bool:
    """Whether such an argument says only how many rows there are, so many for each sample."""
    if op.kind == "native_group_norm":
        return arguments(op)["N"] == Size(each, 0)  # type: ignore[no-any-return]
    return op.kind == "expand" or (op.kind == "slice" and arguments(op)["dim"] == 0)


def _is_by_row(program: Program, op: Op, by_sample: Collection[int]) -> bool:
    if isinstance(op.run, (Affine, Convolution, PolyphaseConvolution, Edit)):
        return True
    if isinstance(op.run, EachSample):  # what all samples share must be the same for every batch
        return not any(number in by_sample for number in op.reads[len(op.run.drops) :])
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
