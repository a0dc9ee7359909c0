"""Values that a node keeps for its backward: version-checked, and packed by the user's hooks.

A saved value holds the array and its place in the graph, never the node's own output tensor, so
that no cycle arises.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mlgpu.autograd import mode as modes
from mlgpu.autograd.graph import Node
from mlgpu.autograd.mode import mode, observe
from mlgpu.device import CPU, runtime
from mlgpu.errors import GraphError, ReleasedError

if TYPE_CHECKING:
    from mlgpu.tensor import Tensor


FREED = ("{}: backward a second time: its saved values were freed after the first; pass "
         "retain_graph=True to the first call")


class _Hooks(threading.local):
    def __init__(self) -> None:
        self.stack: list[tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = []


_hooks = _Hooks()


class saved_tensors_hooks:
    """Within it, values saved for backward pass through `pack` and, when used, through `unpack`.

    `pack(tensor)` returns anything; `unpack(packed)` returns a tensor with the same values.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any],
                 unpack_hook: Callable[[Any], Tensor]) -> None:
        self._pair = (pack_hook, unpack_hook)

    def __enter__(self) -> None:
        observe(1)
        _hooks.stack.append(self._pair)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        _hooks.stack.pop()
        observe(-1)


class Saved:
    """One value kept for backward."""

    # `_layout` is there for Storage, which takes it from whatever holds its array.
    __slots__ = ("__weakref__", "_array", "_edge", "_layout", "_output", "_packed", "_requires",
                 "_storage", "_unpack", "_version")

    def __init__(self, tensor: Tensor, node: Node, output: int | None = None,
                 stash: str | None = None) -> None:
        storage = tensor._storage
        if storage.inference:
            raise GraphError(f"{node.name}: a tensor made in inference_mode cannot be saved for "
                             "backward; clone() it outside inference_mode")
        self._output = output
        self._requires = tensor._requires if tensor._base is None else tensor.requires_grad
        # An output's own edge would make a cycle; its node is at hand when it is unpacked.
        self._edge = tensor._edge() if self._requires and output is None else None
        self._storage = storage
        self._version = storage.version
        self._unpack: Callable[[Any], Tensor] | None = None
        self._array: Any = tensor._array
        storage.exclusive = False
        storage.join(self)
        if modes.observers:
            self._give_away(tensor, node, stash if output is None else output)

    def _give_away(self, tensor: Tensor, node: Node, key: Any) -> None:
        """Hand the value to whoever asked for saved values, if someone did."""
        if _hooks.stack:
            pack, self._unpack = _hooks.stack[-1]
            self._packed = pack(tensor.detach())
        elif mode.rematerializer is not None:
            pin = mode.rematerializer.pin(tensor, node, key)
            if pin is None:
                return
            self._packed, self._unpack = pin, type(pin).tensor
        else:
            return
        self._array = None
        self._storage = None  # type: ignore[assignment]

    @classmethod
    def again(cls, storage: Any, version: int, edge: tuple[Any, int] | None, requires: bool,
              output: int | None = None) -> Saved:
        """What a link has kept, as a value that was saved when that was kept."""
        self = object.__new__(cls)
        self._storage, self._version, self._array = storage, version, storage.array
        self._edge, self._requires, self._output, self._unpack = edge, requires, output, None
        return self

    def array(self, node: Node) -> Any:
        """The array, if it is still what was saved."""
        storage, array = self._storage, self._array
        if (storage is not None and storage.device is CPU and not storage.released
                and storage.version == self._version and array is not None):
            return array
        if self._unpack is not None:
            value = self._unpack(self._packed)
            value._check()
            if not value.is_cpu:  # it may come from another stream
                runtime(value.device).reads(value._array)
            return value._array
        if array is None:
            raise GraphError(FREED.format(node.name))
        if storage.released:
            raise ReleasedError(f"{node.name}: backward needs a tensor of shape "
                                f"{self._array.shape} that was released; release it later")
        if storage.version != self._version:
            raise GraphError(
                f"{node.name}: a value saved for backward, of shape {self._array.shape}, was "
                f"changed in place (version {storage.version}, saved at {self._version}); "
                "clone() it before the change, or use the out-of-place form")
        if storage.device.type != "cpu":
            runtime(storage.device).reads(self._array)
        return self._array

    def take(self, node: Node) -> tuple[Any, bool]:
        """The array, and whether its memory may be written to: nothing can read it from here on.

        That is so in a walk that frees the graph, where nobody else holds the memory; this value
        is then gone.
        """
        array = self.array(node)
        if self._unpack is not None or not mode.frees:
            return array, False
        del array
        alone = runtime(self._storage.device).alone(self)
        array = self._array
        if alone:
            self._array = None
        return array, alone

    def tensor(self, node: Node) -> Tensor:
        """The value as a Tensor with its place in the graph."""
        if self._unpack is not None:
            value = self._unpack(self._packed).detach()
        else:
            from mlgpu.tensor import Tensor

            value = Tensor._make(self.array(node), self._storage)
        if self._output is not None:
            if self._output not in node.nondifferentiable_outputs:
                value._node, value._index, value._requires = node, self._output, True
        elif self._edge is not None:
            target, index = self._edge
            value._requires = True
            if isinstance(target, Node):
                value._node, value._index = target, index
            else:
                value._leaf = target  # gradients of gradients must reach that very tensor
        return value
