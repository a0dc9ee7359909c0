"""Rows added by an index: the compiled loop against NumPy's form and float64, bit for bit again."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.cpu import fast
from mlgpu.cpu.segment import add_rows

pytest.importorskip("numba", reason="compiled loops need Numba: pip install 'mlgpu[fast]'")

CASES = {  # rows added, features, rows of the result
    "many, few": (5000, 70, 13), "few, many": (40, 64, 9000), "one": (1, 3, 50000),
    "all in one": (3000, 64, 1), "none": (0, 100, 4000), "no features": (10, 0, 4)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", [False, True], ids=["rows", "source"])
@pytest.mark.parametrize("scale", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("average", [False, True], ids=["sum", "mean"])
def test_forms_agree(monkeypatch, name, dtype, source, scale, average):
    n, features, count = CASES[name]
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((n, features)).astype(dtype)
    index = rng.integers(0, count, n)
    chosen = {"source": rng.integers(0, max(n, 1), n).astype(np.int32) if source else None,
              "scale": rng.standard_normal(n).astype(dtype) if scale else None, "average": average}
    made = [add_rows(rows, index, count, **chosen)]
    before = mlgpu.get_num_threads()
    mlgpu.set_num_threads(3)
    made.append(add_rows(rows, index, count, **chosen))
    mlgpu.set_num_threads(before)
    np.testing.assert_array_equal(*made)
    monkeypatch.setattr(fast, "load", lambda family, work: None)
    expected = add_rows(rows, index, count, **chosen)
    tight = 1e-5 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(made[0], expected, rtol=tight, atol=20 * tight)
    exact = np.zeros((count, features))
    picked = rows[chosen["source"]] if source else rows
    np.add.at(exact, index, picked * (chosen["scale"][:, None] if scale else 1.0))
    if average:
        exact /= np.maximum(np.bincount(index, minlength=count), 1)[:, None]
    loose = 1e-3 if dtype is np.float32 else 1e-11
    np.testing.assert_allclose(made[0], exact, rtol=loose, atol=loose)


def test_nan_and_inf_stay_in_their_rows():
    rows = np.ones((3000, 64), np.float32)
    rows[5], rows[6], rows[7] = np.nan, np.inf, -np.inf
    index = np.arange(3000)
    index[7] = 6
    with np.errstate(all="ignore"):
        out = add_rows(rows, index, 3000)
    assert np.isnan(out[[5, 6]]).all()
    assert out[8].tolist() == [1.0] * 64
    assert not out[7].any()
