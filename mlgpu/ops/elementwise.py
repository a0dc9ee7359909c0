"""Elementwise operations from one line of maths: `@elementwise`, and `fuse` for users.

A decorated function is traced once into an expression.  Called with tensors it runs as one
operation; called with symbols (inside another elementwise function) it becomes part of that one.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.cpu.evaluate import evaluate
from mlgpu.cuda import runtime as cuda
from mlgpu.cuda.evaluate import evaluate as cuda_evaluate
from mlgpu.errors import DTypeError, GraphError, ShapeError
from mlgpu.expr.derivative import gradient
from mlgpu.expr.graph import Expr, arg, as_expr, topological, trace
from mlgpu.expr.lower import NUMBER, TENSOR, ZERO_DIM, Operand, Program, lower
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, check_inputs, run
from mlgpu.storage import address, may_share_memory
from mlgpu.tensor import Tensor

__all__ = ["elementwise", "fuse", "inplace"]

_NUMBERS = (bool, int, float, complex, np.number, np.bool_)

Evaluate = Callable[..., None]  # a program, its arguments and where the results go


class Formula:
    """An expression graph with a name: lowered per dtype signature, differentiated per need.

    Nothing is computed with less precision than argument `like` has, if there is one.
    """

    def __init__(self, name: str, outputs: tuple[Expr, ...], arity: int,
                 like: int | None = None) -> None:
        self.name, self.outputs, self.arity, self.like = name, outputs, arity, like
        self.uses = tuple(frozenset(n.attr for n in topological((o,)) if n.op == "arg")
                          for o in outputs)
        self._programs: dict[Any, Program] = {}
        self._single: list[Formula] = []
        self._gradients: dict[tuple[bool, ...], GradientFormula] = {}
        self._adjoints: tuple[Expr | None, ...] | None = None

    def program(self, key: tuple[Any, ...], into: Any = None) -> Program:
        """The steps for arguments of these (dtype, weight) pairs; `into` is an output's dtype."""
        cached = self._programs.get((key, into, dtypes.get_default_dtype()))
        if cached is None:
            operands = [Operand(d if w == NUMBER else dtypes.from_numpy(d), w) for d, w in key]
            wanted = None if into is None else [dtypes.from_numpy(into)]
            floating = None if self.like is None else operands[self.like].dtype.to_real()
            cached = lower(self.name, self.outputs, operands, wanted, floating)
            self._programs[key, into, dtypes.get_default_dtype()] = cached
        return cached

    def single(self) -> list[Formula]:
        """One formula for each output."""
        if not self._single:
            self._single = [Formula(self.name, (o,), self.arity, self.like)
                            for o in self.outputs]
        return self._single

    def gradient(self, needs: tuple[bool, ...]) -> GradientFormula:
        """The gradients of the arguments that need one, as a formula of their own."""
        found = self._gradients.get(needs)
        if found is None:
            if self._adjoints is None:
                self._adjoints = gradient(self.outputs, self.arity)
            found = self._gradients[needs] = GradientFormula(self, self._adjoints, needs)
        return found


class GradientFormula:
    """Gradients of some arguments: what they are computed from, and how.

    `sources` names the arguments of `formula`: positions of the function's arguments, then (from
    `arity` on) its outputs, then the outputs' gradients.  `results` has, per argument of the
    function, the number of formula's output, ~source for one that passes through, or None.
    """

    def __init__(self, parent: Formula, adjoints: tuple[Expr | None, ...],
                 needs: tuple[bool, ...]) -> None:
        wanted = [a if need else None for a, need in zip(adjoints, needs, strict=True)]
        computed = tuple(a for a in wanted if a is not None and a.op != "arg")
        through = {a.attr for a in wanted if a is not None and a.op == "arg"}
        used = {n.attr for n in topological(computed) if n.op == "arg"}
        self.sources = sorted(used)
        self.needed = used | through
        place = {source: i for i, source in enumerate(self.sources)}
        first = parent.arity + len(parent.outputs)
        like = next((place[s] for s in self.sources if s >= first), None)
        self.formula = Formula(f"{parent.name} gradient", _renumbered(computed, place), len(place),
                               like)
        self.results: list[int | None] = []
        count = 0
        for a in wanted:
            if a is None:
                self.results.append(None)
            elif a.op == "arg":
                self.results.append(~a.attr)
            else:
                self.results.append(count)
                count += 1


