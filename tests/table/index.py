"""Rows for mlgpu/ops/index.py, scatter.py and mask.py."""

from __future__ import annotations

import numpy as np
from table.case import ALL, FLOATS, Case, In

import mlgpu

A = In((4, 5, 6))
M = In((4, 5))


def ints(high, shape):
    """Fixed index values below `high`, with repeats, as an int64 input."""
    return In(shape, dtype="int64", make=lambda rng, shape: rng.integers(0, high, shape))


def permuted(n):
    return In((n,), dtype="int64", make=lambda rng, shape: rng.permutation(n))


def mask(shape):
    return In(shape, dtype="bool", make=lambda rng, shape: rng.random(shape) < 0.4)


def row(name, fn, reference, inputs=(A,), torch=None, dtypes=ALL, **options):
    return Case(name=name, fn=fn, inputs=inputs, reference=reference,
                torch=torch or (lambda torch, *xs: fn(*xs)), dtypes=dtypes, **options)


def put(x, index, value):
    x = x.copy()
    x[index] = value
    return x


def assigned(index):
    """x[index] = v on a copy, for both libraries."""
    def fn(x, v):
        y = x.clone()
        y[index] = v
        return y
    return fn


def cropped(fn):
    """The call in PyTorch, whose backward refuses a source that is larger than the index."""
    return lambda torch, x, i, s: fn(x, i, s[tuple(map(slice, i.shape))])


def scattered(name, fn, reference, inputs, **options):
    return row(name, fn, reference, inputs, torch=cropped(fn), **options)


def np_scatter(x, dim, index, src, combine=None):
    out = x.copy()
    for place in np.ndindex(index.shape):
        at = list(place)
        at[dim] = index[place]
        at = tuple(at)
        out[at] = src[place] if combine is None else combine(out[at], src[place])
    return out


def np_scatter_reduce(x, dim, index, src, reduce, include_self):
    out = np.empty_like(x)
    for at in np.ndindex(x.shape):
        values = [src[p] for p in np.ndindex(index.shape)
                  if tuple(index[p] if d == dim else p[d] for d in range(x.ndim)) == at]
        if include_self or not values:
            values.append(x[at])
        fold = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}
        out[at] = fold[reduce](np.array(values))
    return out


def np_index_add(x, index, src):
    out = x.copy()
    np.add.at(out, index, src)
    return out


BASIC = {
    "int": 1, "negative": (-1, -2), "slice": slice(1, 3), "step": (slice(None), slice(0, 5, 2)),
    "none": (None, 2), "ellipsis": (..., 3),
    "mixed": (slice(1, None), None, 0, slice(None, None, 3)),
    "empty": slice(2, 2), "all": (0, 1, 2),
}
ADVANCED = {
    "list": [0, 2, 2], "two": ([0, 1], [2, 3]), "outer": ([[0], [1]], [2, 3]),
    "split": ([0, 1], slice(None), [2, 3]), "after-int": (0, slice(None), [1, 2]),
    "int-between": (slice(None), 0, [1, 2]), "true": True, "false": False,
    "middle": (slice(None), [[1, 0], [4, 4]]), "none-list": (None, [1, 1]),
}

