"""The shortest way of elementwise operations: operands of one layout, links of a chain.

Two small tensors with the same `Layout` object have one shape and dtype, are contiguous, whole and
on the CPU, and nobody has taken that back: one look answers what `pointwise` asks of each.  Their
node carries bare arrays; a chain of such nodes is walked in one go, with a tensor only for what
comes out of it.  Whatever does not fit goes on to `pointwise`.
"""

from __future__ import annotations

from time import monotonic
from typing import Any
from weakref import ref

import numpy as np

from mlgpu import dtypes, memory
from mlgpu.autograd import graph
from mlgpu.autograd import mode as modes
from mlgpu.autograd.graph import order
from mlgpu.autograd.mode import mode
from mlgpu.autograd.saved import FREED, Saved
from mlgpu.cpu.pool import SMALLEST
from mlgpu.cpu.runtime import quiet
from mlgpu.device import CPU
from mlgpu.errors import GraphError
from mlgpu.ops import pointwise
from mlgpu.ops.applied import Elementwise
from mlgpu.ops.formula import Formula
from mlgpu.ops.pointwise import BOTH, SECOND, Kinds, Plan, Way
from mlgpu.storage import Layout, Small
from mlgpu.tensor import Tensor

_books = memory.account(CPU)
_live = _books.live
_new = object.__new__
_ONE: Kinds = (None,)
_TWO: Kinds = (None, None)
_NEEDED = (True,)
_NOTHING = ()


def apply(formula: Formula, args: tuple[Any, ...]) -> Tensor | None:
    """The result of a formula of tensors and numbers; None where no short way is the way."""
    if len(args) == 2:
        a, b = args
        if isinstance(a, Tensor):
            if isinstance(b, Tensor):
                return binary(formula, a, b)
            return _of_one(formula, a, (None, type(b)), (None, b))
        return _of_one(formula, b, (type(a), None), (a, None)) if isinstance(b, Tensor) else None
    if len(args) == 1 and isinstance(args[0], Tensor):
        return _of_one(formula, args[0], _ONE, None)
    return None


# --- forward --------------------------------------------------------------------------------------


def binary(formula: Formula, a: Tensor, b: Tensor) -> Tensor | None:
    """As `apply`, of two tensors."""
    layout = a._layout
    if layout is None or b._layout is not layout:
        layout = _layout_of(a)
        if layout is None or _layout_of(b) is not layout:
            return pointwise.binary(formula, a, b)
    if modes.special:
        return pointwise.binary(formula, a, b)
    plan = formula.plans.get(layout.dtype)
    if plan is None or plan.default is not dtypes._default:
        plan = Plan.make(formula, layout.dtype, _TWO)
    direct = plan.direct
    if direct is not None:
        array = quiet().run(direct, a._array, b._array)
    elif plan.same and plan.steps is not None:
        array = plan.steps.results(layout.shape, layout.size, (a._array, b._array))[0]
    else:
        return pointwise.binary(formula, a, b)
    out = _made(array, layout)
    need, other = a._requires, b._requires
    if (need or other) and mode.grad:
        if other:
            way = plan.both if need else plan.second
        else:
            way = plan.first
        if way is None:
            way = Way.make(plan, (need, other))
        kept = way.kept
        if kept is SECOND:  # without a call: x * w
            storage = b._storage
            storage.exclusive = False
            saved: Any = storage, storage.version
        elif kept is BOTH:
            storage, second = a._storage, b._storage
            storage.exclusive = second.exclusive = False
            saved = storage, storage.version, second, second.version
        else:
            saved = _kept(kept, (a, b, out)) if kept else _NOTHING
        node = _new(Pointwise)
        node.sequence = next(order)
        node.way = way
        node.layout = layout
        node.saved = saved
        node.numbers = None
        node.more = way.more
        node.a = (a._node or a) if need else None
        node.b = (b._node or b) if other else None
        out._node = node
        out._requires = True
    return out


def _of_one(formula: Formula, a: Tensor, kinds: Kinds, numbers: tuple[Any, ...] | None
            ) -> Tensor | None:
    """As `apply`, of one tensor and perhaps a number: `numbers` are the arguments that are one."""
    layout = a._layout or _layout_of(a)
    if layout is None or modes.special:
        return pointwise.of_one(formula, a, kinds, numbers)
    dtype = layout.dtype
    plan = formula.plans.get(dtype if numbers is None else (dtype, kinds))
    if plan is None or plan.default is not dtypes._default:
        plan = Plan.make(formula, dtype, kinds)
    if not plan.same or plan.steps is None:
        return pointwise.of_one(formula, a, kinds, numbers)
    array = a._array
    arguments = (array,) if numbers is None else (
        (array, numbers[1]) if numbers[0] is None else (numbers[0], array))
    if plan.direct is not None:
        array = quiet().run(plan.direct, *arguments)
    else:
        array = plan.steps.results(layout.shape, layout.size, arguments)[0]
    out = _made(array, layout)
    if a._requires and mode.grad:
        way = plan.first or Way.make(plan, _NEEDED)
        node = _new(Pointwise)
        node.sequence = next(order)
        node.way = way
        node.layout = layout
        node.saved = _kept(way.kept, (a, out)) if way.kept else _NOTHING
        node.numbers = numbers
        node.more = way.more
        node.b = None
        node.a = a._node or a
        out._node = node
        out._requires = True
    return out


