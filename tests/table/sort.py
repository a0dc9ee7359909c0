"""Rows for mlgpu/ops/sort.py, mlgpu/ops/unique.py and mlgpu/ops/search.py."""

from __future__ import annotations

import numpy as np
from table.case import FLOATS, INTS, REALS, Case, In, distinct, ties

import mlgpu

FIXED = {"gradient": False, "second": False}


def row(name, fn, reference, inputs, torch=None, **options):
    """A row whose call is the same in both libraries, unless `torch` says otherwise."""
    return Case(name=name, fn=fn, inputs=inputs, reference=reference,
                torch=torch or (lambda torch, *xs: fn(*xs)), **options)


def with_nan(rng, shape):
    x = ties(rng, shape)
    x.reshape(-1)[1::5] = np.nan
    x.reshape(-1)[2::9] = -np.inf
    x.reshape(-1)[4::7] = -0.0
    return x


def places(rng, shape):
    return rng.integers(0, 6, shape)


def ascending(rng, shape):
    """In order in every dtype, also where the sign is dropped."""
    return np.sort(np.round(rng.uniform(0, 2, shape) * 2) / 2, axis=-1)


def ordered(x, dim, descending=False):
    """Values and stable order; NaN counts as the largest value."""
    if not np.ndim(x):
        return x, np.zeros((), np.int64)
    rank = np.unique(np.where(np.asarray(x) == 0, 0, x), return_inverse=True)[1].reshape(x.shape)
    order = np.argsort(-rank if descending else rank, axis=dim, kind="stable")
    return np.take_along_axis(x, order, dim), order


def first(x, k, dim, descending):
    values, order = ordered(x, dim, descending)
    return tuple(np.take(part, range(k), dim) for part in (values, order))


def kth(x, k, dim, keepdim):
    values, order = ordered(x, dim)
    kept = [np.take(part, [k - 1], dim) for part in (values, order)]
    return tuple(kept if keepdim else [np.squeeze(part, dim) for part in kept])


def sorts():
    one = (In((4, 3, 5), make=distinct),)
    for dim in (0, 1, -1):
        for down in (False, True):
            tag = f"{dim}{'-descending' * down}"
            yield row(f"sort-{tag}",
                      lambda x, d=dim, down=down: tuple(x.sort(dim=d, descending=down)),
                      lambda x, d=dim, down=down: ordered(x, d, down), one, dtypes=FLOATS)
            yield row(f"sort-ties-{tag}",
                      lambda x, d=dim, down=down: tuple(
                          x.sort(stable=True, dim=d, descending=down)),
                      lambda x, d=dim, down=down: ordered(x, d, down),
                      (In((7, 3, 5), make=ties),), dtypes=REALS, **FIXED)
            yield row(f"argsort-{tag}",
                      lambda x, d=dim, down=down: x.argsort(stable=True, dim=d, descending=down),
                      lambda x, d=dim, down=down: ordered(x, d, down)[1],
                      (In((7, 3, 5), make=with_nan),), dtypes=FLOATS, **FIXED)
    yield row("sort-nan", lambda x: tuple(x.sort(stable=True, dim=1, descending=True)),
              lambda x: ordered(x, 1, True), (In((3, 17), make=with_nan),), dtypes=FLOATS, **FIXED)
    yield row("sort-squared", lambda x: x.sort(0)[0] ** 2, lambda x: np.sort(x, 0) ** 2, one,
              dtypes=FLOATS)
    yield row("sort-bool", lambda x: tuple(x.sort(stable=True, dim=0)), lambda x: ordered(x, 0),
              (In((11,), dtype="bool"),), dtypes=("bool",), **FIXED)
    yield row("sort-scalar", lambda x: tuple(x.sort()), lambda x: ordered(x, 0), (In(()),),
              dtypes=FLOATS)
    yield row("sort-empty", lambda x: tuple(x.sort(1)), lambda x: (x, np.zeros(x.shape, np.int64)),
              (In((3, 0)),), dtypes=FLOATS)
    yield row("msort", lambda x: x.msort(), lambda x: np.sort(x, 0), one, dtypes=FLOATS)


