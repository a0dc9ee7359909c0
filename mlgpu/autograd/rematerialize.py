"""Saved values that give way to a memory budget, and are computed again when backward asks.

Within `mlgpu.checkpoint.auto` an operation remembers what it was computed from: a recipe.  What is
saved for backward is then held through its recipe, which may let go of the memory: the value is
computed again, by the same operation from the same inputs (which may have to be computed again
themselves), so it is the same bit by bit.  Operations are functions of their inputs and of what
they were constructed with, random numbers included, so any that went through `mlgpu.op.run` will
do; what was made otherwise (leaves, results of in-place operations) is held as it is.

Who gives way is chosen as by Kirisame et al. 2021 (Dynamic Tensor Rematerialization): the value
with the least cost to compute again per byte and per time it has not been used.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from mlgpu.autograd.graph import Node
from mlgpu.device import Device, runtime
from mlgpu.errors import GraphError, ReleasedError
from mlgpu.memory import Account
from mlgpu.op import Op, ViewOp
from mlgpu.storage import Storage
from mlgpu.tensor import Tensor

_clock = itertools.count()
RECENT = 8  # values used so shortly before are in use by the operation that runs
FLOPS_PER_BYTE = 16.0  # how many operations of a product take as long as moving a byte


class Held:
    """An array and its storage, together: releasing the storage takes the array, too."""

    # `_layout` is there for Storage, which takes it from whatever holds its array.
    __slots__ = ("__weakref__", "_array", "_layout", "_storage", "version")

    def __init__(self, array: Any, storage: Storage) -> None:
        self._array, self._storage, self.version = array, storage, storage.version
        storage.join(self)


class Root:
    """An input without a recipe."""

    __slots__ = ("held",)

    def __init__(self, tensor: Tensor) -> None:
        self.held = Held(tensor._array, tensor._storage)


class View:
    """A view of a value: made again at no cost, it has no memory of its own."""

    __slots__ = ("op", "source")

    def __init__(self, op: Op, source: Recipe) -> None:
        self.op, self.source = op, source


class Output:
    """One result of an application: what is saved of it, and whether that is in memory now."""

    __slots__ = ("__weakref__", "application", "held", "key", "made", "pins", "used", "version")

    def __init__(self, application: Application, key: Any, tensor: Tensor) -> None:
        self.application, self.key = application, key
        self.made = weakref.ref(tensor)  # which whoever computes with it may still hold
        self.version = tensor._storage.version
        self.pins = 0
        self.held: Held | None = None
        self.used = next(_clock)

    def matches(self, tensor: Tensor) -> bool:
        """Whether a tensor has this value's memory, unchanged."""
        made = self.made()
        storage = tensor._storage
        return (storage.version == self.version
                and ((made is not None and made._storage is storage)
                     or (self.held is not None and self.held._storage is storage)))

    def present(self) -> Held | None:
        """The value if it is in memory, held here or by someone else."""
        if self.held is not None:
            return self.held
        made = self.made()
        if made is None or made._storage.version != self.version or made._storage.released:
            return None
        return Held(made._array, made._storage)

    def evict(self) -> bool:
        """Let go of the memory; False where someone else holds it, so that nothing is gained."""
        held = self.held
        assert held is not None
        array, alive = held._array, weakref.ref(held._storage)
        self.held = held = None
        storage = alive()
        if storage is not None:
            self.held = Held(array, storage)
        return storage is None


Recipe = Root | View | Output


