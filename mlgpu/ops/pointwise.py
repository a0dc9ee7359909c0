"""The short way of elementwise operations: contiguous CPU tensors of one floating dtype that fit
the cache, so that blocks and threads would bring nothing.

A call of a formula is mostly decisions: which steps it takes, what comes out, what backward needs.
Here they depend on nothing but the dtype, on which arguments are numbers, and on which tensors need
a gradient.  So they are made once for each of these: a `Plan`, and in it a `Way` back.  What is
left to do is to call NumPy, to charge the result, and to make the node.

What does not fit goes the long way (`applied.apply`), to the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes, memory
from mlgpu.autograd import mode as modes
from mlgpu.autograd.graph import order
from mlgpu.autograd.mode import mode
from mlgpu.autograd.saved import Saved
from mlgpu.cpu import pool
from mlgpu.cpu.evaluate import cast_step
from mlgpu.cpu.pool import SMALLEST
from mlgpu.cpu.runtime import quiet
from mlgpu.device import CPU
from mlgpu.errors import DerivativeError
from mlgpu.expr.lower import NUMBER, TENSOR, Program, Step, step_function
from mlgpu.memory import Charge
from mlgpu.op import conform_to
from mlgpu.ops.applied import Elementwise
from mlgpu.ops.formula import Formula
from mlgpu.storage import Storage
from mlgpu.tensor import Tensor

_books = memory.account(CPU)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NUMBERS: dict[Any, Callable[[], dtypes.dtype]] = {
    float: dtypes.get_default_dtype, int: lambda: dtypes.int64}

SHORT = 1 << 19  # bytes of a tensor from which blocks, threads and compiled loops may pay

# `Way.kept` of the second tensor alone, and of two tensors: these very objects.
SECOND, BOTH = (1,), (0, 1)
Kinds = tuple[type | None, ...]  # of a formula's arguments: None for a tensor, else a number's type


# --- forward --------------------------------------------------------------------------------------


def binary(formula: Formula, a: Tensor, b: Tensor) -> Tensor | None:
    """The result of a formula of two tensors; None where this is not the way."""
    one, two = a._storage, b._storage
    if (one.device is not CPU or two.device is not CPU or one.released or two.released
            or one.pending is not None or two.pending is not None or modes.observers):
        return None
    x, y = a._array, b._array
    dtype, shape, size = x.dtype, x.shape, x.size
    if y.dtype is not dtype:
        return None
    plan = formula.plans.get(dtype)
    if plan is None or plan.default is not dtypes._default:
        plan = Plan.make(formula, dtype, (None, None))
    if plan.steps is None or not x.flags.c_contiguous:
        return None
    shapes = None
    if y.shape != shape:
        try:
            spread = np.broadcast(x, y)
        except ValueError:
            return None  # which is explained on the long way
        if not y.flags.c_contiguous:
            return None
        shapes, shape, size = (shape, y.shape), spread.shape, spread.size
    if size * plan.itemsize >= SHORT or not (shape or plan.steps.pure):
        return None
    out = _computed(plan.steps, size, shape, (x, y))
    if mode.grad and plan.recorded:
        need_a = a._requires if a._base is None else a.requires_grad
        need_b = b._requires if b._base is None else b.requires_grad
        if need_a or need_b:
            _record(plan, out, shape, (a, b), (need_a, need_b), (None, None), shapes)
    return out


def unary(formula: Formula, a: Tensor) -> Tensor | None:
    """As `binary`, of one tensor."""
    storage = a._storage
    if (storage.device is not CPU or storage.released or storage.pending is not None
            or modes.observers):
        return None
    x = a._array
    dtype, shape = x.dtype, x.shape
    plan = formula.plans.get(dtype)
    if plan is None or plan.default is not dtypes._default:
        plan = Plan.make(formula, dtype, (None,))
    if (plan.steps is None or x.nbytes >= SHORT or not x.flags.c_contiguous
            or not (shape or plan.steps.pure)):
        return None
    out = _computed(plan.steps, x.size, shape, (x,))
    if mode.grad and plan.recorded and (a._requires if a._base is None else a.requires_grad):
        _record(plan, out, shape, (a,), (True,), (None,))
    return out


def of_one(formula: Formula, a: Tensor, kinds: Kinds, numbers: tuple[Any, ...] | None
           ) -> Tensor | None:
    """The result of a formula of a tensor and perhaps a number; None where this is not the way.

    `numbers` are the two arguments, None for the tensor, or None if it is the only one.
    """
    if numbers is None:
        return unary(formula, a)
    first, second = numbers
    return _scaled(formula, a, (a, second) if first is None else (first, a))


def _scaled(formula: Formula, a: Tensor, args: tuple[Any, Any]) -> Tensor | None:
    """As `unary`, where the other of two arguments is a number."""
    storage = a._storage
    if (storage.device is not CPU or storage.released or storage.pending is not None
            or modes.observers):
        return None
    x = a._array
    dtype, shape = x.dtype, x.shape
    first, second = args
    slots: tuple[Any, ...]
    kinds: Kinds
    if first is a:
        slots, kinds, arguments = (None, second), (None, type(second)), (x, second)
    else:
        slots, kinds, arguments = (first, None), (type(first), None), (first, x)
    plan = formula.plans.get((dtype, kinds))
    if plan is None or plan.default is not dtypes._default:
        plan = Plan.make(formula, dtype, kinds)
    if (plan.steps is None or x.nbytes >= SHORT or not x.flags.c_contiguous
            or not (shape or plan.steps.pure)):
        return None
    out = _computed(plan.steps, x.size, shape, arguments)
    if mode.grad and plan.recorded and (a._requires if a._base is None else a.requires_grad):
        _record(plan, out, shape, (a,), (True,), slots)
    return out


def _computed(steps: Steps, size: int, shape: tuple[int, ...], arguments: tuple[Any, ...]
              ) -> Tensor:
    """The result, charged before it is made."""
    charge = Charge(_books, size * steps.itemsize, shape, steps.dtype)
    if size * steps.itemsize >= SMALLEST:
        array = steps.pooled.results(shape, size, arguments)[0]
    elif steps.direct is not None:
        array = quiet().run(steps.direct, *arguments)
        if not shape:
            array = np.asarray(array)  # NumPy gives a scalar
    else:
        array = steps.results(shape, size, arguments)[0]
    return Tensor._make(array, Storage(CPU, charge, True, array))


def _record(plan: Plan, out: Tensor, shape: tuple[int, ...], inputs: tuple[Tensor, ...],
            needs: tuple[bool, ...], slots: tuple[Any, ...], shapes: Any = None) -> None:
    """Make the node of `out`; `shapes` are those of the inputs where they differ from its own."""
    way = plan.ways.get(needs)
    if way is None:
        way = Way.make(plan, needs)
    edges = tuple([t._edge() if t._requires else None for t in inputs])
    node = Short(plan, way, needs, slots, shape, edges)
    node.shapes = shapes
    if way.kept:
        node._saved = {key: Saved(out, node, 0) if key < 0 else Saved(inputs[key], node)
                       for key in way.kept}
    out._node = node
    out._requires = True


# --- backward -------------------------------------------------------------------------------------


class Short(Elementwise):
    """An application of a formula that went the short way."""

    plan: Plan
    way: Way
    shape: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...] | None
    recording = True

    def __init__(self, plan: Plan, way: Way, needs: tuple[bool, ...], slots: tuple[Any, ...],
                 shape: tuple[int, ...], edges: tuple[Any, ...]) -> None:
        self.edges = edges
        self.plan = plan
        self.way = way
        self.needs = needs
        self.slots = slots
        self.shape = shape
        self._freed = False
        self._saved = None
        self.sequence = next(order)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.plan.formula.name

    @property
    def formula(self) -> Formula:  # type: ignore[override]
        return self.plan.formula

    @property
    def _inputs_meta(self) -> Any:  # type: ignore[override]
        shapes = self.shapes or (self.shape,) * len(self.needs)
        return tuple([(shape, self.plan.dtype) for shape in shapes])

    def apply(self, grads: list[Tensor | None], create_graph: bool) -> list[Tensor | None]:
        way = self.way
        results = way.results
        if create_graph or results is None or modes.observers or not (
                self.shape or way.steps is None or way.steps.pure):
            return super().apply(grads, create_graph)
        (grad,) = grads
        assert grad is not None
        grad._storage.exclusive = False  # it may go on, and to several
        computed = [] if way.steps is None else self._computed(grad._array, way, way.steps)
        found = [None if result is None else grad if result < 0 else computed[result]
                 for result in results]
        if self.shapes is None:
            return found
        return [None if part is None else conform_to(self.name, part, *meta)
                for part, meta in zip(found, self._inputs_meta, strict=True)]

    def _computed(self, dy: Any, way: Way, steps: Steps) -> list[Tensor]:
        if self._freed:
            self._saved_value(None)  # which raises
        saved: Any = self._saved
        arguments = []
        for source in way.sources:
            if source is None:
                arguments.append(dy)
            elif isinstance(source, int):
                arguments.append(saved[source].array(self))
            else:
                arguments.append(self.slots[source[0]])
        size, shape, made = dy.size, self.shape, []
        for dtype in steps.dtypes:  # charged before anything is computed
            storage = Storage(CPU, Charge(_books, size * dtype.itemsize, shape, dtype), True)
            storage.exclusive = True
            made.append(storage)
        if dy.nbytes >= SMALLEST:
            steps = steps.pooled
        arrays = steps.results(shape, size, arguments)
        for array, storage in zip(arrays, made, strict=True):
            storage.array = array
        return [Tensor._make(array, storage) for array, storage in zip(arrays, made, strict=True)]


# --- what is decided once -------------------------------------------------------------------------


class Steps:
    """A program as NumPy calls on whole arrays, for where all that is computed stays in the cache.

    `pooled` writes each result into memory of the pool, which is for arrays from SMALLEST on.
    ValueError for a program that is none: where a result is an argument or a constant, or is no
    tensor of the arguments' shape.
    """

    __slots__ = ("_pooled", "direct", "dtype", "dtypes", "function", "itemsize", "kinds", "lines",
                 "names", "outputs", "program", "pure", "scratch")

    def __init__(self, program: Program, kinds: Kinds, pooled: bool = False) -> None:
        self.program, self.kinds = program, kinds
        self._pooled = self if pooled else None
        wide = {i for i, kind in enumerate(kinds) if kind is None}
        # One line of Python per step, over the values by their number.
        names: dict[str, Any] = {"array": np.array, "empty": _room if pooled else np.empty}
        names |= {f"v{len(kinds) + i}": constant for i, constant in enumerate(program.constants)}
        lines = []
        for value, argument, dtype in program.numbers:
            names[f"t{value}"] = dtype.numpy
            lines.append(f"v{value} = array(v{argument}, t{value})")
        last = {i: step for step in program.steps for i in step.operands}
        live: dict[int, int] = {}  # bytes per element of what is computed on the way
        self.scratch, self.pure, fresh = 0, True, False
        for step in program.steps:
            result, stored = step.result, program.dtypes[step.result].numpy
            if wide.intersection(step.operands):
                wide.add(result)
                if result not in program.outputs:
                    live[result] = stored.itemsize
                    self.scratch = max(self.scratch, sum(live.values()))
            function, fresh = (_writing(step), False) if pooled else _call(
                step, [program.dtypes[i].numpy for i in step.operands], stored)
            names[f"f{result}"], names[f"t{result}"] = function, stored
            self.pure = self.pure and fresh  # others want a dimension
            inputs = ", ".join([f"v{i}" for i in step.operands])
            lines += [f"v{result} = f{result}({inputs})"] if fresh else [
                f"v{result} = empty(shape, t{result})", f"f{result}({inputs}, out=v{result})"]
            dead = [i for i in live if last.get(i) is step]
            if dead:
                lines.append("del " + ", ".join([f"v{i}" for i in dead]))
            for i in dead:
                del live[i]
        if len({o for o in program.outputs if o >= program.first_result and o in wide}) < len(
                program.outputs):
            raise ValueError
        self.lines, self.names, self.outputs = lines, names, program.outputs
        results = "return " + " ".join([f"v{o}," for o in program.outputs])
        given = "".join([f", v{i}" for i in range(len(kinds))])
        exec(f"def function(shape{given}):\n  " + "\n  ".join([*lines, results]), names)
        self.function: Callable[..., tuple[Any, ...]] = names["function"]
        simple = len(program.steps) == 1 and fresh and (
            program.steps[0].operands == tuple(range(len(kinds))))
        self.direct = names[f"f{program.outputs[0]}"] if simple else None
        self.dtypes = [d.numpy for d in program.output_dtypes]
        self.dtype = self.dtypes[0]
        self.itemsize = self.dtype.itemsize

    @property
    def pooled(self) -> Steps:
        """The same for arrays from SMALLEST on."""
        if self._pooled is None:
            self._pooled = Steps(self.program, self.kinds, True)
        return self._pooled

    def results(self, shape: tuple[int, ...], size: int, arguments: Any) -> tuple[Any, ...]:
        """What it gives for arrays of one shape and numbers."""
        if self.scratch:
            _books.workspace(self.scratch * size)
        results: tuple[Any, ...] = quiet().run(self.function, shape, *arguments)
        return results if shape else tuple([np.asarray(result) for result in results])


def _room(shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory for a result, or for what is computed on the way and may be smaller."""
    nbytes = math.prod(shape) * dtype.itemsize
    return np.empty(shape, dtype) if nbytes < SMALLEST else pool.array(shape, dtype, nbytes)