def selections():
    one = (In((4, 3, 5), make=distinct),)
    for k, dim, largest in ((1, 0, True), (2, 1, False), (5, 2, True), (3, -1, True),
                            (0, 1, True), (3, -1, False)):
        yield row(f"topk-{k}-{dim}-{'largest' if largest else 'smallest'}",
                  lambda x, k=k, d=dim, up=largest: tuple(x.topk(k, d, up)),
                  lambda x, k=k, d=dim, up=largest: first(x, k, d, up), one, dtypes=FLOATS)
    yield row("topk-ties", lambda x: x.topk(4, 1)[0], lambda x: first(x, 4, 1, True)[0],
              (In((3, 11), make=ties),), dtypes=REALS, **FIXED)
    yield row("topk-nan", lambda x: x.topk(6, 1)[0], lambda x: first(x, 6, 1, True)[0],
              (In((3, 17), make=with_nan),), dtypes=FLOATS, **FIXED)
    yield row("topk-unsorted", lambda x: x.topk(4, 1, sorted=False)[0].sort(1)[0],
              lambda x: np.sort(x, 1)[:, -4:], (In((3, 11), make=distinct),), dtypes=FLOATS)
    yield row("topk-squared", lambda x: x.topk(2, 1)[0] ** 2,
              lambda x: first(x, 2, 1, True)[0] ** 2, one, dtypes=FLOATS)
    yield row("topk-scalar", lambda x: tuple(x.topk(1)), lambda x: ordered(x, 0), (In(()),),
              dtypes=FLOATS)
    for k, dim, keepdim in ((1, 0, False), (2, 1, True), (5, -1, False)):
        yield row(f"kthvalue-{k}-{dim}-{keepdim}",
                  lambda x, k=k, d=dim, kept=keepdim: tuple(x.kthvalue(k, d, kept)),
                  lambda x, k=k, d=dim, kept=keepdim: kth(x, k, d, kept), one, dtypes=FLOATS)
    yield row("kthvalue-ints", lambda x: x.kthvalue(3)[0], lambda x: kth(x, 3, -1, False)[0],
              (In((3, 11), make=ties),), dtypes=INTS, **FIXED)
    yield row("kthvalue-scalar", lambda x: tuple(x.kthvalue(1)), lambda x: ordered(x, 0),
              (In(()),), dtypes=FLOATS)


def grouped(x, dim=None):
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True, axis=dim)
    return values, inverse.reshape(np.shape(x) if dim is None else -1), counts


def runs(x):
    starts = np.append(True, x[1:] != x[:-1])
    return x[starts], np.cumsum(starts) - 1, np.diff(np.append(np.flatnonzero(starts), len(x)))


def uniques():
    table = In((9, 2, 2), make=lambda rng, shape: rng.integers(0, 2, shape).astype(float))
    full = {"return_inverse": True, "return_counts": True}
    yield row("unique", lambda x: x.unique(), np.unique, (In((3, 11), make=ties),), dtypes=REALS,
              **FIXED)
    yield row("unique-all", lambda x: x.unique(**full), grouped, (In((3, 11), make=ties),),
              dtypes=REALS, **FIXED)
    yield row("unique-nan", lambda x: x.unique(return_counts=True),
              lambda x: np.unique(x, return_counts=True, equal_nan=False),
              (In((23,), make=lambda rng, shape: np.where(ties(rng, shape) == 1, np.nan, 2.0)),),
              dtypes=FLOATS, **FIXED)
    for dim in (0, 1, 2):
        yield row(f"unique-{dim}", lambda x, d=dim: x.unique(dim=d, **full),
                  lambda x, d=dim: grouped(x, d), (table,), dtypes=REALS, **FIXED)
    yield row("unique-scalar", lambda x: x.unique(**full), grouped, (In(()),), dtypes=REALS,
              **FIXED)
    yield row("unique-empty", lambda x: x.unique(**full), grouped, (In((0, 3)),), dtypes=REALS,
              **FIXED)
    yield row("unique_consecutive", lambda x: x.unique_consecutive(**full), runs,
              (In((29,), make=lambda rng, shape: rng.integers(0, 2, shape).astype(float)),),
              dtypes=REALS, **FIXED)
    yield row("unique_consecutive-dim", lambda x: x.unique_consecutive(dim=1),
              lambda x: np.concatenate([x[:, :1], x[:, 2:]], 1),
              (In((2, 3), make=lambda rng, shape: np.array([[1.0, 1, 2], [0, 0, 0]])),),
              dtypes=REALS, **FIXED)


def inserted(sequence, values, side="left"):
    if sequence.ndim == 1:
        return np.searchsorted(sequence, values, side)
    rows = [np.searchsorted(s, v, side) for s, v in
            zip(sequence.reshape(-1, sequence.shape[-1]), values.reshape(-1, values.shape[-1]),
                strict=True)]
    return np.stack(rows).reshape(values.shape)


