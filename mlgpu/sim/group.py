"""Sets of threads that run a segment together.

A batch is B blocks of N threads, and a register is an array of shape (1 or B, 1 or N).  A group is
a subset: a product of some blocks and some threads (`Grid`), the usual case, for which values that
all blocks or all threads have in common stay small; or any scattered set (`Scatter`), whose values
have the shape (K, 1).  Groups read registers into compact arrays and write compact results back.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WARP = 32
FEW = 1024  # threads in no order whose layout is kept


class Lanes:
    """Where the threads of a group sit in their warps.

    `keys` are sorted thread numbers in which each warp begins at a multiple of 32.  Arrays along
    the threads become (warps, 32) by `widx`; a lane that is not there repeats its neighbour, so
    that it adds nothing to what the warp touches.
    """

    __slots__ = ("_counts", "active", "full", "number", "pos", "warp", "widx")

    def __init__(self, keys: Array) -> None:
        warp = keys >> 5
        new = np.empty(len(keys), bool)
        new[:1] = True
        np.not_equal(warp[1:], warp[:-1], out=new[1:])
        self.number = int(np.count_nonzero(new))
        self.warp = warp[new]  # each warp's number
        self.full = len(keys) == self.number * WARP
        self.pos = (np.cumsum(new) - 1) * WARP + (keys & 31)
        self._counts: Array | None = None
        if self.full:
            self.widx, self.active = None, None
            return
        index = np.full(self.number * WARP, -1)
        index[self.pos] = np.arange(len(keys))
        self.active = (index >= 0).reshape(-1, WARP)
        index = np.maximum.accumulate(index.reshape(-1, WARP), axis=1)
        self.widx = np.where(index < 0, np.flatnonzero(new)[:, None], index)

    @property
    def counts(self) -> Array:
        """Active lanes of each warp."""
        if self._counts is None:
            self._counts = (np.full(self.number, WARP) if self.active is None
                            else np.count_nonzero(self.active, axis=1))
        return self._counts


@lru_cache(maxsize=64)
def _all_lanes(threads: int) -> Lanes:
    """The layout of whole blocks, which is the same in all launches."""
    return Lanes(np.arange(threads))


@lru_cache(maxsize=1 << 11)
def _some_lanes(keys: bytes) -> Lanes:
    """The layout of some threads, which come in many launches."""
    return Lanes(np.frombuffer(keys, np.int64))


class Shape:
    """The extent of a batch, which all groups of a launch share."""

    __slots__ = ("blocks", "threads", "warps")

    def __init__(self, blocks: int, threads: int) -> None:
        self.blocks, self.threads = blocks, threads
        self.warps = -(-threads // WARP)


class Grid:
    """A product of blocks (`rows`, None: all) and threads (`cols`, None: all), both sorted."""

    __slots__ = ("_blk", "_lanes", "_tid", "cols", "rows", "shape", "space")

    def __init__(self, space: Shape, rows: Array | None = None, cols: Array | None = None) -> None:
        self.space, self.rows, self.cols = space, rows, cols
        self.shape = (space.blocks if rows is None else len(rows),
                      space.threads if cols is None else len(cols))
        self._lanes: Lanes | None = None
        self._blk: Array | None = None
        self._tid: Array | None = None

    @property
    def size(self) -> int:
        """The number of threads."""
        return self.shape[0] * self.shape[1]

    @property
    def blk(self) -> Array:
        """The blocks, numbered within the batch, (b, 1)."""
        if self._blk is None:
            self._blk = (np.arange(self.space.blocks) if self.rows is None else self.rows)[:, None]
        return self._blk

    @property
    def tid(self) -> Array:
        """The threads, numbered within the block, (1, n)."""
        if self._tid is None:
            self._tid = (np.arange(self.space.threads) if self.cols is None else self.cols)[None]
        return self._tid

    @property
    def lanes(self) -> Lanes:
        """The layout of a block's threads in warps."""
        if self._lanes is None:
            self._lanes = _all_lanes(self.space.threads) if self.cols is None else (
                _some_lanes(self.cols.tobytes()))
        return self._lanes

    @property
    def warps(self) -> int:
        """The number of warps that have a thread here."""
        return self.shape[0] * self.lanes.number

    def read(self, value: Array) -> Array:
        """The group's part of a register."""
        if self.rows is not None and value.shape[0] != 1:
            value = value[self.rows]
        if self.cols is not None and value.shape[1] != 1:
            value = value[:, self.cols]
        return value

    def write(self, registers: list[Array], number: int, value: Array) -> None:
        """Set the group's part of a register; the old array is left as it was."""
        rows, cols = self.rows, self.cols
        if rows is None and cols is None:
            registers[number] = value
            return
        old = registers[number]
        b = old.shape[0] if rows is None and value.shape[0] == 1 else self.space.blocks
        n = old.shape[1] if cols is None and value.shape[1] == 1 else self.space.threads
        new = np.empty((b, n), value.dtype)
        new[...] = old
        if rows is None:
            new[:, cols if n != 1 else slice(None)] = value
        elif cols is None or n == 1:
            new[rows] = value
        else:
            new[rows[:, None], cols] = value
        registers[number] = new

    def to_warps(self, value: Array) -> Array:
        """A value as (1 or b, 1 or warps, 1 or 32)."""
        if value.shape[1] == 1:
            return value[:, :, None]
        lanes = self.lanes
        if lanes.widx is None:
            return value.reshape(value.shape[0], lanes.number, WARP)
        return value[:, lanes.widx]

    def from_warps(self, value: Array) -> Array:
        """The inverse of `to_warps`."""
        if value.shape[2] == 1 and value.shape[1] == 1:
            return value[:, :, 0]
        lanes = self.lanes
        value = np.broadcast_to(value, (value.shape[0], lanes.number, WARP))
        flat = value.reshape(value.shape[0], lanes.number * WARP)
        return flat if lanes.full else flat[:, lanes.pos]

    def split(self, p: Array) -> tuple[Part | None, Part | None]:
        """The threads where the predicate (1 or b, 1 or n) holds, and the others."""
        if p.all():
            return Part(self, None, None), None
        if not p.any():
            return None, Part(self, None, None)
        if p.shape[0] > 1 and p.shape[1] > 1:
            if (p == p[:1]).all():
                p = p[:1]
            elif (p == p[:, :1]).all():
                p = p[:, :1]
            else:
                full = np.broadcast_to(p, self.shape)
                lin = self.lin.reshape(self.shape)
                return (Part(Scatter(self.space, lin[full]), full, None),
                        Part(Scatter(self.space, lin[~full]), ~full, None))
        if p.shape[0] == 1:
            yes, no = np.flatnonzero(p[0]), np.flatnonzero(~p[0])
            cols = self.tid[0]
            return (Part(Grid(self.space, self.rows, cols[yes]), yes, 1),
                    Part(Grid(self.space, self.rows, cols[no]), no, 1))
        yes, no = np.flatnonzero(p[:, 0]), np.flatnonzero(~p[:, 0])
        rows = self.blk[:, 0]
        return (Part(Grid(self.space, rows[yes], self.cols), yes, 0),
                Part(Grid(self.space, rows[no], self.cols), no, 0))

    @property
    def lin(self) -> Array:
        """All threads, numbered block * N + thread, in order."""
        return (self.blk * self.space.threads + self.tid).ravel()