def _renumbered(outputs: tuple[Expr, ...], place: dict[int, int]) -> tuple[Expr, ...]:
    memo: dict[int, Expr] = {}
    for node in topological(outputs):
        if node.op == "arg":
            memo[id(node)] = arg(place[node.attr])
        else:
            memo[id(node)] = Expr(node.op, tuple(memo[id(a)] for a in node.args), node.attr)
    return tuple(memo[id(o)] for o in outputs)


class Elementwise(Op):
    """One application of a formula.  `slots` has, per argument, None for a tensor or the number."""

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
        return self._compute(cuda, cuda_evaluate, arrays)

    def _compute(self, engine: Any, run: Evaluate, arrays: Any) -> Any:
        arguments = self.arguments(arrays)
        program = self.formula.program(_key(arguments))
        outs = [_empty(engine, arguments, uses, dtype) for uses, dtype in zip(
            self.formula.uses, program.output_dtypes, strict=True)]
        run(program, arguments, outs)
        return outs[0] if len(outs) == 1 else tuple(outs)

    def forward_into(self, out: Any, *arrays: Any) -> None:
        self._compute_into(cpu, evaluate, out, arrays)

    def forward_into_cuda(self, out: Any, *arrays: Any) -> None:
        self._compute_into(cuda, cuda_evaluate, out, arrays)

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
        key = _key(arguments)
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
        return self._gradients(cuda, cuda_evaluate, grads)

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


def _empty(engine: Any, arguments: list[Any], uses: frozenset[int], dtype: dtypes.dtype) -> Any:
    arrays = [a for i, a in enumerate(arguments) if i in uses and _is_array(a)]
    first = arrays[0] if arrays else None
    if first is not None and all(a.shape == first.shape or a.ndim == 0 for a in arrays):
        return engine.empty_like(first, dtype.numpy, [a for a in arrays[1:] if a.ndim])
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    for a in arrays:
        if a.shape == shape:  # the result keeps the memory order of an operand of its shape
            return engine.empty_like(a, dtype.numpy)
    return engine.empty(shape, dtype.numpy)


def _key(arguments: list[Any]) -> tuple[Any, ...]:
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
    op = Elementwise(formula, tuple(None if isinstance(a, Tensor) else a for a in args))
    tensors = [a for a in args if isinstance(a, Tensor)]
    if len(tensors) != len(args):
        _check_numbers(formula.name, args, tensors)
    if any(t._storage.released for t in tensors):
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


def _classify(op: Elementwise, args: Any) -> None:
    """Results that are bool or integers have no gradient; shapes must broadcast."""
    arrays = [a._array if isinstance(a, Tensor) else a for a in args]
    program = op.formula.program(_key(arrays))
    flat = tuple(i for i, d in enumerate(program.output_dtypes)
                 if not (d.is_floating_point or d.is_complex))
    if flat:
        op.nondifferentiable_outputs = flat
        if len(flat) == len(program.output_dtypes):
            op.differentiable = False  # type: ignore[misc]
    shapes = {a.shape for a in arrays if hasattr(a, "shape")}
    if len(shapes) > 1:
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            listed = ", ".join(str(tuple(a.shape)) for a in args if isinstance(a, Tensor))
            raise ShapeError(f"{op.name}: shapes {listed} do not broadcast") from None


P = ParamSpec("P")
R = TypeVar("R")


