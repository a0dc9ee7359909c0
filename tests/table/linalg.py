"""Rows for mlgpu/ops/linalg_*.py and cdist.py.

What a decomposition leaves open (signs, phases) is multiplied away before comparing.
"""

from __future__ import annotations

import math

import numpy as np
from table.case import COMPLEX, FLOATS, INTS, Case, In

import mlgpu

WIDE = ("float64", "float32", *COMPLEX)
REAL = ("float64", "float32")
INF = math.inf


def regular(rng, shape):
    """Matrices with singular values well apart and away from 0; complex where the shape says 1j."""
    a = rng.standard_normal(shape)
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    values = np.linspace(1, 2.5, min(shape[-2:]))
    return (u * values) @ vh


def singular(rng, shape):
    """Matrices of rank n - 1."""
    u, s, vh = np.linalg.svd(regular(rng, shape))
    s[..., -1] = 0
    return (u * s[..., None, :]) @ vh


def of_ranks(rng, shape):
    """Matrices of every rank, and a regular one whose last two singular values agree."""
    u, s, vh = np.linalg.svd(rng.standard_normal(shape))
    for rank, values in enumerate(s[:-1]):
        values[rank:] = 0
    s[-1, 2:] = 0.5
    return (u * s[..., None, :]) @ vh


def distinct(rng, shape):
    """Values whose magnitudes, and whose sums, are apart: norms of every order are smooth."""
    values = np.geomspace(0.5, 2, math.prod(shape)) * rng.choice([-1.0, 1.0], math.prod(shape))
    return rng.permutation(values).reshape(shape)


def positive_definite(library, a):
    """a a^H + 1, so that every matrix a has a Cholesky factor and its gradient has no symmetry."""
    n = a.shape[-2]
    eye = np.eye(n) if library is np else library.eye(n, dtype=a.dtype)
    return library.matmul(a, adjoint(library, a)) + eye


def adjoint(library, a):
    return np.conj(a.swapaxes(-1, -2)) if library is np else a.mT.conj()


def row(name, call, *inputs, reference=None, torch=True, dtypes=WIDE, second=True, **options):
    """`call(library, *tensors)` runs in mlgpu and in PyTorch; in NumPy too unless `reference`."""
    return Case(name=name, fn=lambda *xs: call(mlgpu, *xs), inputs=inputs,
                reference=reference or (lambda *xs: call(np, *xs)),
                torch=(lambda library, *xs: call(library, *xs)) if torch else None, dtypes=dtypes,
                gradient=options.pop("gradient", True), second=second, **options)


def matrix(*shape):
    return In(shape, make=regular)


SQUARES = [(3, 3), (1, 1), (2, 3, 3), (0, 0), (0, 3, 3)]
RECTANGLES = [(3, 3), (4, 2), (2, 4), (2, 4, 3), (1, 1)]


def squares(name, call, reference=None, **options):
    return [row(f"{name} {shape}", call, matrix(*shape), reference=reference, **options)
            for shape in SQUARES]


def rectangles(name, call, reference=None, **options):
    return [row(f"{name} {shape}", call, matrix(*shape), reference=reference, **options)
            for shape in RECTANGLES]


def logdet(a):
    sign, value = np.linalg.slogdet(a)
    return np.log(sign) + value if np.iscomplexobj(a) else value


def svd_product(library, a):
    """A function of U, S and V^H that signs and phases leave alone."""
    u, s, vh = (np.linalg.svd(a, full_matrices=False) if library is np
                else library.linalg.svd(a, full_matrices=False))
    return s, library.matmul(u * (s * s)[..., None, :], vh)


def eigh_product(library, a):
    values, vectors = library.linalg.eigh(positive_definite(library, a))
    return values, library.matmul(vectors * (values * values)[..., None, :],
                                  adjoint(library, vectors))


def qr_products(library, a, mode="reduced"):
    """Q and R with the signs that make R's diagonal positive."""
    q, r = library.linalg.qr(a, mode)
    return library.matmul(q, r), library.matmul(adjoint(library, r), r)


def matrix_exp(a):
    """Taylor's series: enough terms for the small matrices here."""
    term = total = np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape)
    for k in range(1, 40):
        term = term @ a / k
        total = total + term
    return total


def solve_right(a, b):
    return np.linalg.solve(a.swapaxes(-1, -2), b.swapaxes(-1, -2)).swapaxes(-1, -2)


def triangle(a, upper, unit):
    a = np.triu(a) if upper else np.tril(a)
    return a - a * np.eye(a.shape[-1]) + np.eye(a.shape[-1]) if unit else a


