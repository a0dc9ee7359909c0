"""Ordinary CuPy on simulated devices: arrays.  Each case is one piece of code, run with NumPy and
with CuPy, whose results are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy as cp
import ml_dtypes
import numpy as np
import pytest

BF16 = np.dtype(ml_dtypes.bfloat16)


def data(xp: Any, *shape: int, dtype: Any = "f4", seed: int = 0) -> Any:
    """The same random numbers for NumPy and CuPy; integers are -9 to 9, or 0 to 9."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    if kind.kind == "b":
        return xp.asarray(rng.integers(0, 2, shape).astype(bool))
    if kind.kind in "iu":
        return xp.asarray(rng.integers(-9 if kind.kind == "i" else 0, 10, shape).astype(kind))
    values = rng.standard_normal(shape)
    if kind.kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return xp.asarray(values.astype(kind))


def holes(xp: Any, *shape: int) -> Any:
    """As data, with some NaNs."""
    values = data(np, *shape)
    values[np.random.default_rng(9).random(shape) < 0.2] = np.nan
    return xp.asarray(values)


def same(got: Any, want: Any, rtol: float = 2e-6) -> None:
    """Shapes, dtypes and values are equal; floating point but for the last bits."""
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            same(g, w, rtol)
        return
    want = np.asarray(want)
    if isinstance(got, cp.ndarray):
        assert got.dtype == want.dtype, (got.dtype, want.dtype)
    got = cp.asnumpy(got)
    assert got.shape == want.shape
    if want.dtype == BF16:
        got, want, rtol = got.astype("f4"), want.astype("f4"), max(rtol, 2**-7)
    if want.dtype.kind in "fc":
        few = {2: 2e-3, 4: rtol, 8: rtol if want.dtype.kind == "c" else 1e-12, 16: 1e-12}
        np.testing.assert_allclose(got, want, rtol=few[want.dtype.itemsize],
                                   atol=few[want.dtype.itemsize])
    else:
        np.testing.assert_array_equal(got, want)


def put(xp: Any, values: Any, where: Any, new: Any) -> Any:
    """A copy with new values at an index."""
    result = values.copy()
    result[where] = new
    return result


Case = Callable[[Any], Any]

