"""LU and LDL factorisations on the CPU: NumPy gives out no factors of its own.

Both work in place on a copy, and leave both factors in one matrix as LAPACK does, with its pivots.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import gemm
from mlgpu.cpu.lapack import solve_triangular
from mlgpu.cpu.runtime import copy, empty
from mlgpu.errors import PositionError

Array = np.ndarray[Any, Any]

# Columns that are factored one after the other before the rest of the matrix is brought up to
# date by one GEMM.
PANEL = 32

# The growth of Bunch and Kaufman's pivots is least with this ratio ("Some stable methods for
# calculating inertia and solving symmetric linear systems", 1977).
RATIO = (1 + math.sqrt(17)) / 8


def size(a: Array) -> Array:
    """|re| + |im|, by which LAPACK chooses pivots."""
    return np.abs(a.real) + np.abs(a.imag) if a.dtype.kind == "c" else np.abs(a)


def lu(a: Array, pivot: bool) -> tuple[Array, Array, Array]:
    """Unit lower L and upper U of P^T A = L U in one matrix, for (..., m, n); pivots and info.

    pivots: the row, counted from 1, that each row was exchanged with; info: the place, counted
    from 1, of the first zero on U's diagonal, or 0.
    """
    batch, (m, n) = a.shape[:-2], a.shape[-2:]
    count, k = math.prod(batch), min(m, n)
    factors = copy(a).reshape(count, m, n)
    pivots = empty((count, k), np.int32)
    pivots[...] = np.arange(1, k + 1)
    info = np.zeros(count, np.int32)
    every = np.arange(count)
    for start in range(0, k if count else 0, PANEL):
        stop = min(start + PANEL, k)
        for j in range(start, stop):
            if pivot:
                best = j + size(factors[:, j:, j]).argmax(-1)
                pivots[:, j] = best + 1
                chosen = factors[every, best]
                factors[every, best] = factors[:, j]
                factors[:, j] = chosen
            value = factors[:, j, j]
            zero = value == 0
            info[zero & (info == 0)] = j + 1
            factors[:, j + 1:, j] /= np.where(zero, 1, value)[:, None]
            factors[:, j + 1:, j + 1:stop] -= (factors[:, j + 1:, j, None]
                                               * factors[:, None, j, j + 1:stop])
        if stop < n:
            right = solve_triangular("linalg.lu_factor", factors[:, start:stop, start:stop],
                                     factors[:, start:stop, stop:], False, True)
            factors[:, start:stop, stop:] = right
            factors[:, stop:, stop:] -= gemm(factors[:, stop:, start:stop], right)
    return factors.reshape(a.shape), pivots.reshape(*batch, k), info.reshape(batch)


def permutation(pivots: Array, rows: int) -> Array:
    """Which row each row comes from after these exchanges, counted from 0: int64 (..., rows)."""
    batch, k = pivots.shape[:-1], pivots.shape[-1]
    count = math.prod(batch)
    order = np.empty((count, rows), np.int64)
    order[...] = np.arange(rows)
    others, every = _checked("lu_unpack", pivots, rows).reshape(count, k) - 1, np.arange(count)
    for i in range(k):
        order[every, others[:, i]], order[:, i] = order[:, i], order[every, others[:, i]]
    return order.reshape(*batch, rows)


def _checked(op: str, rows: Array, n: int) -> Array:
    """Row numbers, counted from 1.  IndexError for what is none."""
    if rows.size and not (rows.min() >= 1 and rows.max() <= n):
        raise PositionError(f"{op}: pivots must lie between 1 and {n}, got values from "
                            f"{rows.min()} to {rows.max()}")
    return rows


def ldl(a: Array, hermitian: bool) -> tuple[Array, Array, Array]:
    """L and D of A = L D L^T (or L^H) in one matrix, from A's lower triangle; pivots and info.

    By Bunch and Kaufman's diagonal pivoting, in LAPACK's form: D has blocks of one and two rows. A
    pivot is the row, counted from 1, that a block's (last) row was exchanged with; both of a block
    of two are negative.
    """
    batch, n = a.shape[:-2], a.shape[-1]
    count = math.prod(batch)
    factors = np.tril(a).reshape(count, n, n)
    pivots = empty((count, n), np.int32)
    info = np.zeros(count, np.int32)
    for index in range(count):
        info[index] = _ldl(factors[index], pivots[index], hermitian)
    return factors.reshape(a.shape), pivots.reshape(*batch, n), info.reshape(batch)


def _ldl(a: Array, pivots: Array, hermitian: bool) -> int:
    n, j, info = len(a), 0, 0
    while j < n:
        width, other = _block(a, j, hermitian)
        last = j + width - 1
        _exchange(a, last, other, hermitian)
        if width == 2 and last != other:
            a[[last, other], j] = a[[other, last], j]
        pivots[j:j + width] = other + 1 if width == 1 else -(other + 1)
        if hermitian:
            diagonal = np.arange(j, j + width)
            a[diagonal, diagonal] = a[diagonal, diagonal].real
        below = slice(j + width, n)
        left = a[below, j:j + width]
        if width == 1 and not size(a[j, j]) > 0:  # 0 or NaN, with which nothing is eliminated
            info = info or j + 1
        elif left.size:
            block = a[j:j + width, j:j + width].copy()
            if width == 2:
                block[0, 1] = block[1, 0].conj() if hermitian else block[1, 0]
            multiples = np.linalg.solve(block.T, left.T).T
            across = left.conj().T if hermitian else left.T
            a[below, below] -= np.tril(gemm(multiples, across))
            a[below, j:j + width] = multiples
        j += width
    if hermitian and n:
        diagonal = np.einsum("ii->i", a)
        diagonal[...] = diagonal.real
    return info


def _block(a: Array, j: int, hermitian: bool) -> tuple[int, int]:
    """How many rows the next block of D has, and which row its last one is exchanged with."""
    below = size(a[j + 1:, j])
    own = abs(a[j, j].real) if hermitian else float(size(a[j, j]))
    if not below.size or not max(own, below.max()) > 0:
        return 1, j
    r, largest = j + 1 + int(below.argmax()), float(below.max())
    if own >= RATIO * largest:
        return 1, j
    across = max(float(size(a[r, j:r]).max()), float(size(a[r + 1:, r]).max(initial=0)))
    if own * across >= RATIO * largest**2:
        return 1, j
    if (abs(a[r, r].real) if hermitian else float(size(a[r, r]))) >= RATIO * across:
        return 1, r
    return 2, r


def _exchange(a: Array, i: int, r: int, hermitian: bool) -> None:
    """Exchange rows and columns i <= r of what is left of a symmetric matrix's lower triangle."""
    if i == r:
        return
    a[[i, r], [i, r]] = a[[r, i], [r, i]]
    a[r + 1:, [i, r]] = a[r + 1:, [r, i]]
    between = a[i + 1:r, i].copy()
    a[i + 1:r, i] = a[r, i + 1:r].conj() if hermitian else a[r, i + 1:r]
    a[r, i + 1:r] = between.conj() if hermitian else between
    if hermitian:
        a[r, i] = a[r, i].conj()