def _writing(step: Step) -> Callable[..., Any]:
    return cast_step if step.primitive == "cast" else step_function(step.primitive, step.attr)


def _call(step: Step, taken: list[Any], stored: Any) -> tuple[Callable[..., Any], bool]:
    """The call that makes a step, and whether it returns its result in a fresh array."""
    if step.primitive == "where" and taken[1] == taken[2] == stored:
        return np.where, True
    if step.primitive == "relu" and taken[0] == stored:
        zero = np.zeros((), stored)
        return lambda x: np.maximum(x, zero), True
    function = _writing(step)
    return function, isinstance(function, np.ufunc) and (
        function.resolve_dtypes((*taken, None))[-1] == stored)


class Way:
    """How the gradients of the tensors that need one come about, from which saved values.

    `kept` are the numbers of the tensors to save, and ~0 for the output.  `sources` are what
    `steps` are taken of: such a number, None for the incoming gradient, or a number's place in the
    call, in a tuple.  `results` has per tensor the number of what `steps` compute, -1 for the
    incoming gradient, None for no gradient; it is None itself where this is not the way.

    For nodes of `mlgpu.ops.link`: `back(dy, node)` is all of that in one function, None where the
    incoming gradient is the result; it gives the gradient, or both.  `fresh` tells of each whether
    it is computed, `count` how many are; `more` is None unless only the long way is left.
    """

    __slots__ = ("back", "count", "fresh", "kept", "more", "needs", "plan", "results", "single",
                 "sources", "steps")

    def __init__(self, plan: Plan, needs: tuple[bool, ...]) -> None:
        formula, kinds, dtype = plan.formula, plan.kinds, plan.dtype
        self.plan, self.needs, self.single = plan, needs, sum(needs) == 1
        self.back: Callable[[Any, Any], Any] | None = None
        self.fresh: tuple[bool, ...] = ()
        self.count = 0
        self.more: dict[str, Any] | None = {}
        rest = iter(needs)
        wanted = tuple([kind is None and next(rest) for kind in kinds])
        found = formula.gradient(wanted)
        arity = formula.arity
        number_of = {p: n for n, p in enumerate(p for p, k in enumerate(kinds) if k is None)}
        self.kept = tuple([number_of[p] for p in sorted(found.needed) if p in number_of])
        if arity in found.needed:
            self.kept += (~0,)
        for usual in (SECOND, BOTH):
            if self.kept == usual:
                self.kept = usual
        self.sources: list[int | tuple[int] | None] = []
        self.results: list[int | None] | None = None
        self.steps: Steps | None = None
        given: list[type | None] = []
        for source in found.sources:
            given.append(kinds[source] if source < arity else None)
            self.sources.append(None if source > arity else ~0 if source == arity
                                else number_of.get(source, (source,)))
        results: list[int | None] = []
        for p in number_of:
            result = found.results[p]
            if wanted[p] and (result is None or result < ~(arity + 1)):
                return  # flat, as floor: zeros
            results.append(max(result, -1) if wanted[p] and result is not None else None)
        if found.formula.outputs:
            try:
                self.steps = Steps(found.formula.program(_key(dtype, tuple(given))), tuple(given))
            except (ValueError, DerivativeError):  # said where it is asked for
                return
            if any(d != dtype for d in self.steps.dtypes):
                return
        self.results = results
        self.more = None
        self.fresh = tuple([result is not None and result >= 0 for result in results])
        self.count = sum(self.fresh)
        if self.steps is not None:
            self.back = self._written(self.steps, results)

    @classmethod
    def make(cls, plan: Plan, needs: tuple[bool, ...]) -> Way:
        """A new way, in its place among the plan's."""
        made = plan.ways[needs] = cls(plan, needs)
        if needs in ((True,), (True, False)):
            plan.first = made
        elif needs == (False, True):
            plan.second = made
        else:
            plan.both = made
        return made

    def _written(self, steps: Steps, results: list[int | None]) -> Callable[[Any, Any], Any]:
        """One function from checking what was saved to the gradients."""
        lines = []
        if self.kept:
            number = range(len(self.kept))
            lines += ["saved = node.saved", "if saved is None: node.refuse()",
                      " ".join([f"s{i}, n{i}," for i in number]) + " = saved",
                      "if " + " or ".join([f"s{i}.version != n{i}" for i in number])
                      + ": node.refuse()"]
        for value, source in enumerate(self.sources):
            lines.append(f"v{value} = " + (
                "dy" if source is None else f"s{self.kept.index(source)}.array"
                if isinstance(source, int) else f"node.numbers[{source[0]}]"))
        if steps.scratch:
            lines.append(f"workspace({steps.scratch} * node.layout.size)")
        if any("shape" in line for line in steps.lines):
            lines.append("shape = node.layout.shape")
        given = ["dy" if result < 0 else f"v{steps.outputs[result]}"
                 for result in results if result is not None]
        lines += [*steps.lines, "return " + ", ".join(given)]
        names = {**steps.names, "workspace": _books.workspace}
        exec("def back(dy, node):\n  " + "\n  ".join(lines), names)
        return names["back"]  # type: ignore[no-any-return]


