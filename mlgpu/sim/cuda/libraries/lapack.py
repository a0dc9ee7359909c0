"""LAPACK's factorizations as cuBLAS and cuSOLVER store them, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def lu(a: Array, pivot: bool = True) -> tuple[Array, Array, int]:
    """L and U in one matrix, the 1-based row exchanges, and the first zero pivot (0: none)."""
    a = a.copy()
    m, n = a.shape
    k = min(m, n)
    rows = np.arange(1, k + 1, dtype=np.int32)
    info = 0
    for i in range(k):
        if pivot:
            best = i + int(np.argmax(np.abs(a[i:, i].real) + np.abs(a[i:, i].imag)))
            rows[i] = best + 1
            if best != i:
                a[[i, best]] = a[[best, i]]
        if a[i, i] == 0:
            info = info or i + 1
            continue
        a[i + 1:, i] /= a[i, i]
        a[i + 1:, i + 1:] -= np.outer(a[i + 1:, i], a[i, i + 1:])
    return a, rows, info


def exchange(b: Array, rows: Array, back: bool = False) -> Array:
    """Rows exchanged one after the other, or back."""
    b = b.copy()
    order = range(len(rows) - 1, -1, -1) if back else range(len(rows))
    for i in order:
        other = int(rows[i]) - 1
        if other != i:
            b[[i, other]] = b[[other, i]]
    return b


def triangular(a: Array, b: Array, lower: bool, unit: bool = False) -> Array:
    """The x of `a @ x == b`, of a one triangle; zeros on the diagonal give infinities."""
    x = np.array(b, copy=True)
    n = len(a)
    for i in range(n) if lower else range(n - 1, -1, -1):
        known = slice(0, i) if lower else slice(i + 1, n)
        x[i] -= a[i, known] @ x[known]
        if not unit:
            x[i] /= a[i, i]
    return x


def transposed(a: Array, operation: int) -> Array:
    """op(a): 0 as it is, 1 transposed, 2 transposed and conjugated."""
    if operation == 0:
        return a
    return a.T if operation == 1 else a.conj().T


def lu_solve(factors: Array, rows: Array | None, b: Array, operation: int = 0) -> Array:
    """The x of `op(a) @ x == b`, of a's factors."""
    if operation == 0:
        if rows is not None:
            b = exchange(b, rows)
        return triangular(factors, triangular(factors, b, True, True), False)
    a = transposed(factors, operation)
    x = triangular(a, triangular(a, b, True), False, True)
    return x if rows is None else exchange(x, rows, back=True)


def triangle(n: int, upper: int) -> Array:
    """Which elements a symmetric or triangular matrix is read from."""
    return np.triu(np.ones((n, n), bool)) if upper else np.tril(np.ones((n, n), bool))


def cholesky(a: Array, upper: int) -> tuple[Array, int]:
    """The triangle's factor in its place, and the first minor that is not positive (0: none)."""
    a = a.copy()
    lower = a.conj().T if upper else a
    work = np.tril(lower)
    info = 0
    for i in range(len(a)):
        pivot = work[i, i].real - np.vdot(work[i, :i], work[i, :i]).real
        if not pivot > 0:
            info = i + 1
            break
        work[i, i] = np.sqrt(pivot)
        work[i + 1:, i] = (work[i + 1:, i] - work[i + 1:, :i] @ work[i, :i].conj()) / work[i, i]
    part = triangle(len(a), upper)
    a[part] = (work.conj().T if upper else work)[part]
    return a, info


def cholesky_solve(a: Array, b: Array, upper: int) -> Array:
    """The x of `a @ x == b`, of a's factor."""
    lower = np.tril(a.conj().T if upper else a)
    return triangular(lower.conj().T, triangular(lower, b, True), False)


def householder(a: Array) -> tuple[Array, Array]:
    """R with the reflectors under it, and their factors tau."""
    h, tau = np.linalg.qr(a, mode="raw")
    return h.swapaxes(-2, -1), tau


def reflect(h: Array, tau: Array, c: Array, back: bool) -> Array:
    """Q @ c, or with `back` the conjugated transposed Q @ c, of reflectors."""
    c = np.array(c, copy=True)
    k = len(tau)
    for i in range(k) if back else range(k - 1, -1, -1):
        v = h[i:, i].copy()
        v[0] = 1
        c[i:] -= (tau[i].conj() if back else tau[i]) * np.outer(v, v.conj() @ c[i:])
    return c