CREATION: dict[str, Case] = {
    "zeros": lambda xp: xp.zeros((3, 4), "f4"),
    "ones like": lambda xp: xp.ones_like(data(xp, 2, 3, dtype="i8")),
    "full": lambda xp: xp.full((2, 3), 7.5, "f8"),
    "full bfloat16": lambda xp: xp.full(5, 1.5, BF16),
    "arange": lambda xp: xp.arange(3, 40, 5),
    "arange backwards": lambda xp: xp.arange(9.0, 0.0, -1.5, dtype="f4"),
    "linspace": lambda xp: xp.linspace(-1, 1, 17),
    "logspace": lambda xp: xp.logspace(0, 3, 7),
    "eye": lambda xp: xp.eye(4, 5, k=1, dtype="f4"),
    "identity": lambda xp: xp.identity(3),
    "tri": lambda xp: xp.tri(4, 5, -1),
    "diag": lambda xp: xp.diag(data(xp, 4), 1),
    "diagonal": lambda xp: data(xp, 4, 5).diagonal(1),
    "tril": lambda xp: xp.tril(data(xp, 4, 5)),
    "vander": lambda xp: xp.vander(data(xp, 4, dtype="f8"), 3),
    "meshgrid": lambda xp: xp.meshgrid(data(xp, 3), data(xp, 4), indexing="ij"),
    "indices": lambda xp: xp.indices((2, 3)),
    "mgrid": lambda xp: xp.mgrid[0:3, 1:7:2],
    "array of lists": lambda xp: xp.array([[1, 2], [3, 4]], dtype="i2"),
    "fortran order": lambda xp: xp.asfortranarray(data(xp, 3, 4)) + 1,
    "from a buffer": lambda xp: xp.frombuffer(np.arange(6, dtype="i4").tobytes(), "i4"),
    "empty of nothing": lambda xp: xp.empty((0, 3)) + 1,
}
INDEXING: dict[str, Case] = {
    "basic": lambda xp: data(xp, 5, 6)[1:4, ::-2],
    "negative": lambda xp: data(xp, 5, 6)[-1, -3],
    "ellipsis and new axis": lambda xp: data(xp, 2, 3, 4)[..., None, 1],
    "integers": lambda xp: data(xp, 5, 6)[xp.array([0, 4, -1]), xp.array([1, 1, 2])],
    "integers broadcast": lambda xp: data(xp, 5, 6)[xp.array([[0], [3]]), xp.array([1, 5])],
    "integers beside a slice": lambda xp: data(xp, 4, 5, 6)[:, xp.array([3, 0]), 1:3],
    "integers apart": lambda xp: data(xp, 4, 5, 6)[xp.array([3, 0]), :, xp.array([1, 2])],
    "ix_": lambda xp: data(xp, 5, 6)[xp.ix_(xp.array([1, 3]), xp.array([0, 5, 2]))],
    "mask": lambda xp: data(xp, 5, 6)[data(xp, 5, 6) > 0],
    "large mask": lambda xp: data(xp, 70, 41)[data(xp, 70, 41) > 0],
    "mask of rows": lambda xp: data(xp, 5, 6)[data(xp, 5) > 0],
    "mask of columns": lambda xp: data(xp, 5, 6)[:, data(xp, 6) > 0],
    "set slice": lambda xp: put(xp, data(xp, 5, 6), (slice(1, 3), slice(None, None, 2)), 9),
    "set integers": lambda xp: put(xp, data(xp, 7), xp.array([1, 5]), xp.array([3.0, 4.0], "f4")),
    "set mask": lambda xp: put(xp, data(xp, 5, 6), data(xp, 5, 6) < 0, 0),
    "set mask values": lambda xp: put(xp, data(xp, 9), data(xp, 9) < 0, data(
        xp, int((data(np, 9) < 0).sum()), seed=3)),
    "take": lambda xp: xp.take(data(xp, 5, 6), xp.array([[1, 3], [0, 0]]), axis=1),
    "take along axis": lambda xp: xp.take_along_axis(
        data(xp, 3, 4), data(xp, 3, 2, dtype="u1").astype("i8") % 4, 1),
    "nonzero": lambda xp: xp.nonzero(data(xp, 40, 50, dtype="b")),
    "argwhere": lambda xp: xp.argwhere(data(xp, 4, 5, dtype="b")),
    "flatnonzero": lambda xp: xp.flatnonzero(data(xp, 2000, dtype="i1")),
    "where": lambda xp: xp.where(data(xp, 5, 6) > 0, data(xp, 5, 6), data(xp, 6, seed=1)),
    "select": lambda xp: xp.select([data(xp, 9) > 1, data(xp, 9) < 0],
                                   [data(xp, 9), data(xp, 9, seed=1)], 7.0),
    "choose": lambda xp: xp.choose(xp.array([0, 1, 1, 0]), xp.array([[1, 2, 3, 4], [5, 6, 7, 8]])),
    "compress": lambda xp: xp.compress([True, False, True], data(xp, 4, 5), axis=0),
    "extract": lambda xp: xp.extract(data(xp, 4, 5) > 0, data(xp, 4, 5)),
    "fill diagonal": lambda xp: _changed(xp, lambda a: xp.fill_diagonal(a, 3)),
    "put": lambda xp: _changed(xp, lambda a: xp.put(a, [1, 7, -1], [5, 6, 7])),
    "putmask": lambda xp: _changed(xp, lambda a: xp.putmask(a, a > 0, xp.zeros_like(a))),
    "place": lambda xp: _changed(xp, lambda a: xp.place(a, a > 0, xp.array([1, 2], "f4"))),
    "copyto where": lambda xp: _changed(xp, lambda a: xp.copyto(a, 2, where=a > 0)),
    "add at": lambda xp: _changed(xp, lambda a: xp.add.at(a, (xp.array([1, 1, 3]), 2), 2)),
    "maximum at": lambda xp: _changed(xp, lambda a: xp.maximum.at(a, xp.array([0, 0, 2]), 1)),
}
SHAPES: dict[str, Case] = {
    "reshape": lambda xp: data(xp, 4, 6).reshape(3, -1, order="F"),
    "ravel of a view": lambda xp: data(xp, 4, 6)[::2, 1:].ravel(),
    "transpose": lambda xp: data(xp, 2, 3, 4).transpose(2, 0, 1) * 1,
    "swap and move": lambda xp: xp.moveaxis(data(xp, 2, 3, 4).swapaxes(0, 1), 0, -1).copy(),
    "squeeze and expand": lambda xp: xp.expand_dims(data(xp, 2, 1, 3).squeeze(1), (0, 3)),
    "broadcast": lambda xp: data(xp, 3, 1) + data(xp, 4) * data(xp, 2, 1, 1),
    "broadcast to": lambda xp: xp.broadcast_to(data(xp, 3, 1), (2, 3, 4)).sum(0),
    "concatenate": lambda xp: xp.concatenate([data(xp, 2, 3), data(xp, 4, 3, dtype="f8")]),
    "concatenate many": lambda xp: xp.concatenate([data(xp, 3, seed=i) for i in range(40)]),
    "stack": lambda xp: xp.stack([data(xp, 2, 3), data(xp, 2, 3, seed=1)], axis=-1),
    "vstack hstack": lambda xp: xp.hstack([xp.vstack([data(xp, 3), data(xp, 3)]), data(xp, 2, 2)]),
    "split": lambda xp: xp.split(data(xp, 4, 9), [2, 5], axis=1),
    "array split": lambda xp: xp.array_split(data(xp, 10), 3),
    "tile": lambda xp: xp.tile(data(xp, 2, 3), (2, 1, 2)),
    "repeat": lambda xp: xp.repeat(data(xp, 2, 3), 3, axis=1),
    "pad": lambda xp: xp.pad(data(xp, 3, 4), ((1, 2), (0, 3)), constant_values=5),
    "pad reflect": lambda xp: xp.pad(data(xp, 3, 4), 2, mode="reflect"),
    "pad edge": lambda xp: xp.pad(data(xp, 3, 4), 1, mode="edge"),
    "roll": lambda xp: xp.roll(data(xp, 3, 4), (1, -2), (0, 1)),
    "flip and turn": lambda xp: xp.rot90(xp.flip(data(xp, 3, 4), 0)),
    "view": lambda xp: data(xp, 4, 6).view("i4") & 0xFF,
    "stride tricks": lambda xp: xp.lib.stride_tricks.as_strided(
        data(xp, 12), (5, 4), (8, 4)) + 1,
    "append": lambda xp: xp.append(data(xp, 2, 3), data(xp, 1, 3), axis=0),
    "unpack bits": lambda xp: xp.packbits(xp.unpackbits(data(xp, 5, dtype="u1"))),
}
REDUCTIONS: dict[str, Case] = {
    "sum": lambda xp: data(xp, 7, 9).sum(),
    "sum of an axis": lambda xp: data(xp, 3, 40, 5).sum(axis=1),
    "sum of axes": lambda xp: data(xp, 3, 4, 50).sum(axis=(0, 2), keepdims=True),
    "sum as float64": lambda xp: data(xp, 300, dtype="f4").sum(dtype="f8"),
    "sum of int8": lambda xp: data(xp, 40, 3, dtype="i1").sum(axis=0),
    "sum of float16": lambda xp: data(xp, 40, dtype="f2").sum(),
    "sum of bool": lambda xp: data(xp, 40, 40, dtype="b").sum(axis=1),
    "sum of complex": lambda xp: data(xp, 40, 3, dtype="c8").sum(axis=0),
    "sum of many": lambda xp: data(xp, 20000, dtype="i4").sum(),
    "sum of none": lambda xp: xp.zeros((0, 3)).sum(0),
    "sum out": lambda xp: xp.sum(data(xp, 4, 5), 0, out=xp.empty(5, "f4")),
    "prod": lambda xp: data(xp, 3, 5, dtype="f8").prod(axis=-1),
    "mean": lambda xp: data(xp, 6, 7, dtype="i4").mean(axis=0),
    "var": lambda xp: data(xp, 6, 7, dtype="f8").var(axis=1, ddof=1),
    "std": lambda xp: data(xp, 6, 7, dtype="f8").std(),
    "average": lambda xp: xp.average(data(xp, 6, dtype="f8"), weights=xp.arange(6.0)),
    "max min ptp": lambda xp: (data(xp, 6, 7).max(0), data(xp, 6, 7).min(), xp.ptp(
        data(xp, 6, 7), 1)),
    "argmax": lambda xp: data(xp, 6, 70).argmax(axis=1),
    "argmin": lambda xp: data(xp, 6, 7, dtype="i2").argmin(),
    "argmax of equal ones": lambda xp: xp.zeros(1000, "f4").argmax(),
    "all any": lambda xp: (data(xp, 6, 7, dtype="b").all(1), data(xp, 6, 7, dtype="b").any()),
    "count": lambda xp: xp.count_nonzero(data(xp, 30, 70, dtype="i1"), axis=1),
    "nansum": lambda xp: xp.nansum(holes(xp, 6, 7), axis=0),
    "nanmean": lambda xp: xp.nanmean(holes(xp, 6, 7), axis=1),
    "nanmax": lambda xp: xp.nanmax(holes(xp, 6, 7), axis=1),
    "nanstd": lambda xp: xp.nanstd(holes(xp, 60, 7).astype("f8"), axis=0),
    "nanargmin": lambda xp: xp.nanargmin(holes(xp, 6, 7)),
    "cumsum": lambda xp: xp.cumsum(data(xp, 5000, dtype="i4")),
    "cumsum of an axis": lambda xp: xp.cumsum(data(xp, 30, 50, dtype="f8"), axis=0),
    "cumsum of rows": lambda xp: xp.cumsum(data(xp, 3, 600, dtype="f8"), axis=1),
    "cumprod": lambda xp: xp.cumprod(data(xp, 20, dtype="f8")),
    "nancumsum": lambda xp: xp.nancumsum(holes(xp, 6, 7).astype("f8"), axis=1),
    "diff": lambda xp: xp.diff(data(xp, 6, 7), n=2, axis=0),
    "gradient": lambda xp: xp.gradient(data(xp, 9, dtype="f8")),
    "trace": lambda xp: xp.trace(data(xp, 5, 6)),
    "bincount": lambda xp: xp.bincount(data(xp, 50, dtype="u1")),
    "histogram": lambda xp: xp.histogram(data(xp, 300, dtype="f8"), 7)[0],
    "searchsorted": lambda xp: xp.searchsorted(xp.arange(-2.0, 2.0), data(xp, 30, dtype="f8")),
    "reduceat": lambda xp: xp.add.reduceat(data(xp, 20, dtype="i4"), xp.array([0, 3, 11])),
    "outer": lambda xp: xp.multiply.outer(data(xp, 3), data(xp, 4)),
}
ARITHMETIC: dict[str, Case] = {
    "in place": lambda xp: _changed(xp, lambda a: a.__imul__(a + 2)),
    "out": lambda xp: xp.add(data(xp, 5), 1, out=xp.empty(5, "f8")),
    "dtype": lambda xp: xp.multiply(data(xp, 5), 3, dtype="f8"),
    "casting": lambda xp: data(xp, 9).astype("i2").astype("u1").astype("f2").astype("c16"),
    "promotion": lambda xp: data(xp, 5, dtype="i4") + data(xp, 5, dtype="f4"),
    "python scalars": lambda xp: data(xp, 5, dtype="f2") * 3.0 + 1,
    "integer division": lambda xp: _division(xp, "i4"),
    "unsigned division": lambda xp: _division(xp, "u2"),
    "floor of floats": lambda xp: (data(xp, 9) // 0.5, data(xp, 9) % 0.5, xp.fmod(
        data(xp, 9), 0.5)),
    "divmod": lambda xp: xp.divmod(data(xp, 9, dtype="i8"), 4),
    "division by zero": lambda xp: data(xp, 9) / xp.zeros(9, "f4"),
    "shifts": lambda xp: (data(xp, 9, dtype="i4") << 3, data(xp, 9, dtype="i8") >> 1),
    "bits": lambda xp: ~(data(xp, 9, dtype="u1") & 6 | data(xp, 9, dtype="u1", seed=1) ^ 3),
    "comparisons": lambda xp: (data(xp, 9) >= 0, data(xp, 9, dtype="i4") == 3),
    "logic": lambda xp: xp.logical_xor(data(xp, 9, dtype="i4"), data(xp, 9, dtype="b")),
    "powers": lambda xp: (data(xp, 9, dtype="i4") ** 3, xp.abs(data(xp, 9)) ** 1.5),
    "exponentials": lambda xp: (xp.exp(data(xp, 9)), xp.log1p(xp.abs(data(xp, 9)))),
    "trigonometry": lambda xp: (xp.sin(data(xp, 9)), xp.arctan2(data(xp, 9), data(xp, 9, seed=1))),
    "hyperbolic": lambda xp: (xp.tanh(data(xp, 9)), xp.arcsinh(data(xp, 9, dtype="f8"))),
    "rounding": lambda xp: (xp.rint(data(xp, 9) * 5), xp.ceil(data(xp, 9)), data(xp, 9).round(1)),
    "parts": lambda xp: (*xp.frexp(data(xp, 9)), *xp.modf(data(xp, 9)), xp.signbit(data(xp, 9))),
    "neighbours": lambda xp: (xp.nextafter(data(xp, 9), 0.0), xp.ldexp(data(xp, 9), 3)),
    "extremes": lambda xp: (xp.fmax(holes(xp, 3, 4), 0), xp.minimum(holes(xp, 3, 4), 0)),
    "finite": lambda xp: (xp.isnan(holes(xp, 9)), xp.isfinite(data(xp, 9) / 0.0)),
    "nan to num": lambda xp: xp.nan_to_num(holes(xp, 9), nan=3.0),
    "clip": lambda xp: data(xp, 9).clip(-0.5, 0.5),
    "clip one side": lambda xp: xp.clip(data(xp, 9, dtype="i4"), None, 2),
    "gcd": lambda xp: (xp.gcd(data(xp, 9, dtype="i4"), 6), xp.lcm(data(xp, 9, dtype="i4"), 4)),
    "complex": lambda xp: data(xp, 9, dtype="c8") * data(xp, 9, dtype="c8", seed=1).conj(),
    "complex functions": lambda xp: (xp.exp(data(xp, 9, dtype="c16")), xp.abs(data(
        xp, 9, dtype="c8")), xp.angle(data(xp, 9, dtype="c16"))),
    "real and imaginary": lambda xp: data(xp, 9, dtype="c8").real - data(xp, 9, dtype="c8").imag,
    "interpolation": lambda xp: xp.interp(data(xp, 9, dtype="f8"), xp.arange(4.0), xp.arange(4.0)),
    "polynomial": lambda xp: xp.polyval(xp.array([1.0, -2.0, 3.0]), data(xp, 9, dtype="f8")),
    "cross": lambda xp: xp.cross(data(xp, 5, 3), data(xp, 5, 3, seed=1)),
    "close": lambda xp: (xp.isclose(data(xp, 9), data(xp, 9) + 1e-9), xp.array_equal(
        data(xp, 9), data(xp, 9))),
}


