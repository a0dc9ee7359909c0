"""Tables of rows: look-ups, the sums that are their gradients, bags, norms, one-hot vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.backends import cuda as backend
from mlgpu.cuda import segment
from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.faults import fault, site
from mlgpu.cuda.index import gather_rows, grouped
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.rows import wide
from mlgpu.cuda.runtime import contiguous, empty, zeros
from mlgpu.cuda.types import ctype
from mlgpu.deterministic import are_deterministic_algorithms_enabled
from mlgpu.errors import ShapeError

_LONG = np.dtype(np.int64)


def message(op: str) -> str:
    """What kernels report of an index that is no row's."""
    return op + ": index {value} is out of range for {bound} rows"


def look_up(op: str, index: Any, table: Any) -> Any:
    """Rows of the table at the indices."""
    rowed = grouped(table, ((), (0,), (1,)))
    if rowed is None:
        rowed = contiguous(table).reshape(1, *table.shape)
    rows = gather_rows(rowed, contiguous(index).reshape(-1), message(op))
    return rows.reshape(*index.shape, table.shape[1])


def add_rows(index: Any, values: Any, count: int, padding: int, average: bool) -> Any:
    """`count` rows of zeros with rows of values added at the indices, which were looked at before.

    Those of row `padding` are left out; with `average` sums are divided by the rows added.  In an
    order that depends on the indices alone, unless mlgpu.backends.cuda.embedding_backward is
    "atomic".
    """
    flat, features = contiguous(index).reshape(-1), values.shape[-1]
    if _in_any_order():
        return _add_in_any_order(flat, contiguous(values), count, padding, average)
    out = zeros((count, features), values.dtype)
    segment.combine(out.reshape(1, count, features),
                    contiguous(values).reshape(1, flat.size, features),
                    segment.sort(flat, count, None, skip=padding), "mean" if average else "sum")
    return out


def _in_any_order() -> bool:
    """Whether sums may depend on the order in which threads come."""
    if backend.embedding_backward not in ("deterministic", "atomic"):
        raise ShapeError("mlgpu.backends.cuda.embedding_backward: must be 'deterministic' or "
                         f"'atomic', got {backend.embedding_backward!r}")
    return (backend.embedding_backward == "atomic"
            and not are_deterministic_algorithms_enabled())


def _add_in_any_order(index: Any, values: Any, count: int, padding: int, average: bool) -> Any:
    """As `add_rows`, by atomic additions; sums of half types are in float32 until all are there."""
    features, dtype = values.shape[-1], values.dtype
    sums = zeros((count, features), wide(dtype))
    kind, counts = ctype(index.dtype), None
    if average:
        counts = zeros((count,), np.dtype(np.int32))
        launch("embedding", f"count_rows<{kind}>", blocks(index.size, 256), 256,
               (counts, index, index.size, count))
    number = "int" if values.size < 1 << 30 else "ml_index"
    launch("embedding", f"add_rows<{ctype(sums.dtype)}, {ctype(dtype)}, {kind}, {number}>",
           blocks(values.size, 1024), 256,
           (sums, values, index, counts, values.size, features, count, padding))
    if sums.dtype == dtype:
        return sums
    out = empty(sums.shape, dtype)
    copy_into(out, sums)
    return out


def combine_rows(op: str, source: Any, target: Any, rows: Any, scale: Any, count: int,
                 average: bool, ordered: bool) -> Any:
    """`count` rows of zeros with scale[i] * rows[source[i]] added at target[i].

    `ordered` says that targets do not decrease.
    """
    features = rows.shape[1]
    out = zeros((count, features), rows.dtype)
    if not source.size:
        return out
    checked = empty(source.shape, _LONG)
    source, target = contiguous(source), contiguous(target)
    launch("index", f"add_index<{ctype(source.dtype)}>", blocks(source.size, 256), 256,
           (checked, None, source, source.size, rows.shape[0], False, fault(), site(message(op))))
    if scale is not None:
        wide = empty(scale.shape, segment.accumulator(rows.dtype))
        copy_into(wide, scale)
        scale = wide
    keys = segment.Keys(target, None, count) if ordered else segment.sort(target, count, None)
    segment.combine(out.reshape(1, count, features), contiguous(rows).reshape(1, *rows.shape),
                    keys, "mean" if average else "sum", source=checked, scale=scale)
    return out


def renorm(op: str, weight: Any, index: Any, most: float, p: float) -> None:
    """Scale rows that the indices name, in place, to a p-norm of at most `most`."""
    rows, features = weight.shape
    keys = segment.sort(contiguous(index).reshape(-1), rows, message(op))
    if keys.keys.size:
        launch("embedding", f"renorm_rows<{ctype(weight.dtype)}, {ctype(keys.keys.dtype)}>",
               blocks(keys.keys.size, 8), 256,
               (weight, keys.keys, keys.keys.size, rows, features, most, p))


def one_hot(index: Any, classes: int) -> Any:
    """1 at each index along a new last dimension, 0 elsewhere."""
    out = empty((*index.shape, classes), _LONG)
    if out.size:
        width = 2 if classes % 2 == 0 else 1
        launch("embedding", f"one_hot<{width}>", blocks(out.size // width, 256), 256,
               (out, contiguous(index), index.size, classes, fault(), site(
                   "one_hot: class {value} is not among the {bound} classes")))
    return out


def row_dots(source: Any, target: Any, a: Any, b: Any) -> Any:
    """The inner products of rows source[i] of a and target[i] of b."""
    out = empty(source.shape, a.dtype)
    if out.size:
        launch("embedding", f"row_dots<{ctype(a.dtype)}>", blocks(out.size, 8), 256,
               (out, contiguous(source), contiguous(target), contiguous(a), contiguous(b),
                out.size, a.shape[1], a.shape[0], b.shape[0]))
    return out


def largest_rows(op: str, source: Any, target: Any, rows: Any, count: int) -> Any:
    """Which of the rows source[i] of each target is largest, by feature; targets are in order."""
    out = empty((count, rows.shape[1]), _LONG)
    if out.size:
        launch("embedding", f"largest_rows<{ctype(rows.dtype)}>", blocks(out.size, 256), 256,
               (out, contiguous(source), contiguous(target), contiguous(rows), source.size, count,
                rows.shape[1], rows.shape[0], fault(), site(message(op))))
    return out


def stretch_numbers(starts: Any, count: int, wrong: str) -> Any:
    """The number of the stretch that each of `count` elements lies in, by where these begin."""
    out = empty((count,), _LONG)
    launch("embedding", f"stretch_numbers<{ctype(starts.dtype)}>",
           blocks(max(count, starts.size), 256), 256,
           (out, contiguous(starts), count, starts.size, fault(), site(wrong)))
    return out