def _made(array: Any, layout: Layout) -> Tensor:
    """A tensor of a fresh array.  As `Tensor._make(array, Small.of(array, layout))`, in one call:
    half of what an operation costs beside its arithmetic is here."""
    storage = _new(Small)
    storage.entry = storage.pending = storage.others = None
    storage.array = array
    storage.nbytes = nbytes = layout.nbytes
    storage.released = storage.exclusive = False
    storage.version = 0
    record = nbytes, layout.shape, layout.dtype, monotonic(), None
    books = _books  # by lines without a call, see `memory.Account`
    books.allocated = now = books.allocated + nbytes
    if now > books.peak:
        books.peak = now
    books.allocations = storage.entry = number = books.allocations + 1
    _live[number] = record
    out = _new(Tensor)
    out._array = array
    out._storage = storage
    out._layout = layout
    out._node = out._grad = out._base = None
    out._requires = False
    storage.first = ref(out)
    return out


def _kept(kept: tuple[int, ...], tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Storage and version of each; number -1 is the output."""
    saved: list[Any] = []
    for number in kept:
        storage = tensors[number]._storage
        storage.exclusive = False
        saved += storage, storage.version
    return tuple(saved)


_layouts: dict[Any, Layout] = {}


def _layout_of(tensor: Tensor) -> Layout | None:
    """The tensor's layout, if there is nothing about it that would have to be asked each time."""
    storage, array = tensor._storage, tensor._array
    if (storage.root is not storage or storage.array is not array or storage.inference
            or storage.pending is not None or tensor._base is not None or tensor._index
            or tensor._leaf is not None or array.nbytes >= SMALLEST or not array.shape
            or not array.flags.c_contiguous):
        return None
    key = array.shape, array.dtype
    layout = _layouts.get(key)
    if layout is None:
        if len(_layouts) >= 4096:
            _layouts.clear()  # those of tensors are no longer shared, and found anew
        layout = _layouts[key] = Layout(*key, array.size)
    tensor._layout = layout
    return layout


# --- backward -------------------------------------------------------------------------------------


class Pointwise(graph.Link):
    """An application of a formula to operands of one layout.

    `saved` has storage and version of each value that `way.kept` names, None once it is freed.
    """

    __slots__ = ("__weakref__", "layout", "more", "numbers", "saved", "sequence", "way")

    way: Way
    layout: Layout
    saved: Any
    numbers: tuple[Any, ...] | None

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.way.plan.formula.name

    @property
    def edges(self) -> tuple[tuple[Any, int] | None, ...]:  # type: ignore[override]
        targets = (self.a, self.b)[:len(self.way.needs)]
        return tuple([None if target is None else (target, 0) for target in targets])

    def free(self) -> None:
        if self.way.kept:
            self.saved = None

    def apply(self, grads: list[Tensor | None], create_graph: bool) -> list[Tensor | None]:
        back, layout = self.way.back, self.layout
        (grad,) = grads
        assert grad is not None
        if create_graph or self.way.results is None or not graph.chains.fits(self, grad):
            return self._long().apply(grads, create_graph)
        grad._storage.exclusive = False  # it may go on, and to several
        if back is None:
            return [grad if need else None for need in self.way.needs]
        found = quiet().run(back, grad._array, self)
        results: list[Tensor | None] = []
        for number, need in enumerate(self.way.needs):
            if not need:
                results.append(None)
                continue
            array = found if self.way.single else found[number]
            if array is grad._array:
                results.append(grad)
                continue
            part = Tensor._make(array, Small.of(array, layout))
            part._storage.exclusive = True
            results.append(part)
        return results

    def _long(self) -> Elementwise:
        """The same application as an operation that knows every way."""
        way = self.way
        op = _Long(way.plan.formula, self.numbers or (None,) * len(way.needs))
        op.link = self
        op.needs, op.recording = way.needs, True
        op.edges = self.edges
        op._inputs_meta = ((self.layout.shape, self.layout.dtype),) * len(way.needs)
        op._freed = self.saved is None
        op.keeps(way.needs)
        op._saved = {}
        for i, number in enumerate(way.kept if self.saved else ()):
            storage, version = self.saved[2 * i:2 * i + 2]
            if number < 0:
                op._saved[number] = Saved.again(storage, version, None, True, 0)
            else:
                edge = self.edges[number]
                op._saved[number] = Saved.again(storage, version, edge, edge is not None)
        return op

    def refuse(self) -> Any:
        """Raise what says why its saved values cannot be used."""
        if self.saved is None:
            raise GraphError(FREED.format(self.name))
        for storage, version in zip(self.saved[::2], self.saved[1::2], strict=True):
            Saved.again(storage, version, None, False).array(self)
        raise AssertionError("unreachable")


class _Long(Elementwise):
    """What a link computes, with tensors; its output is that of the link."""

    link: Pointwise

    def output(self, index: int = 0) -> Tensor:
        return self._saved_value(~index).tensor(self.link)


class _Carried:
    """Bare gradients under way in a chain."""

    def __init__(self, layout: Layout, retain: bool) -> None:
        self.layout, self.retain = layout, retain
        self.made = 0  # arrays so far
        # Per leaf: itself, its gradient, whether that is of this chain and nobody else's.
        self.sums: dict[int, list[Any]] = {}

    def along(self, links: list[Any], dy: Any) -> tuple[Any, bool]:
        """Through nodes that lead to the next one; dy, and whether that is nobody else's now."""
        add, most = np.add, 0  # and the most arrays that there are at a time
        sums, made, retain, fresh = self.sums, self.made, self.retain, False
        for node in links:
            way = node.way
            back = way.back
            a, b = node.a, node.b
            if back is not None:
                count = way.count
                held = len(sums) + fresh + count
                if held > most:
                    most = held
                made += count
                found = back(dy, node)
                if not retain and way.kept:
                    node.saved = None
                if a is None or b is None:
                    dy, fresh = found, True
                    continue
                (da, db), (own_a, own_b) = found, way.fresh
            elif a is None or b is None:
                continue
            else:
                da = db = dy
                own_a = own_b = False
            if type(a) is Pointwise:
                leaf, part, own, dy, fresh = b, db, own_b, da, own_a
            else:
                leaf, part, own, dy, fresh = a, da, own_a, db, own_b
            entry = sums.get(id(leaf))
            if entry is None:
                sums[id(leaf)] = [leaf, part, own]
                continue
            if entry[2]:
                add(entry[1], part, entry[1])
            else:
                entry[1] = add(entry[1], part)
                entry[2] = True
                made += 1
        self.made = made
        _books.workspace(self.layout.nbytes * most)  # as if tensors had held them
        return dy, fresh

    def out_of(self, node: Pointwise, dy: Any, fresh: bool) -> tuple[Any, bool]:
        """Through the last node, which leads to leaves and perhaps to a node of another kind."""
        way, back = node.way, node.way.back
        if back is None:
            parts: Any = dy, dy
            owns: tuple[bool, ...] = (fresh, fresh) if way.single else (False, False)
        else:
            _books.workspace(self.layout.nbytes * (len(self.sums) + fresh + way.count))
            self.made += way.count
            found = quiet().run(back, dy, node)
            if not self.retain and way.kept:
                node.saved = None
            parts, owns = ((found, found), (True, True)) if way.single else (found, way.fresh)
        ahead: tuple[Any, bool] = None, False
        for target, part, own in zip((node.a, node.b), parts, owns, strict=True):
            if isinstance(target, (graph.Node, tuple)):
                ahead = part, own
            elif target is not None:
                self._deposit(target, part, own)
        return ahead

    def _deposit(self, leaf: Tensor, part: Any, own: bool) -> None:
        entry = self.sums.get(id(leaf))
        if entry is None:
            self.sums[id(leaf)] = [leaf, part, own]
        else:
            self.made += not entry[2]
            entry[1:] = quiet().run(np.add, entry[1], part), True

    def tensor(self, array: Any, own: bool) -> Tensor:
        """What comes out as a tensor; what is not its own is copied by who keeps it."""
        storage = Small.of(array, self.layout)
        storage.exclusive = own
        self.made -= own  # it has been counted there
        return Tensor._make(array, storage)


class _Chains(graph.Chains):
    kind = Pointwise

    def fits(self, node: Pointwise, grad: Tensor) -> bool:
        storage = grad._storage
        return (storage.device is CPU and not storage.released and storage.pending is None
                and grad._array.dtype is node.layout.dtype and not modes.special)

    def carry(self, chain: list[Pointwise], grad: Tensor, retain: bool
              ) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        *links, last = chain
        carried = _Carried(last.layout, retain)
        given = grad._array
        dy, fresh = carried.out_of(last, *quiet().run(carried.along, links, given))
        leaves = []
        for leaf, part, own in carried.sums.values():
            leaves.append((leaf, grad if part is given else carried.tensor(part, own)))
        ahead = grad if dy is given else None if dy is None else carried.tensor(dy, fresh)
        _books.allocations += carried.made
        return leaves, ahead


graph.chains = _Chains()
