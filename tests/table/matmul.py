"""Rows for mlgpu/ops/matmul.py, addmm.py, linear.py and einsum.py."""

from __future__ import annotations

import math

import numpy as np
from scipy import special
from table.case import COMPLEX, FLOATS, INTS, Case, In

import mlgpu

PRODUCTS = (*FLOATS, *COMPLEX, *INTS)
MATRICES = (In((3, 5)), In((5, 2)))
BATCHES = (In((4, 3, 5)), In((4, 5, 2)))


def row(name, fn, reference, inputs=MATRICES, torch=None, dtypes=PRODUCTS, **options):
    """A product: the same call in both libraries, unless `torch` says otherwise."""
    return Case(name=name, fn=fn, inputs=inputs, reference=reference,
                torch=torch or (lambda torch, *xs: fn(*xs)), dtypes=dtypes, gradient=True,
                second=True, **options)


def function(name, reference, inputs, label="", call=(), dtypes=PRODUCTS, **keywords):
    """A row for the function `name` of both libraries."""
    return row(f"{name}{label}", lambda *xs: getattr(mlgpu, name)(*xs, *call, **keywords),
               reference, inputs, lambda torch, *xs: getattr(torch, name)(*xs, *call, **keywords),
               dtypes)


def einsum(equation, *shapes, dtypes=PRODUCTS):
    return row(f"einsum {equation}", lambda *xs: mlgpu.einsum(equation, *xs),
               lambda *xs: np.einsum(equation, *xs), tuple(In(s) for s in shapes),
               lambda torch, *xs: torch.einsum(equation, *xs), dtypes)


def shapes(*sizes):
    return tuple(In(s) for s in sizes)


def scaled(beta, alpha, product):
    def reference(x, a, b):
        y = product(a, b)
        # A negative factor of an unsigned dtype counts modulo its range.
        return np.asarray(beta).astype(y.dtype) * x + np.asarray(alpha).astype(y.dtype) * y
    return reference


MATMUL_SHAPES = [
    ((3, 5), (5, 2)), ((1, 1), (1, 1)), ((7, 13), (13, 11)), ((4, 3, 5), (5, 2)),
    ((4, 3, 5), (4, 5, 2)), ((4, 3, 5), (1, 5, 2)), ((2, 1, 3, 5), (4, 5, 2)), ((3, 5), (4, 5, 2)),
    ((5,), (5,)), ((5,), (5, 2)), ((3, 5), (5,)), ((4, 3, 5), (5,)), ((5,), (4, 5, 2)),
    ((0, 5), (5, 2)), ((3, 0), (0, 2)), ((0, 3, 5), (5, 2)), ((4, 0, 5), (5, 2)),
    ((4, 3, 0), (0, 2)),
]