def _changed(xp: Any, change: Callable[[Any], Any]) -> Any:
    array = data(xp, 5, 6)
    change(array)
    return array


def _division(xp: Any, dtype: str) -> Any:
    a, b = data(xp, 200, dtype=dtype), data(xp, 200, dtype=dtype, seed=1)
    b[b == 0] = 4
    return a // b, a % b, a / b


@pytest.mark.parametrize("name", CREATION)
def test_creation(name: str) -> None:
    _both(CREATION[name])


@pytest.mark.parametrize("name", INDEXING)
def test_indexing(name: str) -> None:
    _both(INDEXING[name])


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    _both(SHAPES[name])


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    _both(REDUCTIONS[name])


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name: str) -> None:
    _both(ARITHMETIC[name])


def _both(case: Case) -> None:
    with np.errstate(all="ignore"):
        same(case(cp), case(np))


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", BF16,
                                   "f4", "f8", "c8", "c16"])
def test_dtypes(dtype: Any) -> None:
    """Each dtype goes to a device, through sums and products and casts, and back."""
    for case in (lambda xp: data(xp, 3, 50, dtype=dtype),
                 lambda xp: data(xp, 50, dtype=dtype) + data(xp, 50, dtype=dtype, seed=1),
                 lambda xp: data(xp, 50, dtype=dtype) * data(xp, 50, dtype=dtype, seed=1),
                 lambda xp: data(xp, 3, 50, dtype=dtype)[:, ::-3].copy(),
                 lambda xp: data(xp, 50, dtype=dtype) == data(xp, 50, dtype=dtype, seed=1)):
        _both(case)


