"""Attention on arrays, in blocks of scores that stay in the cache, as tasks of the parallel loop.

Forward, a task is a block of queries of some heads, with all the keys they may look at.  Backward,
it is some heads with all their queries and keys, a block of keys at a time: the gradients of keys
and values are then written once, and those of queries added up in the order of the blocks.  Where
weights are dropped, blocks are of queries there too, because random words lie in rows of scores.

Compiled loops call BLAS themselves: threads that meet at the interpreter's lock between products
of so small matrices would wait for it longer than they compute.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from mlgpu.cpu import blas, fast
from mlgpu.cpu import random as numbers
from mlgpu.cpu.gemm import blas_reads
from mlgpu.cpu.rows import wide
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import parallel
from mlgpu.cuda.attention import Options

__all__ = ["Plan", "attend", "attend_backward", "kept_scale"]

Array = np.ndarray[Any, Any]

# Scores of a block, and queries or keys of one: causal blocks along the diagonal are half empty.
# Smaller blocks lose more time at the interpreter's lock than they win in the cache (measured).
BLOCK = 1 << 17
LONGEST, LONGEST_CAUSAL, SHORTEST = 128, 64, 32
TASKS = 8  # that there should be, so that threads end together


class Plan:
    """How heads, queries and keys are cut into blocks: by their numbers alone."""

    def __init__(self, lead: tuple[int, ...], q: Array, k: Array, v: Array, causal: bool,
                 lengths: Array | None) -> None:
        self.lead = lead or (1,)
        self.queries, self.keys = q.shape[-2], k.shape[-2]
        self.depth, self.width = q.shape[-1], v.shape[-1]
        self.compute = wide(q.dtype)
        self.causal = causal
        self.lengths: list[int] | None = None if lengths is None else lengths.tolist()
        self.rows = self._length(self.queries, self.keys)
        self.columns = self._length(self.keys, self.queries)
        heads = math.prod(self.lead)
        self.most = 1 if lengths is not None and len(lead) == 1 else -(-heads // TASKS)
        # A score costs as much as some elements of simpler operations, and more with its depth.
        self.work = heads * self.queries * self.keys * (4 + (self.depth + self.width) // 16)

    def heads(self, scores: int, blocks: int = 1, across: bool = False) -> _Heads:
        """Groups of heads that are computed together, each with so many scores at a time.

        blocks: tasks for each group; across: a group may have several of the last dimension but
        one.  Two threads that call NumPy for a few microseconds each wait for the interpreter.
        """
        alike = self.lengths is None  # or else heads of different batches have other keys
        most = max(1, min(self.most * (blocks if alike else 1), BLOCK // scores))
        return _Heads(self.lead, most, across and alike)

    def _length(self, of: int, others: int) -> int:
        """Of a block along one side of scores; SHORTEST keeps products efficient."""
        longest = LONGEST_CAUSAL if self.causal else LONGEST
        return min(of, max(SHORTEST, min(longest, BLOCK // others)))

    def reach(self, head: int) -> int:
        """How many keys the queries of a head may look at."""
        keys = (self.keys if self.lengths is None
                else self.lengths[head // math.prod(self.lead[1:])])
        return min(keys, self.queries) if self.causal else keys

    def spread(self, *arrays: Any) -> list[Any]:
        """Arrays (..., rows, columns) with all leading dimensions, None as it is."""
        return [None if a is None else a if a.shape[:-2] == self.lead
                else a[None] if a.ndim == 2 and self.lead == (1,)  # may be written to
                else np.broadcast_to(a, (*self.lead, *a.shape[-2:])) for a in arrays]


class _Heads:
    """The heads in groups of nearly equal size.

    None goes across a leading dimension but the last, or, if they may, the last but one.
    """

    def __init__(self, lead: tuple[int, ...], most: int, across: bool = False) -> None:
        self.rest: tuple[Any, ...] = ()
        self.unit = 1  # heads to each index of the dimension that is cut
        if across and len(lead) > 1 and most >= 2 * lead[-1]:
            self.rest, self.unit = (slice(None),), lead[-1]
            lead, most = lead[:-1], most // lead[-1]
        self.outer, self.inner = lead[:-1], lead[-1]
        self.groups = -(-self.inner // most)
        self.cut = -(-self.inner // self.groups)
        self.groups = -(-self.inner // self.cut)
        self.size = self.cut * self.unit  # heads of the largest group
        self.count = math.prod(self.outer) * self.groups

    def place(self, group: int) -> tuple[int, tuple[Any, ...]]:
        """The number of the first head of a group, and where the group is in arrays."""
        outer, part = divmod(group, self.groups)
        first = part * self.cut
        where = np.unravel_index(outer, self.outer) if self.outer else ()
        return ((outer * self.inner + first) * self.unit,
                (*where, slice(first, first + self.cut), *self.rest))


class _Buffer:
    """One accounted buffer, in the shape of whichever block is at hand."""

    def __init__(self, size: int, dtype: Any) -> None:
        self.flat = empty((size,), dtype)

    def of(self, *shape: int) -> Array:
        return self.flat[:math.prod(shape)].reshape(shape)


class _Readable:
    """Matrices as BLAS reads them in the compute dtype: copied where they are not like that."""

    def __init__(self, x: Array, heads: int, compute: Any) -> None:
        self.copies: _Buffer | None = None
        if x.dtype != compute or not blas_reads(x):
            self.copies = _Buffer(heads * math.prod(x.shape[-2:]), compute)

    def of(self, x: Array) -> Array:
        if self.copies is None:
            return x
        copied = self.copies.of(*x.shape)
        np.copyto(copied, x, casting="unsafe")
        return copied

    def room(self, x: Array) -> Array:
        """`x`, or a buffer from which it is to be written."""
        return x if self.copies is None else self.copies.of(*x.shape)


# --- the passes over a block of scores ------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def _future(n: int) -> Array:
    """Which keys come after which queries."""
    return ~np.tri(n, n, dtype=np.bool_)


def _hide(scores: Array, ahead: int) -> None:
    """-inf where query i of the block would look beyond key i + ahead."""
    columns = scores.shape[-1]
    if ahead < columns - 1:
        corner = scores[..., :columns - ahead, ahead:]
        future = _future(columns - ahead)[:corner.shape[-2]]
        np.copyto(corner, -np.inf, where=future)


class _Passes:
    """What is done to blocks of scores between products, with NumPy."""

    @staticmethod
    def exponentials(scores: Array, ahead: int, lse: Array, factor: Array) -> None:
        """exp(scores - the largest of the row), the log of the sum of exp, and 1 / the sum."""
        _hide(scores, ahead)
        top = np.maximum.reduce(scores, -1, keepdims=True)
        top[np.isneginf(top)] = 0
        np.subtract(scores, top, out=scores)
        np.exp(scores, out=scores)
        total = scores @ np.ones((scores.shape[-1], 1), scores.dtype)
        empties = total == 0
        np.divide(1, total, out=factor)
        np.add(top, np.log(total, out=total), out=lse)
        factor[empties], lse[empties] = 0, np.inf

    @staticmethod
    def weights(scores: Array, ahead: int, lse: Array) -> None:
        """exp(scores - lse)."""
        _hide(scores, ahead)
        np.subtract(scores, lse, out=scores)
        np.exp(scores, out=scores)

    @staticmethod
    def through_softmax(grad: Array, weights: Array, delta: Array) -> None:
        """(grad - delta) * weights."""
        np.subtract(grad, delta, out=grad)
        np.multiply(grad, weights, out=grad)


def _whole(options: Options, plan: Plan, mask: Array | None, *arrays: Array
           ) -> tuple[ModuleType, int] | None:
    """The loops that do a head in one call, products included, and BLAS's address; or None.

    For where nothing comes between the products, and rows are such that BLAS reads them.
    """
    if mask is not None or options.stream is not None or not plan.depth * plan.width:
        return None
    item = plan.compute.itemsize
    for x in arrays:
        if x.dtype != plan.compute or x.strides[-1] != item or x.strides[-2] % item or (
                x.strides[-2] < item * x.shape[-1]):
            return None
    compiled = fast.load("attention", plan.work)
    address = blas.gemm_address(plan.compute) if compiled is not None else 0
    return (compiled, address) if compiled is not None and address else None


def _passes(plan: Plan) -> Any:
    return fast.load("attention", plan.work) or _Passes


def _masked(scores: Array, mask: Array | None) -> None:
    if mask is None:
        return
    if mask.dtype == np.bool_:
        np.copyto(scores, -np.inf, where=~mask)
    else:
        np.add(scores, mask, out=scores, casting="unsafe", dtype=scores.dtype)


def kept_scale(dropout: float) -> float:
    """What weights that are not dropped are multiplied by."""
    return 1 / (1 - dropout) if dropout < 1 else 0.0


class _Dropped:
    """Which weights of a block of queries are kept, scaled up; a function of a draw's words."""

    def __init__(self, options: Options, plan: Plan, heads: int) -> None:
        self.options, self.plan = options, plan
        self.buffer = _Buffer(heads * plan.rows * plan.keys, plan.compute)
        self.scale = plan.compute.type(kept_scale(options.dropout))

    def of(self, head: int, heads: int, rows: slice) -> Array:
        assert self.options.stream is not None
        chosen = self.buffer.of(heads, rows.stop - rows.start, self.plan.keys)
        for place, row in enumerate(chosen):
            first = ((head + place) * self.plan.queries + rows.start) * self.plan.keys
            odd = first % 2  # the second number of a word
            kept = numbers.kept(self.options.stream, self.options.dropout, first - odd,
                                row.size + odd)
            np.multiply(kept[odd:].reshape(row.shape), self.scale, out=row)
        return chosen


