"""Expression nodes: what an elementwise function computes, as a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu.errors import GraphError


class Expr:
    """A node: an argument, a constant, or a primitive applied to other nodes.

    `attr` is the argument's position, the constant's value, or a static parameter of the primitive.
    """

    __slots__ = ("args", "attr", "op")

    def __init__(self, op: str, args: tuple[Expr, ...] = (), attr: Any = None) -> None:
        self.op, self.args, self.attr = op, args, attr

    def __repr__(self) -> str:
        if self.op == "arg":
            return f"x{self.attr}"
        if self.op == "const":
            return repr(self.attr)
        extra = "" if self.attr is None else f", {self.attr}"
        return f"{self.op}({', '.join(map(repr, self.args))}{extra})"

    def __bool__(self) -> bool:
        raise GraphError("elementwise: an expression has no truth value while it is traced, so "
                         "`if` and `and` cannot branch on it; use mlgpu.where(condition, x, y)")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from mlgpu import api

        found = api.method(name)
        if getattr(found, "elementwise", False):
            return lambda *args, **options: found(self, *args, **options)
        raise GraphError(f"elementwise: '{name}' is not an elementwise operation; an expression "
                         "holds only those: compute it outside and pass the result in")

    def __iter__(self) -> Any:
        raise GraphError("elementwise: an expression stands for one element and cannot be iterated")

    def __getitem__(self, index: Any) -> Any:
        raise GraphError("elementwise: an expression stands for one element and cannot be indexed")

    def __len__(self) -> int:
        raise GraphError("elementwise: an expression stands for one element and has no length")

    def __float__(self) -> float:
        raise GraphError("elementwise: an expression has no value while it is traced, so it cannot "
                         "become a Python number")

    __int__ = __index__ = __complex__ = __float__

    __hash__ = object.__hash__


def const(value: Any) -> Expr:
    """A number as a node."""
    return Expr("const", (), value)


def arg(position: int) -> Expr:
    """The function's argument at `position`."""
    return Expr("arg", (), position)


def as_expr(value: Any) -> Expr:
    """A node, or a number as one.  GraphError for anything else."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, (bool, int, float, complex)):
        return const(value)
    raise GraphError(f"elementwise: a {type(value).__name__} cannot be part of an expression; pass "
                     "it as an argument of the function")


def call(op: str, *args: Any, attr: Any = None) -> Expr:
    """A primitive applied to nodes or numbers."""
    return Expr(op, tuple(as_expr(a) for a in args), attr)


def _binary(op: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """An operator's two methods; both go through the library's function, so its rules hold."""
    def forward(self: Expr, other: Any) -> Any:
        return _function(op)(self, other)

    def reverse(self: Expr, other: Any) -> Any:
        return _function(op)(other, self)

    return forward, reverse


def _function(name: str) -> Any:
    from mlgpu import api

    return api.function(name)


for _name, _op in {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div",
                   "floordiv": "floor_divide", "mod": "remainder", "pow": "pow",
                   "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
                   "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift"}.items():
    _forward, _reverse = _binary(_op)
    setattr(Expr, f"__{_name}__", _forward)
    setattr(Expr, f"__r{_name}__", _reverse)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Expr, f"__{_name}__", _binary(_name)[0])
for _name, _op in {"neg": "neg", "abs": "abs", "invert": "bitwise_not", "pos": "positive"}.items():
    setattr(Expr, f"__{_name}__", lambda self, op=_op: _function(op)(self))


def trace(function: Callable[..., Any], arity: int) -> tuple[Expr, ...]:
    """The graph of a function of `arity` arguments: one node per result."""
    results = function(*[arg(i) for i in range(arity)])
    if isinstance(results, tuple) and not results:
        raise GraphError("elementwise: the function returns an empty tuple; it must return results")
    return tuple(as_expr(r) for r in (results if isinstance(results, tuple) else (results,)))


def topological(outputs: tuple[Expr, ...]) -> list[Expr]:
    """All nodes, each after its arguments."""
    order: list[Expr] = []
    seen: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(node, False) for node in reversed(outputs)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if id(a) not in seen)
    # A node pushed twice before its first visit appears once: later visits find it seen.
    return order


def used_args(outputs: tuple[Expr, ...]) -> set[int]:
    """The positions of the arguments that the outputs depend on."""
    return {node.attr for node in topological(outputs) if node.op == "arg"}


