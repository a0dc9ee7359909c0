"""Arrays in the simulated GPU's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import host
from mlgpu.sim.errors import Allocation, Finding, SimError
from mlgpu.sim.memory import INIT, Region

if TYPE_CHECKING:
    from mlgpu.sim.machine import Machine

Array = np.ndarray[Any, Any]


class Buffer:
    """An array in the simulated GPU's memory."""

    def __init__(self, machine: Machine, region: Region, shape: Sequence[int],
                 dtype: np.dtype[Any], typed: bool = True) -> None:
        self.machine, self.region = machine, region
        self.shape, self.dtype = tuple(shape), dtype
        self.typed = typed  # False: the dtype is a guess

    @property
    def ptr(self) -> int:
        """The device address."""
        return self.region.start

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.region.size

    def numpy(self) -> Array:
        """A copy of the contents."""
        with self.machine.lock:
            self._alive("numpy")
            flat = self.region.data[:self.nbytes].copy()
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        return flat.view(self.dtype).reshape(self.shape)

    def set(self, values: Any) -> None:
        """Replace the contents by an array of the same dtype and number of elements.

        Python numbers become the buffer's dtype; bytes (uint8) are taken as they are.
        """
        given = host.array(values, "set", None if hasattr(values, "dtype") else self.dtype)
        if self.typed and not host.alike(given.dtype, self.dtype):
            raise SimError(f"set: {given.dtype} for a buffer of {self.dtype}; convert it with "
                           ".astype(), or pass its bytes with .view(np.uint8)")
        if given.nbytes != self.nbytes:
            raise SimError(f"set: {given.nbytes:,} bytes for a buffer of {self.nbytes:,}")
        with self.machine.lock:
            self._alive("set")
            if self.nbytes:
                self.region.data[:self.nbytes] = given.reshape(-1).view(np.uint8)
                self.region.marks[:self.nbytes] = INIT

    def free(self) -> None:
        """Give the memory back; any later use is a finding."""
        with self.machine.lock:
            if self.region.freed_at:
                raise Finding("memcheck", "invalid free",
                              f"the buffer was freed before, at {self.region.freed_at}",
                              file=host.caller(), allocation=Allocation(
                                  self.region.start, self.region.size, self.region.name,
                                  self.region.made_at))
            if self.region.name:
                raise SimError(f"free: {self.region.name} is a variable of a module, which has it "
                               "as long as the module")
            self.machine.space.free(self.region, host.caller())

    def _alive(self, what: str) -> None:
        if self.region.freed_at:
            raise Finding("memcheck", "use after free",
                          f"{what} of a buffer freed at {self.region.freed_at}", file=host.caller(),
                          allocation=Allocation(self.region.start, self.region.size,
                                                self.region.name, self.region.made_at))

    def __repr__(self) -> str:
        return f"Buffer({self.ptr:#x}, shape={self.shape}, dtype={self.dtype})"