def triangular_rows():
    for upper in (False, True):
        for unit in (False, True):
            for left in (False, True):
                keywords = {"upper": upper, "unitriangular": unit, "left": left}

                def call(library, a, b, keywords=keywords):
                    return library.linalg.solve_triangular(a, b, **keywords)

                def reference(a, b, upper=upper, unit=unit, left=left):
                    a = triangle(a, upper, unit)
                    return np.linalg.solve(a, b) if left else solve_right(a, b)

                yield row(f"linalg.solve_triangular {upper} {unit} {left}", call,
                          In((2, 3, 3), make=lambda rng, s: regular(rng, s) + 2 * np.eye(3)),
                          In((3, 2) if left else (2, 3)), reference=reference)


def vector_norm_rows():
    for order in (2, 1, 0, 3, 1.5, 0.5, -1, INF, -INF):
        for dim, keepdim in ((None, False), (0, True), ((0, 2), False)):

            def call(library, x, order=order, dim=dim, keepdim=keepdim):
                return library.linalg.vector_norm(x, order, dim, keepdim)

            def reference(x, order=order, dim=dim, keepdim=keepdim):
                axes = tuple(range(x.ndim)) if dim is None else dim
                size = np.abs(x)
                if order == 0:
                    return np.sum(size != 0, axes, keepdims=keepdim).astype(size.dtype)
                if math.isinf(order):
                    return (np.max if order > 0 else np.min)(size, axes, keepdims=keepdim)
                return np.sum(size**order, axes, keepdims=keepdim) ** (1 / order)

            yield row(f"linalg.vector_norm {order} {dim}", call, In((2, 3, 4), make=distinct),
                      reference=reference, dtypes=(*FLOATS, *COMPLEX))


def matrix_norm_rows():
    for order in ("fro", "nuc", 1, -1, 2, -2, INF, -INF):
        dtypes = WIDE if order in ("nuc", 2, -2) else (*FLOATS, *COMPLEX)
        for dim, keepdim in (((-2, -1), False), ((2, 0), True)):

            def call(library, x, order=order, dim=dim, keepdim=keepdim):
                return library.linalg.matrix_norm(x, order, dim, keepdim)

            def reference(x, order=order, dim=dim, keepdim=keepdim):
                return np.linalg.norm(x, order, dim, keepdim)

            yield row(f"linalg.matrix_norm {order} {dim}", call, In((2, 3, 4), make=distinct),
                      reference=reference, dtypes=dtypes)


def cdist(x1, x2, p):
    difference = np.abs(x1[..., :, None, :] - x2[..., None, :, :])
    if p == 0:
        return (difference != 0).sum(-1).astype(x1.dtype)
    return difference.max(-1) if math.isinf(p) else (difference**p).sum(-1) ** (1 / p)


def cdist_rows():
    for p in (2, 1, 0, 3, 1.5, 0.5, INF):
        for left, right in (((3, 2), (4, 2)), ((2, 1, 3, 2), (2, 3, 2)), ((0, 2), (4, 2))):
            # PyTorch has no second derivative here, and no half types.
            yield Case(name=f"cdist {p} {left}", fn=lambda a, b, p=p: mlgpu.cdist(a, b, p),
                       inputs=(In(left), In(right)), reference=lambda a, b, p=p: cdist(a, b, p),
                       torch=lambda torch, a, b, p=p: torch.cdist(a, b, p), dtypes=REAL,
                       gradient=True, second=True)
    yield Case(name="cdist-product", fn=lambda a, b: mlgpu.cdist(a, b), inputs=(In((27, 2)),
               In((3, 2))), reference=lambda a, b: cdist(a, b, 2),
               torch=lambda torch, a, b: torch.cdist(a, b), dtypes=REAL, gradient=True, second=True)
    yield Case(name="cdist-half", fn=lambda a, b: mlgpu.cdist(a, b), inputs=(In((3, 2)),
               In((4, 2))), reference=lambda a, b: cdist(a, b, 2), torch=None, dtypes=FLOATS,
               gradient=True, second=True)


