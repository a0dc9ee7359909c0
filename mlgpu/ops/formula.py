"""The formula of an elementwise operation: its expression, its steps per dtypes, its gradients."""

from __future__ import annotations

from typing import Any

from mlgpu import dtypes
from mlgpu.expr.derivative import gradient
from mlgpu.expr.graph import Expr, arg, topological
from mlgpu.expr.lower import NUMBER, Operand, Program, lower


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
        self.plans: dict[Any, Any] = {}  # of `mlgpu.ops.pointwise`, for small tensors
        self.calls: dict[Any, Any] = {}  # of `mlgpu.ops.applied`, for tensors of any kind
        self._single: list[Formula] = []
        self.backs: dict[Any, Any] = {}  # of the same, for gradients
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
