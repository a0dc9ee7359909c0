"""How long work takes on the simulated clock.

A rough estimate, the same at every run: enough for programs that measure times to get on, and to
compare runs of one kernel; no prediction of a GPU.
"""

from __future__ import annotations

from mlgpu.sim.launch import Launch

START = 2e-3  # milliseconds, of any launch
CYCLES = 40  # of a warp in a run of instructions without a branch
CLOCK = 1.5e6  # cycles in a millisecond
PCIE, MEMORY = 25e6, 1e9  # bytes in a millisecond: between host and device, and on a device


def launch_time(launch: Launch) -> float:
    """Milliseconds that a launch took."""
    arch, counters = launch.machine.arch, launch.counters
    cycles = sum(counters.warps) * CYCLES / min(launch.blocks, arch.sms)
    return START + cycles / CLOCK + (counters.unique_read + counters.unique_written) / MEMORY


def copy_time(size: int, hosts: tuple[bool, bool]) -> float:
    """Milliseconds that a copy takes; hosts: whether it comes from the host, and goes there."""
    return size / (PCIE if hosts[0] != hosts[1] else MEMORY)