class ElementwiseFunction(Generic[P, R]):
    """What `@elementwise` and `fuse` return: a function of tensors, numbers, or symbols."""

    elementwise = True

    def __init__(self, function: Callable[P, R], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.signature = inspect.signature(function)
        self._formula: Formula | None = None

    @property
    def formula(self) -> Formula:
        """The traced expression."""
        if self._formula is None:
            arity = len(self.signature.parameters)
            self._formula = Formula(self.name, trace(self.function, arity), arity)
        return self._formula

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        function: Any = self.function
        given: Any = args
        if kwargs or len(args) != len(self.signature.parameters):
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.args
        for a in given:
            if isinstance(a, Expr):
                return function(*given)  # type: ignore[no-any-return]
        return apply(self.formula, given)  # type: ignore[no-any-return]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<elementwise {self.name}{self.signature}>"


def elementwise(function: Callable[P, R]) -> ElementwiseFunction[P, R]:
    """Make an elementwise operation of a function written with elementwise functions."""
    return ElementwiseFunction(function, function.__name__.strip("_"))


def on_device_arrays(function: ElementwiseFunction[..., Any], dtype: Any, *arguments: Any) -> Any:
    """An elementwise function of one result, of that dtype, on device arrays and numbers."""
    formula = function.formula
    program = formula.program(_key([*arguments]), dtype)
    out = _empty(cuda, [*arguments], formula.uses[0], program.output_dtypes[0])
    cuda_evaluate(program, arguments, (out,))
    return out


def fuse(function: Callable[P, R]) -> ElementwiseFunction[P, R]:
    """Run a function of tensors and numbers as one pass over memory, with exact derivatives.

    The function may use arithmetic, comparisons, `where` and mlgpu's elementwise functions on its
    arguments, which may be tensors of shapes that broadcast, or numbers; it may return several
    results.  It is traced once: Python's `if` on an argument raises GraphError.  Half-precision
    inputs are computed in float32 and rounded once.  Raises TypeError for a function with `*args`,
    `**options` or keyword-only arguments.
    """
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"fuse: {function.__name__} must take positional arguments only, got "
                            f"{parameter}")
    return ElementwiseFunction(function, function.__name__)


def symbolic(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a public function that works on symbols too, by calling elementwise functions."""
    function.elementwise = True  # type: ignore[attr-defined]
    return function


def inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    """The in-place form of an elementwise function: the result overwrites the first argument."""
    cache: dict[Any, Formula] = {}
    name = getattr(function, "name", None) or function.__name__

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tensors: list[Tensor] = [self]
        given: list[Any] = [arg(0)]
        for value in args:
            if isinstance(value, Tensor):
                given.append(arg(len(tensors)))
                tensors.append(value)
            else:
                given.append(value)
        named = {}
        for key, value in kwargs.items():
            if isinstance(value, Tensor):
                named[key] = arg(len(tensors))
                tensors.append(value)
            else:
                named[key] = value
        shape = tuple(v.attr if isinstance(v, Expr) else (type(v), v) for v in (
            *given, *named.values()))
        signature = (shape, tuple(named))
        formula = cache.get(signature)
        if formula is None:
            try:
                traced = as_expr(function(*given, **named))
            except GraphError:
                kinds = ", ".join(type(value).__name__ for value in (*args, *kwargs.values()))
                raise TypeError(f"{name}_: expected tensors or numbers, got {kinds}") from None
            formula = Formula(name, (traced,), len(tensors))
            if len(cache) < 256:  # numbers are part of the key: a loop over values must not grow it
                cache[signature] = formula
        return run_inplace(Elementwise(formula, (None,) * len(tensors)), self, *tensors[1:])

    method.__name__ = f"{name}_"
    method.__qualname__ = method.__name__
    method.__doc__ = f"`{name}` in place."
    method.__signature__ = _method_signature(function)  # type: ignore[attr-defined]
    return method


def _method_signature(function: Any) -> inspect.Signature:
    signature = inspect.signature(getattr(function, "function", function))
    return signature.replace(return_annotation="Tensor")