class Plan:
    """What is decided about a formula for arguments of one dtype, some of them numbers."""

    __slots__ = ("both", "default", "direct", "dtype", "first", "formula", "itemsize", "kinds",
                 "recorded", "same", "second", "steps", "ways")

    def __init__(self, formula: Formula, dtype: Any, kinds: Kinds) -> None:
        self.formula, self.dtype, self.kinds = formula, dtype, kinds
        self.itemsize = dtype.itemsize
        self.default = dtypes.get_default_dtype()
        self.ways: dict[tuple[bool, ...], Way] = {}
        # The same at hand: where the first tensor needs a gradient, the second, or both.
        self.first: Way | None = None
        self.second: Way | None = None
        self.both: Way | None = None
        self.steps: Steps | None = None  # not the short way
        self.recorded = False
        self.same = False  # whether the result has the tensors' dtype
        self.direct: Callable[..., Any] | None = None  # one call that is all there is to do then
        known = all(kind is None or kind in _NUMBERS for kind in kinds)
        if dtype in _FLOATS and known and len(formula.outputs) == 1:
            try:
                self.steps = Steps(formula.program(_key(dtype, kinds)), kinds)
            except ValueError:
                return
            self.recorded = self.steps.dtypes[0] == dtype
            if not self.recorded and self.steps.dtypes[0].kind in "fcV":
                self.steps = None
            self.same = self.recorded
            if self.same and self.steps is not None:
                self.direct = self.steps.direct

    @classmethod
    def make(cls, formula: Formula, dtype: Any, kinds: Kinds) -> Plan:
        """A new plan, in its place among the formula's."""
        made = cls(formula, dtype, kinds)
        formula.plans[dtype if {*kinds} == {None} else (dtype, kinds)] = made
        return made


def _key(dtype: Any, kinds: Kinds) -> tuple[Any, ...]:
    return tuple([(dtype, TENSOR) if kind is None else (_NUMBERS[kind](), NUMBER)
                  for kind in kinds])
