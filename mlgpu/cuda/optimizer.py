"""Many tensors in one launch: updates of parameters, and what goes over all gradients before.

Kernels find the tensors by tables in device memory, written once for each set of addresses and
kept; gradients, which move more often, have a table of their own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mlgpu import dtypes
from mlgpu.cuda.context import context
from mlgpu.cuda.launch import Kernel, _device, launch
from mlgpu.cuda.runtime import copy, empty
from mlgpu.cuda.types import ctype
from mlgpu.expr import many
from mlgpu.expr.lower import Program
from mlgpu.storage import is_contiguous

# As in kernels/optimizer.cu.
CHUNK, THREADS, GROUPS = 16384, 256, 16
MAXIMIZE, DECOUPLED, NESTEROV, BEGINS, LR_DOUBLE = 1, 2, 4, 8, 16
SQUARES, SIZES, LARGEST, SMALLEST, POWERS = range(5)
KEPT = 32  # tables that are kept for the next time

_SETTINGS = np.dtype([("at", [
    (name, np.float64) for name in ("lr", "decay", "eps", "beta1", "beta2", "rest", "root")
] + [(name, np.int64) for name in ("lr_cell", "beta1_cell", "flags")], GROUPS)])


class Settings(NamedTuple):
    """What holds for some of the parameters: a row of kernels/optimizer.cu's `ml_settings`."""

    lr: float
    decay: float
    eps: float
    beta1: float  # sgd: momentum
    beta2: float  # sgd: dampening
    rest: float  # 1 - beta1^t and the root of 1 - beta2^t, if the host counts the steps
    root: float
    lr_cell: Any  # the rate on the device, float32 or float64; else None
    beta1_cell: Any  # and beta1, float64
    flags: int


class Tables(NamedTuple):
    """Where tensors are, for kernels."""

    rows: Any
    map: Any  # of which tensor each block is
    blocks: int
    tensors: int
    ticket: Any


# --- tables ---------------------------------------------------------------------------------------

_lock = threading.Lock()
_tables: OrderedDict[Any, Any] = OrderedDict()


