"""The pools of cudaMallocAsync: how much each holds and has held, and what it may keep.

The simulated GPU gives each allocation a region of its own, so a pool only counts: what is in use,
and what it has reserved, which shrinks to its release threshold when the host waits for a stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.errors import CudaError

# cudaMemPoolAttr
REUSE, THRESHOLD, RESERVED, RESERVED_MOST, USED, USED_MOST = (1, 2, 3), 4, 5, 6, 7, 8
FIRST_DEFAULT, FIRST = 0x900D_0000, 0x900E_0000  # handles
CHUNK = 32 << 20  # bytes: a pool reserves so much at once


@dataclass(eq=False)
class Pool:
    """A pool of a device."""

    handle: int
    device: int
    values: dict[int, int] = field(default_factory=lambda: dict.fromkeys(REUSE, 1) | dict.fromkeys(
        (THRESHOLD, RESERVED, RESERVED_MOST, USED, USED_MOST), 0))

    def took(self, size: int) -> None:
        """An allocation came from it, or (a negative size) is freed."""
        v = self.values
        v[USED] += size
        v[RESERVED] = max(v[RESERVED], self._least())
        v[USED_MOST] = max(v[USED_MOST], v[USED])
        v[RESERVED_MOST] = max(v[RESERVED_MOST], v[RESERVED])

    def trim(self, keep: int) -> None:
        """Give back what is reserved and not in use, but for so many bytes reserved."""
        self.values[RESERVED] = max(self._least(), min(self.values[RESERVED], _chunks(keep)))

    def _least(self) -> int:
        """What it must reserve for what is in use."""
        return _chunks(self.values[USED])


def _chunks(size: int) -> int:
    """A size rounded up to what a pool reserves."""
    return -(-size // CHUNK) * CHUNK


class MemPools:
    """All pools, and which one each device takes memory from."""

    def __init__(self, devices: int) -> None:
        self.default = [Pool(FIRST_DEFAULT + 16 * n, n) for n in range(devices)]
        self.current = [*self.default]
        self.pools = {pool.handle: pool for pool in self.default}
        self._next = FIRST

    def create(self, device: int) -> Pool:
        """A new pool."""
        pool = Pool(self._next, device)
        self._next += 16
        self.pools[pool.handle] = pool
        return pool

    def find(self, handle: int) -> Pool:
        """A pool by handle.  CudaError where there is none."""
        if handle not in self.pools:
            raise CudaError(errors.INVALID_VALUE, f"{handle:#x} is no memory pool, or is destroyed")
        return self.pools[handle]

    def destroy(self, handle: int) -> None:
        """What is allocated from it stays until it is freed."""
        pool = self.find(handle)
        if pool in self.default:
            raise CudaError(errors.INVALID_VALUE, "a device's default memory pool cannot be "
                                                  "destroyed")
        del self.pools[handle]
        if self.current[pool.device] is pool:
            self.current[pool.device] = self.default[pool.device]

    def set(self, handle: int, attribute: int, value: int) -> None:
        """Set an attribute of a pool."""
        pool = self.find(handle)
        highest = attribute in (RESERVED_MOST, USED_MOST)
        if attribute not in (*REUSE, THRESHOLD) and not (highest and value == 0):
            raise CudaError(errors.INVALID_VALUE, f"cudaMemPoolSetAttribute: attribute {attribute} "
                            + ("can only be set to 0" if highest else "cannot be set"))
        pool.values[attribute] = pool.values[attribute - 1] if highest else value

    def get(self, handle: int, attribute: int) -> int:
        """An attribute of a pool."""
        values = self.find(handle).values
        if attribute not in values:
            raise CudaError(errors.INVALID_VALUE, f"cudaMemPoolGetAttribute: there is no attribute "
                                                  f"{attribute}")
        return values[attribute]

    def synchronized(self) -> None:
        """The host has waited: pools give back what is above their thresholds."""
        for pool in self.pools.values():
            pool.trim(pool.values[THRESHOLD])