class Application:
    """An operation to be applied again: with what parameters, to what."""

    __slots__ = ("cost", "device", "needs", "op", "outputs", "sources")

    def __init__(self, op: Op, inputs: Sequence[Tensor], device: Device) -> None:
        self.op, self.needs, self.device = op.again(), op.needs, device
        self.sources = [recipe_of(tensor) for tensor in inputs]
        self.outputs: dict[Any, weakref.ref[Output]] = {}
        self.cost = 0.0

    def recipes(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[Any, Recipe]:
        """How to have each of its results."""
        self.cost = _cost(self.op, inputs, outputs)
        return {index: self.output(index, tensor) for index, tensor in enumerate(outputs)}

    def output(self, key: Any, tensor: Tensor) -> Output:
        made = Output(self, key, tensor)
        self.outputs[key] = weakref.ref(made)
        return made

    def apply(self, arrays: Sequence[Any]) -> dict[Any, Held]:
        """All results and stashed arrays, by key."""
        engine, op = runtime(self.device), self.op.again()
        op.needs, op.recording = self.needs, True
        results = engine.call(getattr(op, engine.forward), arrays, self.device)
        results = results if isinstance(results, tuple) else (results,)
        found: dict[Any, Any] = {**dict(enumerate(results)), **(op._stashed or {})}
        return {key: Held(array, Storage.owning(array, self.device))
                for key, array in found.items()}


def recipe_of(tensor: Tensor) -> Recipe:
    """How to have a tensor's value again; itself where there is no other way."""
    recipes = getattr(tensor._node, "recipes", None)
    recipe = None if recipes is None else recipes.get(tensor._index)
    if recipe is not None:
        base = _base(recipe)
        if isinstance(base, Output) and base.matches(tensor):
            return recipe  # type: ignore[no-any-return]
    return Root(tensor)


def _base(recipe: Recipe) -> Root | Output:
    """What a view is one of."""
    while isinstance(recipe, View):
        recipe = recipe.source
    return recipe


# --- computing again ------------------------------------------------------------------------------


def obtain(output: Output) -> Held:
    """The value, computed again if it must be, and held from here on."""
    held = output.present()
    if held is None:
        held = _recompute(output)
    if output.pins:
        output.held = held
    output.used = next(_clock)
    return held


def _recompute(target: Output) -> Held:
    """Apply what is needed for `target`, in order, each once.

    What is in memory when this begins stays until it has been used; what is made on the way and
    not saved goes as soon as it has been.
    """
    order, held, uses = _plan(target)
    for application in order:
        arrays = [_array(source, held) for source in application.sources]
        found = application.apply(arrays)
        del arrays
        for source in application.sources:
            base = _base(source)
            if isinstance(base, Output):
                uses[base] -= 1
                if not uses[base]:
                    del held[base]
        for key, value in found.items():
            ref = application.outputs.get(key)
            output = None if ref is None else ref()
            if output is None:
                continue
            if output.pins and output.held is None:
                output.held, output.used = value, next(_clock)
            if uses.get(output):
                held[output] = value
    return held[target]


def _plan(target: Output) -> tuple[list[Application], dict[Output, Held], dict[Output, int]]:
    """What to apply in order, the values at hand, and how often each will be used."""
    order: list[Application] = []
    held: dict[Output, Held] = {}
    uses = {target: 1}
    seen: set[int] = set()
    stack: list[tuple[Application, Iterator[Recipe]]] = []

    def visit(output: Output) -> None:
        if id(output.application) not in seen:
            seen.add(id(output.application))
            stack.append((output.application, iter(output.application.sources)))

    visit(target)
    while stack:
        application, sources = stack[-1]
        for source in sources:
            base = _base(source)
            if isinstance(base, Root):
                continue
            uses[base] = uses.get(base, 0) + 1
            present = base.present()
            if present is not None:
                held[base] = present
                base.used = next(_clock)
            elif id(base.application) not in seen:
                visit(base)
                break
        else:
            order.append(application)
            stack.pop()
    return order, held, uses


def _array(recipe: Recipe, held: dict[Output, Held]) -> Any:
    if isinstance(recipe, View):
        return recipe.op.forward(_array(recipe.source, held))
    if isinstance(recipe, Output):
        return held[recipe]._array
    root = recipe.held
    if root._storage.released:
        raise ReleasedError("checkpoint.auto: a value of shape "
                            f"{root._array.shape} that others are computed from was released; "
                            "release it after backward")
    if root._storage.version != root.version:
        raise GraphError(
            f"checkpoint.auto: a value of shape {root._array.shape} was changed in place, and "
            "backward needs what was computed from it, which has given way to the budget; "
            "change a clone(), or after backward")
    return root._array


# --- what is saved --------------------------------------------------------------------------------


class Pin:
    """A saved value, held through its recipe as long as this lives."""

    __slots__ = ("output", "recipe")

    def __init__(self, recipe: Recipe, output: Output) -> None:
        self.recipe, self.output = recipe, output
        output.pins += 1
        if output.held is None:
            output.held = output.present()
            assert output.held is not None  # or there would be no such recipe

    def __del__(self) -> None:
        self.output.pins -= 1
        if not self.output.pins:
            self.output.held = None

    def tensor(self) -> Tensor:
        """The value.  GraphError if it was changed in place since it was saved."""
        held = obtain(self.output)
        storage = held._storage
        if storage.released:
            raise ReleasedError("backward needs a tensor of shape "
                                f"{held._array.shape} that was released; release it later")
        if storage.version != held.version:
            raise GraphError(
                f"{self.output.application.op.name}: a value saved for backward, of shape "
                f"{held._array.shape}, was changed in place (version {storage.version}, saved at "
                f"{held.version}); clone() it before the change, or use the out-of-place form")
        if storage.device.type != "cpu":
            runtime(storage.device).reads(held._array)
        return Tensor._make(_array(self.recipe, {self.output: held}), storage)


class Rematerializer:
    """What `mlgpu.checkpoint.auto` sets up: a budget for a device, and all that can give way."""

    def __init__(self, books: Account, device: Device, budget: int) -> None:
        self.books, self.device, self.budget = books, device, budget
        self.evictions = 0
        self.evicted_bytes = 0
        self._pinned: weakref.WeakSet[Output] = weakref.WeakSet()

    # --- recording --------------------------------------------------------------------------

    def follow(self, op: Op, inputs: Sequence[Tensor]) -> Application | None:
        """Remember an operation that is about to be recorded."""
        if isinstance(op, ViewOp):
            return None
        device = inputs[0]._storage.device
        return Application(op, inputs, device) if device == self.device else None

    def views(self, ops: Sequence[Op], source: Tensor) -> dict[Any, Recipe]:
        """The recipes of views of a tensor."""
        recipe = recipe_of(source)
        return {index: View(op.again(), recipe) for index, op in enumerate(ops)}

    def pin(self, tensor: Tensor, node: Node, key: Any) -> Pin | None:
        """Hold a value that `node` saves; `key` if it is an output or stash of the node's own."""
        recipes: dict[Any, Recipe] | None = getattr(node, "recipes", None)
        if key is None:
            recipe = recipe_of(tensor)
        elif recipes is None:
            return None
        else:
            if key not in recipes:  # stashed
                first = recipes.get(0)
                if not isinstance(first, Output):
                    return None
                recipes[key] = first.application.output(key, tensor)
            recipe = recipes[key]
        base = _base(recipe)
        if isinstance(base, Root):
            return None
        self._pinned.add(base)
        return Pin(recipe, base)

    # --- giving way -------------------------------------------------------------------------

    def relieve(self, nbytes: int) -> None:
        """Make room for a block.  OutOfMemoryError where nothing more can give way."""
        books = self.books
        kept: set[Output] = set()
        most = self.budget if books.limit is None else min(self.budget, books.limit)
        while books.allocated + nbytes > most:
            victim = self._choose(kept)
            if victim is None:
                raise books.refuse(nbytes, "budget of checkpoint.auto", most,
                                   books.allocated)
            assert victim.held is not None
            size = victim.held._array.nbytes
            if victim.evict():
                self.evictions += 1
                self.evicted_bytes += size
            else:
                kept.add(victim)

    def _choose(self, kept: set[Output]) -> Output | None:
        now = next(_clock)
        best, least = None, math.inf
        for output in list(self._pinned):
            held, idle = output.held, now - output.used
            if held is None or idle <= RECENT or output in kept or held._storage.released:
                continue
            if held._storage.version != held.version:
                continue
            score = _chain_cost(output) / (held._array.nbytes * idle + 1)
            if score < least:
                best, least = output, score
        return best


def _cost(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> float:
    """How long an application takes, in bytes moved."""
    moved = sum(t._array.nbytes for t in (*inputs, *outputs))
    shapes: list[tuple[int, ...]] = [t._array.shape for t in inputs]
    size = math.prod(outputs[0]._array.shape)
    terms = 0  # that are added up in each element of the result
    if op.name in ("linear", "matmul"):
        terms = shapes[0][-1]
    elif op.name.startswith("conv"):
        terms = math.prod(shapes[1][1:])
    elif "attention" in op.name:
        terms = 2 * shapes[0][-2]
    elif op.name in ("lstm", "gru", "rnn"):
        terms = 4 * shapes[1][-1]
    return float(moved + 2 * size * terms / FLOPS_PER_BYTE)


def _chain_cost(output: Output) -> float:
    """What computing it again would cost now, with what it needs that is not in memory."""
    total, stack, seen = 0.0, [output.application], set()
    while stack:
        application = stack.pop()
        if id(application) in seen:
            continue
        seen.add(id(application))
        total += application.cost
        for source in application.sources:
            base = _base(source)
            if isinstance(base, Output) and base.held is None and base.made() is None:
                stack.append(base.application)
    return total