def ldl_order(pivots: Array) -> tuple[Array, Array, Array]:
    """What the pivots of `ldl` say: the order of rows, where each element of L is, and the pairs.

    The first, (..., n), is that of A's rows and columns in L D L^T. In LAPACK's form the rows of a
    column of L stand as they were when it was made: the second, (..., n, n), has the row of each.
    The third, (..., n), is true where a block of D with two rows begins.
    """
    batch, n = pivots.shape[:-1], pivots.shape[-1]
    flat = _checked("linalg.ldl_solve", np.abs(pivots), n).reshape(math.prod(batch), n)
    positive = (pivots > 0).reshape(flat.shape)
    order, places = np.empty(flat.shape, np.int64), np.empty((*flat.shape, n), np.int64)
    pairs = np.zeros(flat.shape, bool)
    order[...] = np.arange(n)
    places[...] = np.arange(n)[:, None]
    for index in range(len(flat)):
        j = 0
        while j < n:
            width = 1 if positive[index, j] or j + 1 == n else 2
            last, other = j + width - 1, int(flat[index, j]) - 1
            pairs[index, j] = width == 2
            places[index, [last, other], :j] = places[index, [other, last], :j]
            order[index, [last, other]] = order[index, [other, last]]
            j += width
    return (order.reshape(*batch, n), places.reshape(*batch, n, n), pairs.reshape(*batch, n))
