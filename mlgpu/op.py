"""The one place where an operation runs: device check, implementation, recording.

An operation is a class with its maths for each device side by side; one instance is one
application and, when something that led to it requires a gradient, one node of the graph.
"""

from __future__ import annotations

import copy as copying
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from mlgpu.autograd import graph
from mlgpu.autograd import mode as modes
from mlgpu.autograd.mode import mode
from mlgpu.autograd.saved import FREED, Saved
from mlgpu.device import CPU, Device, current_device, device_of, runtime
from mlgpu.errors import DerivativeError, DeviceError, GraphError, ReleasedError, ShapeError
from mlgpu.storage import Storage, root_of
from mlgpu.tensor import Tensor


class Op(graph.Node):
    """One application of an operation: parameters in `__init__`, maths below.

    `forward(*arrays)` computes on NumPy arrays and returns fresh arrays; `forward_cuda` on CuPy's.
    `backward(*grads)` is written with Tensor operations, so that it can be differentiated again;
    `backward_cpu` and `backward_cuda` are optional fast forms of it on arrays, used when no graph
    of the backward pass is being recorded.  Each returns one gradient per input (or None); the
    engine sums it over broadcast dimensions and casts it to the input's dtype.
    """

    saved_inputs: ClassVar[tuple[int, ...]] = ()
    saved_outputs: ClassVar[tuple[int, ...]] = ()
    differentiable: ClassVar[bool] = True
    derivable: ClassVar[bool] = False  # whether there is a method for its gradient
    nondifferentiable_outputs: tuple[int, ...] = ()
    materialize: ClassVar[bool] = True
    writes: ClassVar[int] = 1  # how many of the arrays that `forward_into` is given it writes into

    recording = False
    needs: tuple[bool, ...] = ()
    tuple_output = False
    _inputs_meta: tuple[tuple[tuple[int, ...], Any], ...] = ()
    _outputs_meta: tuple[tuple[tuple[int, ...], Any, Device], ...] = ()
    _saved: dict[Any, Saved] | None = None
    _freed = False
    _stashed: dict[str, Any] | None = None
    recipes: dict[Any, Any] | None = None  # of the outputs, within `checkpoint.auto`

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls.derivable = any(hasattr(cls, way) for way in _DERIVATIVES)

    # --- what a subclass writes -------------------------------------------------------------

    def forward(self, *arrays: Any) -> Any:
        raise DeviceError(f"{self.name}: not available on the CPU")

    def forward_cuda(self, *arrays: Any) -> Any:
        raise DeviceError(f"{self.name}: not available on CUDA; move its inputs with .cpu()")

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        """The inputs to save for backward, given which inputs need a gradient."""
        return self.saved_inputs

    # --- what a subclass uses ---------------------------------------------------------------

    def stash(self, **arrays: Any) -> None:
        """Keep extra arrays for backward, as attributes; nothing is kept if nothing is recorded."""
        if self.recording:
            self._stashed = {**(self._stashed or {}), **arrays}

    def input(self, index: int) -> Tensor:
        """The saved input, with its place in the graph.  GraphError if it was changed or freed."""
        return self._saved_value(index).tensor(self)

    def output(self, index: int = 0) -> Tensor:
        """The saved output, with its place in the graph."""
        return self._saved_value(~index).tensor(self)

    def input_array(self, index: int) -> Any:
        """The saved input's array."""
        return self._saved_value(index).array(self)

    def take_input(self, index: int) -> tuple[Any, bool]:
        """The saved input's array, and whether it may be written over; see `Saved.take`."""
        return self._saved_value(index).take(self)

    def output_array(self, index: int = 0) -> Any:
        """The saved output's array."""
        return self._saved_value(~index).array(self)

    def __getattr__(self, attribute: str) -> Any:
        # Only reached for names not set: stashed arrays, which live among the saved values.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        stashed = self.__dict__.get("_stashed")
        if stashed is not None and attribute in stashed:
            return stashed[attribute]
        saved = self.__dict__.get("_saved")
        if saved is not None and attribute in saved:
            return saved[attribute].array(self)
        if self._freed:
            self._saved_value(attribute)
        raise AttributeError(f"{type(self).__name__} has no attribute {attribute!r}")

    def _saved_value(self, key: Any) -> Saved:
        if self._freed:
            raise GraphError(FREED.format(self.name))
        assert self._saved is not None
        return self._saved[key]

    # --- recording --------------------------------------------------------------------------

    def record_inputs(self, inputs: Sequence[Tensor], overwrites: bool = False) -> None:
        """Take edges to what made the inputs, and save the inputs that backward needs.

        If the operation is about to overwrite the first input, that is saved as a copy.
        """
        kept = self.keeps(self.needs)
        if overwrites and 0 in kept:
            inputs = (_original(inputs[0]), *inputs[1:])
        self.edges = tuple([t._edge() if t._requires else None for t in inputs])
        self._inputs_meta = tuple([(t._array.shape, t._array.dtype) for t in inputs])
        self._saved = {index: Saved(inputs[index], self) for index in kept}

    def record_outputs(self, outputs: Sequence[Tensor]) -> None:
        """Save outputs and stashed arrays, take a place in the order, and own the outputs."""
        assert self._saved is not None
        self.stamp()
        self.outputs = len(outputs)
        if len(outputs) > 1:
            self._outputs_meta = tuple((t.shape, t._array.dtype, t.device) for t in outputs)
        for index in self.saved_outputs:
            self._saved[~index] = Saved(outputs[index], self, output=index)
        if self._stashed:
            for name, array in self._stashed.items():
                self._saved[name] = Saved(wrap(array, outputs[0]._storage.device), self, stash=name)
            self._stashed = None
        for index, tensor in enumerate(outputs):
            if index not in self.nondifferentiable_outputs and has_gradient(tensor):
                tensor._node, tensor._requires = self, True
                if index:
                    tensor._index = index

    def free(self) -> None:
        self.recipes = None
        if self._saved:
            self._saved = {}
            self._freed = True

    def again(self) -> Op:
        """The same operation with the same parameters, not yet applied."""
        fresh = copying.copy(self)
        for state in _NODE_STATE:
            fresh.__dict__.pop(state, None)
        return fresh

    # --- backward ---------------------------------------------------------------------------

    def apply(self, grads: list[Tensor | None], create_graph: bool) -> list[Tensor | None]:
        if self.outputs > 1 and self.materialize:
            for index, grad in enumerate(grads):
                if grad is None:
                    shape, dtype, device = self._outputs_meta[index]
                    zeros = runtime(device).empty(shape, dtype, device)
                    runtime(device).fill(zeros, 0)
                    grads[index] = wrap(zeros, device)
        results: Sequence[Tensor | None]
        for grad in grads:
            if grad is not None:
                device = grad._storage.device
                break
        fast = runtime(device).backward
        if create_graph or not hasattr(type(self), fast):
            results = self._differentiable(grads)
        else:
            results = self._fast(getattr(self, fast), grads, device)
        metas = self._inputs_meta
        return [None if grad is None or edge is None else conform_to(self.name, grad, *metas[index])
                for index, (grad, edge) in enumerate(zip(results, self.edges, strict=True))]

    def _differentiable(self, grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        if not hasattr(type(self), "backward"):
            raise DerivativeError(f"{self.name}: has no second derivative; "
                                  "call backward without create_graph")
        results = self.backward(*grads)
        results = results if isinstance(results, tuple) else (results,)
        for result in results:
            if result is not None:
                result._storage.exclusive = False
        return results

    def _fast(self, function: Callable[..., Any], grads: Sequence[Tensor | None],
              device: Device) -> list[Tensor | None]:
        arrays = [None if g is None else g._array for g in grads]
        outs = runtime(device).call(function, arrays, device)
        outs = outs if isinstance(outs, tuple) else (outs,)
        results: list[Tensor | None] = []
        known, roots = {}, {}
        for grad in grads:
            if grad is not None:
                known[id(grad._array)] = grad
                roots[id(root_of(grad._array))] = grad._storage
        for out in outs:
            if out is None:
                results.append(None)
                continue
            tensor = known.get(id(out))
            root = root_of(out)
            shared = roots.get(id(root))
            if tensor is not None:  # passed through, or given to two inputs
                tensor._storage.exclusive = False
            elif shared is not None:  # a view of an incoming gradient, or of another result
                shared.exclusive = False
                tensor = Tensor._make(out, shared)
            else:
                tensor = known[id(out)] = wrap(out, device)
                roots[id(root)] = tensor._storage  # of further parts of one block
                # A view of a saved value is nobody's alone.
                tensor._storage.exclusive = tensor._storage.claimed or (
                    device is CPU and root is out)
            results.append(tensor)
        return results


_DERIVATIVES = ("backward", "backward_cpu", "backward_cuda")
_NODE_STATE = ("edges", "outputs", "sequence", "more", "recording", "needs", "tuple_output",
               "_inputs_meta", "_outputs_meta", "_saved", "_freed", "_stashed", "recipes")


def conform_to(name: str, grad: Tensor, shape: tuple[int, ...], dtype: Any) -> Tensor:
    """`grad` summed and cast to an input's shape and dtype.  ShapeError where it cannot fit."""
    have = grad._array.shape
    if have == shape and grad._array.dtype == dtype:
        return grad
    if have != shape:
        lead = len(have) - len(shape)
        if lead < 0 or any(n not in (1, m) for n, m in zip(shape, have[lead:], strict=True)):
            raise ShapeError(f"{name}: backward gave a gradient of shape {have} for an input of "
                             f"shape {shape}")
    return graph.arithmetic.conform(grad, shape, dtype)


def has_gradient(tensor: Tensor) -> bool:
    """Integers and truth values have none, whatever they were computed from."""
    return tensor._array.dtype.kind not in "biu"


class ViewOp(Op):
    """An operation whose result is a view of its only input; the same code serves every device."""

    def forward_cuda(self, *arrays: Any) -> Any:
        return self.forward(*arrays)

    def check_replay(self, name: str) -> None:
        """Raise GraphError if the view cannot be made again from another base."""


def wrap(array: Any, device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """A leaf Tensor that owns `array`, which must be fresh (nobody else writes to it)."""
    tensor = Tensor._make(array, Storage.owning(array, device or current_device()))
    tensor._requires = requires_grad
    return tensor


def check_inputs(op: Op, inputs: Sequence[Tensor]) -> Device:
    """The device all inputs live on.  Raises ReleasedError, DeviceError, or TypeError."""
    try:
        device = inputs[0]._storage.device
        for tensor in inputs:
            storage = tensor._storage
            if storage.released or storage.pending is not None or storage.device is not device:
                break
        else:
            return device
    except (AttributeError, IndexError):
        pass  # which is reported below
    return _check_each(op, inputs)


def _check_each(op: Op, inputs: Sequence[Tensor]) -> Device:
    device: Device | None = None
    for position, tensor in enumerate(inputs):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op.name}: argument {position} must be a Tensor, "
                            f"got {type(tensor).__name__}")
        storage = tensor._storage
        if storage.released:
            raise ReleasedError(f"{op.name}: argument {position}, of shape "
                                f"{tuple(tensor.shape)}, was released")
        if storage.pending is not None:
            storage.settle()
        if device is None:
            device = storage.device
        elif device is not storage.device and device != storage.device:
            raise DeviceError(f"{op.name}: tensors are on {device} and {storage.device}; "
                              "move one with .to()")
    assert device is not None
    return device


