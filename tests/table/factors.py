"""Rows for mlgpu/ops/linalg_lu.py, _ldl, _householder, _tensor, _lowrank and _ex."""

from __future__ import annotations

import numpy as np
from table.case import In
from table.linalg import REAL, adjoint, matrix, positive_definite, row, singular, solve_right

LU_SHAPES = [(2, 3, 3), (4, 2), (2, 2, 4), (0, 3, 3), (3, 0)]


def lu(a):
    """L and U in one matrix, and the rows' order: partial pivoting by |re| + |im|."""
    a, (*batch, m, n) = a.copy(), a.shape
    order = np.tile(np.arange(m), (*batch, 1))
    for at in np.ndindex(*batch):
        x, rows = a[at], order[at]
        for i in range(min(m, n)):
            best = i + np.argmax(np.abs(x[i:, i].real) + np.abs(x[i:, i].imag))
            x[[i, best]], rows[[i, best]] = x[[best, i]], rows[[best, i]]
            x[i + 1:, i] /= x[i, i]
            x[i + 1:, i + 1:] -= np.outer(x[i + 1:, i], x[i, i + 1:])
    return a, order


def lu_apart(a):
    packed, order = lu(a)
    m, n = a.shape[-2:]
    k = min(m, n)
    p = np.swapaxes(np.eye(m, dtype=a.dtype)[order], -1, -2)
    return p, np.tril(packed[..., :k], -1) + np.eye(m, k), np.triu(packed[..., :k, :])


def lu_unpivoted(a):
    """L and U of a positive definite matrix, from its Cholesky factor."""
    lower = np.linalg.cholesky(a)
    root = np.diagonal(lower, 0, -2, -1)
    return lower / root[..., None, :], adjoint(np, lower) * root[..., :, None]


def solved(library, a, b, left, back):
    if library is not np:
        return library.linalg.lu_solve(*library.linalg.lu_factor(a), b, left=left, adjoint=back)
    a = adjoint(np, a) if back else a
    return np.linalg.solve(a, b) if left else solve_right(a, b)


def symmetric(library, a, hermitian=False):
    """Symmetric with zeros on the diagonal, so that blocks of two rows are needed."""
    a = a + (adjoint(library, a) if hermitian else a.swapaxes(-1, -2))
    return np.triu(a, 1) + np.tril(a, -1) if library is np else a.triu(1) + a.tril(-1)


def ldl_solved(library, a, b, hermitian=False):
    a = symmetric(library, a, hermitian)
    if library is np:
        return np.linalg.solve(a, b)
    return library.linalg.ldl_solve(*library.linalg.ldl_factor(a, hermitian=hermitian), b,
                                    hermitian=hermitian)


def reflections(a, tau):
    """The whole product of I - tau v v^H."""
    m = a.shape[-2]
    product = np.broadcast_to(np.eye(m, dtype=a.dtype), (*a.shape[:-2], m, m))
    for i in range(tau.shape[-1]):
        v = np.where(np.arange(m) < i, 0, a[..., i])
        v[..., i] = 1
        product = product - tau[..., i, None, None] * (product @ (
            v[..., :, None] * v.conj()[..., None, :]))
    return product


def times(library, a, tau, c, left, back):
    if library is not np:
        return library.ormqr(a, tau, c, left, back)
    q = reflections(a, tau)
    q = adjoint(np, q) if back else q
    return q @ c if left else c @ q


def geqrf(a):
    h, tau = np.linalg.qr(a, "raw")
    return h.swapaxes(-1, -2), tau


def lowrank_product(library, a):
    if library is np:
        return a
    u, s, v = library.svd_lowrank(a, 3)
    return library.matmul(u * s[..., None, :], adjoint(library, v))


def variances(library, a):
    if library is np:
        return np.linalg.svd(a - a.mean(-2, keepdims=True), compute_uv=False)
    return library.pca_lowrank(a, 3)[1]


ONE = ("float64",)  # for what is made of operations that have rows of their own

