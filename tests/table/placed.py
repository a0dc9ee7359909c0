"""Rows for mlgpu/ops/placed.py and mlgpu/ops/strided.py."""

from __future__ import annotations

import numpy as np
from table.case import Case, In, both

A = In((3, 4))
V = In((4,))
DTYPES = ("float64", "float32", "bfloat16", "int64")


def row(name, call, reference, inputs=(A,), dtypes=DTYPES, **options) -> Case:
    return both(name, call, reference, inputs, dtypes=dtypes, **options)


def put(index):
    def reference(x, src):
        out = x.copy()
        out[index] = src
        return out

    return reference


def scaled(x):
    sizes = np.sqrt((np.abs(x) ** 2).sum((0, 2), keepdims=True))
    return x * np.where(sizes > 1.5, 1.5 / (sizes + 1e-7), 1)


def changed(change):
    """`change(copy, *others)` on a copy of the first input, and what it returns."""
    return lambda lib, x, *others: change(x.clone(), *others)


B = (In((2, 3, 2)), In((2, 2, 4)))
CASES = [
    row("select_scatter", lambda lib, x, s: lib.select_scatter(x, s, 0, -1), put(-1), (A, V)),
    row("slice_scatter", lambda lib, x, s: lib.slice_scatter(x, s, 1, 1, 4, 2),
        put((slice(None), slice(1, 4, 2))), (A, In((3, 2)))),
    row("diagonal_scatter", lambda lib, x, s: lib.diagonal_scatter(x, s, 1),
        put((np.arange(3), np.arange(1, 4))), (A, In((3,)))),
    row("dist", lambda lib, x, y: lib.dist(x, y, 3),
        lambda x, y: (np.abs(x - y) ** 3).sum() ** (1 / 3), (A, V), ("float64", "float32")),
    row("renorm", lambda lib, x: lib.renorm(x, 2, 1, 1.5), scaled, (In((2, 3, 2)),),
        ("float64", "float32")),
    row("renorm_", changed(lambda x: x.renorm_(2, 1, 1.5)), scaled, (In((2, 3, 2)),), ("float64",),
        gradient=False, second=False),
    row("unravel_index", lambda lib, i: lib.unravel_index(i, (3, 4)),
        lambda i: np.unravel_index(i, (3, 4)),
        (In((5,), make=lambda rng, shape: rng.integers(0, 12, shape)),), ("int64",)),
    row("addmm_", changed(lambda x, a, b: x.addmm_(a, b, beta=0.5, alpha=2)),
        lambda x, a, b: 0.5 * x + 2 * a @ b, (A, In((3, 2)), In((2, 4))), ("float64", "float32")),
    row("addmv_", changed(lambda x, a, v: x.addmv_(a, v)), lambda x, a, v: x + a @ v,
        (In((3,)), A, V), ("float64", "float32")),
    row("addr_", changed(lambda x, v, w: x.addr_(v, w)), lambda x, v, w: x + np.outer(v, w),
        (A, In((3,)), V), ("float64", "float32")),
    row("addbmm_", changed(lambda x, a, b: x.addbmm_(a, b)),
        lambda x, a, b: x + (a @ b).sum(0), (A, *B), ("float64", "float32")),
    row("baddbmm_", changed(lambda x, a, b: x.baddbmm_(a, b)),
        lambda x, a, b: x + a @ b, (In((2, 3, 4)), *B), ("float64", "float32")),
    row("squeeze_", changed(lambda x: x.unsqueeze_(1).mul_(2).squeeze_(1)), lambda x: 2 * x),
    row("transpose_", changed(lambda x: x.t_().swapaxes_(0, 1).swapdims_(0, 1).transpose_(1, 0)),
        lambda x: x),
    row("as_strided", lambda lib, x: x.contiguous().as_strided((2, 3), (1, 2), 3),
        lambda x: x.reshape(-1)[3 + np.arange(2)[:, None] + 2 * np.arange(3)]),
    row("as_strided-view",
        lambda lib, x: lib.as_strided((x.contiguous() * 1).t()[1:], (3,), (4,), 2),
        lambda x: x.reshape(-1)[2:12:4]),
]