def start(op: Op, inputs: Sequence[Tensor]) -> None:
    """Find out whether this application is recorded, and for which inputs."""
    if not mode.grad or not op.differentiable:
        return
    needs = tuple([t._requires if t._base is None else t.requires_grad for t in inputs])
    if True in needs:
        if not op.derivable:
            raise DerivativeError(f"{op.name}: has no derivative, and an input requires grad; "
                                  "detach() the input or compute under no_grad()")
        op.needs = needs
        op.recording = True


def run(op: Op, *inputs: Tensor) -> Any:
    """Apply `op` and return its Tensor, or a tuple of them if its forward returned a tuple."""
    device = check_inputs(op, inputs)
    start(op, inputs)
    engine = runtime(device)
    follows = mode.rematerializer if modes.observers and op.recording else None
    application = None if follows is None else follows.follow(op, inputs)
    results = engine.call(getattr(op, engine.forward), [t._array for t in inputs], device)
    if isinstance(op, ViewOp):
        return _run_view(op, inputs[0], results)
    single = type(results) is not tuple
    arrays = (results,) if single else results
    outputs = [Tensor._make(a, Storage.owning(a, device)) for a in arrays]
    if op.recording:
        if application is not None:
            op.recipes = application.recipes(inputs, outputs)
        op.record_inputs(inputs)
        op.record_outputs(outputs)
    return outputs[0] if single else tuple(outputs)