CASES = [
    *(row(f"linalg.lu {shape}", lambda m, a: tuple(m.linalg.lu(a)), matrix(*shape),
          reference=lu_apart) for shape in LU_SHAPES),
    row("linalg.lu-unpivoted", lambda m, a: tuple(m.linalg.lu(
        positive_definite(m, a), pivot=False))[1:], matrix(3, 3), torch=False,
        reference=lambda a: lu_unpivoted(positive_definite(np, a)), second=False),
    row("linalg.lu_factor", lambda m, a: m.linalg.lu_factor(a)[0], matrix(3, 3),
        reference=lambda a: lu(a)[0]),
    row("linalg.lu_factor-panels", lambda m, a: m.linalg.lu_factor_ex(a)[0],
        In((70, 70), make=lambda rng, s: rng.standard_normal(s) + 40 * np.eye(70)),
        reference=lambda a: lu(a)[0], gradient=False, second=False, dtypes=REAL),
    *(row(f"linalg.lu_solve-{left}-{back}",
          lambda m, a, b, left=left, back=back: solved(m, a, b, left, back), matrix(2, 3, 3),
          In((3, 2) if left else (2, 3))) for left in (True, False) for back in (True, False)),
    row("made-triangular_solve", lambda m, a, b: m.triangular_solve(b, a)[0], matrix(3, 3),
        In((3, 2)), reference=lambda a, b: np.linalg.solve(np.triu(a), b), second=False,
        dtypes=ONE),
    # cuSOLVER has no factors of complex Hermitian matrices.
    *(row(f"linalg.ldl_solve-{hermitian}", lambda m, a, b, h=hermitian: ldl_solved(m, a, b, h),
          matrix(2, 5, 5), In((5, 2)), gradient=(1,), second=False, torch=False,
          **({"dtypes": REAL} if hermitian else {})) for hermitian in (False, True)),
    row("linalg.ldl_solve-ex", lambda m, a: m.linalg.ldl_factor_ex(symmetric(m, a))[2],
        matrix(3, 3), gradient=False, second=False, dtypes=ONE,
        reference=lambda a: np.array(0, np.int32)),
    row("made-linalg.householder_product", lambda m, a, tau: m.linalg.householder_product(a, tau),
        In((2, 4, 3)), In((2, 2)), reference=lambda a, tau: reflections(a, tau)[..., :3]),
    *(row(f"made-ormqr-{left}-{back}",
          lambda m, a, tau, c, left=left, back=back: times(m, a, tau, c, left, back),
          In((3, 2)), In((2,)), In((3, 2) if left else (2, 3)), second=False)
      for left in (True, False) for back in (True, False)),
    *(row(f"geqrf {shape}", lambda m, a: tuple(m.geqrf(a)), matrix(*shape), reference=geqrf,
          gradient=False, second=False) for shape in ((2, 4, 3), (2, 3))),
    row("made-linalg.tensorinv", lambda m, a: m.linalg.tensorinv(a.reshape(2, 3, 6), 2),
        matrix(6, 6), reference=lambda a: np.linalg.inv(a).reshape(6, 2, 3), second=False,
        dtypes=ONE),
    row("made-linalg.tensorsolve",
        lambda m, a, b: m.linalg.tensorsolve(a.reshape(2, 6, 3), b, (0,)), matrix(6, 6), In((6,)),
        second=False, dtypes=ONE,
        reference=lambda a, b: np.linalg.tensorsolve(a.reshape(2, 6, 3), b, (0,))),
    row("made-svd_lowrank", lowrank_product, matrix(2, 3, 4), gradient=False, second=False,
        tolerance=10, dtypes=ONE),
    row("made-svd_lowrank-pca_lowrank", variances, matrix(4, 3), gradient=False, second=False,
        tolerance=10, dtypes=ONE),
    row("made-svd_lowrank-gradient", lowrank_product, matrix(4, 3), second=False, tolerance=10,
        dtypes=ONE),
    row("made-linalg.cholesky_ex", lambda m, a: m.linalg.cholesky_ex(positive_definite(m, a))[0],
        matrix(3, 3), second=False, dtypes=ONE,
        reference=lambda a: np.linalg.cholesky(positive_definite(np, a))),
    row("made-linalg.solve_ex", lambda m, a, b: tuple(m.linalg.solve_ex(a, b)), matrix(3, 3),
        In((3,)), second=False, dtypes=ONE,
        reference=lambda a, b: (np.linalg.solve(a, b), np.array(0, np.int32))),
    row("made-linalg.inv_ex", lambda m, a: m.linalg.inv_ex(a - a)[1], In((2, 2), make=singular),
        gradient=False, second=False, dtypes=ONE, reference=lambda a: np.array(1, np.int32)),
]
