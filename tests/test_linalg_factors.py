"""What factorisations say beside their values: infos, pivots, older forms, errors."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import DerivativeError, DTypeError, LinAlgError, ShapeError


def drawn(*shape, dtype="float64"):
    values = np.random.default_rng(1).standard_normal(shape)
    return mlgpu.tensor(values + 0.5j * values[..., ::-1] if dtype == "complex128" else values)


def test_a_singular_matrix_has_factors_and_an_info():
    a = mlgpu.tensor([[[1.0, 2, 0], [2, 4, 0], [0, 0, 1]], [[2.0, 0, 0], [0, 1, 0], [0, 0, 1]]])
    packed, pivots, info = mlgpu.linalg.lu_factor_ex(a)
    assert info.tolist() == [2, 0]
    assert {info.dtype, pivots.dtype} == {mlgpu.int32}
    p, lower, upper = mlgpu.lu_unpack(packed, pivots)
    np.testing.assert_allclose((p @ lower @ upper).numpy(), a.numpy())
    with pytest.raises(LinAlgError, match="lu_factor_ex"):
        mlgpu.linalg.lu_factor(a)
    with pytest.raises(LinAlgError, match="diagonal"):
        mlgpu.linalg.lu_solve(packed, pivots, drawn(3, 1).float())


def test_forms_without_their_own_rows_agree_with_those_that_have():
    a, b = drawn(4, 3), drawn(3, 2)
    packed, pivots = mlgpu.lu(a)
    assert mlgpu.lu(a, get_infos=True)[2].item() == 0
    assert all(x.numel() == 0 for x in mlgpu.lu_unpack(packed, pivots, False, False))
    square = a[:3]
    x = mlgpu.lu_solve(b, *square.lu())
    np.testing.assert_allclose((square @ x).numpy(), b.numpy())
    x, copy = mlgpu.triangular_solve(b, square, upper=False, transpose=True, unitriangular=True)
    lower = square.tril(-1) + mlgpu.eye(3, dtype=mlgpu.float64)
    np.testing.assert_allclose((lower.mT @ x).numpy(), b.numpy())
    assert mlgpu.equal(copy, square)
    h, tau = mlgpu.geqrf(a)
    q, r = mlgpu.linalg.qr(a)
    np.testing.assert_allclose(mlgpu.orgqr(h, tau).numpy(), q.numpy(), atol=1e-12)
    np.testing.assert_allclose(mlgpu.ormqr(h, tau, a, transpose=True)[:3].numpy(), r.numpy(),
                               atol=1e-12)


@pytest.mark.parametrize("hermitian", [False, True])
def test_ldl_factors_indefinite_matrices_with_pairs(hermitian):
    a = drawn(3, 6, 6, dtype="complex128")
    a = a + (a.mH if hermitian else a.mT)
    a.diagonal(0, -2, -1).fill_(0)
    factors, pivots = mlgpu.linalg.ldl_factor(a, hermitian=hermitian)
    assert (pivots < 0).any()
    b = drawn(6, 2, dtype="complex128")
    x = mlgpu.linalg.ldl_solve(factors, pivots, b, hermitian=hermitian)
    np.testing.assert_allclose((a @ x).numpy(), b.expand(3, 6, 2).numpy(), atol=1e-10)


def test_ldl_without_a_result_and_without_a_gradient():
    nothing = mlgpu.zeros(2, 2, dtype=mlgpu.float64)
    assert mlgpu.linalg.ldl_factor_ex(nothing).info.item() == 1
    with pytest.raises(LinAlgError, match="ldl_factor_ex"):
        mlgpu.linalg.ldl_factor(nothing)
    with pytest.raises(DerivativeError, match="ldl_factor"):
        mlgpu.linalg.ldl_factor(drawn(2, 2).requires_grad_())


def test_ex_functions_say_where_there_is_no_result():
    good, bad = mlgpu.eye(3), mlgpu.tensor([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]])
    both = mlgpu.stack([good, bad])
    result, info = mlgpu.linalg.solve_ex(both, mlgpu.ones(2, 3))
    assert info.tolist() == [0, 2]
    assert result[0].tolist() == [1, 1, 1]
    assert result[1].isnan().all()
    factor, info = mlgpu.linalg.cholesky_ex(mlgpu.stack([good, bad, -good]))
    assert info.tolist() == [0, 2, 1]
    assert mlgpu.equal(factor[0], good)
    assert factor[1].tril().isnan().sum() == 6
    assert factor[1, 0, 1] == 0
    for call in (lambda: mlgpu.linalg.solve_ex(bad, mlgpu.ones(3), check_errors=True),
                 lambda: mlgpu.linalg.cholesky_ex(bad, check_errors=True)):
        with pytest.raises(LinAlgError):
            call()


def test_lowrank_finds_the_largest_singular_values():
    generator = np.random.default_rng(3)
    u, _ = np.linalg.qr(generator.standard_normal((40, 4)))
    v, _ = np.linalg.qr(generator.standard_normal((30, 4)))
    a = mlgpu.tensor((u * [8, 4, 2, 1]) @ v.T + 1e-9 * generator.standard_normal((40, 30)))
    mlgpu.manual_seed(0)
    np.testing.assert_allclose(mlgpu.svd_lowrank(a, q=6).S[:4].numpy(), [8, 4, 2, 1], rtol=1e-7)
    centred = a - a.mean(0)
    np.testing.assert_allclose(mlgpu.pca_lowrank(a, q=4).S.numpy(),
                               mlgpu.linalg.svdvals(centred)[:4].numpy(), rtol=1e-6)
    np.testing.assert_allclose(mlgpu.svd_lowrank(a + 1, q=6, M=mlgpu.ones(30, dtype=a.dtype))
                               .S[:4].numpy(), [8, 4, 2, 1], rtol=1e-7)


@pytest.mark.parametrize(("call", "error"), [
    (lambda: mlgpu.linalg.lu_factor(drawn(3)), ShapeError),
    (lambda: mlgpu.linalg.lu(mlgpu.ones(2, 2, dtype=mlgpu.int64)), DTypeError),
    (lambda: mlgpu.lu_unpack(drawn(2, 2), mlgpu.tensor([1, 2])), DTypeError),
    (lambda: mlgpu.linalg.lu_solve(drawn(2, 2), mlgpu.tensor([1, 2], dtype=mlgpu.int32),
                                   drawn(3, 1)), ShapeError),
    (lambda: mlgpu.lu_unpack(drawn(2, 2), mlgpu.tensor([1, 3], dtype=mlgpu.int32)), IndexError),
    (lambda: mlgpu.linalg.ldl_solve(drawn(2, 2), mlgpu.tensor([0, 2], dtype=mlgpu.int32),
                                    drawn(2, 1)), IndexError),
    (lambda: mlgpu.linalg.ldl_solve(drawn(2, 2), mlgpu.tensor([1], dtype=mlgpu.int32),
                                    drawn(2, 1)), ShapeError),
    (lambda: mlgpu.linalg.householder_product(drawn(2, 3), drawn(2)), ShapeError),
    (lambda: mlgpu.ormqr(drawn(3, 2), drawn(3), drawn(3, 1)), ShapeError),
    (lambda: mlgpu.ormqr(drawn(3, 2), drawn(2), drawn(2, 1)), ShapeError),
    (lambda: mlgpu.linalg.tensorinv(drawn(2, 3), 1), ShapeError),
    (lambda: mlgpu.linalg.tensorinv(drawn(2, 2), 0), ShapeError),
    (lambda: mlgpu.linalg.tensorsolve(drawn(2, 3), drawn(2)), ShapeError),
    (lambda: mlgpu.svd_lowrank(drawn(3, 3), q=4), ShapeError),
    (lambda: mlgpu.pca_lowrank(drawn(3, 3), q=4), ShapeError),
    (lambda: mlgpu.geqrf(drawn(3, 3).requires_grad_()), DerivativeError),
])
def test_wrong_arguments(call, error):
    with pytest.raises(error):
        call()
