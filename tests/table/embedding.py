"""Rows for mlgpu/ops/embedding.py and embedding_bag.py."""

from __future__ import annotations

import numpy as np
from table.case import Case, In, both
from table.losses import classes

ROWS = 7
TABLE = In((ROWS, 5))


def numbers(*shape, dtype="int64"):
    return In(shape, dtype=dtype, make=classes(ROWS))


def fixed(*values, dtype="int64"):
    return In((len(values),), dtype=dtype, make=lambda rng, shape: np.array(values))


# --- embedding ------------------------------------------------------------------------------------


def embedding(tag, indices, table=TABLE, *, gradient=True, reference=None, **options) -> Case:
    def call(library, index, weight):
        return library.nn.functional.embedding(index, weight, **options)

    return both(f"embedding-{tag}", call, reference or (lambda i, w: w[i]), (indices, table),
                gradient=gradient)


def renormed(index, weight, most, p):
    weight = weight.copy()
    for n in np.unique(index):
        norm = np.linalg.norm(weight[n], p)
        if norm > most:
            weight[n] *= most / (norm + 1e-7)
    return weight[index], weight


def renorm(most, p) -> Case:
    """The looked-up rows, and the table with the long ones among them shortened in place."""
    def call(library, index, weight):
        weight = weight.clone()
        return library.nn.functional.embedding(index, weight, max_norm=most, norm_type=p), weight

    return both(f"embedding-max_norm-{p}", call, lambda i, w: renormed(i, w, most, p),
                (fixed(0, 2, 2, 5), TABLE), gradient=False)


def lookups():
    for tag, indices in (("", numbers(6)), ("matrix", numbers(3, 4)), ("scalar", numbers()),
                         ("int32", numbers(6, dtype="int32")), ("empty", numbers(0, 3)),
                         ("often", numbers(2, 300)), ("repeated", fixed(3, 3, 3, 3, 0))):
        yield embedding(tag, indices)
    yield embedding("no-features", numbers(3), In((ROWS, 0)))
    # Only the gradient leaves the padding row out, so that differences do not show it.
    for tag, options in (("padding", {"padding_idx": 2}), ("padding-last", {"padding_idx": -1})):
        yield embedding(tag, fixed(0, 1, 3, 3), gradient=True, **options)
    yield renorm(1.5, 2.0)
    yield renorm(2.0, 1.0)
    yield renorm(1.0, np.inf)
    yield both("one_hot-classes", lambda lib, i: lib.nn.functional.one_hot(i, 9),
               lambda i: np.eye(9, dtype=np.int64)[i], (numbers(3, 4),), dtypes=("int64",),
               gradient=False)
    yield both("one_hot-inferred", lambda lib, i: lib.nn.functional.one_hot(i),
               lambda i: np.eye(6, dtype=np.int64)[i], (fixed(0, 5, 2, 5),), dtypes=("int64",),
               gradient=False)
    yield both("one_hot-scalar", lambda lib, i: lib.nn.functional.one_hot(i, ROWS),
               lambda i: np.eye(ROWS, dtype=np.int64)[i], (numbers(),), dtypes=("int64",),
               gradient=False)
    yield both("one_hot-empty", lambda lib, i: lib.nn.functional.one_hot(i, 4),
               lambda i: np.zeros((0, 2, 4), np.int64), (numbers(0, 2),), dtypes=("int64",),
               gradient=False)


# --- bags -----------------------------------------------------------------------------------------

COMBINE = {"sum": lambda rows: rows.sum(0), "mean": lambda rows: rows.mean(0),
           "max": lambda rows: rows.max(0)}


def bags(index, weight, offsets, scale, mode, padding=None, closed=False):
    """One bag after another."""
    if index.ndim == 2:
        offsets = np.arange(0, index.size + 1, index.shape[1] or 1)[:len(index) + 1]
        closed = True
    ends = offsets[1:] if closed else [*offsets[1:], index.size]
    starts = offsets[:-1] if closed else offsets
    index, scale = index.reshape(-1), None if scale is None else scale.reshape(-1)
    out = np.zeros((len(starts), weight.shape[1]))
    for n, (start, end) in enumerate(zip(starts, ends, strict=True)):
        places = [i for i in range(start, end) if padding is None or index[i] != padding % ROWS]
        rows = weight[index[places]]
        if scale is not None:
            rows = rows * scale[places][:, None]
        if len(rows):
            out[n] = COMBINE[mode](rows)
    return out


def bag(tag, mode, indices, offsets=None, *, weighted=False, table=TABLE, padding=None,
        closed=False) -> Case:
    inputs = [indices, table, *(() if offsets is None else (offsets,)),
              *((In(indices.shape),) if weighted else ())]

    def parts(index, weight, *rest):
        rest = list(rest)
        where = None if offsets is None else rest.pop(0)
        return index, weight, where, rest[0] if weighted else None

    def call(library, *xs):
        index, weight, where, scale = parts(*xs)
        return library.nn.functional.embedding_bag(
            index, weight, where, mode=mode, per_sample_weights=scale, padding_idx=padding,
            include_last_offset=closed)

    return both(f"embedding_bag-{mode}{'-' if tag else ''}{tag}", call,
                lambda *xs: bags(*parts(*xs), mode, padding, closed), tuple(inputs))


def bag_rows():
    for mode in COMBINE:
        yield bag("matrix", mode, numbers(3, 4))
        yield bag("one-each", mode, numbers(4, 1))
        yield bag("offsets", mode, numbers(11), fixed(0, 2, 2, 7, 11))
        yield bag("closed", mode, numbers(11), fixed(0, 2, 2, 7, 11), closed=True)
        yield bag("int32", mode, numbers(11, dtype="int32"), fixed(0, 4, 9, dtype="int32"))
        yield bag("long", mode, numbers(400), fixed(0, 1, 390))
        yield bag("padding", mode, numbers(5, 6), padding=-2)
        yield bag("all-padding", mode, fixed(3, 3, 3, 1, 3, 2), fixed(0, 3, 5), padding=3)
        yield bag("no-bags", mode, numbers(0, 3))
        yield bag("empty-bags", mode, numbers(0), fixed(0, 0))
        yield bag("no-features", mode, numbers(3, 2), table=In((ROWS, 0)))
    yield bag("weights", "sum", numbers(4, 3), weighted=True)
    yield bag("weights-offsets", "sum", numbers(11), fixed(0, 2, 2, 7), weighted=True)
    yield bag("weights-padding", "sum", numbers(4, 5), weighted=True, padding=1)
    yield bag("weights-closed", "sum", numbers(11), fixed(0, 5, 11), weighted=True, closed=True)


CASES = [*lookups(), *bag_rows()]
