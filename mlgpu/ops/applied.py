"""One application of a formula to tensors and numbers, on any device, of any shapes and dtypes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd.mode import mode
from mlgpu.cpu import runtime as cpu
from mlgpu.cpu.evaluate import evaluate
from mlgpu.cuda import evaluate as cuda_evaluate
from mlgpu.cuda import runtime as cuda
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.expr.lower import NUMBER, TENSOR, ZERO_DIM, Program
from mlgpu.op import Op, check_inputs, run
from mlgpu.ops.formula import Formula
from mlgpu.storage import address, may_share_memory
from mlgpu.tensor import Tensor

_NUMBERS = (bool, int, float, complex, np.number, np.bool_)

Evaluate = Callable[..., None]  # a program, its arguments and where the results go


class Elementwise(Op):
    """One application of a formula.  `slots` has, per argument, None for a tensor or the number."""

    program: Program | None = None  # where the arguments' dtypes were looked at already

    def __init__(self, formula: Formula, slots: tuple[Any, ...]) -> None:
        self.formula = formula
        self.slots = slots
        self.name = formula.name

    # --- forward ----------------------------------------------------------------------------

    def arguments(self, arrays: Any) -> list[Any]:
        """Arrays and numbers in the formula's order."""
        rest = iter(arrays)
        return [next(rest) if slot is None else slot for slot in self.slots]

    def forward(self, *arrays: Any) -> Any:
        arguments = self.arguments(arrays)
        program = self.program or self.formula.program(key_of(arguments))
        outs = self._empty(cpu, program, arguments)
        evaluate(program, arguments, outs, fresh=True)
        return outs[0] if len(outs) == 1 else tuple(outs)

    def forward_cuda(self, *arrays: Any) -> Any:
        program = self.program or self.formula.program(key_of(self.arguments(arrays)))
        return cuda_evaluate.results(
            program, arrays, self.slots,
            lambda: self._empty(cuda, program, self.arguments(arrays)))

    def _empty(self, engine: Any, program: Program, arguments: list[Any]) -> list[Any]:
        """Memory for the results."""
        return [empty_result(engine, arguments, uses, dtype) for uses, dtype in zip(
            self.formula.uses, program.output_dtypes, strict=True)]

    def forward_into(self, out: Any, *arrays: Any) -> None:
        self._compute_into(cpu, evaluate, out, arrays)

    def forward_into_cuda(self, out: Any, *arrays: Any) -> None:
        self._compute_into(cuda, cuda_evaluate.evaluate, out, arrays)

    def _compute_into(self, engine: Any, run: Evaluate, out: Any, arrays: Any) -> None:
        arguments = self.arguments(arrays)
        shapes, shape = [a.shape for a in arguments if _is_array(a)], out.shape
        try:
            fits = shapes.count(shape) == len(shapes) or np.broadcast_shapes(*shapes) == shape
        except ValueError:
            fits = False
        if not fits:
            listed = ", ".join(map(str, shapes))
            raise ShapeError(f"{self.name}_: operands of shapes {listed} do not broadcast to the "
                             f"tensor's {out.shape}")
        key = key_of(arguments)
        result = self.formula.program(key).output_dtypes[0]
        if not dtypes.can_cast(result, dtypes.from_numpy(out.dtype)):
            raise DTypeError(f"{self.name}_: the result is {result!r}, which cannot be written "
                             f"into {dtypes.from_numpy(out.dtype)!r}; use the out-of-place form")
        arguments = [engine.copy(a) if _is_array(a) and _clashes(a, out) else a for a in arguments]
        run(self.formula.program(key, out.dtype), arguments, [out])

    # --- backward ---------------------------------------------------------------------------

    @functools.cached_property
    def tensors(self) -> tuple[int, ...]:
        """Which of the arguments are tensors."""
        return tuple([p for p, slot in enumerate(self.slots) if slot is None])

    def _back(self) -> _Back:
        key = self.tensors, self.needs
        return self.formula.backs.get(key) or _Back(self.formula, *key)

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        back = self._back()
        self.saved_outputs = back.outputs  # type: ignore[misc]
        return back.inputs

    def backward(self, *grads: Tensor) -> tuple[Tensor | None, ...]:
        def source(s: int) -> Any:
            return self._source(s, grads, self.input, self.output)

        back = self._back()
        found = back.found
        results = apply(found.formula, list(map(source, found.sources))) if back.computes else ()
        return back.arranged(results if isinstance(results, tuple) else (results,), source,
                             lambda index: grads[0].new_zeros(self._inputs_meta[index][0]))

    def backward_cpu(self, *grads: Any) -> tuple[Any, ...]:
        return self._gradients(cpu, Elementwise.forward, grads)

    def backward_cuda(self, *grads: Any) -> tuple[Any, ...]:
        return self._gradients(cuda, Elementwise.forward_cuda, grads)

    def _gradients(self, engine: Any, forward: Callable[..., Any], grads: Any) -> tuple[Any, ...]:
        def source(s: int) -> Any:
            return self._source(s, grads, self.input_array, self.output_array)

        back = self._back()
        outs: Any = ()
        if back.computes:
            outs = forward(
                Elementwise(back.found.formula, tuple([
                    None if s is None else self.slots[s] for s in back.numbers])),
                *map(source, back.arrays))
        return back.arranged(outs if isinstance(outs, tuple) else (outs,), source,
                             lambda index: engine.zeros(self._inputs_meta[index][0],
                                                        grads[0].dtype))

    def _source(self, source: int, grads: Any, input_: Callable[[int], Any],
                output: Callable[[int], Any]) -> Any:
        beyond = source - self.formula.arity
        if beyond >= 0:
            count = len(self.formula.outputs)
            return output(beyond) if beyond < count else grads[beyond - count]
        number = self.slots[source]
        return input_(self.tensors.index(source)) if number is None else number