def _kept(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """What `make` gives, from the last time if that was on the same device and stream."""
    if context.capture is not None:
        return make()  # the graph keeps it
    device = _device()
    key = (device, context.streams.get(device), *key)
    with _lock:
        found = _tables.get(key)
        if found is not None:
            _tables.move_to_end(key)
            return found
    found = make()
    with _lock:
        _tables[key] = found
        while len(_tables) > KEPT:
            _tables.popitem(last=False)
    return found


def _uploaded(values: Any) -> Any:
    from mlgpu.cuda.graphs import upload

    array = upload(values)
    array.data.mem.charge = None  # no tensor's: not on the books
    return array


def _tabled(rows: Sequence[tuple[int, ...]]) -> Tables:
    """Tables for rows of (addresses..., size, settings)."""
    def make() -> Tables:
        given = np.array(rows, np.int64)
        counts = -(-given[:, -2] // CHUNK)
        table = np.insert(given, -1, np.cumsum(counts) - counts, axis=1)
        total = int(counts.sum())
        map = np.repeat(np.arange(len(rows)), counts) if total else np.full(1, -1)
        return Tables(_uploaded(table), _uploaded(map.astype(np.int32)), total, len(rows),
                      _uploaded(np.zeros(1, np.uint32)))

    found: Tables = _kept(("rows", *rows), make)
    return found


def _grads(grads: Sequence[Any]) -> Any:
    addresses = [grad.data.ptr for grad in grads]

    return _kept(("grads", *addresses), lambda: _uploaded(np.array(addresses, np.int64)))


def _size(array: Any) -> int:
    """How many real numbers an array holds."""
    return int(array.size) * (2 if array.dtype.kind == "c" else 1)


def _alike(arrays: Sequence[Any]) -> bool:
    """Whether the arrays have their elements in the same order, without gaps."""
    if all(map(is_contiguous, arrays)):
        return True
    first = arrays[0]
    if any(a.strides != first.strides for a in arrays):
        return False
    order = sorted(range(first.ndim), key=lambda d: -first.strides[d])
    return bool(first.transpose(order).flags.c_contiguous)


class _Dense:
    """Arrays by tensor, each tensor's of one memory order; copies where they are not."""

    def __init__(self, tensors: Sequence[Sequence[Any]]) -> None:
        self.tensors: list[Sequence[Any]] = []
        self._copies: list[tuple[Any, Any]] = []
        for arrays in tensors:
            if not _alike(arrays):
                dense = [copy(a) for a in arrays]
                self._copies += zip(arrays, dense, strict=True)
                arrays = dense
            self.tensors.append(arrays)

    def write_back(self, read: Sequence[Any] = ()) -> None:
        """Bring what kernels wrote to where it belongs, but for arrays that were only read."""
        from mlgpu.cuda.copy import copy_into

        unchanged = {id(array) for array in read} if self._copies else ()
        for original, dense in self._copies:
            if id(original) not in unchanged:
                copy_into(original, dense)


# --- updates --------------------------------------------------------------------------------------


def _packed(settings: Sequence[Settings]) -> Any:
    packed = np.zeros((), _SETTINGS)
    for number, row in enumerate(settings):
        lr, beta1, flags = row[-3:]
        if lr is not None and lr.dtype.itemsize == 8:
            flags |= LR_DOUBLE
        packed["at"][number] = (*row[:-3], *(0 if cell is None else cell.data.ptr
                                             for cell in (lr, beta1)), flags)
    return packed


def _step(kernel: str, tensors: Sequence[Sequence[Any]], steps: Sequence[Any] | None,
          which: Sequence[int], settings: Sequence[Settings], factor: Any, found_inf: Any,
          counted: bool) -> None:
    """Launch an update of tensors (arrays with the gradient last), by GROUPS settings at a time."""
    dense = _Dense(tensors)
    for first in range(0, len(settings), GROUPS):
        chosen = [i for i, row in enumerate(which) if first <= row < first + GROUPS]
        rows = []
        for i in chosen:
            *arrays, _ = dense.tensors[i]
            addresses = [a.data.ptr for a in arrays]
            step = 0 if steps is None else steps[i].data.ptr
            rows.append((*addresses, *(0,) * (4 - len(addresses)), step, _size(arrays[0]),
                         which[i] - first))
        tables = _tabled(rows)
        last = () if not counted else (tables.tensors, steps is not None, tables.ticket)
        launch("optimizer", kernel, max(tables.blocks, 1) if steps else tables.blocks, THREADS,
               (tables.rows, _grads([dense.tensors[i][-1] for i in chosen]), tables.map,
                _packed(settings[first:first + GROUPS]), factor, found_inf, *last))
    dense.write_back([arrays[-1] for arrays in tensors])


def _real_name(dtype: Any) -> str:
    return ctype(np.empty(0, dtype).real.dtype if dtype.kind == "c" else dtype)


def adam(tensors: Sequence[Sequence[Any]], steps: Sequence[Any] | None, which: Sequence[int],
         settings: Sequence[Settings], factor: Any = None, found_inf: Any = None) -> None:
    """One step of Adam for tensors of one dtype.

    `tensors`: parameter, averages of gradient and square, their peak if there is one, gradient.
    `steps`: counts on the device, which grow by 1; None where settings hold what follows from them.
    `which`: the settings of each.  `factor`: multiplies the gradients.  Nothing changes where
    `found_inf` is not 0.  Both are float32 on the device.
    """
    peak = str(len(tensors[0]) == 5).lower()
    _step(f"adam_step<{_real_name(tensors[0][0].dtype)}, {peak}>", tensors, steps, which, settings,
          factor, found_inf, True)


def sgd(tensors: Sequence[Sequence[Any]], which: Sequence[int], settings: Sequence[Settings],
        factor: Any = None, found_inf: Any = None) -> None:
    """One step of SGD, as `adam`.  `tensors`: parameter, running sum if there is one, gradient."""
    momentum = str(len(tensors[0]) == 3).lower()
    _step(f"sgd_step<{_real_name(tensors[0][0].dtype)}, {momentum}>", tensors, None, which,
          settings, factor, found_inf, False)


@lru_cache(maxsize=1024)
def _rule_kernel(follow: Program, change: Program, shape: many.Shape, dtype: Any) -> Kernel:
    source = many.rule(follow, change, shape, dtypes.from_numpy(dtype))
    return Kernel(source.text, source.name, f"{source.name}.cu")


class RuleSettings(NamedTuple):
    """What holds for some of the parameters of a rule."""

    numbers: tuple[float, ...]  # the learning rate first
    lr_cell: Any  # the rate on the device, float32 or float64; else None
    momentum_cell: Any  # and the momentum, float64
    maximize: bool


def apply_rule(follow: Program, change: Program, shape: many.Shape,
               tensors: Sequence[Sequence[Any]], singles: Sequence[Sequence[Any]],
               which: Sequence[int], settings: Sequence[RuleSettings], factor: Any = None,
               found_inf: Any = None) -> None:
    """One step of a rule (mlgpu/expr/many.py) for tensors of one dtype.

    `tensors`: parameter, arrays of the state, gradient; `singles`: the single numbers of each, on
    the device.  The rest as in `adam`.
    """
    dense = _Dense(tensors)
    dtype = tensors[0][0].real.dtype
    kernel = _rule_kernel(follow, change, shape, dtype)
    for first in range(0, len(settings), many.GROUPS):
        chosen = [i for i, row in enumerate(which) if first <= row < first + many.GROUPS]
        tables = _tabled([(*(int(a.data.ptr) for a in dense.tensors[i][:-1]),
                           *(int(a.data.ptr) for a in singles[i]),
                           _size(dense.tensors[i][0]), which[i] - first) for i in chosen])
        packed = np.zeros((), many.settings_dtype(shape))
        for row, s in enumerate(settings[first:first + many.GROUPS]):
            packed["number"][row] = s.numbers
            for name, cell in (("lr_cell", s.lr_cell), ("momentum_cell", s.momentum_cell)):
                packed[name][row] = 0 if cell is None else cell.data.ptr
            packed["lr_double"][row] = s.lr_cell is not None and s.lr_cell.dtype.itemsize == 8
            packed["maximize"][row] = s.maximize
        kernel(max(tables.blocks, 1), THREADS, (
            tables.rows, _grads([dense.tensors[i][-1] for i in chosen]), tables.map, packed,
            factor, found_inf, tables.tensors, tables.ticket))
    dense.write_back([arrays[-1] for arrays in tensors])


def advance(cells: Any, table: Any) -> None:
    """Set the cells to the next row of the table, whose first number says which that is."""
    launch("optimizer", "advance", 1, THREADS, (cells, table, cells.size))


# --- over all gradients ---------------------------------------------------------------------------


def _over(grads: Sequence[Any], launched: Callable[[str, Tables, Any], None],
          writes: bool = True) -> None:
    """`launched(type, tables, addresses)` for arrays of one dtype, which it may change."""
    dense = _Dense([(grad,) for grad in grads])
    arrays = [tensor[0] for tensor in dense.tensors]
    tables = _tabled([(0, 0, 0, 0, 0, _size(a), 0) for a in arrays])
    launched(_real_name(arrays[0].dtype), tables, _grads(arrays))
    if writes:
        dense.write_back()


def clip(grads: Sequence[Any], norm: Any, limit: float) -> None:
    """Multiply by min(1, limit / (norm + 1e-6)), the norm being on the device."""
    def launched(kind: str, tables: Tables, addresses: Any) -> None:
        launch("optimizer", f"grads_clip<{kind}, {ctype(norm.dtype)}>", tables.blocks, THREADS,
               (tables.rows, addresses, tables.map, norm, limit))

    _over(grads, launched)


def unscale(grads: Sequence[Any], inv_scale: Any, found_inf: Any) -> None:
    """Multiply by a float32 on the device; `found_inf` becomes 1 where an element is not finite."""
    def launched(kind: str, tables: Tables, addresses: Any) -> None:
        launch("optimizer", f"grads_unscale<{kind}>", tables.blocks, THREADS,
               (tables.rows, addresses, tables.map, inv_scale, found_inf))

    _over(grads, launched)


def clamp(grads: Sequence[Any], limit: float) -> None:
    """Confine real elements to [-limit, limit]."""
    def launched(kind: str, tables: Tables, addresses: Any) -> None:
        launch("optimizer", f"grads_clamp<{kind}>", tables.blocks, THREADS,
               (tables.rows, addresses, tables.map, limit))

    _over(grads, launched)


def norm(grads: Sequence[Any], p: float) -> Any:
    """The norm of all elements together, 0-dim; p > 0 or -inf, and for complex numbers 2."""
    kind = {2.0: SQUARES, 1.0: SIZES, np.inf: LARGEST, -np.inf: SMALLEST}.get(p, POWERS)
    dtype = grads[0].real.dtype
    out = empty((), dtype)

    def launched(name: str, tables: Tables, addresses: Any) -> None:
        wide = dtypes.compute_dtype(dtypes.from_numpy(dtype)).numpy
        parts = empty((max(tables.blocks, 1),), wide)
        launch("optimizer", f"grads_norm_parts<{name}, {kind}>", tables.blocks, THREADS,
               (parts, tables.rows, addresses, tables.map, p))
        launch("optimizer", f"grads_norm<{name}, {kind}>", 1, THREADS,
               (out, parts, tables.blocks, p))

    _over(grads, launched, writes=False)
    return out
