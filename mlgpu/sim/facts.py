"""The counters that follow from a launch's dimensions alone: sizes, registers, occupancy."""

from __future__ import annotations

from mlgpu.sim.arch import Arch
from mlgpu.sim.errors import LaunchError
from mlgpu.sim.occupancy import occupancy
from mlgpu.sim.ptxas import Resources

_LIMITS = {"warps": "warps", "blocks": "blocks", "registers": "registers",
           "shared memory": "shared_mem", "barriers": "barriers"}
FEWEST_REGISTERS = 16  # a kernel that uses fewer is launched with these


def facts(arch: Arch, blocks: int, threads: int, static_shared: int = 0, dynamic_shared: int = 0,
          resources: Resources | None = None) -> dict[str, float]:
    """Metrics of a launch of so many blocks of so many threads, by Nsight Compute's names.

    Without ptxas's `resources` those that need them are left out, and registers do not limit
    occupancy.  A kernel whose registers do not fit has an occupancy of 0: a GPU refuses it.
    """
    shared = static_shared + dynamic_shared
    found: dict[str, float] = {
        "launch__grid_size": blocks, "launch__block_size": threads,
        "launch__thread_count": blocks * threads,
        "smsp__warps_launched.sum": blocks * -(-threads // arch.warp_size),
        "launch__shared_mem_per_block_static": static_shared,
        "launch__shared_mem_per_block_dynamic": dynamic_shared,
        "launch__shared_mem_per_block": shared + arch.shared_reserved}
    registers = barriers = 0
    if resources is not None:
        registers, barriers = max(resources.registers, FEWEST_REGISTERS), resources.barriers
        found |= {"launch__registers_per_thread": registers,
                  "mlgpu__stack_bytes": resources.stack,
                  "launch__barrier_count": resources.barriers,
                  "mlgpu__spill_store_bytes": resources.spill_stores,
                  "mlgpu__spill_load_bytes": resources.spill_loads}
    try:
        fits = occupancy(arch, threads, registers, shared, barriers)
    except LaunchError:
        return {**found, "sm__maximum_warps_per_active_cycle_pct": 0.0}
    found["sm__maximum_warps_per_active_cycle_pct"] = fits.percent
    found["launch__waves_per_multiprocessor"] = blocks / (fits.blocks * arch.sms)
    limits = dict(fits.limits)
    if resources is not None and arch.barriers_per_sm:  # never more than there can be blocks
        limits["barriers"] = min(limits.get("barriers", arch.blocks_per_sm), arch.blocks_per_sm)
    for name, limit in limits.items():
        found[f"launch__occupancy_limit_{_LIMITS[name]}"] = limit
    return found