CASES = [
    *squares("linalg.inv", lambda m, a: m.linalg.inv(a)),
    row("inv_ex", lambda m, a: m.linalg.inv_ex(a)[0], matrix(3, 3), reference=np.linalg.inv),
    row("inverse", lambda m, a: m.inverse(a), matrix(3, 3), reference=np.linalg.inv),
    *squares("linalg.det", lambda m, a: m.linalg.det(a)),
    row("linalg.det-singular", lambda m, a: m.linalg.det(a), In((2, 3, 3), make=singular)),
    row("linalg.det-zero", lambda m, a: m.linalg.det(a),
        In((2, 2), make=lambda rng, shape: np.zeros(shape))),
    row("linalg.det-ranks", lambda m, a: m.linalg.det(a), In((6, 4, 4), make=of_ranks)),
    *squares("linalg.slogdet", lambda m, a: m.linalg.slogdet(a),
             lambda a: tuple(np.linalg.slogdet(a))),
    row("slogdet", lambda m, a: m.slogdet(a), matrix(3, 3),
        reference=lambda a: tuple(np.linalg.slogdet(a))),
    *squares("logdet", lambda m, a: m.logdet(positive_definite(m, a)),
             lambda a: logdet(positive_definite(np, a))),
    row("linalg.solve", lambda m, a, b: m.linalg.solve(a, b), matrix(2, 3, 3), In((2, 3, 4))),
    row("linalg.solve-shared", lambda m, a, b: m.linalg.solve(a, b), matrix(3, 3), In((2, 3, 4))),
    row("linalg.solve-vector", lambda m, a, b: m.linalg.solve(a, b), matrix(3, 3), In((3,))),
    row("linalg.solve-vectors", lambda m, a, b: m.linalg.solve(a, b), matrix(2, 3, 3), In((2, 3)),
        reference=lambda a, b: np.linalg.solve(a, b[..., None])[..., 0]),
    row("linalg.solve-right", lambda m, a, b: m.linalg.solve(a, b, left=False), matrix(3, 3),
        In((2, 4, 3)), reference=solve_right),
    row("linalg.solve-empty", lambda m, a, b: m.linalg.solve(a, b), matrix(0, 0), In((0, 2))),
    *triangular_rows(),
    row("linalg.solve_triangular-blocks",
        lambda m, a, b: m.linalg.solve_triangular(a, b, upper=False),
        In((150, 150), make=lambda rng, s: np.tril(rng.standard_normal(s)) / 20 + np.eye(150)),
        In((150, 2)), reference=np.linalg.solve, gradient=False, second=False, dtypes=REAL),
    *squares("linalg.cholesky", lambda m, a: m.linalg.cholesky(positive_definite(m, a))),
    row("linalg.cholesky-upper",
        lambda m, a: m.linalg.cholesky(positive_definite(m, a), upper=True), matrix(2, 3, 3),
        reference=lambda a: adjoint(np, np.linalg.cholesky(positive_definite(np, a)))),
    row("cholesky_solve", lambda m, a, b: m.cholesky_solve(b, m.linalg.cholesky(
        positive_definite(m, a))), matrix(3, 3), In((3, 2)),
        reference=lambda a, b: np.linalg.solve(positive_definite(np, a), b)),
    row("cholesky_solve-upper", lambda m, a, b: m.cholesky_solve(b, m.linalg.cholesky(
        positive_definite(m, a), upper=True), upper=True), matrix(3, 3), In((3, 2)),
        reference=lambda a, b: np.linalg.solve(positive_definite(np, a), b)),
    row("cholesky_inverse", lambda m, a: m.cholesky_inverse(m.linalg.cholesky(
        positive_definite(m, a))), matrix(3, 3),
        reference=lambda a: np.linalg.inv(positive_definite(np, a))),
    *rectangles("linalg.qr", qr_products),
    row("linalg.qr-complete", lambda m, a: qr_products(m, a, "complete"), matrix(2, 4)),
    row("linalg.qr-complete-tall", lambda m, a: qr_products(m, a, "complete"), matrix(4, 2),
        gradient=False, second=False),
    *rectangles("linalg.svd", svd_product),
    *rectangles("linalg.svdvals", lambda m, a: m.linalg.svdvals(a)),
    # Of (4, 2) the product has an eigenvalue twice, whose vectors have no derivative.
    *(row(f"linalg.eigh {shape}", eigh_product, matrix(*shape))
      for shape in RECTANGLES if shape != (4, 2)),
    *squares("linalg.eigvalsh", lambda m, a: m.linalg.eigvalsh(positive_definite(m, a))),
    *squares("linalg.eigvals", lambda m, a: (m.linalg.eigvals(a) ** 2).sum(-1),
             lambda a: np.trace(a @ a, axis1=-2, axis2=-1).astype(np.complex128)),
    *rectangles("linalg.pinv", lambda m, a: m.linalg.pinv(a)),
    row("linalg.pinv-hermitian",
        lambda m, a: m.linalg.pinv(positive_definite(m, a), hermitian=True), matrix(3, 3),
        reference=lambda a: np.linalg.inv(positive_definite(np, a))),
    row("pinverse", lambda m, a: m.pinverse(a), matrix(4, 3), reference=np.linalg.pinv),
    *rectangles("linalg.lstsq", lambda m, a, b=None: m.linalg.lstsq(a, a.sum(-1)).solution,
                lambda a: np.ones((*a.shape[:-2], a.shape[-1]), a.dtype)
                if a.shape[-2] >= a.shape[-1]
                else (np.linalg.pinv(a) @ a.sum(-1)[..., None])[..., 0]),
    row("linalg.lstsq-gelsd", lambda m, a, b: tuple(m.linalg.lstsq(a, b, driver="gelsd")),
        matrix(4, 2), In((4, 3)), gradient=False, second=False,
        reference=lambda a, b: (*np.linalg.lstsq(a, b)[:2], np.array(2),
                                np.linalg.svd(a, compute_uv=False))),
    *rectangles("linalg.matrix_rank", lambda m, a: m.linalg.matrix_rank(a), gradient=False,
                second=False, reference=lambda a: np.asarray(np.linalg.matrix_rank(a))),
    row("linalg.matrix_rank-singular", lambda m, a: m.linalg.matrix_rank(a),
        In((2, 3, 3), make=singular), gradient=False, second=False,
        reference=lambda a: np.linalg.matrix_rank(a, rtol=1e-5)),
    *(row(f"linalg.matrix_power {n}", lambda m, a, n=n: m.linalg.matrix_power(a, n),
          matrix(2, 3, 3)) for n in (1, 2, 5, -1, -2)),
    row("linalg.matrix_power 0", lambda m, a: m.linalg.matrix_power(a, 0), matrix(2, 3, 3),
        gradient=False, second=False),
    row("matrix_power", lambda m, a: m.matrix_power(a, 3), matrix(3, 3),
        reference=lambda a: a @ a @ a),
    *squares("matrix_exp", lambda m, a: m.matrix_exp(a), matrix_exp),
    row("trace", lambda m, a: m.trace(a), In((3, 4)), dtypes=(*FLOATS, *COMPLEX, *INTS)),
    row("linalg.diagonal", lambda m, a: m.linalg.diagonal(a), In((2, 3, 4)),
        reference=lambda a: a.diagonal(0, -2, -1)),
    row("linalg.cross", lambda m, a, b: m.linalg.cross(a, b), In((2, 1, 3)), In((1, 4, 3)),
        reference=np.cross, dtypes=(*FLOATS, *COMPLEX)),
    row("cross", lambda m, a, b: m.cross(a, b), In((4, 3, 2)), In((4, 3, 2)),
        reference=lambda a, b: np.cross(a, b, axis=1), dtypes=(*FLOATS, *COMPLEX, *INTS)),
    row("kron", lambda m, a, b: m.kron(a, b), In((2, 3)), In((2, 1, 2)),
        dtypes=(*FLOATS, *COMPLEX, *INTS)),
    # PyTorch's vander overwrites what its own backward needs.
    Case("vander", lambda a: mlgpu.vander(a, 3), (In((4,)),), lambda a: np.vander(a, 3),
         lambda torch, a: torch.linalg.vander(a, N=3).flip(-1), dtypes=REAL),
    row("linalg.vander", lambda m, a: m.linalg.vander(a), In((2, 3)),
        reference=lambda a: a[..., None] ** np.arange(3), dtypes=REAL),
    *vector_norm_rows(),
    row("linalg.vector_norm-zero", lambda m, x: m.linalg.vector_norm(x), In((0,)),
        reference=np.linalg.norm),
    *matrix_norm_rows(),
    row("linalg.norm", lambda m, x: m.linalg.norm(x), In((2, 3)), dtypes=(*FLOATS, *COMPLEX)),
    row("linalg.norm-1", lambda m, x: m.linalg.norm(x, 1), In((2, 3), make=distinct)),
    row("linalg.norm-dim", lambda m, x: m.linalg.norm(x, 3, 1), In((2, 3), make=distinct)),
    row("norm", lambda m, x: m.norm(x), In((2, 3)), reference=np.linalg.norm,
        dtypes=(*FLOATS, *COMPLEX)),
    row("norm-dim", lambda m, x: m.norm(x, 2, -1, True), In((2, 3)),
        reference=lambda x: np.linalg.norm(x, 2, -1, True), dtypes=(*FLOATS, *COMPLEX)),
    row("norm-nuc", lambda m, x: m.norm(x, "nuc"), matrix(2, 3),
        reference=lambda x: np.linalg.norm(x, "nuc")),
    # PyTorch's cond overwrites what its own backward needs, but for the 2-norm.
    *(Case(f"linalg.cond {p}", lambda x, p=p: mlgpu.linalg.cond(x, p),
           (In((3, 3), make=lambda rng, s: distinct(rng, s) + 3 * np.eye(3)),),
           lambda x, p=p: np.linalg.cond(x, p),
           lambda torch, x, p=p: torch.linalg.norm(x, p or 2) * torch.linalg.norm(
               torch.linalg.inv(x), p or 2), dtypes=REAL) for p in (None, 1, "fro")),
    *cdist_rows(),
]
