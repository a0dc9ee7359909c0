"""Operations that write into a tensor's memory, and what its graph and its views become by that.

In-place on a view of a tensor changes the history of that tensor, and of all its other views: each
derives its own anew from the base's when it is next asked (as PyTorch's CopySlices).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import graph
from mlgpu.autograd.mode import mode
from mlgpu.device import runtime
from mlgpu.errors import GraphError, ShapeError
from mlgpu.op import Op, ViewOp, check_inputs, has_gradient, run, start
from mlgpu.storage import as_strided
from mlgpu.tensor import Tensor


def run_inplace(op: Op, target: Tensor, *others: Tensor) -> Tensor:
    """Apply `op` with `target` as its first input, write the result into it, and return it.

    Raises GraphError for a leaf (or a view of one) that requires grad, ShapeError where the result
    has not the target's shape, and for read-only or self-overlapping memory.
    """
    inputs = (target, *others)
    device = check_inputs(op, inputs)
    start(op, inputs)
    op.recording = op.recording and has_gradient(target)
    storage = target._storage
    check_writable(op, target)
    engine = runtime(device)
    arrays = [t._array for t in inputs]
    if op.recording:
        op.record_inputs(inputs, overwrites=True)
    into = getattr(op, engine.into, None)
    if into is not None:
        engine.call(into, [target._array, *arrays], device, op.writes)
    else:
        result = engine.call(getattr(op, engine.forward), arrays, device)
        if result.shape != target._array.shape:
            raise ShapeError(f"{op.name}_: the result has shape {result.shape}, which does "
                             f"not fit the tensor's {target._array.shape}")
        engine.copy_into(target._array, result)
    storage.version += 1
    if mode.capture is not None:
        mode.capture.versions.append(storage)
    if op.recording:
        view = Tensor._make(target._array, storage)
        op.record_outputs((view,))
        rebase(target, op)
    return target


def check_writable(op: Op, target: Tensor) -> None:
    """Raise GraphError or ShapeError where `op` may not write into a tensor's memory."""
    array = target._array
    if target._storage.inference and not mode.inference:
        raise GraphError(f"{op.name}_: a tensor made in inference_mode cannot be changed outside "
                         "it; clone() it first")
    if target._storage.device.type == "cpu" and not array.flags.writeable:
        raise GraphError(f"{op.name}_: the tensor's memory is read-only; clone() it first")
    if target.numel() > 1 and any(s == 0 and n > 1
                                  for s, n in zip(array.strides, array.shape, strict=True)):
        raise ShapeError(f"{op.name}_: several elements of the tensor share one place in memory "
                         "(it was expanded); clone() it first")
    if mode.grad:
        for made in target._chain:
            made.check_replay(f"{op.name}_")
        owners = (target,) if target._base is None else (target, target._base)
        if any(owner._requires and owner._node is None for owner in owners):
            what = "a leaf" if target._requires and target._node is None else "a view of a leaf"
            raise GraphError(f"{op.name}_: {what} that requires grad cannot be changed in place; "
                             "use no_grad() or the out-of-place form")


def rebase(target: Tensor, node: graph.Node, index: int = 0) -> None:
    """Make `target`, now overwritten by an output of `node`, and all views of its memory follow."""
    base = target._base
    if base is None:
        _place(target, node, index)
        target._history += 1
        return
    scatter = ViewScatter(target._chain, base.stride())
    scatter.edges = (base._edge() if base._requires else None, (node, index))
    scatter.needs = (base._requires, True)
    scatter._inputs_meta = ((base._array.shape, base._array.dtype),
                            (target._array.shape, target._array.dtype))
    scatter._saved = {}
    scatter.stamp()
    _place(base, scatter, 0)
    base._history += 1
    _place(target, node, index)
    target._history = base._history


def _place(tensor: Tensor, node: graph.Node, index: int) -> None:
    """Make `tensor` the output `index` of `node`; the gradient it retains is the new value's."""
    retained = tensor._node.retained if tensor._node is not None else None
    ref = None if retained is None else retained.pop(tensor._index, None)
    tensor._node, tensor._index, tensor._requires = node, index, True
    tensor._layout = None  # which vouches for the index
    if ref is not None and ref() is tensor:
        tensor.retain_grad()


def regenerate(view: Tensor) -> None:
    """Derive the history of a view anew after its base was changed in place."""
    base = view._base
    assert base is not None
    if not base._requires:
        view._history = base._history
        return
    with_grad = mode.grad
    mode.grad = True
    try:
        fresh = replay(view._chain, base)
    finally:
        mode.grad = with_grad
    view._history = base._history
    if fresh._node is not None:
        _place(view, fresh._node, fresh._index)


def replay(chain: Sequence[ViewOp], tensor: Tensor) -> Tensor:
    """The view that a chain of view operations makes of another tensor of the base's shape."""
    for op in chain:
        op.check_replay("view")
        tensor = run(op.again(), tensor)
    return tensor


class ViewScatter(Op):
    """base with the region of one of its views replaced: the history of an in-place change.

    Which elements a view shows may depend on how the base lies in memory: `strides`, in elements.
    """

    def __init__(self, chain: Sequence[ViewOp], strides: tuple[int, ...]) -> None:
        self.chain, self.strides = tuple(chain), strides

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor]:
        outside = run(ZeroRegion(self.chain, self.strides), dy) if self.needs[0] else None
        if dy.stride() != self.strides:
            dy = run(LaidOut(self.strides), dy)
        return outside, replay(self.chain, dy)


class LaidOut(Op):
    """A copy with given strides, in elements."""

    name = "clone"

    def __init__(self, strides: tuple[int, ...]) -> None:
        self.strides = strides

    def empty(self, x: Any, engine: Any) -> Any:
        reach = [(n - 1) * s for n, s in zip(x.shape, self.strides, strict=True)]
        extent = 0 if 0 in x.shape else 1 + sum(map(abs, reach))
        first = engine.empty((extent,), x.dtype)[sum(-r for r in reach if r < 0):]
        return as_strided(first, x.shape, tuple(s * x.itemsize for s in self.strides))

    def forward(self, x: Any) -> Any:
        from mlgpu.cpu import runtime as cpu

        out = self.empty(x, cpu)
        out[...] = x
        return out

    def forward_cuda(self, x: Any) -> Any:
        from mlgpu.cuda import copy, runtime

        out = self.empty(x, runtime)
        copy.copy_into(out, x)
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return dy


class ZeroRegion(LaidOut):
    """The same with the region of a view set to zero."""

    name = "zero_region"

    def __init__(self, chain: Sequence[ViewOp], strides: tuple[int, ...]) -> None:
        super().__init__(strides)
        self.chain = tuple(chain)

    def forward(self, x: Any) -> Any:
        out = super().forward(x)
        region = out
        for op in self.chain:
            region = op.forward(region)
        region[...] = 0
        return out

    def forward_cuda(self, x: Any) -> Any:
        from mlgpu.cuda import copy

        out = super().forward_cuda(x)
        region = out
        for op in self.chain:
            region = op.forward_cuda(region)
        copy.fill(region, 0)
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return run(ZeroRegion(self.chain, self.strides), dy)  # type: ignore[no-any-return]


Tensor._regenerate = staticmethod(regenerate)