CASES = [
    *[row(f"getitem-{name}", lambda x, i=index: x[i], lambda x, i=index: x[i])
      for name, index in {**BASIC, **{k: v for k, v in ADVANCED.items() if k not in (
          "after-int", "int-between")}}.items()],
    # NumPy counts an int beside index arrays as one of them; PyTorch selects first.
    row("getitem-after-int", lambda x: x[0, :, [1, 2]], lambda x: x[0][:, [1, 2]]),
    row("getitem-int-between", lambda x: x[:, 0, [1, 2]], lambda x: x[:, 0][:, [1, 2]]),
    row("getitem-mask", lambda x, m: x[m], lambda x, m: x[m], (A, mask((4,)))),
    row("getitem-mask2", lambda x, m: x[m], lambda x, m: x[m], (A, mask((4, 5)))),
    row("getitem-tensor", lambda x, i: x[:, i], lambda x, i: x[:, i], (A, ints(5, (2, 3)))),
    *[row(f"setitem-{name}", assigned(index), lambda x, v, i=index: put(x, i, v),
          (A, In(np.zeros((4, 5, 6))[index].shape))) for name, index in BASIC.items()],
    row("setitem-broadcast", assigned(slice(1, 3)), lambda x, v: put(x, slice(1, 3), v),
        (A, In((6,)))),
    row("setitem-list", assigned([0, 2]), lambda x, v: put(x, [0, 2], v), (A, In((2, 5, 6)))),
    row("setitem-pairs", assigned((slice(None), [0, 3], [1, 5])),
        lambda x, v: put(x, (slice(None), [0, 3], [1, 5]), v), (A, In((4, 2)))),
    row("index_put", lambda x, i, v: x.index_put((i,), v), lambda x, i, v: put(x, i, v),
        (A, permuted(4), In((4, 5, 6)))),
    row("index_put-accumulate", lambda x, i, v: x.index_put((i,), v, accumulate=True),
        lambda x, i, v: np_index_add(x, i, v), (A, ints(4, (7,)), In((7, 5, 6))), dtypes=FLOATS),
    row("index_select", lambda x, i: x.index_select(1, i), lambda x, i: x[:, i],
        (A, ints(5, (7,)))),
    row("index_select-empty", lambda x, i: x.index_select(0, i), lambda x, i: x[i],
        (A, ints(4, (0,)))),
    row("index_add", lambda x, i, s: x.index_add(0, i, s, alpha=2),
        lambda x, i, s: np_index_add(x, i, 2 * s), (A, ints(4, (7,)), In((7, 5, 6))),
        dtypes=FLOATS),
    row("index_copy", lambda x, i, s: x.index_copy(1, i, s),
        lambda x, i, s: put(x, (slice(None), i), s), (A, permuted(5), In((4, 5, 6)))),
    row("index_fill", lambda x, i: x.index_fill(2, i, 1), lambda x, i: put(x, (..., i), 1),
        (A, ints(6, (3,)))),
    row("take", lambda x, i: x.take(i), lambda x, i: x.reshape(-1)[i], (A, ints(120, (3, 4))),
        torch=lambda torch, x, i: torch.take(x, i)),
    row("take_along_dim", lambda x, i: mlgpu.take_along_dim(x, i, 1),
        lambda x, i: np.take_along_axis(x, i, 1), (M, ints(5, (4, 2))),
        torch=lambda torch, x, i: torch.take_along_dim(x, i, 1)),
    *[row(f"gather-{dim}", lambda x, i, d=dim: x.gather(d, i),
          lambda x, i, d=dim: np.take_along_axis(x[:3, :4, :5] if d != 0 else x[:, :4, :5], i, d)
          if d == 0 else np.take_along_axis(
              x[:3, :, :5] if d == 1 else x[:3, :4], i, d), (A, ints(4, (3, 4, 5))))
      for dim in range(3)],
    scattered("scatter", lambda x, i, s: x.scatter(0, i, s),
              lambda x, i, s: np_scatter(x, 0, i, s),
              (M, In((3, 5), dtype="int64", make=lambda rng, shape: np.stack(
                  [rng.permutation(4)[:3] for _ in range(5)], 1)), M)),
    row("scatter-value", lambda x, i: x.scatter(1, i, 1),
        lambda x, i: np_scatter(x, 1, i, np.ones(i.shape)), (M, ints(5, (4, 2)))),
    scattered("scatter_add", lambda x, i, s: x.scatter_add(0, i, s),
              lambda x, i, s: np_scatter(x, 0, i, s, np.add), (M, ints(4, (4, 3)), M),
              dtypes=FLOATS),
    *[scattered(f"scatter_reduce-{reduce}-{'self' if own else 'fresh'}",
                lambda x, i, s, r=reduce, o=own: x.scatter_reduce(1, i, s, r, include_self=o),
                lambda x, i, s, r=reduce, o=own: np_scatter_reduce(x, 1, i, s, r, o),
                (M, ints(5, (4, 4)), M), dtypes=FLOATS)
      for reduce in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)],
    row("masked_fill", lambda x, m: x.masked_fill(m, 1), lambda x, m: np.where(m, 1, x),
        (A, mask((5, 6)))),
    row("masked_fill-tensor", lambda x, m, v: x.masked_fill(m, v),
        lambda x, m, v: np.where(m, v, x), (A, mask((5, 1)), In(()))),
    row("masked_select", lambda x, m: x.masked_select(m),
        lambda x, m: x[np.broadcast_to(m, x.shape)], (A, mask((5, 6)))),
    row("masked_scatter", lambda x, m, s: x.masked_scatter(m, s),
        lambda x, m, s: put(x, np.broadcast_to(m, x.shape),
                            s.reshape(-1)[:np.broadcast_to(m, x.shape).sum()]),
        (A, mask((4, 5, 6)), In((121,)))),
    row("nonzero", lambda x: x.nonzero(), lambda x: np.argwhere(x), (mask((3, 4)),),
        dtypes=("bool",), gradient=False, second=False),
    row("nonzero-tuple", lambda x: x.nonzero(as_tuple=True), lambda x: x.nonzero(),
        (mask((3, 4)),), dtypes=("bool",), gradient=False, second=False),
]
