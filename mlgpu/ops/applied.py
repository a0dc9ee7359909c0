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
from mlgpu.ops.formula import Formula, GradientFormula
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
        return self._compute(cpu, evaluate, arrays)

    def forward_cuda(self, *arrays: Any) -> Any:
        return self._compute(cuda, cuda_evaluate.evaluate, arrays)

    def _compute(self, engine: Any, run: Evaluate, arrays: Any) -> Any:
        arguments = self.arguments(arrays)
        program = self.program or self.formula.program(key_of(arguments))
        outs = [empty_result(engine, arguments, uses, dtype) for uses, dtype in zip(
            self.formula.uses, program.output_dtypes, strict=True)]
        run(program, arguments, outs)
        return outs[0] if len(outs) == 1 else tuple(outs)

    def forward_into(self, out: Any, *arrays: Any) -> None:
        self._compute_into(cpu, evaluate, out, arrays)

    def forward_into_cuda(self, out: Any, *arrays: Any) -> None:
        self._compute_into(cuda, cuda_evaluate.evaluate, out, arrays)

    def _compute_into(self, engine: Any, run: Evaluate, out: Any, arrays: Any) -> None:
        arguments = self.arguments(arrays)
        shapes = [a.shape for a in arguments if _is_array(a)]
        try:
            fits = np.broadcast_shapes(*shapes) == out.shape
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

    def _gradient(self) -> GradientFormula:
        rest = iter(self.needs)
        return self.formula.gradient(tuple(slot is None and next(rest) for slot in self.slots))

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        needed = self._gradient().needed
        arity = self.formula.arity
        self.saved_outputs = tuple(i for i in range(len(self.formula.outputs))  # type: ignore[misc]
                                   if arity + i in needed)
        tensors = [p for p, slot in enumerate(self.slots) if slot is None]
        return tuple(i for i, p in enumerate(tensors) if p in needed)

    def backward(self, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found = self._gradient()
        sources = [self._source(s, grads, self.input, self.output) for s in found.sources]
        results = apply(found.formula, sources) if found.formula.outputs else ()
        return self._arranged(found, results if isinstance(results, tuple) else (results,),
                              lambda s: self._source(s, grads, self.input, self.output),
                              lambda shape: grads[0].new_zeros(shape))

    def backward_cpu(self, *grads: Any) -> tuple[Any, ...]:
        return self._gradients(cpu, evaluate, grads)

    def backward_cuda(self, *grads: Any) -> tuple[Any, ...]:
        return self._gradients(cuda, cuda_evaluate.evaluate, grads)

    def _gradients(self, engine: Any, run: Evaluate, grads: Any) -> tuple[Any, ...]:
        found = self._gradient()

        def source(s: int) -> Any:
            return self._source(s, grads, self.input_array, self.output_array)

        outs: tuple[Any, ...] = ()
        if found.formula.outputs:
            arguments = [source(s) for s in found.sources]
            inner = Elementwise(found.formula, tuple(
                None if _is_array(a) else a for a in arguments))
            results = inner._compute(engine, run, [a for a in arguments if _is_array(a)])
            outs = results if isinstance(results, tuple) else (results,)
        return self._arranged(found, outs, source,
                              lambda shape: engine.zeros(shape, grads[0].dtype))

    def _source(self, source: int, grads: Any, input_: Callable[[int], Any],
                output: Callable[[int], Any]) -> Any:
        arity = self.formula.arity
        if source >= arity + len(self.formula.outputs):
            return grads[source - arity - len(self.formula.outputs)]
        if source >= arity:
            return output(source - arity)
        if self.slots[source] is not None:
            return self.slots[source]
        return input_(sum(slot is None for slot in self.slots[:source]))

    def _arranged(self, found: GradientFormula, results: tuple[Any, ...],
                  source: Callable[[int], Any], zeros: Callable[[Any], Any]) -> tuple[Any, ...]:
        """One gradient per tensor; zeros where the function is flat, as for floor."""
        arranged: list[Any] = []
        for index, position in enumerate(p for p, s in enumerate(self.slots) if s is None):
            result = found.results[position]
            if not self.needs[index]:
                arranged.append(None)
            elif result is None:
                arranged.append(zeros(self._inputs_meta[index][0]))
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
    return tuple([(a.dtype, TENSOR if a.ndim else ZERO_DIM) if _is_array(a)
                  else (dtypes.scalar_dtype(a), NUMBER) for a in arguments])


def _clashes(a: Any, out: Any) -> bool:
    """Whether writing `out` piece by piece could change what is still to be read from `a`."""
    if not may_share_memory(a, out):
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
    tensors = [a for a in args if isinstance(a, Tensor)]
    whole = len(tensors) == len(args)
    if not whole:
        _check_numbers(formula.name, args, tensors)
    op = Elementwise(formula, (None,) * len(args) if whole else tuple(
        [None if isinstance(a, Tensor) else a for a in args]))
    for tensor in tensors:
        if tensor._storage.released:
            check_inputs(op, tensors)  # which raises
    _classify(op, args)
    if len(formula.outputs) > 1:
        shapes = {np.broadcast_shapes(*[
            a.shape for i, a in enumerate(args) if i in uses and isinstance(a, Tensor)])
            for uses in formula.uses}
        if len(shapes) > 1:
            return tuple(apply(each, args) for each in formula.single())
    return run(op, *tensors)


def _check_numbers(name: str, args: Any, tensors: list[Tensor]) -> None:
    for position, value in enumerate(args):
        if not isinstance(value, (Tensor, *_NUMBERS)):
            raise TypeError(f"{name}: argument {position} must be a Tensor or a number, got "
                            f"{type(value).__name__}")
    if not tensors:
        raise TypeError(f"{name}: expected at least one Tensor")


@functools.lru_cache(maxsize=4096)
def _flat(program: Program) -> tuple[int, ...]:
    """The outputs without a gradient."""
    return tuple(i for i, d in enumerate(program.output_dtypes)
                 if not (d.is_floating_point or d.is_complex))


def _classify(op: Elementwise, args: Any) -> None:
    """Results that are bool or integers have no gradient; shapes must broadcast."""
    key: list[Any] = []
    shapes = set()
    for argument in args:
        if isinstance(argument, Tensor):
            array = argument._array
            shape = array.shape
            key.append((array.dtype, TENSOR if shape else ZERO_DIM))
            shapes.add(shape)
        else:
            key.append((dtypes.scalar_dtype(argument), NUMBER))
    op.program = program = op.formula.program(tuple(key))
    flat = _flat(program)
    if flat:
        op.nondifferentiable_outputs = flat
        if len(flat) == len(program.output_dtypes):
            op.differentiable = False  # type: ignore[misc]
    if len(shapes) > 1:
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            listed = ", ".join(str(tuple(a.shape)) for a in args if isinstance(a, Tensor))
            raise ShapeError(f"{op.name}: shapes {listed} do not broadcast") from None