class Scatter:
    """Any set of threads, numbered block * N + thread in the batch; values are (K, 1)."""

    __slots__ = ("_blk", "_lanes", "_tid", "lin", "shape", "space")

    rows: Array | None = None
    cols: Array | None = None

    def __init__(self, space: Shape, lin: Array) -> None:
        self.space, self.lin = space, lin
        self.shape = (len(lin), 1)
        self._lanes: Lanes | None = None
        self._blk: Array | None = None
        self._tid: Array | None = None

    @property
    def size(self) -> int:
        """The number of threads."""
        return self.shape[0]

    @property
    def blk(self) -> Array:
        """The block of each thread, (K, 1)."""
        if self._blk is None:
            self._blk = self.lin[:, None] // self.space.threads
        return self._blk

    @property
    def tid(self) -> Array:
        """The number within its block of each thread, (K, 1)."""
        if self._tid is None:
            self._tid = self.lin[:, None] % self.space.threads
        return self._tid

    @property
    def lanes(self) -> Lanes:
        """The layout of the threads in warps."""
        if self._lanes is None:
            keys = (self.blk * (self.space.warps * WARP) + self.tid)[:, 0]
            self._lanes = _some_lanes(keys.tobytes()) if len(keys) <= FEW else Lanes(keys)
        return self._lanes

    @property
    def warps(self) -> int:
        """The number of warps that have a thread here."""
        return self.lanes.number

    def read(self, value: Array) -> Array:
        """The group's part of a register."""
        b, n = value.shape
        if b == 1:
            return value if n == 1 else value[0][self.tid]
        return value[self.blk[:, 0]] if n == 1 else value.reshape(-1)[self.lin][:, None]

    def write(self, registers: list[Array], number: int, value: Array) -> None:
        """Set the group's part of a register; the old array is left as it was."""
        new = np.empty((self.space.blocks, self.space.threads), value.dtype)
        new[...] = registers[number]
        new.reshape(-1)[self.lin] = value[:, 0]
        registers[number] = new

    def to_warps(self, value: Array) -> Array:
        """A value as (1, 1 or warps, 1 or 32)."""
        if value.shape[0] == 1:
            return value[:, :, None]
        lanes = self.lanes
        flat = value[:, 0]
        return (flat.reshape(1, -1, WARP) if lanes.widx is None else flat[lanes.widx][None])

    def from_warps(self, value: Array) -> Array:
        """The inverse of `to_warps`."""
        if value.shape[1] == 1 and value.shape[2] == 1 and self.shape[0] > 1:
            return value[:, :, 0]
        value = np.broadcast_to(value, (1, self.lanes.number, WARP))
        return np.asarray(value.reshape(-1)[self.lanes.pos][:, None])

    def split(self, p: Array) -> tuple[Part | None, Part | None]:
        """The threads where the predicate (1 or K, 1) holds, and the others."""
        if p.all():
            return Part(self, None, None), None
        if not p.any():
            return None, Part(self, None, None)
        yes, no = np.flatnonzero(p[:, 0]), np.flatnonzero(~p[:, 0])
        return (Part(Scatter(self.space, self.lin[yes]), yes, 0),
                Part(Scatter(self.space, self.lin[no]), no, 0))