class _Back:
    """What the gradients of those tensors among the arguments that need one are computed from."""

    def __init__(self, formula: Formula, tensors: tuple[int, ...], needs: tuple[bool, ...]) -> None:
        wanted = dict(zip(tensors, needs, strict=True))
        arity = formula.arity
        self.found = found = formula.gradient(tuple([wanted.get(p, False) for p in range(arity)]))
        self.computes = bool(found.formula.outputs)
        self.outputs = tuple([i for i in range(len(formula.outputs)) if arity + i in found.needed])
        self.inputs = tuple([i for i, p in enumerate(tensors) if p in found.needed])
        # Sources that are arrays; and, for each, None or which of the arguments is the number.
        self.numbers = [s if s < arity and s not in wanted else None for s in found.sources]
        self.arrays = [s for s, n in zip(found.sources, self.numbers, strict=True) if n is None]
        self._results = [(need, found.results[p]) for p, need in wanted.items()]
        formula.backs[tensors, needs] = self

    def arranged(self, results: tuple[Any, ...], source: Callable[[int], Any],
                 zeros: Callable[[int], Any]) -> tuple[Any, ...]:
        """One gradient per tensor; zeros where the function is flat, as for floor."""
        arranged: list[Any] = []
        for need, result in self._results:
            if not need:
                arranged.append(None)
            elif result is None:
                arranged.append(zeros(len(arranged)))
            else:
                arranged.append(results[result] if result >= 0 else source(~result))
        return tuple(arranged)


def _is_array(value: Any) -> bool:
    return not isinstance(value, _NUMBERS)


def empty_result(engine: Any, arguments: list[Any], uses: frozenset[int],
                 dtype: dtypes.dtype) -> Any:
    """Memory for a result of those arguments, in their shape and order."""
    arrays = [a for i, a in enumerate(arguments) if i in uses and _is_array(a)]
    first = arrays[0] if arrays else None
    if first is not None:
        shape = first.shape
        for a in arrays:
            if a.shape != shape and a.ndim:
                break
        else:
            if first.flags.c_contiguous:
                return engine.empty(shape, dtype.numpy)
            return engine.empty_like(first, dtype.numpy, [a for a in arrays[1:] if a.ndim])
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    for a in arrays:
        if a.shape == shape:  # the result keeps the memory order of an operand of its shape
            return engine.empty_like(a, dtype.numpy)
    return engine.empty(shape, dtype.numpy)