# --- forward --------------------------------------------------------------------------------------


def attend(options: Options, plan: Plan, q: Array, k: Array, v: Array, mask: Array | None,
           out: Array, lse: Array) -> None:
    """Fill `out` and `lse`, whose leading dimensions are the plan's."""
    q, k, v, mask, out, lse = plan.spread(q, k, v, mask, out, lse)
    whole = _whole(options, plan, mask, q, k, v, out)
    if whole is not None:
        _attend_whole(*whole, options, plan, q, k, v, out, lse)
        return
    blocks, passes = -(-plan.queries // plan.rows), _passes(plan)
    heads = plan.heads(plan.rows * plan.keys, blocks, passes is _Passes and options.stream is None)
    scale = plan.compute.type(options.scale)

    def start() -> Callable[[int], None]:
        scaled = _Buffer(heads.size * plan.rows * plan.depth, plan.compute)
        scores = _Buffer(heads.size * plan.rows * plan.keys, plan.compute)
        products = _Buffer(heads.size * plan.rows * plan.width, plan.compute)
        factors = _Buffer(heads.size * plan.rows, plan.compute)
        keys = _Readable(k, heads.size, plan.compute)
        values = _Readable(v, heads.size, plan.compute)
        dropped = None if options.stream is None else _Dropped(options, plan, heads.size)

        def block(task: int) -> None:
            group, number = divmod(task, blocks)
            rows = _slice(blocks - 1 - number, plan.rows, plan.queries)  # the longest ones first
            head, place = heads.place(group)
            outs, lses = out[place][..., rows, :], lse[place][..., rows, :]
            end = plan.reach(head)
            if plan.causal:
                end = min(end, rows.stop)
            if not end:
                outs[...], lses[...] = 0, np.inf
                return
            some = outs.shape[:-1]
            ahead = rows.start if plan.causal else end
            s, factor = scores.of(*some, end), factors.of(*some, 1)
            some_q = np.multiply(q[place][..., rows, :], scale, out=scaled.of(*some, plan.depth),
                                 casting="unsafe", dtype=plan.compute)
            _scores(s, some_q, keys.of(k[place][..., :end, :]),
                    None if mask is None else mask[place][..., rows, :end])
            passes.exponentials(s, ahead, lses, factor)
            if dropped is not None:
                np.multiply(s, dropped.of(head, some[0], rows)[..., :end], out=s)
            product = np.matmul(s, values.of(v[place][..., :end, :]),
                                out=products.of(*some, plan.width))
            np.multiply(product, factor, out=outs, casting="unsafe")

        return block

    with blas.one_thread():
        parallel(heads.count * blocks, start, plan.work)


def _short(plan: Plan, length: int) -> int:
    """Of a block that is computed without the interpreter: of its half above the diagonal, less."""
    return min(length, SHORTEST) if plan.causal else length


def _lanes(columns: int) -> int:
    """Room for compiled loops over rows, which would else want the same lines of the cache."""
    return -(-columns // 32) * 32 + 16


def _attend_whole(compiled: ModuleType, gemm: int, options: Options, plan: Plan, q: Array, k: Array,
                  v: Array, out: Array, lse: Array) -> None:
    """As `attend`, by compiled loops; a task is some heads, or a block of their queries."""
    heads, rows = plan.heads(1), _short(plan, plan.rows)
    length = plan.queries if heads.count >= TASKS else plan.rows
    blocks = -(-plan.queries // length)
    scale = plan.compute.type(options.scale)

    def start() -> Callable[[int], None]:
        scores = empty((rows, _lanes(plan.keys)), plan.compute)
        turned = empty((plan.depth, _lanes(plan.keys)), plan.compute)

        def run(task: int) -> None:
            group, number = divmod(task, blocks)
            some = _slice(blocks - 1 - number, length, plan.queries)  # the longest ones first
            head, place = heads.place(group)
            reach = plan.reach(head)
            if not reach:
                out[place][:, some], lse[place][:, some] = 0, np.inf
                return
            compiled.attend(gemm, q[place], k[place], v[place], out[place], lse[place], scale,
                            (some.start, some.stop), rows, plan.causal, reach, scores, turned)

        return run

    with blas.one_thread():
        parallel(heads.count * blocks, start, plan.work)


def _slice(number: int, size: int, end: int) -> slice:
    return slice(number * size, min(end, (number + 1) * size))


def _scores(out: Array, q: Array, k: Array, mask: Array | None) -> None:
    np.matmul(q, k.swapaxes(-1, -2), out=out)
    _masked(out, mask)


# --- backward -------------------------------------------------------------------------------------


def attend_backward(options: Options, plan: Plan, dy: Array, q: Array, k: Array, v: Array,
                    mask: Array | None, out: Array, lse: Array, grads: list[Array],
                    dmask: Array | None) -> None:
    """Fill the gradients of q, k and v, and `dmask`, which must be 0, where queries look."""
    arrays = plan.spread(dy, q, k, v, mask, out, lse, *grads, dmask)
    whole = _whole(options, plan, mask, *arrays[:4], arrays[5], *arrays[7:10])
    if whole is not None:
        _backward_whole(*whole, options, plan, *arrays[:4], *arrays[5:10])
        return
    dropping = options.stream is not None
    block = plan.rows * plan.keys if dropping else plan.columns * plan.queries
    heads = plan.heads(block, 1, _passes(plan) is _Passes and not dropping)

    def start() -> Callable[[int], None]:
        worker = _Backward(options, plan, heads, block, arrays)
        return worker.run

    with blas.one_thread():
        parallel(heads.count, start, plan.work)


def _backward_whole(compiled: ModuleType, gemm: int, options: Options, plan: Plan, dy: Array,
                    q: Array, k: Array, v: Array, out: Array, lse: Array, dq: Array, dk: Array,
                    dv: Array) -> None:
    """As `attend_backward`, by compiled loops; a task is some heads."""
    heads, scale = plan.heads(1), plan.compute.type(options.scale)
    columns = _short(plan, plan.columns)

    def start() -> Callable[[int], None]:
        p, dp = (empty((plan.queries, _lanes(columns)), plan.compute) for _ in range(2))
        keys, values = (empty((width, _lanes(plan.keys)), plan.compute)
                        for width in (plan.depth, plan.width))
        deltas = _Buffer(heads.size * plan.queries, plan.compute)

        def run(group: int) -> None:
            head, place = heads.place(group)
            reach, grad = plan.reach(head), dy[place]
            delta = np.vecdot(grad, out[place], out=deltas.of(*grad.shape[:2]))
            dk[place][:, reach:], dv[place][:, reach:] = 0, 0
            if not reach:
                dq[place][...] = 0
                return
            compiled.attend_backward(
                gemm, grad, q[place], k[place], v[place], lse[place], delta, dq[place], dk[place],
                dv[place], scale, columns, plan.causal, reach, p, dp, keys, values)

        return run

    with blas.one_thread():
        parallel(heads.count, start, plan.work)


class _Backward:
    """The gradients of groups of heads, by one thread."""

    def __init__(self, options: Options, plan: Plan, heads: _Heads, block: int,
                 arrays: list[Any]) -> None:
        self.options, self.plan, self.heads, self.arrays = options, plan, heads, arrays
        self.passes = _passes(plan)
        size, compute = heads.size, plan.compute
        self.scaled = _Buffer(size * plan.queries * plan.depth, compute)
        self.first, self.second = _Buffer(size * block, compute), _Buffer(size * block, compute)
        self.part = _Buffer(size * max(plan.queries, plan.keys) * max(plan.depth, plan.width),
                            compute)
        self.delta = _Buffer(size * plan.queries, compute)
        dy, _, k, v, _, out, _, dq, dk, dv, _ = arrays
        self.reads = [_Readable(x, size, compute) for x in (dy, k, v, out)]
        self.writes = [_Readable(x, size, compute) for x in (dq, dk, dv)]
        self.dropped = None if options.stream is None else _Dropped(options, plan, size)

    def run(self, group: int) -> None:
        plan = self.plan
        head, place = self.heads.place(group)
        parts: list[Any] = [None if a is None else a[place] for a in self.arrays]
        dy, q, k, v, mask, out, lse, dq, dk, dv, dmask = parts
        reach, scale = plan.reach(head), plan.compute.type(self.options.scale)
        sums = [w.room(x) for w, x in zip(self.writes, (dq, dk, dv), strict=True)]
        unseen = 0 if self.dropped is not None else reach
        sums[1][..., unseen:, :], sums[2][..., unseen:, :] = 0, 0
        if not reach:
            sums[0][...] = 0
        grad, k, v, out = (r.of(x) for r, x in zip(self.reads, (dy, k, v, out), strict=True))
        q = np.multiply(q, scale, out=self.scaled.of(*q.shape), casting="unsafe",
                        dtype=plan.compute)
        delta = np.vecdot(grad, out, out=self.delta.of(*grad.shape[:-1]))[..., None]
        for rows, keys in self._tiles(reach):
            self._tile(head, rows, keys, q[..., rows, :], k[..., keys, :], v[..., keys, :],
                       grad[..., rows, :], delta[..., rows, :], lse[..., rows, :],
                       None if mask is None else mask[..., rows, keys], sums,
                       None if dmask is None else dmask[..., rows, keys])
        np.multiply(sums[0], scale, out=sums[0])
        for made, x in zip(sums, (dq, dk, dv), strict=True):
            if made is not x:
                np.copyto(x, made, casting="unsafe")

    def _tiles(self, reach: int) -> Iterator[tuple[slice, slice]]:
        """Queries and keys whose scores are computed at a time."""
        plan = self.plan
        if self.dropped is None:
            for start in range(0, reach, plan.columns):
                yield (slice(start if plan.causal else 0, plan.queries),
                       slice(start, min(reach, start + plan.columns)))
        elif reach:
            for start in range(0, plan.queries, plan.rows):
                stop = min(plan.queries, start + plan.rows)
                yield slice(start, stop), slice(0, min(reach, stop) if plan.causal else reach)

    def _tile(self, head: int, rows: slice, keys: slice, q: Array, k: Array, v: Array, grad: Array,
              delta: Array, lse: Array, mask: Array | None, sums: list[Array],
              dmask: Array | None) -> None:
        shape = (*q.shape[:-1], keys.stop - keys.start)
        p, dp = self.first.of(*shape), self.second.of(*shape)
        _scores(p, q, k, mask)
        self.passes.weights(p, rows.start - keys.start if self.plan.causal else keys.stop, lse)
        np.matmul(grad, v.swapaxes(-1, -2), out=dp)
        dq, dk, dv = sums
        once = self.dropped is None  # each key is in one tile, or else each query
        if self.dropped is not None:
            chosen = self.dropped.of(head, len(q), rows)[..., :keys.stop]
            np.multiply(dp, chosen, out=dp)
            kept = np.multiply(chosen, p, out=chosen)
            self._add(dv[..., keys, :], kept.swapaxes(-1, -2), grad, once)
        else:
            self._add(dv[..., keys, :], p.swapaxes(-1, -2), grad, once)
        self.passes.through_softmax(dp, p, delta)
        if dmask is not None:
            np.copyto(dmask, dp)
        self._add(dq[..., rows, :], dp, k, keys.start == 0)
        self._add(dk[..., keys, :], dp.swapaxes(-1, -2), q, once)

    def _add(self, total: Array, a: Array, b: Array, first: bool) -> None:
        """total += a @ b, or = a @ b the first time."""
        if first:
            np.matmul(a, b, out=total)
        else:
            np.add(total, np.matmul(a, b, out=self.part.of(*total.shape)), out=total)