Group = Grid | Scatter


class Part:
    """A part of a group, with the way from the group's values to the part's and back."""

    __slots__ = ("axis", "group", "index")

    def __init__(self, group: Group, index: Array | None, axis: int | None) -> None:
        self.group = group
        self.index = index  # None: the whole group; along the axis; or a mask over both
        self.axis = axis

    def pick(self, value: Array) -> Array:
        """The part's values of a value of the whole group."""
        if self.index is None or value.size == 1:
            return value
        if self.axis == 1:
            return value if value.shape[1] == 1 else value[:, self.index]
        if self.axis == 0:
            return value if value.shape[0] == 1 else value[self.index]
        return np.broadcast_to(value, self.index.shape)[self.index][:, None]

    def put(self, value: Array, old: Array, shape: tuple[int, int]) -> Array:
        """A value of the whole group (of that shape) that is `value` in the part, else `old`."""
        if self.index is None:
            return value
        new = np.empty(shape, value.dtype)
        new[...] = old
        if self.axis == 1:
            new[:, self.index] = value
        elif self.axis == 0:
            new[self.index] = value
        else:
            new[self.index] = np.broadcast_to(value, (int(self.index.sum()), 1))[:, 0]
        return new


def merge(a: Group, b: Group) -> Group:
    """The union of two groups without common threads."""
    space = a.space
    if isinstance(a, Grid) and isinstance(b, Grid):
        if _same(a.rows, b.rows):
            cols = np.sort(np.concatenate((a.tid[0], b.tid[0])))
            return Grid(space, a.rows, None if len(cols) == space.threads else cols)
        if _same(a.cols, b.cols):
            rows = np.sort(np.concatenate((a.blk[:, 0], b.blk[:, 0])))
            return Grid(space, None if len(rows) == space.blocks else rows, a.cols)
    return of_lin(space, np.sort(np.concatenate((a.lin, b.lin))))


def of_lin(space: Shape, lin: Array) -> Group:
    """The group of sorted thread numbers: a product where it is one."""
    if len(lin) == space.blocks * space.threads:
        return Grid(space)
    there = np.zeros((space.blocks, space.threads), bool)
    there.reshape(-1)[lin] = True
    rows, cols = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if len(rows) * len(cols) != len(lin):
        return Scatter(space, lin)
    return Grid(space, None if len(rows) == space.blocks else rows,
                None if len(cols) == space.threads else cols)


def _same(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    return a is b or (len(a) == len(b) and bool((a == b).all()))
