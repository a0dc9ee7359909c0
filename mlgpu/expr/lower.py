"""An expression graph for given dtypes, as a list of steps over numbered values.

Each node gets a dtype by PyTorch's promotion rules; half types are computed in float32 and rounded
once, at the output.  Equal nodes are computed once, constants are folded in the dtype they are
computed in, and rewrites that are exact in IEEE arithmetic are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DerivativeError, DTypeError
from mlgpu.expr.graph import Expr, topological
from mlgpu.expr.primitives import COMPOSED, REAL_ONLY, TABLE

# How much an operand weighs in promotion: Python number < 0-dim tensor < tensor with dimensions.
NUMBER, ZERO_DIM, TENSOR = 0, 1, 2


@dataclass(frozen=True)
class Operand:
    """What is known of an argument before its values: dtype and weight in promotion."""

    dtype: DType
    weight: int


@dataclass(frozen=True)
class Step:
    """One primitive applied: `value[result] = primitive(value[i] for i in operands)`."""

    primitive: str
    attr: Any
    operands: tuple[int, ...]
    result: int
    dtype: DType  # of the operands as computed; the result's may differ (comparisons)


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in order.  Values are numbered: arguments first, then constants, then results."""

    name: str
    arguments: int
    constants: tuple[Any, ...]  # 0-d NumPy arrays, numbered from `arguments` on
    numbers: tuple[tuple[int, int, DType], ...]  # (value, argument, dtype): numbers as operands
    steps: tuple[Step, ...]
    dtypes: tuple[DType, ...]  # of every value as stored
    outputs: tuple[int, ...]
    output_dtypes: tuple[DType, ...]

    @property
    def first_result(self) -> int:
        """The number of the first value that a step computes."""
        return self.arguments + len(self.constants) + len(self.numbers)


def promote(operands: Sequence[Operand]) -> Operand:
    """The operand that all of them become together."""
    groups: dict[int, DType] = {}
    for o in operands:
        have = groups.get(o.weight)
        groups[o.weight] = o.dtype if have is None else dtypes.promote_types(have, o.dtype)
    weight = max(groups)
    result = groups[weight]
    for weaker in (ZERO_DIM, NUMBER):
        if weaker < weight:
            result = dtypes.combine_weak(result, groups.get(weaker))
    return Operand(result, weight)


def _types(name: str, node: Expr, operands: Sequence[Operand], floating: DType | None
           ) -> tuple[tuple[DType, ...], Operand]:
    """The dtype each operand is taken in, and the result's, before half types are widened."""
    rule = TABLE[node.op].rule
    if rule == "cast":
        return (operands[0].dtype,), Operand(node.attr, TENSOR)
    if rule == "logical":
        weight = max(o.weight for o in operands)
        return (dtypes.bool_,) * len(operands), Operand(dtypes.bool_, weight)
    if rule == "select":
        chosen = promote(operands[1:])
        weight = max(operands[0].weight, chosen.weight)
        return (dtypes.bool_, chosen.dtype, chosen.dtype), Operand(chosen.dtype, weight)
    common = promote(operands)
    kind = common.dtype.kind
    if floating is not None and kind in ("float", "complex"):
        common = Operand(dtypes.promote_types(common.dtype, floating), common.weight)
    if rule == "float" and kind in ("bool", "int"):
        common = Operand(floating or dtypes.get_default_dtype(), common.weight)
    elif rule == "integer" and kind not in ("bool", "int"):
        raise DTypeError(f"{name}: expected bool or integers, got {common.dtype!r}")
    elif rule == "whole" and kind != "int":
        raise DTypeError(f"{name}: expected integers, got {common.dtype!r}")
    elif node.op == "abs" and kind == "bool":
        raise DTypeError(f"{name}: not defined for bool; cast first")
    elif rule == "number" and (kind == "bool" or (node.op == "sub" and any(
            o.dtype is dtypes.bool_ and o.weight != NUMBER for o in operands))):
        raise DTypeError(
            f"{name}: not defined for bool; use logical_not, logical_xor or cast first")
    elif rule in ("floating", "exponent") and kind != "float":
        raise DTypeError(f"{name}: expected a floating dtype, got {common.dtype!r}")
    if kind == "complex" and node.op in REAL_ONLY:
        raise DTypeError(f"{name}: not defined for complex numbers, got {common.dtype!r}")
    taken = (common.dtype,) * len(operands)
    if rule == "bool":
        return taken, Operand(dtypes.bool_, common.weight)
    if rule == "exponent":
        return taken, Operand(dtypes.int32, common.weight)
    if rule == "real":
        return taken, Operand(common.dtype.to_real(), common.weight)
    return taken, common