def on_tensors(function: Callable[..., Any], *arrays: Any) -> Any:
    """`function` of tensors on these device arrays, unrecorded; its result as arrays.

    For operations that are made of others where no kernel of their own pays.
    """
    from mlgpu.cuda.runtime import copy

    device = device_of(next(a for a in arrays if a is not None).data.device_id)
    given = {a.data.mem for a in arrays if a is not None}
    before, mode.grad = mode.grad, False
    try:
        result = function(*[None if a is None else Tensor._make(a, Storage.owning(a, device))
                            for a in arrays])
    finally:
        mode.grad = before

    def fresh(tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        array = copy(tensor._array) if tensor._array.data.mem in given else tensor._array
        array.data.mem.owned = False  # its owner is whoever runs the operation
        return array

    return tuple(map(fresh, result)) if isinstance(result, tuple) else fresh(result)


def _run_view(op: ViewOp, source: Tensor, array: Any) -> Tensor:
    source._storage.exclusive = False
    view = Tensor._make(array, source._storage)
    if op.recording:
        if modes.observers and mode.rematerializer is not None:
            op.recipes = mode.rematerializer.views([op], source)
        op.record_inputs((source,))
        op.record_outputs((view,))
    if not source._storage.inference:
        base = source if source._base is None else source._base
        view._base, view._chain = base, (*source._chain, op)
        view._history = base._history
    return view


def _original(target: Tensor) -> Tensor:
    """A copy of what is about to be overwritten, in its place in the graph: backward needs it."""
    array, device = target._array, target._storage.device
    copied = runtime(device).empty(array.shape, array.dtype, device)
    runtime(device).copy_into(copied, array)
    kept = wrap(copied, device)
    kept._node, kept._index, kept._requires = target._node, target._index, target._requires
    return kept