def searches():
    line, values = In((9,), make=ascending), In((4, 5), -3, 3)
    for right in (False, True):
        side = "right" if right else "left"
        for name, shapes in {"": ((9,), (4, 5)), "-scalar": ((9,), ()), "-empty": ((0,), (3,)),
                             "-rows": ((3, 7), (3, 4)), "-batch": ((2, 2, 5), (2, 2, 1))}.items():
            yield row(f"searchsorted{name}-{side}",
                      lambda s, v, side=side: mlgpu.searchsorted(s, v, side=side),
                      lambda s, v, side=side: inserted(s, v, side),
                      (In(shapes[0], make=ascending), In(shapes[1], make=ties)), dtypes=REALS,
                      torch=lambda torch, s, v, side=side: torch.searchsorted(s, v, side=side),
                      **FIXED)
        yield row(f"bucketize-{side}",
                  lambda v, s, right=right: mlgpu.bucketize(v, s, right=right, out_int32=True),
                  lambda v, s, side=side: inserted(s, v, side), (values, line), dtypes=REALS,
                  torch=lambda torch, v, s, right=right: torch.bucketize(
                      v, s, right=right, out_int32=True), **FIXED)
    yield row("searchsorted-number", lambda s: mlgpu.searchsorted(s, 1.5),
              lambda s: np.searchsorted(s, 1.5), (line,), dtypes=FLOATS,
              torch=lambda torch, s: torch.searchsorted(s, 1.5), **FIXED)
    yield row("searchsorted-sorter",
              lambda s, v: mlgpu.searchsorted(s, v, sorter=s.argsort(1), right=True),
              lambda s, v: inserted(np.sort(s, 1), v, "right"),
              (In((3, 7), make=distinct), In((3, 4))), dtypes=FLOATS,
              torch=lambda torch, s, v: torch.searchsorted(
                  s, v, sorter=s.argsort(1), right=True), **FIXED)


def counts():
    index = In((17,), dtype="int64", make=places)
    yield row("bincount", lambda i: i.bincount(), np.bincount, (In((17,), make=places),),
              dtypes=INTS, **FIXED)
    yield row("bincount-minlength", lambda i: mlgpu.bincount(i, minlength=9),
              lambda i: np.bincount(i, minlength=9), (index,), dtypes=("int64",),
              torch=lambda torch, i: torch.bincount(i, minlength=9), **FIXED)
    yield row("bincount-empty", lambda i: i.bincount(), lambda i: np.zeros(0, np.int64),
              (In((0,), dtype="int64"),), dtypes=("int64",), **FIXED)
    # PyTorch has no derivative of the weighted form; here the weights have one.
    yield row("bincount-weights", lambda w: mlgpu.bincount(
                  mlgpu.tensor([3, 1, 0, 3, 5]), w, 7),
              lambda w: np.bincount([3, 1, 0, 3, 5], w, 7), (In((5,)),),
              dtypes=("float64", "float32"),
              torch=lambda torch, w: torch.bincount(
                  torch.tensor([3, 1, 0, 3, 5]), w.detach(), 7), **FIXED)
    yield row("histc", lambda x: x.histc(7, -1, 1.5),
              lambda x: np.histogram(x, 7, (-1, 1.5))[0].astype(float), (In((5, 13)),),
              dtypes=("float64", "float32"), **FIXED)
    yield row("histc-data", lambda x: x.histc(10),
              lambda x: np.histogram(x, 10)[0].astype(float), (In((47,)),),
              dtypes=("float64", "float32"), **FIXED)
    yield row("histc-one-value", lambda x: x.histc(4), lambda x: np.array([0.0, 0, 3, 0]),
              (In((3,), make=lambda rng, shape: np.full(shape, 0.5)),), dtypes=FLOATS, **FIXED)


def memberships():
    tests = In((3,), make=ties)
    elements = In((4, 7), make=ties)
    for invert in (False, True):
        yield row(f"isin-{invert}", lambda x, t, no=invert: mlgpu.isin(x, t, invert=no),
                  lambda x, t, no=invert: np.isin(x, t, invert=no), (elements, tests),
                  dtypes=REALS,
                  torch=lambda torch, x, t, no=invert: torch.isin(x, t, invert=no), **FIXED)
    yield row("isin-number", lambda x: mlgpu.isin(x, 1), lambda x: np.isin(x, 1), (elements,),
              dtypes=REALS, torch=lambda torch, x: torch.isin(x, 1), **FIXED)
    yield row("isin-element", lambda t: mlgpu.isin(2, t), lambda t: np.isin(2, t), (tests,),
              dtypes=REALS, torch=lambda torch, t: torch.isin(2, t), **FIXED)
    yield row("isin-none", lambda x, t: mlgpu.isin(x, t), np.isin, (elements, In((0,))),
              dtypes=REALS, torch=lambda torch, x, t: torch.isin(x, t), **FIXED)


CASES = [*sorts(), *selections(), *uniques(), *searches(), *counts(), *memberships()]
