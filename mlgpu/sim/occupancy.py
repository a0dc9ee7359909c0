"""How many blocks of a kernel fit on a multiprocessor, and what keeps more from fitting.

The rules are those of NVIDIA's occupancy calculator: warps get registers in whole units and within
one scheduler's part of the register file; blocks get shared memory in whole units, plus what the
system reserves.  The result is a bound: how many warps are really active depends on the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlgpu.sim.arch import Arch
from mlgpu.sim.errors import LaunchError


@dataclass(frozen=True)
class Occupancy:
    """What fits on one multiprocessor."""

    blocks: int
    warps: int
    percent: float  # warps, of those that a multiprocessor has room for
    limits: dict[str, int]  # resource -> how many blocks it has room for
    limiters: tuple[str, ...]  # the resources with room for the fewest

    def __str__(self) -> str:
        return (f"{self.percent:.1f} % ({self.warps} warps, {self.blocks} blocks a "
                f"multiprocessor), limited by {' and '.join(self.limiters)}")


def occupancy(arch: Arch, threads: int, registers: int, shared: int = 0,
              barriers: int = 0) -> Occupancy:
    """Theoretical occupancy of blocks of so many threads, with so much shared memory each.

    `registers` are those of a thread (0: unknown, no limit), `shared` is static and dynamic memory
    together.  A kernel that wants more than 48 KiB is taken to have asked for it.  LaunchError
    where not even one block can run.
    """
    if not 0 < threads <= arch.max_threads_per_block:
        raise LaunchError(f"a block of {threads} threads: 1 to {arch.max_threads_per_block} "
                          "are possible")
    warps = _up(threads, arch.warp_size) // arch.warp_size
    # Each resource's limit in blocks; without any use of it, nothing is limited.
    limits = {"warps": arch.warps_per_sm // warps, "blocks": arch.blocks_per_sm}
    if registers:
        limits["registers"] = _by_registers(arch, warps, registers)
    if shared + arch.shared_reserved:
        limits["shared memory"] = _by_shared(arch, shared)
    if barriers and arch.barriers_per_sm:
        limits["barriers"] = arch.barriers_per_sm // barriers
    blocks = min(limits.values())
    return Occupancy(blocks, blocks * warps, 100 * blocks * warps / arch.warps_per_sm, limits,
                     tuple(name for name, limit in limits.items() if limit == blocks))


def _by_registers(arch: Arch, warps: int, registers: int) -> int:
    if registers > arch.registers_per_thread:
        raise LaunchError(f"{registers} registers a thread: {arch.registers_per_thread} at most")
    per_warp = _up(registers * arch.warp_size, arch.register_unit)
    # The hardware checks a block as if every scheduler had the same number of its warps.
    if per_warp * _up(warps, arch.schedulers) > arch.registers_per_block:
        raise LaunchError(f"{registers} registers a thread: too many for a block of {warps} warps "
                          f"({arch.registers_per_block:,} registers a block)")
    per_scheduler = arch.registers_per_sm // arch.schedulers // per_warp
    return per_scheduler * arch.schedulers // warps


def _by_shared(arch: Arch, shared: int) -> int:
    if shared > arch.shared_optin:
        raise LaunchError(f"{shared:,} bytes of shared memory a block: {arch.shared_optin:,} at "
                          "most")
    return arch.shared_per_sm // _up(shared + arch.shared_reserved, arch.shared_unit)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