EINSUMS = [
    ("ij,jk", (2, 3), (3, 4)), ("ij,jk->ki", (2, 3), (3, 4)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)), ("ij->ji", (2, 3)), ("ii->i", (3, 3)),
    ("iij->j", (3, 3, 2)), ("ijji->j", (2, 3, 3, 2)),
    ("i,j->ij", (2,), (3,)), ("i,i->i", (3,), (3,)), ("i,i", (3,), (3,)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)), ("...i,...j->ij...", (3, 2), (3, 5)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)), (",i", (), (4,)), ("bA", (2, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("ab,cb,db->acd", (2, 3), (4, 3), (5, 3)),
    ("ii,jj->ij", (2, 2), (3, 3)), ("ij,j->i", (0, 3), (3,)), ("ij,j->i", (2, 0), (0,)),
]

# Sums over what one operand holds alone: PyTorch's integer results differ in width.
SUMMING_EINSUMS = [
    ("ij->", (2, 3)), ("ij->j", (2, 3)), ("ii", (3, 3)), ("i...->...", (2, 3)),
    ("ij,kl->", (2, 3), (4, 5)), ("ij,ik->", (2, 3), (2, 4)),
]

ACTIVATIONS = {
    None: (lambda x: x, lambda functional, x: x),
    "relu": (lambda x: np.maximum(x, 0), lambda functional, x: functional.relu(x)),
    "gelu": (lambda x: x * special.ndtr(x), lambda functional, x: functional.gelu(x)),
    "gelu_tanh": (lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
                  lambda functional, x: functional.gelu(x, approximate="tanh")),
    "silu": (lambda x: x / (1 + np.exp(-x)), lambda functional, x: functional.silu(x)),
}


def fused(activation, x, biased, added):
    """linear with what follows it."""
    exact, torchs = ACTIVATIONS[activation]

    def taken(w, *rest):
        bias = rest[0] if biased else None
        return bias, rest[-1] if added else None

    def call(x, w, *rest):
        bias, residual = taken(w, *rest)
        return mlgpu.nn.functional.linear(x, w, bias, activation=activation, residual=residual)

    def reference(x, w, *rest):
        bias, residual = taken(w, *rest)
        y = exact(x @ w.T + (0 if bias is None else bias))
        return y if residual is None else y + residual

    def torch(torch, x, w, *rest):
        bias, residual = taken(w, *rest)
        y = torchs(torch.nn.functional, torch.nn.functional.linear(x, w, bias))
        return y if residual is None else y + residual

    inputs = shapes(x, (4, 3), *[(4,)] * biased, *[(*x[:-1], 4)] * added)
    return row(f"linear-{activation} {x}", call, reference, inputs, torch, FLOATS)


CASES = [
    *(function("matmul", np.matmul, shapes(a, b), f" {a} {b}") for a, b in MATMUL_SHAPES),
    function("mm", np.matmul, MATRICES),
    row("mm-transposed", lambda a, b: mlgpu.mm(a.T, b.T), lambda a, b: a.T @ b.T,
        shapes((5, 3), (2, 5)), lambda torch, a, b: torch.mm(a.T, b.T)),
    row("mm-expanded", lambda a, b: mlgpu.mm(a.expand(3, 5), b),
        lambda a, b: np.tile(a, (3, 1)) @ b,
        shapes((1, 5), (5, 2)), lambda torch, a, b: torch.mm(a.expand(3, 5), b)),
    function("bmm", np.matmul, BATCHES),
    function("bmm", np.matmul, shapes((0, 3, 5), (0, 5, 2)), "-empty"),
    function("mv", np.matmul, shapes((3, 5), (5,))),
    function("dot", np.dot, shapes((5,), (5,))),
    function("dot", np.dot, shapes((0,), (0,)), "-empty"),
    function("vdot", np.vdot, shapes((5,), (5,))),
    function("inner", np.inner, shapes((2, 3), (4, 5, 3))),
    function("inner", np.inner, shapes((3,), (3,)), "-vectors"),
    function("inner", np.inner, shapes((3, 2), ()), "-scalar"),
    function("outer", np.outer, shapes((3,), (4,))),
    function("ger", np.outer, shapes((3,), (4,))),
    function("outer", np.outer, shapes((3,), (0,)), "-empty"),
    function("addmm", scaled(1, 1, np.matmul), shapes((3, 2), (3, 5), (5, 2))),
    function("addmm", scaled(2, -3, np.matmul), shapes((2,), (3, 5), (5, 2)), "-scaled", beta=2,
             alpha=-3),
    function("addmm", scaled(0.5, 1.5, np.matmul), shapes((3, 1), (3, 5), (5, 2)), "-fraction",
             beta=0.5, alpha=1.5, dtypes=(*FLOATS, *COMPLEX)),
    function("addmm", scaled(0, 1, np.matmul), shapes((), (3, 5), (5, 2)), "-beta 0", beta=0),
    function("addmv", scaled(2, 3, np.matmul), shapes((3,), (3, 5), (5,)), beta=2, alpha=3),
    function("baddbmm", scaled(2, 3, np.matmul), shapes((4, 1, 2), (4, 3, 5), (4, 5, 2)), beta=2,
             alpha=3),
    function("addbmm", scaled(2, 3, lambda a, b: (a @ b).sum(0)),
             shapes((3, 2), (4, 3, 5), (4, 5, 2)), beta=2, alpha=3),
    function("addr", scaled(2, 3, np.outer), shapes((3, 4), (3,), (4,)), beta=2, alpha=3),
    row("chain_matmul", lambda *xs: mlgpu.chain_matmul(*xs), lambda a, b, c: a @ b @ c,
        shapes((3, 5), (5, 2), (2, 4)), lambda torch, *xs: torch.linalg.multi_dot(xs)),
    row("multi_dot", lambda *xs: mlgpu.linalg.multi_dot(xs), lambda *xs: np.linalg.multi_dot(xs),
        shapes((3,), (3, 5), (5, 2), (2, 4), (4,)), lambda torch, *xs: torch.linalg.multi_dot(xs)),
    row("linalg.vecdot", lambda x, y: mlgpu.linalg.vecdot(x, y, dim=0),
        lambda x, y: (x.conj() * y).sum(0), shapes((3, 2), (3, 1)),
        lambda torch, x, y: torch.linalg.vecdot(x, y, dim=0), (*FLOATS, *COMPLEX)),
    function("tensordot", lambda a, b: np.tensordot(a, b, 1), MATRICES, call=(1,)),
    function("tensordot", lambda a, b: np.tensordot(a, b, ([1, 0], [0, 2])),
             shapes((2, 3, 4), (3, 5, 2)), "-dims", call=(([1, 0], [0, 2]),)),
    function("tensordot", lambda a, b: np.tensordot(a, b, 0), MATRICES, "-outer", call=(0,)),
    # A sum here too: PyTorch's integer result is int64.
    function("tensordot", lambda a, b: a.sum(1)[:, None] * b, shapes((3, 4), (1, 5)), "-broadcast",
             call=(([1], [0]),), dtypes=(*FLOATS, *COMPLEX)),
    *(einsum(*arguments) for arguments in EINSUMS),
    *(einsum(*arguments, dtypes=(*FLOATS, *COMPLEX)) for arguments in SUMMING_EINSUMS),
    row("einsum-size-1", lambda a, b: mlgpu.einsum("ij,jk->ik", a, b),
        lambda a, b: a @ b.sum(0, keepdims=True), shapes((2, 1), (3, 4)),
        lambda torch, a, b: torch.einsum("ij,jk->ik", a, b), (*FLOATS, *COMPLEX)),
    row("einsum-sublists", lambda a, b: mlgpu.einsum(a, [..., 1], b, [1, 30], [..., 30]), np.matmul,
        MATRICES, lambda torch, a, b: torch.einsum(a, [..., 1], b, [1, 30], [..., 30])),
    *(row(f"linear {x} {bias}", lambda *xs: mlgpu.nn.functional.linear(*xs),
          lambda x, w, b=0: x @ w.T + b, shapes(x, (4, 3), *bias),
          lambda torch, *xs: torch.nn.functional.linear(*xs))
      for x in ((2, 5, 3), (5, 3), (3,), (0, 3)) for bias in ((), ((4,),))),
    row("linear-vector", lambda *xs: mlgpu.nn.functional.linear(*xs), np.matmul,
        shapes((5, 3), (3,)), lambda torch, *xs: torch.nn.functional.linear(*xs)),
    row("linear-bias-1", lambda *xs: mlgpu.nn.functional.linear(*xs),
        lambda x, w, b: x @ w.T + b, shapes((5, 3), (4, 3), (1,)),
        lambda torch, *xs: torch.nn.functional.linear(*xs)),
    *(fused(activation, x, biased, added) for activation, x, biased, added in (
        ("relu", (2, 5, 3), True, True), ("gelu", (5, 3), True, True),
        ("gelu_tanh", (5, 3), True, False), ("silu", (5, 3), False, True),
        (None, (5, 3), True, True), ("gelu", (0, 3), True, True), ("silu", (3,), True, False))),
    row("bilinear", lambda *xs: mlgpu.nn.functional.bilinear(*xs),
        lambda x, y, w, b: np.einsum("bi,oij,bj->bo", x, w, y) + b,
        shapes((2, 3), (2, 5), (4, 3, 5), (4,)),
        lambda torch, *xs: torch.nn.functional.bilinear(*xs), FLOATS),
]