def _widened(name: str, operand: Operand) -> Operand:
    """What a function takes that computes in float64."""
    if operand.dtype.is_complex:
        raise DTypeError(f"{name}: not defined for complex numbers, got {operand.dtype!r}")
    return Operand(dtypes.float64, operand.weight)


def _narrowed(operands: Sequence[Operand], floating: DType | None) -> Operand:
    """What its result becomes: as of a primitive whose rule is `float`."""
    common = promote(operands)
    if common.dtype.kind in ("bool", "int"):
        return Operand(floating or dtypes.get_default_dtype(), common.weight)
    if floating is not None:
        return Operand(dtypes.promote_types(common.dtype, floating), common.weight)
    return common


def _number_dtype(dtype: DType) -> DType:
    """What arithmetic among numbers is done in: Python's precision, whatever it is used with."""
    return {"float": dtypes.float64, "complex": dtypes.complex128}.get(dtype.kind, dtype)


class _Builder:
    """Numbers values and emits steps, each distinct computation once."""

    def __init__(self, name: str, operands: Sequence[Operand]) -> None:
        self.name = name
        self.operands = operands
        self.steps: list[tuple[str, Any, tuple[Any, ...], Any, DType]] = []
        self.values: dict[Any, Any] = {}  # key of a computation -> its value
        self.stored: dict[Any, DType] = {("arg", i): o.dtype for i, o in enumerate(operands)}
        self.folded: dict[Any, Any] = {}  # value -> its constant array

    def emit(self, op: str, attr: Any, operands: tuple[Any, ...], taken: DType, result: DType
             ) -> Any:
        operands, shortcut = self._simplified(op, operands)
        if shortcut:
            return operands[0]
        key = (op, attr, operands, taken, result)
        value = self.values.get(key)
        if value is None:
            value = self.values[key] = ("step", len(self.values))
            self.stored[value] = result
            if operands and all(o in self.folded for o in operands):
                self.fold(value, op, attr, operands, result)
            else:
                self.steps.append((op, attr, operands, value, taken))
        return value

    def fold(self, value: Any, op: str, attr: Any, operands: tuple[Any, ...], result: DType
             ) -> None:
        out = np.empty((), result.numpy)
        arrays = [self.folded[o] for o in operands]
        with np.errstate(all="ignore"):
            if op == "cast":
                np.copyto(out, arrays[0], casting="unsafe")
            else:
                step_function(op, attr)(*arrays, out=out)
        self.folded[value] = out

    def _simplified(self, op: str, operands: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
        """Rewrites exact for every value, NaN, infinities and signed zeros included."""
        # (a + bi) * 1 is not exact: it adds b * 0 to a, which is NaN for an infinite b.
        if op in ("mul", "div") and not self.stored[operands[0]].is_complex:
            if self._is_one(operands[1]):
                return operands[:1], True
            if op == "mul" and self._is_one(operands[0]):
                return operands[1:], True
        if op == "conj" and not self.stored[operands[0]].is_complex:
            return operands, True
        if op == "real" and not self.stored[operands[0]].is_complex:
            return operands, True
        if op == "neg" and operands[0] not in self.folded:
            for key, value in self.values.items():
                if value == operands[0] and key[0] == "neg":
                    return key[2], True
        if op == "sub" and self._is_plus_zero(operands[1]):
            return operands[:1], True  # x - 0 is x; x + 0 is not, for x = -0
        return operands, False

    def _is_one(self, value: Any) -> bool:
        folded = self.folded.get(value)
        return folded is not None and bool(folded == 1)

    def _is_plus_zero(self, value: Any) -> bool:
        folded = self.folded.get(value)
        return (folded is not None and folded.dtype.kind != "c" and bool(folded == 0)
                and not np.signbit(folded))

    def constant(self, value: Any, dtype: DType) -> Any:
        array = np.asarray(value).astype(dtype.numpy)
        key = ("const", array.tobytes(), dtype)
        self.stored[key] = dtype
        self.folded[key] = array
        return key

    def taken(self, value: Any, dtype: DType) -> Any:
        """`value` in the dtype that a primitive computes in."""
        if isinstance(value, Expr):  # a constant, made for the dtype it is used in
            return self.constant(value.attr, dtype)
        if value[0] == "arg" and self.operands[value[1]].weight == NUMBER:
            key = ("number", value[1], dtype)
            self.stored[key] = dtype
            return key
        if self.stored[value] is dtype:
            return value
        if dtype is dtypes.bool_:
            zero = self.constant(0, self.stored[value])
            return self.emit("ne", None, (value, zero), self.stored[value], dtype)
        return self.emit("cast", dtype, (value,), self.stored[value], dtype)


def lower(name: str, outputs: tuple[Expr, ...], operands: Sequence[Operand],
          output_dtypes: Sequence[DType] | None = None, floating: DType | None = None) -> Program:
    """The program for arguments of the given dtypes.

    `output_dtypes` asks for other result dtypes than promotion gives (in-place operations);
    `floating` is what integers become where a primitive needs it (the default dtype if None), and
    what narrower floating operands are taken in.
    Raises DTypeError where a primitive does not take a dtype.
    """
    build = _Builder(name, operands)
    values: dict[int, Any] = {}
    types: dict[int, Operand] = {}
    outputs = _expanded(outputs)
    for node in topological(outputs):
        if node.op == "arg":
            values[id(node)], types[id(node)] = ("arg", node.attr), operands[node.attr]
        elif node.op == "const":
            values[id(node)] = node
            types[id(node)] = Operand(dtypes.scalar_dtype(node.attr), NUMBER)
        elif node.op == "refused":
            raise DerivativeError(node.attr)
        elif node.op in ("widen", "narrow"):
            given = [types[id(a)] for a in node.args]
            result = _widened(name, given[0]) if node.op == "widen" else (
                _narrowed(given[1:], floating))
            types[id(node)] = result
            stored = result.dtype if result.weight == NUMBER else (
                dtypes.compute_dtype(result.dtype))
            values[id(node)] = build.taken(values[id(node.args[0])], stored)
        else:
            taken, result = _types(name, node, [types[id(a)] for a in node.args], floating)
            widened = _number_dtype if result.weight == NUMBER else dtypes.compute_dtype
            compute = tuple(widened(d) for d in taken)
            inputs = tuple(build.taken(values[id(a)], d)
                           for a, d in zip(node.args, compute, strict=True))
            types[id(node)] = result
            stored = widened(result.dtype)
            values[id(node)] = (
                build.taken(inputs[0], stored) if node.op == "cast" else
                build.emit(node.op, node.attr, inputs, compute[-1], stored))
    wanted = tuple(output_dtypes or [types[id(o)].dtype for o in outputs])
    ends = [build.taken(values[id(o)], d) for o, d in zip(outputs, wanted, strict=True)]
    return _numbered(build, name, len(operands), ends, wanted)


def _expanded(outputs: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The graph with what is composed of other primitives written out."""
    memo: dict[int, Expr] = {}
    for node in topological(outputs):
        args = tuple(memo[id(a)] for a in node.args)
        composed = COMPOSED.get(node.op)
        memo[id(node)] = composed.written(*args) if composed else (
            Expr(node.op, args, node.attr) if node.args else node)
    return tuple(memo[id(o)] for o in outputs)


def _numbered(build: _Builder, name: str, arguments: int, ends: list[Any],
              wanted: tuple[DType, ...]) -> Program:
    """The program with what no output needs left out and values numbered in order."""
    needed = set(ends)
    steps = []
    for step in reversed(build.steps):
        if step[3] in needed:
            needed.update(step[2])
            steps.append(step)
    steps.reverse()
    number: dict[Any, int] = {("arg", i): i for i in range(arguments)}
    constants = [v for v in build.folded if v in needed]
    for v in constants:
        number[v] = len(number)
    numbers = [v for v in build.stored if v[0] == "number" and v in needed]
    for v in numbers:
        number[v] = len(number)
    for step in steps:
        number[step[3]] = len(number)
    order = sorted(number, key=number.__getitem__)
    return Program(
        name, arguments, tuple(build.folded[v] for v in constants),
        tuple((number[v], v[1], v[2]) for v in numbers),
        tuple(Step(op, attr, tuple(number[o] for o in operands), number[value], taken)
              for op, attr, operands, value, taken in steps),
        tuple(build.stored[v] for v in order), tuple(number[e] for e in ends), wanted)


def step_function(op: str, attr: Any) -> Any:
    """The NumPy form of a primitive; a static parameter comes first."""
    function = TABLE[op].numpy
    if attr is None or op == "cast":
        return function
    return lambda *xs, out: function(attr, *xs, out=out)
