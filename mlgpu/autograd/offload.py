"""Saved values kept in host memory until backward asks for them."""

from __future__ import annotations

import weakref
from typing import Any

from mlgpu.autograd.saved import saved_tensors_hooks
from mlgpu.device import CPU, Device
from mlgpu.memory import parse_bytes
from mlgpu.nn.parameter import Parameter
from mlgpu.tensor import Tensor


class save_on_cpu(saved_tensors_hooks):
    """Within it, what is saved for backward is moved to the CPU, and back when it is used.

    As torch.autograd.graph.save_on_cpu: one value after the other, waited for; with `pin_memory`
    through page-locked memory, without waiting.  `mlgpu.checkpoint.offload` hides the copies.
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        def pack(tensor: Tensor) -> tuple[Device, Tensor]:
            return tensor.device, tensor.to(CPU, non_blocking=pin_memory)

        def unpack(packed: tuple[Device, Tensor]) -> Tensor:
            device, tensor = packed
            return tensor.to(device, non_blocking=pin_memory)

        super().__init__(pack, unpack)


class _Away:
    """A value in page-locked host memory, and where it came from."""

    __slots__ = ("__weakref__", "coming", "device", "host", "place", "source", "there")

    def __init__(self, tensor: Tensor, place: int) -> None:
        self.device, self.place = tensor.device, place
        self.source = weakref.ref(tensor._storage)
        from mlgpu.cuda.streams import beside

        with beside(self.device):
            self.host = tensor.to(CPU, non_blocking=True)
        self.coming: Tensor | None = None  # on its way back
        self.there: Any = lambda: None  # a weak reference to it on the device

    def fetch(self) -> Tensor:
        """Its copy on the device, which may still be under way."""
        found: Tensor | None = self.there() if self.coming is None else self.coming
        if found is None:
            from mlgpu.cuda.streams import beside

            with beside(self.device):
                found = self.host.to(self.device, non_blocking=True)
            self.there = weakref.ref(found)
        return found


class offload(saved_tensors_hooks):
    """Within it, large values saved for backward lie in page-locked host memory meanwhile.

    They are copied out as they are saved and back before backward needs them, `ahead` values early,
    beside the computation (Rhu et al. 2016, vDNN).  Values below `minimum` bytes, what lies in
    parameters, and tensors on the CPU stay where they are.  Gradients are the same bit by bit.
    """

    def __init__(self, minimum: int | str = "1 MiB", ahead: int = 2) -> None:
        self.minimum, self.ahead = parse_bytes(minimum), ahead
        self._order: list[weakref.ref[_Away]] = []
        self._known: weakref.WeakValueDictionary[Any, _Away] = weakref.WeakValueDictionary()
        super().__init__(self._pack, self._unpack)

    def _pack(self, tensor: Tensor) -> Tensor | _Away:
        array, storage = tensor._array, tensor._storage
        if storage.device is CPU or array.nbytes < self.minimum or _holds_a_leaf(storage):
            return tensor
        # A value that several operations save goes once.
        key = id(storage), storage.version, array.data.ptr, array.shape, array.strides
        found = self._known.get(key)
        if found is None or found.source() is not storage:  # but another at its address
            found = self._known[key] = _Away(tensor, len(self._order))
            self._order.append(weakref.ref(found))
        return found

    def _unpack(self, packed: Tensor | _Away) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        tensor = packed.fetch()
        packed.coming = None  # whoever uses it holds it
        for place in range(packed.place - 1, max(packed.place - 1 - self.ahead, -1), -1):
            before = self._order[place]()
            if before is not None and before.coming is None:
                before.coming = before.fetch()
        return tensor


def _holds_a_leaf(storage: Any) -> bool:
    """Whether the memory is a parameter's, which stays on the device anyway."""
    return any(isinstance(t, Parameter) or (isinstance(t, Tensor) and t._requires and
                                            t._node is None and t._base is None)
               for t in storage.holders())
