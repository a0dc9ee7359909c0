"""Rows for mlgpu/ops/join.py, arrange.py and cast.py."""

from __future__ import annotations

import numpy as np
from table.case import ALL, FLOATS, Case, In

import mlgpu

A = In((2, 3, 5))
M = In((3, 5))
V = In((5,))


def row(name, call, reference, inputs=(A,), dtypes=ALL, **options):
    """A row whose call takes the library first: `call(mlgpu, x)` and `call(torch, x)`."""
    return Case(name=name, fn=lambda *xs: call(mlgpu, *xs), inputs=inputs, reference=reference,
                torch=call, dtypes=dtypes, **options)


CASES = [
    row("cat", lambda lib, x, y: lib.cat((x, y), 1), lambda x, y: np.concatenate((x, y), 1),
        (A, In((2, 4, 5)))),
    row("cat-one", lambda lib, x: lib.cat((x,)), lambda x: x),
    row("cat-empty", lambda lib, x, y: lib.cat((x, y), -1), lambda x, y: y,
        (In((2, 0)), In((2, 3)))),
    row("cat-mixed", lambda lib, x, y: lib.cat((x, y)), lambda x, y: np.concatenate((x, y)),
        (V, In((3,), dtype="int64", make=lambda rng, shape: rng.integers(0, 9, shape))),
        dtypes=FLOATS),
    row("stack", lambda lib, x, y: lib.stack((x, y), -1), lambda x, y: np.stack((x, y), -1),
        (A, A)),
    row("hstack", lambda lib, x, y: lib.hstack((x, y)), lambda x, y: np.hstack((x, y)),
        (M, In((3, 2)))),
    row("hstack-vectors", lambda lib, x, y: lib.hstack((x, y)), lambda x, y: np.hstack((x, y)),
        (V, In((2,)))),
    row("vstack", lambda lib, x, y: lib.vstack((x, y)), lambda x, y: np.vstack((x, y)), (M, V)),
    row("dstack", lambda lib, x, y: lib.dstack((x, y)), lambda x, y: np.dstack((x, y)), (M, M)),
    row("column_stack", lambda lib, x, y: lib.column_stack((x, y)),
        lambda x, y: np.column_stack((x, y)), (In((3,)), M)),
    row("meshgrid", lambda lib, x, y: lib.meshgrid(x, y, indexing="ij"),
        lambda x, y: tuple(np.meshgrid(x, y, indexing="ij")), (V, In((3,)))),
    row("meshgrid-xy", lambda lib, x, y: lib.meshgrid(x, y, indexing="xy"),
        lambda x, y: tuple(np.meshgrid(x, y)), (V, In((3,)))),
    row("atleast_3d", lambda lib, x: lib.atleast_3d(x), lambda x: x[:, :, None], (M,)),
    row("block_diag", lambda lib, x, y: lib.block_diag(x, y),
        lambda x, y: np.block([[x, np.zeros((3, 5))], [np.zeros((1, 5)), y[None]]]), (M, V)),
    row("cartesian_prod", lambda lib, x, y: lib.cartesian_prod(x, y),
        lambda x, y: np.stack([g.reshape(-1) for g in np.meshgrid(x, y, indexing="ij")], 1),
        (V, In((3,)))),
    row("combinations", lambda lib, x: lib.combinations(x),
        lambda x: np.array([(x[i], x[j]) for i in range(5) for j in range(i + 1, 5)]), (V,)),
    row("repeat", lambda lib, x: x.repeat(2, 1, 3), lambda x: np.tile(x, (2, 1, 3)), (M,)),
    row("repeat-none", lambda lib, x: x.repeat(0, 1), lambda x: x[:0], (M,)),
    row("tile", lambda lib, x: lib.tile(x, (2,)), lambda x: np.tile(x, 2), (M,)),
    row("repeat_interleave", lambda lib, x: lib.repeat_interleave(x, 2, 1),
        lambda x: np.repeat(x, 2, 1), (M,)),
    row("repeat_interleave-flat", lambda lib, x: lib.repeat_interleave(x, 3),
        lambda x: np.repeat(x, 3), (M,)),
    row("repeat_interleave-counts", lambda lib, x, n: lib.repeat_interleave(x, n, 0),
        lambda x, n: np.repeat(x, n, 0),
        (M, In((3,), dtype="int64", make=lambda rng, shape: np.array([2, 0, 1])))),
    row("flip", lambda lib, x: lib.flip(x, (0, 2)), lambda x: np.flip(x, (0, 2))),
    row("fliplr", lambda lib, x: lib.fliplr(x), np.fliplr, (M,)),
    row("flipud", lambda lib, x: lib.flipud(x), np.flipud, (M,)),
    *[row(f"rot90-{k}", lambda lib, x, k=k: lib.rot90(x, k, (0, 1)),
          lambda x, k=k: np.rot90(x, k), (M,)) for k in range(4)],
    row("roll", lambda lib, x: lib.roll(x, (1, -2), (0, 2)), lambda x: np.roll(x, (1, -2), (0, 2))),
    row("roll-flat", lambda lib, x: lib.roll(x, 4), lambda x: np.roll(x, 4)),
    row("tril", lambda lib, x: lib.tril(x), np.tril),
    row("tril-offset", lambda lib, x: lib.tril(x, -1), lambda x: np.tril(x, -1)),
    row("triu", lambda lib, x: lib.triu(x), np.triu),
    row("triu-offset", lambda lib, x: lib.triu(x, 2), lambda x: np.triu(x, 2)),
    row("diag", lambda lib, x: lib.diag(x, 1), lambda x: np.diag(x, 1), (V,)),
    row("diag-matrix", lambda lib, x: lib.diag(x, -1), lambda x: np.diag(x, -1), (M,)),
    row("diag_embed", lambda lib, x: lib.diag_embed(x, 1, 0, 2),
        lambda x: np.stack([np.diag(r, 1) for r in x], 1), (M,)),
    row("diagflat", lambda lib, x: lib.diagflat(x), np.diagflat, (M,)),
    row("clone", lambda lib, x: lib.clone(x), lambda x: x),
    row("contiguous", lambda lib, x: x.mT.contiguous(), lambda x: x.swapaxes(1, 2)),
    row("to-double", lambda lib, x: x.to(lib.float64), lambda x: x, dtypes=FLOATS),
    row("to-int", lambda lib, x: x.to(lib.int32), lambda x: np.trunc(x), dtypes=FLOATS,
        gradient=False, second=False),
    row("type_as", lambda lib, x, y: x.type_as(y), lambda x, y: x, (M, V), dtypes=FLOATS),
]
