"""jacobian, hessian, vjp, jvp, vhp, hvp: closed forms, structures, strictness, PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.autograd.functional import hessian, hvp, jacobian, jvp, vhp, vjp

A = np.random.default_rng(0).standard_normal((3, 4))
S = A @ A.T + np.eye(3)
X, Y = np.array([0.3, -1.2, 0.7, 1.1]), np.array([0.4, 0.9, -0.6])


def t(values, **options):
    return mlgpu.tensor(values, dtype=mlgpu.float64, **options)


def linear(x):
    return t(A) @ x


def bilinear(x, y):
    return (y @ t(A)) * x, (x * x).sum() * y[0]


def quadratic(y):
    return 0.5 * (y @ t(S) @ y)


def both(x, y):
    return (y @ t(A) @ x) + (x ** 3).sum()


def equal(tensor, expected):
    np.testing.assert_allclose(tensor.detach().numpy(), expected, 1e-10, 1e-12)


def test_jacobian():
    equal(jacobian(linear, t(X)), A)
    found = jacobian(bilinear, (t(X), t(Y)))
    assert [len(row) for row in found] == [2, 2]
    equal(found[0][0], np.diag(Y @ A))
    equal(found[0][1], A.T * X[:, None])
    equal(found[1][0], 2 * X * Y[0])
    equal(found[1][1], [(X * X).sum(), 0, 0])
    (alone,) = jacobian(lambda x: linear(x), (t(X),))
    equal(alone, A)
    scalar = jacobian(lambda x: x.sum(), t(X))
    assert tuple(scalar.shape) == (4,)
    assert tuple(jacobian(lambda x: x[:0], t(X)).shape) == (0, 4)
    assert tuple(jacobian(lambda x: x.reshape(2, 2).T, t(X)).shape) == (2, 2, 4)


def test_hessian():
    equal(hessian(quadratic, t(Y)), S)
    (xx, xy), (yx, yy) = hessian(both, (t(X), t(Y)))
    equal(xx, np.diag(6 * X))
    equal(xy, A.T)
    equal(yx, A)
    equal(yy, np.zeros((3, 3)))
    equal(hessian(lambda x: x.sum().reshape(1), t(X)), np.zeros((4, 4)))


def test_products():
    v, w = np.array([1.0, 2, -1]), np.array([0.5, -1, 2, 0.1])
    value, product = vjp(linear, t(X), t(v))
    equal(value, A @ X)
    equal(product, v @ A)
    value, product = jvp(linear, t(X), t(w))
    equal(product, A @ w)
    value, product = vhp(quadratic, t(Y), t(v))
    equal(value, 0.5 * Y @ S @ Y)
    equal(product, v @ S)
    equal(hvp(quadratic, t(Y), t(v))[1], S @ v)
    first, second = hvp(both, (t(X), t(Y)), (t(w), t(v)))[1]
    equal(first, 6 * X * w + A.T @ v)
    equal(second, A @ w)
    values, (dx, dy) = vjp(bilinear, (t(X), t(Y)), (t(w), t(2.0)))
    assert len(values) == 2
    equal(dx, w * (Y @ A) + 4 * X * Y[0])
    equal(dy, A @ (w * X) + 2 * (X * X).sum() * np.eye(3)[0])


def test_a_vector_may_be_left_out_for_one_element():
    equal(vjp(quadratic, t(Y))[1], S @ Y)
    equal(jvp(lambda s: s * t(X), t(2.0))[1], X)
    with pytest.raises(mlgpu.GraphError, match="vjp: v may be left out only"):
        vjp(linear, t(X))


def test_results_have_no_graph_unless_asked_for():
    x = t(X, requires_grad=True)
    for found in (jacobian(linear, x), vjp(linear, x, t(Y))[1], jvp(linear, x, t(X))[1],
                  hessian(lambda x: (x ** 3).sum(), x), *hvp(lambda x: (x ** 3).sum(), x, x)):
        assert not found.requires_grad
    assert x.grad is None
    (g,) = mlgpu.autograd.grad(jacobian(lambda x: x ** 3, x, create_graph=True).sum(), x)
    equal(g, 6 * X)
    (g,) = mlgpu.autograd.grad(hessian(lambda x: (x ** 3).sum(), x, create_graph=True).sum(), x)
    equal(g, np.full(4, 6.0))
    v = t(X, requires_grad=True)
    product = jvp(lambda x: x ** 3, x, v, create_graph=True)[1]
    gx, gv = mlgpu.autograd.grad(product.sum(), (x, v))
    equal(gx, 6 * X * X)
    equal(gv, 3 * X * X)
    with mlgpu.no_grad():
        equal(jacobian(linear, t(X)), A)


def test_independent_outputs_are_zeros_or_an_error():
    constant = t([1.0, 2.0])
    equal(jacobian(lambda x: constant, t(X)), np.zeros((2, 4)))
    equal(jacobian(lambda x, y: x * 1, (t(X), t(Y)))[1], np.zeros((4, 3)))
    equal(hvp(lambda x: x.sum(), t(X), t(X))[1], np.zeros(4))
    for call in (lambda: jacobian(lambda x: constant, t(X), strict=True),
                 lambda: vjp(lambda x: constant, t(X), t([1.0, 1]), strict=True),
                 lambda: jacobian(lambda x, y: x * 1, (t(X), t(Y)), strict=True),
                 lambda: hessian(lambda x: x.sum(), t(X), strict=True)):
        with pytest.raises(mlgpu.GraphError, match="does not depend"):
            call()


def test_what_is_refused():
    with pytest.raises(TypeError, match="jacobian: expected a Tensor or a tuple"):
        jacobian(linear, [1.0])
    with pytest.raises(TypeError, match="the function's result"):
        jacobian(lambda x: 5, t(X))
    with pytest.raises(mlgpu.GraphError, match="hessian: the function must return"):
        hessian(linear, t(X))
    with pytest.raises(mlgpu.ShapeError, match=r"vjp: v has a tensor of shape \(4,\)"):
        vjp(linear, t(X), t(X))
    with pytest.raises(mlgpu.ShapeError, match="v has 1 tensors, expected 2"):
        jvp(bilinear, (t(X), t(Y)), t(X))


def test_complex_and_real_agree_with_pytorch():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")
    z = X[:2] + 1j * X[2:]
    for function in (lambda z: (z * z).imag, lambda z: z.abs(), lambda z: (z * z.conj()).real.sum(),
                     lambda z: z.exp().real):
        mine = jacobian(function, mlgpu.tensor(z))
        theirs = torch.autograd.functional.jacobian(function, torch.tensor(z))
        assert tuple(mine.shape) == tuple(theirs.shape)
        equal(mine, theirs.numpy())
    for lib in (mlgpu, torch):
        with pytest.raises(RuntimeError, match="real"):
            lib.autograd.functional.jacobian(lambda z: z * z, lib.tensor(z))


@pytest.mark.parametrize("name", ["jacobian", "hessian", "vjp", "jvp", "vhp", "hvp"])
def test_structures_agree_with_pytorch(name):
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")

    def leaves(value):
        return [leaf for part in value for leaf in leaves(part)] if isinstance(
            value, tuple) else [value]

    def shape(value):
        return tuple(map(shape, value)) if isinstance(value, tuple) else tuple(value.shape)

    def run(lib):
        x, y = (lib.tensor(v, dtype=lib.float64) for v in (X, Y))
        function = getattr(lib.autograd.functional, name)
        scalar = name in ("hessian", "vhp", "hvp")

        def f(x, y):
            return (x.sin().sum() * y).sum() if scalar else (x * y.sum(), y.exp())

        vector = {"vjp": ((x, y),), "jvp": ((x, y),), "vhp": ((x, y),), "hvp": ((x, y),)}
        return function(f, (x, y), *vector.get(name, ()))

    mine, theirs = run(mlgpu), run(torch)
    assert shape(mine) == shape(theirs)
    for a, b in zip(leaves(mine), leaves(theirs), strict=True):
        equal(a, b.numpy())
