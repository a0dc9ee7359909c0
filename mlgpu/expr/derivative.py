"""Reverse-mode differentiation of an expression graph: the gradient is another graph.

Its arguments are those of the function, then its outputs, then the outputs' gradients.  Where a
derivative is written with the value of an output, the output itself is used, so that a function
such as exp needs nothing but its result.  Not so for those whose result PyTorch leaves free to be
changed in place.
"""

from __future__ import annotations

import functools
from typing import Any

from mlgpu.expr.graph import Expr, arg, as_expr, call, const, topological
from mlgpu.expr.primitives import COMPOSED, TABLE

_RESULT_NOT_KEPT = frozenset(("div", "erfinv", "sinc"))


def gradient(outputs: tuple[Expr, ...], arity: int) -> tuple[Expr | None, ...]:
    """One expression per argument of the function; None where no gradient reaches it.

    Arguments of the result: 0 .. arity-1 those of the function, then one per output, then one
    gradient per output.
    """
    results = {id(node): arg(arity + i) for i, node in enumerate(outputs)
               if node.op != "arg" and node.op not in _RESULT_NOT_KEPT}
    adjoints: dict[int, Expr] = {}
    for i, node in enumerate(outputs):
        _accumulate(adjoints, node, arg(arity + len(outputs) + i))
    order = topological(outputs)
    for node in reversed(order):
        dy = adjoints.get(id(node))
        if dy is None or not node.args:
            continue
        for operand, partial in zip(node.args, _adjoints(node, dy), strict=True):
            if partial is not None and operand.op != "const":
                _accumulate(adjoints, operand, partial)
    found: list[Expr | None] = [None] * arity
    for node in order:
        if node.op == "arg" and id(node) in adjoints:
            before = found[node.attr]
            mine = adjoints[id(node)]
            found[node.attr] = mine if before is None else call("add", before, mine)
    memo: dict[int, Expr] = {}
    return tuple(None if e is None else _replace(e, results, memo) for e in found)


def _accumulate(adjoints: dict[int, Expr], node: Expr, value: Expr) -> None:
    before = adjoints.get(id(node))
    adjoints[id(node)] = value if before is None else _sum(before, value)


def _sum(a: Expr, b: Expr) -> Expr:
    """a + b, selections by the same condition joined into one."""
    terms = _terms(a)
    for term in _terms(b):
        for i, have in enumerate(terms):
            if term.op == have.op == "where" and _same(term.args[0], have.args[0]):
                terms[i] = call("where", have.args[0], *[
                    q if _is_zero(p) else p if _is_zero(q) else _sum(p, q)
                    for p, q in zip(have.args[1:], term.args[1:], strict=True)])
                break
        else:
            terms.append(term)
    return functools.reduce(lambda p, q: call("add", p, q), terms)


def _terms(node: Expr) -> list[Expr]:
    """The summands of a sum, in order."""
    terms, stack = [], [node]
    while stack:
        top = stack.pop()
        if top.op == "add":
            stack.extend(reversed(top.args))
        else:
            terms.append(top)
    return terms


def _same(a: Expr, b: Expr) -> bool:
    return a is b or (a.op == b.op and a.attr == b.attr and len(a.args) == len(b.args)
                      and all(_same(p, q) for p, q in zip(a.args, b.args, strict=True)))


def _adjoints(node: Expr, dy: Expr) -> tuple[Expr | None, ...]:
    """The gradients of a node's operands.

    They are linear in dy, so a selection in dy is made after them: what a `where` did not choose
    gets 0 however large its own derivative is.
    """
    if dy.op == "where":
        return _selected(node, *dy.args)
    terms = _terms(dy)
    if len(terms) > 1 and any(t.op == "where" for t in terms):
        return tuple(None if parts[0] is None else functools.reduce(_sum, parts)
                     for parts in zip(*[_adjoints(node, t) for t in terms], strict=True))
    primitive = COMPOSED.get(node.op) or TABLE[node.op]
    if primitive.adjoint is not None:
        return tuple(None if a is None else as_expr(a)
                     for a in primitive.adjoint(dy, node, *node.args))
    if primitive.partials is None:
        return (None,) * len(node.args)
    return tuple(_scaled(dy, partial) for partial in primitive.partials(node, *node.args))


def _selected(node: Expr, condition: Expr, chosen: Expr, other: Expr) -> tuple[Expr | None, ...]:
    zero = (const(0),) * len(node.args)
    sides = [zero if _is_zero(dy) else _adjoints(node, dy) for dy in (chosen, other)]
    return tuple(None if p is None or q is None else call("where", condition, p, q)
                 for p, q in zip(*sides, strict=True))


def _is_zero(node: Expr) -> bool:
    return node.op == "const" and node.attr == 0


def _scaled(dy: Expr, partial: Any) -> Expr | None:
    if partial is None:
        return None
    if isinstance(partial, (int, float)):
        if partial in (1, -1):
            return dy if partial == 1 else call("neg", dy)
        return call("mul", dy, partial)
    return call("mul", dy, call("conj", partial))


def _replace(node: Expr, results: dict[int, Expr], memo: dict[int, Expr]) -> Expr:
    """The graph with each occurrence of an output's node replaced by the output."""
    stack = [node]
    while stack:
        top = stack[-1]
        if id(top) in memo:
            stack.pop()
            continue
        if id(top) in results:
            memo[id(top)] = results[id(top)]
            continue
        missing = [a for a in top.args if id(a) not in memo]
        if missing:
            stack.extend(missing)
            continue
        args = tuple(memo[id(a)] for a in top.args)
        same = all(a is b for a, b in zip(args, top.args, strict=True))
        memo[id(top)] = top if same else Expr(top.op, args, top.attr)
    return memo[id(node)]
