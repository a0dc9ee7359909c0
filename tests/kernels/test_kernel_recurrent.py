"""kernels/recurrent.cu: the gates of a step, forward and backward, first and last steps."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda.recurrent import _types

ROWS, HIDDEN = 8, 64
F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {F32: 1e-5, F64: 1e-12, F16: 4e-3, BF16: 3e-2}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def values(dtype, *shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def close(got, want, dtype):
    np.testing.assert_allclose(got.astype(np.float64), want, TOLERANCE[dtype], TOLERANCE[dtype])


def wide(dtype):
    return F64 if dtype == F64 else F32


def run(name, dtype, args):
    report = launch("recurrent", f"{name}<{_types(dtype)}>", 2, 256, (*args, ROWS, HIDDEN))
    found = report.metrics
    if dtype != F64:
        assert found["spill_stores"] == found["local_load_sectors"] == 0
    for way in ("load", "store"):
        assert found[f"global_{way}_sectors"] == found[f"global_{way}_sectors_ideal"]
    return found


@pytest.mark.parametrize("dtype", [F32, F16, BF16, F64], ids=str)
@pytest.mark.parametrize("only", [False, True], ids=["middle", "only step"])
def test_lstm(dtype, only):
    shape = (ROWS, HIDDEN)
    acts, c = values(dtype, ROWS, 4 * HIDDEN), values(dtype if only else wide(dtype), *shape)
    exact = acts.astype(np.float64)
    i, f, g, o = np.split(exact, 4, 1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c_next = f * c.astype(np.float64) + i * g
    cell, (out, last_out, last_cell) = np.zeros(shape, wide(dtype)), np.zeros((3, *shape), dtype)
    before = (c, None) if only else (None, c)
    run("lstm_forward", dtype,
        (acts, *before, cell, out, *((last_out, last_cell) if only else (None, None))))
    close(acts, np.concatenate([i, f, g, o], 1), dtype)
    close(cell, c_next, dtype)
    close(out, o * np.tanh(c_next), dtype)
    if only:
        assert np.array_equal(last_out, out)
        close(last_cell, c_next, dtype)

    dm, more = values(dtype, *shape, seed=1), values(dtype, *shape, seed=2)
    given = values(dtype if only else wide(dtype), *shape, seed=3)
    i, f, g, o = np.split(acts.astype(np.float64), 4, 1)
    t = np.tanh(cell.astype(np.float64))
    dh = dm.astype(np.float64) + more.astype(np.float64)
    inner = given.astype(np.float64) + dh * o * (1 - t * t)
    want = np.concatenate([inner * g * i * (1 - i), inner * c.astype(np.float64) * f * (1 - f),
                           inner * i * (1 - g * g), dh * t * o * (1 - o)], 1)
    dgates, dfirst, dc = np.zeros_like(acts), np.zeros(shape, dtype), given.copy()
    run("lstm_backward", dtype,
        (acts, *before, cell, dm, more, *((given, None) if only else (None, dc)), dgates,
         dfirst if only else None, only))
    close(dgates, want, dtype)
    close(dfirst if only else dc, inner * f, dtype)


def test_a_last_step_whose_cell_nobody_asked_for():
    acts, c = values(F32, ROWS, 4 * HIDDEN), values(F32, ROWS, HIDDEN)
    dgates, dfirst = np.zeros_like(acts), np.full((ROWS, HIDDEN), np.nan, F32)
    run("lstm_backward", F32, (acts, c, None, c, None, None, None, None, dgates, dfirst, True))
    assert not dgates.any()
    assert not dfirst.any()


@pytest.mark.parametrize("dtype", [F32, F16, BF16, F64], ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_gru(dtype, last):
    shape = (ROWS, HIDDEN)
    acts, x = values(dtype, ROWS, 3 * HIDDEN), values(dtype, ROWS, 3 * HIDDEN, seed=1)
    h = values(dtype, *shape)
    (hr, hz, hn), (xr, xz, xn) = (np.split(a.astype(np.float64), 3, 1) for a in (acts, x))
    reset, update = sigmoid(hr + xr), sigmoid(hz + xz)
    new = np.tanh(reset * hn + xn)
    inner, out, end = np.zeros((3, *shape), dtype)
    run("gru_forward", dtype, (acts, x, h, inner, out, end if last else None))
    close(acts, np.concatenate([reset, update, new], 1), dtype)
    close(out, (h.astype(np.float64) - new) * update + new, dtype)
    assert np.array_equal(end, out if last else np.zeros_like(out))
    close(inner, hn, dtype)

    dy, dh = values(dtype, *shape, seed=2), values(dtype, *shape, seed=3)
    reset, update, new = np.split(acts.astype(np.float64), 3, 1)
    d = dy.astype(np.float64) + dh.astype(np.float64)
    dnew = (1 - update) * d * (1 - new * new)
    dupdate = (h.astype(np.float64) - new) * d * update * (1 - update)
    dreset = dnew * inner.astype(np.float64) * reset * (1 - reset)
    dgates, dinner, rest = np.zeros_like(acts), np.zeros_like(acts), np.zeros(shape, dtype)
    run("gru_backward", dtype, (acts, inner, h, dy, dh, dgates, dinner, rest))
    close(dgates, np.concatenate([dreset, dupdate, dnew], 1), dtype)
    close(dinner, np.concatenate([dreset, dupdate, dnew * reset], 1), dtype)
    close(rest, d * update, dtype)
