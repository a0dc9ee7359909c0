"""CuPy's own kernels that break a rule of the sanitizers by design, and what is off for them.

CuPy's kernels are not the program's to put right, and what is listed here gives right results on
NVIDIA's GPUs.  All others, CuPy's as well as the program's, are checked in full.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlgpu.sim.launch import CARRY
from mlgpu.sim.machine import Kernel


class Lenience(NamedTuple):
    """What kernels of a name are allowed."""

    name: str  # a regular expression
    checks: tuple[str, ...]  # that are off (CARRY: initcheck, for what is only copied)
    reason: str
    beside: str = "_ZN4cupy11type_traits"  # stands in the PTX too: a name of CuPy's own headers


KERNELS = [
    Lenience("cupy_copy__.*", (CARRY,),
             "arrays are copied, cast and put in order whole, also where parts were never written "
             "and nobody looks at them; the copies of those count as never written"),
    Lenience("cupy_nonzero_kernel_incomplete_scan", ("racecheck",),
             "lanes of a warp read and write each other's sums in shared memory without "
             "__syncwarp"),
    Lenience("cupy_inclusive_batch_scan_kernel", ("synccheck", "initcheck"),
             "threads beyond the array's end exit before the block's barriers, and what they did "
             "not write is read, not used"),
    Lenience("cupyx_scipy_ndimage_label_(connect|count)", ("racecheck",),
             "chains of labels are followed while other threads shorten them, which leads to the "
             "same end, and joined by atomicCAS, which is tried again where it fails"),
    Lenience(r"_Z\d+\w+_sosI.*", ("synccheck", "initcheck"),
             "threads beyond the signal's end exit before the block's barriers, and what a last "
             "block that is not full did not write is read, not used",
             beside="first_pass_iir_sos"),
]


def skipped(kernel: Kernel) -> frozenset[str]:
    """The checks that are off for a kernel: none for a program's own, whatever it is called."""
    return frozenset(check for allowed in KERNELS if re.fullmatch(allowed.name, kernel.name)
                     and allowed.beside in kernel.module.ptx for check in allowed.checks)