@pytest.mark.parametrize("dtype", ["f2", BF16])
def test_halves_round_to_nearest_even(dtype: Any) -> None:
    values = np.random.default_rng(5).standard_normal(4000).astype("f4") * 100
    got = cp.asnumpy(cp.asarray(values).astype(dtype))
    np.testing.assert_array_equal(got.view("u2"), values.astype(dtype).view("u2"))


def test_indices_out_of_range_wrap() -> None:
    """As CuPy's documentation says, where NumPy raises."""
    assert cp.array([0, 1, 2])[cp.array([1, 3, 5])].tolist() == [1, 0, 2]


@pytest.mark.parametrize(("call", "kind"), [
    (lambda: cp.ones(3)[5], IndexError),
    (lambda: cp.ones((2, 3)) + cp.ones((3, 2)), ValueError),
    (lambda: cp.ones(6).reshape(4, 2), ValueError),
    (lambda: cp.ones(3).sum(axis=1), np.exceptions.AxisError),
    (lambda: cp.concatenate([cp.ones((2, 3)), cp.ones((2, 4))]), ValueError),
    (lambda: cp.zeros(0).max(), ValueError),
    (lambda: cp.add(cp.ones(3), np.ones(3)), TypeError),
    (lambda: np.asarray(cp.ones(3)), TypeError),
    (lambda: cp.array(["text"]), ValueError),
    (lambda: cp.add(cp.ones(3), 1, out=cp.ones(3, "i4")), TypeError),
    (lambda: cp.ones(3) << 1, TypeError),
    (lambda: cp.arange(6).reshape(2, 3).item(), ValueError)])
def test_errors(call: Callable[[], Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        call()
