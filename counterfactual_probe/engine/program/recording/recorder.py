"""Record the tensor operations of a generator's forward, as a :class:`Program`.

The forward is run twice, on two samples and on three others. What differs between the two must be
the number of samples and nothing else: a forward that looks at values, or leaves torch, is not
recorded, and is run as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ....base.errors import ProbeError
from ....generator import latents as lt
from ....generator.adapter import GeneratorAdapter
from ....generator.latents import Latents
from ....generator.layers import Address, Site, entries
from ....generator.state.randomness import random_states
from ...interception import Invocation, NotReplayable, Observer, intercepted, storage_of
from ..operators import EachSample
from ..program import Draw, Op, Program, Ref, Size, leaves, map_leaves
from ..vocabulary import arguments_of, is_pointwise, makes_new_memory
from .aliasing import Aliases
from .loops import rolled
from .noise import draw_of, is_mask
from .reads import OutOfTorch, has_shape_of_values

_FEW, _MORE = 2, 3


# Operations that fill a new tensor of the form of another with one value; None: with an argument.
_FILLS = {"new_zeros": 0, "zeros_like": 0, "new_ones": 1, "ones_like": 1, "new_full": None, "full_like": None}


class NotRecordable(NotReplayable):
    """The forward is not a fixed list of operations on its latents."""


def record(generator: GeneratorAdapter, sites: Sequence[Site] = ()) -> Program:
    """The generator's forward as a program, for any number of samples. Call it inside a session.

    Layers among ``sites`` that are inputs get values of their own, which other readers of the same tensor do not see.
    """
    if not (generator.batchable or generator.draws_noise):
        raise NotRecordable("the samples of a batch influence one another")
    try:
        # In as large operations as the forward calls; one that computes gradients itself has them only in parts.
        try:
            with torch._C._AutoDispatchBelowAutograd():
                few, more = _recordings(generator, sites)
        except ProbeError as error:
            if "grad" not in str(error.__cause__):
                raise
            few, more = _recordings(generator, sites)
    except ProbeError as error:
        # A refusal raised inside a forward surfaces as a failure of that forward.
        raise error.__cause__ if isinstance(error.__cause__, NotReplayable) else error from None
    try:
        program = _unified_program(few, more)
    except NotRecordable:
        if few.draws:
            raise
        program = _unified_program(rolled(few, _FEW), rolled(more, _MORE))
    if generator.draws_noise and not program.draws:
        raise NotRecordable("the forward draws noise outside torch's operations")
    if not all(program.per_sample(draw.op.out) for draw in program.draws):
        raise NotRecordable("the forward draws noise that is not one for each sample")
    return program


def _recordings(generator: GeneratorAdapter, sites: Sequence[Site]) -> tuple[Program, Program]:
    few = _Recorder(generator, generator.example, _FEW, sites).program
    return few, _Recorder(generator, generator.sample(_MORE, seed=1), _MORE, sites).program


def _unified_program(few: Program, more: Program) -> Program:
    """The program of which these are the recordings, of two samples and of three."""
    counts = [(one.layers, one.image, len(one.ops), len(one.draws)) for one in (few, more)]
    if counts[0] != counts[1]:
        raise NotRecordable("the forward takes another path for another batch")
    constants, repeated = dict(few.constants), dict[int, Tensor]()
    for number, value in few.constants.items():
        other = more.constants.get(number)
        if other is value or (other is not None and _equal(value, other)):
            continue
        if other is None or (row := _row_of(value, other)) is None:
            raise NotRecordable("a value that depends on the latents does not come from torch operations on them")
        repeated[number] = row
        del constants[number]
    shapes = {number: _unified(shape, more.shapes[number]) for number, shape in few.shapes.items()}
    made = []
    for number, row in repeated.items():
        constants[len(shapes)] = row
        made.append(Op(torch.ops.aten.expand.default, (Ref(len(shapes)), list(shapes[number])), {}, (number,)))
        shapes[len(shapes)] = tuple(row.shape)
    ops = [*made, *(_unified_op(one, two) for one, two in zip(few.ops, more.ops, strict=True))]
    layers = {address: (number, position + len(made)) for address, (number, position) in few.layers.items()}
    draws = [Draw(_unified_op(one.op, two.op), one.blank) for one, two in zip(few.draws, more.draws, strict=True)]
    return Program(ops, few.inputs, few.image, shapes, constants, layers, draws)


def _row_of(few: Tensor, more: Tensor) -> Tensor | None:
    """The row that a value of two samples and one of three repeat, as ``torch.tensor([1000] * n)`` does."""
    if not few.dim() or few.shape[1:] != more.shape[1:] or few.dtype != more.dtype:
        return None
    if len(few) * _MORE != len(more) * _FEW:
        return None
    row = few[:1].clone()
    return row if torch.equal(row.expand_as(few), few) and torch.equal(row.expand_as(more), more) else None


def in_order(latents: Latents) -> list[Tensor]:
    """The latents' tensors, in an order that does not depend on that of a dict."""
    return [value for _, value in sorted(lt.named_tensors(latents), key=lambda item: item[0])]


