"""The CPU's optimizer loop: compiled and NumPy's form agree, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.cpu import fast
from mlgpu.cpu.optimizer import PIECE, AdamRule, SgdRule, update

RULES = {
    "sgd": (1, SgdRule(0.1, 0.0, 0.0, 0.0, False, False, False)),
    "sgd, decay, maximize": (1, SgdRule(0.1, 0.0, 0.0, 0.3, False, True, False, 0.5)),
    "momentum": (2, SgdRule(0.1, 0.9, 0.1, 0.01, False, False, False)),
    "momentum, first": (2, SgdRule(0.1, 0.9, 0.1, 0.01, False, False, True)),
    "nesterov": (2, SgdRule(0.1, 0.9, 0.0, 0.0, True, False, False)),
    "adam": (3, AdamRule(0.01, 0.9, 0.999, 1e-8, 0.0, False, False, 3)),
    "adam, coupled decay": (3, AdamRule(0.01, 0.9, 0.999, 1e-8, 0.1, False, True, 3, 2.0)),
    "adamw": (3, AdamRule(0.01, 0.8, 0.99, 1e-6, 0.1, True, False, 1)),
    "amsgrad": (4, AdamRule(0.01, 0.9, 0.999, 1e-8, 0.0, False, False, 7)),
}


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = mlgpu.get_num_threads()
    mlgpu.set_num_threads(request.param)
    yield request.param
    mlgpu.set_num_threads(before)


def problem(count, dtype, sizes, seed=0):
    rng = np.random.default_rng(seed)
    groups = [[rng.standard_normal(size).astype(dtype) for _ in range(count + 1)] for size in sizes]
    for group in groups:
        for state in group[2:-1]:
            np.abs(state, out=state)
    return groups


def run(rule, groups):
    groups = [[a.copy() for a in group] for group in groups]
    with np.errstate(all="ignore"):
        update([rule] * len(groups), [g[:-1] for g in groups], [g[-1] for g in groups])
    return groups


@pytest.fixture
def numpys(monkeypatch):
    """A way to run without compiled loops."""
    def without(*args):
        with monkeypatch.context() as m:
            m.setattr(fast, "load", lambda family, work: None)
            return run(*args)
    return without


SIZES = [(2 * PIECE + 3,), (200, 300), (5,), (0,), ()]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_forms_agree(name, dtype, numpys):
    pytest.importorskip("numba", reason="the compiled form needs Numba: pip install 'mlgpu[fast]'")
    count, rule = RULES[name]
    groups = problem(count, dtype, SIZES)
    if fast.problem() is not None:
        pytest.skip(fast.problem())
    rtol = 2e-6 if dtype is np.float32 else 1e-14
    for made, expected in zip(run(rule, groups), numpys(rule, groups), strict=True):
        for a, b in zip(made, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", RULES)
def test_threads_change_nothing(name, threads):
    count, rule = RULES[name]
    groups = problem(count, np.float32, SIZES)
    made = run(rule, groups)
    mlgpu.set_num_threads(4)
    for a, b in zip(made, run(rule, groups), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", RULES)
def test_against_float64(name):
    count, rule = RULES[name]
    groups = problem(count, np.float32, SIZES)
    exact = run(rule, [[a.astype(np.float64) for a in group] for group in groups])
    for made, expected in zip(run(rule, groups), exact, strict=True):
        for a, b in zip(made, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_not_finite_is_as_in_numpy(numpys):
    count, rule = RULES["amsgrad"]
    groups = problem(count, np.float32, [(1 << 18,)])
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38], np.float32)
    for place, array in enumerate((groups[0][0], groups[0][-1])):
        array[place * 6:place * 6 + 6] = odd
    for a, b in zip(run(rule, groups)[0], numpys(rule, groups)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
@pytest.mark.parametrize("laid", ["plain", "transposed", "strided"])
def test_other_dtypes_and_layouts(dtype, laid, threads):
    """Against the same update of each element alone."""
    kind = mlgpu.zeros(0, dtype=getattr(mlgpu, dtype)).numpy().dtype
    count, rule = RULES["adamw"]
    made = []
    for array in problem(count, np.float32, [(600, 500)])[0]:
        a = array.astype(kind)
        made.append({"plain": a, "transposed": a.T, "strided": a[:, ::2]}[laid])
    expected = run(rule, [[np.ascontiguousarray(a) for a in made]])[0]
    with np.errstate(all="ignore"):
        update([rule], [made[:-1]], made[-1:])
    for a, b in zip(made, expected, strict=True):
        np.testing.assert_array_equal(a.view(a.dtype), b)
