"""CuPy's own kernels that break a rule of the sanitizers by design, and what is off for them.

CuPy's kernels are not the program's to put right, and what is listed here gives right results on
NVIDIA's GPUs.  All others, CuPy's as well as the program's, are checked in full.
"""

from __future__ import annotations

from typing import NamedTuple

from mlgpu.sim.machine import Kernel


class Lenience(NamedTuple):
    """What a kernel is allowed."""

    checks: tuple[str, ...]  # that are off
    reason: str


KERNELS = {
    "cupy_nonzero_kernel_incomplete_scan": Lenience(
        ("racecheck",), "lanes of a warp read and write each other's sums in shared memory "
                        "without __syncwarp"),
    "cupy_inclusive_batch_scan_kernel": Lenience(
        ("synccheck", "initcheck"), "threads beyond the array's end exit before the block's "
                                    "barriers, and what they did not write is read, not used"),
}
_HEADER = "_ZN4cupy11type_traits"  # of a header that CuPy puts before its own kernels


def skipped(kernel: Kernel) -> frozenset[str]:
    """The checks that are off for a kernel: none for a program's own, whatever it is called."""
    found = KERNELS.get(kernel.name)
    if found is None or _HEADER not in kernel.module.ptx:
        return frozenset()
    return frozenset(found.checks)