class _Recorder(Observer):  # type: ignore[no-untyped-call]
    """One recorded forward."""

    def __init__(self, generator: GeneratorAdapter, latents: Latents, samples: int, sites: Sequence[Site]) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.draws: list[Draw] = []
        self._refused: NotReplayable | None = None
        self._noisy = generator.module if generator.draws_noise else None
        self.constants: dict[int, Tensor] = {}
        self.shapes: dict[int, tuple[Any, ...]] = {}
        self.layers: dict[Address, tuple[int, int]] = {}
        self._inputs_of = [site for site in sites if site.address.is_input]
        self._numbers: Any = WeakIdKeyDictionary()  # tensors that are alive -> the value they hold now
        self._aliases = Aliases(self._numbers, self._emit)
        self.inputs = tuple(self._new(value) for value in in_order(latents))
        self._moving = set(self.inputs)  # values that depend on the latents, or on noise

        def handler(name: str, number: int, run: Invocation) -> Any:
            for site in self._inputs_of:
                activation = site.read(run.arguments) if site.address.made_by == (name, number) else None
                if activation is not None:
                    activation = activation.clone()
                    run.arguments = site.replaced(run.arguments, activation)
                    self._hand_on(site.address, activation)
            output = run()
            for entry, value in entries(output):
                self._hand_on(Address(name, number, entry), value)
            return output

        given = {id(value) for value in in_order(latents)}  # the module gets copies: whoever reads these is not it

        def matters(value: Tensor) -> bool:
            return self._numbers.get(value) in self._moving and id(value) not in given

        reads = OutOfTorch(matters, self._refuse)
        with intercepted(generator.submodules, handler), reads, self:
            # Different noise in the two recordings, so that none looks like a constant.
            images = generator.forward(latents, noise=range(samples, 2 * samples))
        if self._refused is not None:  # although the forward went on
            raise self._refused
        if images not in self._numbers:
            raise NotRecordable("the image does not come from torch operations")
        self.image: int = self._numbers[images]

    def _hand_on(self, address: Address, activation: Tensor) -> None:
        if activation in self._numbers:
            self.layers[address] = (self._numbers[activation], len(self.ops))

    @property
    def program(self) -> Program:
        """What was recorded, with sizes for so many samples."""
        return Program(self.ops, self.inputs, self.image, self.shapes, self.constants, self.layers, self.draws)

    def _refuse(self, reason: str) -> None:
        self._refused = NotRecordable(reason)
        raise self._refused

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._record(func, args, kwargs or {})
        except NotReplayable as refused:
            self._refused = refused
            raise

    def _record(self, func: Any, args: Any, kwargs: Any) -> Any:
        written = _written(func, args)
        op_args, op_kwargs = map_leaves(list(args), self._named), map_leaves(kwargs, self._named)
        if written is not None:
            self._require_alone(func, written)
        before = self._random_states(func)
        result = func(*args, **kwargs)
        if before is not None and self._random_states(func) != before:
            self._draw(func, op_args, op_kwargs, result)
            return result
        read = [leaf.number for leaf in leaves((op_args, op_kwargs)) if isinstance(leaf, Ref)]
        if not read and not any(isinstance(leaf, Tensor) for leaf in leaves(result)):
            return result  # a profiler's mark, say: nothing that images are made of
        moves = not self._moving.isdisjoint(read)
        if any(isinstance(leaf, (bool, int, float, complex)) for leaf in leaves(result)):
            # Such as .item(): what follows may depend on the value in any way. One that is independent of the latents,
            # as of a table of noise levels, is the same in every run.
            if moves or isinstance(result, (tuple, list)):
                raise NotRecordable(f"the forward reads a value with {func}")
            return result
        if written is not None:
            self._write(func, written, args, kwargs, (op_args, op_kwargs))
            return result
        if func.overloadpacket.__name__ in _FILLS and type(result) is Tensor and result.layout is torch.strided:
            self._emit_fill(func, args, kwargs, result)
            return result
        if moves and has_shape_of_values(func, args):
            raise NotRecordable(f"the forward makes a tensor whose shape depends on values, with {func}")
        outs = tuple(self._new(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves(result))
        if moves:
            self._moving.update(number for number in outs if number is not None)
        elementwise, shares = _is_elementwise(func, args, kwargs, result), _share_memory(result, (args, kwargs))
        new_memory = makes_new_memory(func) and not shares
        self.ops.append(Op(func, tuple(op_args), op_kwargs, outs, isinstance(result, Tensor), elementwise, new_memory))
        if shares and not kwargs:
            self._note_views(func, args, result)
        return result

    def _write(
        self, func: Any, written: Tensor, args: Any, kwargs: Any, by_number: tuple[list[Any], dict[str, Any]]
    ) -> None:
        """A new value of a tensor that is changed in place, and of all that shares its memory."""
        op_args, op_kwargs = by_number
        run, shape = _functional(func), tuple(written.shape)
        copies = run is torch.ops.aten.copy.default
        others = [leaf for leaf in leaves((list(args[1:]), kwargs)) if isinstance(leaf, Tensor)]
        if copies and (tuple(others[0].shape), others[0].dtype) == (shape, written.dtype):
            number = op_args[1].number  # all of it is copied, so the value is the other's
        else:
            number = self._emit(run, op_args, shape, op_kwargs, _is_elementwise(func, args, kwargs, written))
            if not copies and any(other.dtype != written.dtype for other in others):  # the type stays
                to_type = torch.ops.aten._to_copy.default
                number = self._emit(to_type, [Ref(number)], shape, {"dtype": written.dtype})
        self._numbers[written] = number
        self._aliases.write(written)

    def _emit(
        self,
        run: Any,
        args: Sequence[Any],
        shape: tuple[int, ...],
        kwargs: dict[str, Any] | None = None,
        elementwise: bool = False,
    ) -> int:
        """Add an operation that makes one value of this shape."""
        number = len(self.shapes)
        self.shapes[number] = shape
        op = Op(run, tuple(args), kwargs or {}, (number,), elementwise=elementwise, new_memory=makes_new_memory(run))
        if not self._moving.isdisjoint(op.reads):
            self._moving.add(number)
        self.ops.append(op)
        return number

    def _emit_fill(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> None:
        """A new tensor of one value reads nothing, though it has the form of another that may depend on the latents."""
        fill = _FILLS[func.overloadpacket.__name__]
        if fill is None:
            fill = arguments_of(func, args, kwargs)["fill_value"]
        like = {"dtype": result.dtype, "device": result.device}
        self._numbers[result] = self._emit(
            torch.ops.aten.full.default, [list(result.shape), fill], tuple(result.shape), like
        )

    def _note_views(self, func: Any, args: Any, result: Any) -> None:
        for index, leaf in enumerate(leaves(result)):
            if isinstance(leaf, Tensor) and leaf is not args[0] and isinstance(args[0], Tensor):
                self._aliases.note(func, args, leaf, index)

    def _random_states(self, func: Any) -> list[bytes] | None:
        if self._noisy is None or torch.Tag.nondeterministic_seeded not in func.tags:
            return None
        return random_states(self._noisy)

    def _draw(self, func: Any, args: list[Any], kwargs: dict[str, Any], result: Tensor) -> None:
        """Noise is a value without an operation; a product with noise gets one."""
        number = self._new(result)
        self._moving.add(number)
        self.draws.append(draw_of(func, args, kwargs, number, result))
        if is_mask(func):
            made = self._new(result)
            self._moving.add(made)
            self.ops.append(Op(torch.ops.aten.mul.Tensor, (args[0], Ref(number)), {}, (made,)))

    def _named(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf not in self._numbers:
            self.constants[self._new(leaf)] = leaf
        return Ref(self._numbers[leaf])

    def _new(self, value: Tensor) -> int:
        number = len(self.shapes)
        self.shapes[number] = tuple(value.shape)
        self._numbers[value] = number
        return number

    def _require_alone(self, func: Any, written: Tensor) -> None:
        """Memory that is written in place must be shared by known views only, so that they can be updated."""
        place = storage_of(written)
        if place is None:
            raise NotRecordable(f"{func} changes a {type(written).__name__}, whose memory is not known")
        for other in list(self._numbers):
            if other is written or not other.numel() or storage_of(other) != place:
                continue
            if not self._aliases.are_related(other, written):
                raise NotRecordable(f"{func} changes memory that several tensors share in an unknown way")
        if self._aliases.memory_of(written) in self.constants:
            raise NotRecordable(f"{func} changes a tensor that was there before the forward")


def _is_elementwise(func: Any, args: Any, kwargs: Any, result: Any) -> bool:
    """Whether each element of the result is a function of the same element of the first argument alone, of its type."""
    tensors = [leaf for leaf in leaves((list(args), kwargs)) if isinstance(leaf, Tensor)]
    if not isinstance(result, Tensor) or len(tensors) != 1 or tensors[0] is not args[0]:
        return False
    pointwise = torch.Tag.pointwise in func.tags or is_pointwise(func.overloadpacket.__name__.removesuffix("_"))
    return pointwise and (result.shape, result.dtype) == (args[0].shape, args[0].dtype)


def _share_memory(result: Any, given: Any) -> bool:
    """Whether results share memory with arguments, as dropout's in eval mode does although its schema denies it."""
    places = {storage_of(leaf) for leaf in leaves(given) if isinstance(leaf, Tensor)}
    return any(storage_of(leaf) in places | {None} for leaf in leaves(result) if isinstance(leaf, Tensor))


def _written(func: Any, args: Any) -> Tensor | None:
    """The tensor that an in-place operation writes, if the operation has a functional counterpart."""
    if not func._schema.is_mutable:
        return None
    changed = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if func._schema.arguments[0].name in changed and func._schema.name.endswith("_") and len(changed) == 1:
        return args[0]  # type: ignore[no-any-return]
    raise NotRecordable(f"{func} writes into its arguments")


def _functional(func: Any) -> Any:
    """relu for relu_, and so on."""
    namespace, name = func._schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    overload = getattr(packet, func._overloadname, None)
    if overload is None:
        raise NotRecordable(f"{func} has no counterpart that leaves its argument as it is")
    return overload


def _unified(one: Any, two: Any) -> Any:
    """What the recordings of two and three samples agree on: equal values, or integers linear in their number."""
    if isinstance(one, (list, tuple)) and not isinstance(one, (Ref, Size)):
        if type(one) is not type(two) or len(one) != len(two):
            raise NotRecordable("an operation takes other arguments for another batch")
        return type(one)([_unified(a, b) for a, b in zip(one, two, strict=True)])
    if isinstance(one, dict):
        if not isinstance(two, dict) or one.keys() != two.keys():
            raise NotRecordable("an operation takes other arguments for another batch")
        return {key: _unified(item, two[key]) for key, item in one.items()}
    # A NaN or a generator would not be equal either; such operations run as they are.
    if type(one) is type(two) and _equal(one, two):
        return one
    if type(one) is int and type(two) is int:
        each = (two - one) // (_MORE - _FEW)
        return Size(each, one - each * _FEW)
    raise NotRecordable("an operation takes other arguments for another batch")


def _unified_op(one: Op, two: Op) -> Op:
    if not _is_one_operation(one.run, two.run) or one.outs != two.outs or one.single != two.single:
        raise NotRecordable("the forward takes another path for another batch")
    args, kwargs = _unified(one.args, two.args), _unified(dict(one.kwargs), dict(two.kwargs))
    elementwise, new_memory = one.elementwise and two.elementwise, one.new_memory and two.new_memory
    return Op(one.run, args, kwargs, one.outs, one.single, elementwise, new_memory)


def _is_one_operation(one: Any, two: Any) -> bool:
    return one is two or (isinstance(one, EachSample) and _equal(one, two))


def _equal(one: Any, two: Any) -> bool:
    """Whether two arguments are the same; what cannot be compared, such as packed weights, is not."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape == two.shape and one.dtype == two.dtype and bool(torch.equal(one, two))
    try:
        return one is two or bool(one == two)
    except Exception as error:
        raise NotRecordable(f"an operation takes a {type(one).__name__}, which cannot be compared") from error