def key_of(arguments: list[Any]) -> tuple[Any, ...]:
    """What a program depends on: dtypes and weights in promotion."""
    return tuple([(dtypes.scalar_dtype(a), NUMBER) if isinstance(a, _NUMBERS)
                  else (a.dtype, TENSOR if a.ndim else ZERO_DIM) for a in arguments])


def _clashes(a: Any, out: Any) -> bool:
    """Whether writing `out` piece by piece could change what is still to be read from `a`."""
    if a is out or not may_share_memory(a, out):
        return False
    return bool(a.shape != out.shape or a.strides != out.strides or a.dtype != out.dtype
                or address(a) != address(out))


def apply(formula: Formula, args: Any) -> Any:
    """Run a formula on tensors and numbers.

    Outputs of different shapes are computed apart: one pass runs over one shape, and the gradient
    of a smaller output must not be repeated along dimensions that it has not.
    """
    if mode.autocast is not None:
        args = mode.autocast.elementwise(formula.name, args)
    tensors: list[Tensor] = []
    slots: list[Any] = []
    key: list[Any] = [dtypes.get_default_dtype()]
    for argument in args:
        if isinstance(argument, Tensor):
            tensors.append(argument)
            slots.append(None)
            array = argument._array
            key += array.dtype, array.shape
        else:
            slots.append(argument)
            key.append(type(argument))
    op = Elementwise(formula, tuple(slots))
    known = tuple(key)
    call = formula.calls.get(known)
    if call is None:
        call = _decided(op, args, tensors)
        if len(formula.calls) >= 1024:
            formula.calls.clear()
        formula.calls[known] = call
    op.program, flat, parted, op.tensors = call
    if flat:
        op.nondifferentiable_outputs = flat
        if len(flat) == len(op.program.output_dtypes):
            op.differentiable = False  # type: ignore[misc]
    if parted:
        return tuple(apply(each, args) for each in formula.single())
    return run(op, *tensors)


def _decided(op: Elementwise, args: Any, tensors: list[Tensor]
             ) -> tuple[Program, tuple[int, ...], bool, tuple[int, ...]]:
    """What follows from dtypes and shapes: the program, the outputs without a gradient, whether
    outputs have different shapes, and which arguments are tensors.

    Raises where the arguments do not go together.
    """
    formula = op.formula
    if len(tensors) < len(args):
        _check_numbers(formula.name, args, tensors)
    for tensor in tensors:
        if tensor._storage.released:
            check_inputs(op, tensors)  # which raises
    program = formula.program(tuple([
        (a._array.dtype, TENSOR if a._array.ndim else ZERO_DIM) if isinstance(a, Tensor)
        else (dtypes.scalar_dtype(a), NUMBER) for a in args]))
    try:
        np.broadcast_shapes(*[a._array.shape for a in tensors])
    except ValueError:
        listed = ", ".join(str(tuple(a.shape)) for a in tensors)
        raise ShapeError(f"{op.name}: shapes {listed} do not broadcast") from None
    shapes = {np.broadcast_shapes(*[
        a.shape for i, a in enumerate(args) if i in uses and isinstance(a, Tensor)])
        for uses in formula.uses}
    # Results that are bool or integers have no gradient.
    flat = tuple([i for i, d in enumerate(program.output_dtypes)
                  if not (d.is_floating_point or d.is_complex)])
    return program, flat, len(shapes) > 1, op.tensors


def _check_numbers(name: str, args: Any, tensors: list[Tensor]) -> None:
    for position, value in enumerate(args):
        if not isinstance(value, (Tensor, *_NUMBERS)):
            raise TypeError(f"{name}: argument {position} must be a Tensor or a number, got "
                            f"{type(value).__name__}")
    if not tensors:
        raise TypeError(f"{name}: expected at least one Tensor")
