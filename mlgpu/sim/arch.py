"""What the GPUs of each compute capability have.

Sources: "Technical Specifications per Compute Capability" and "Feature Support" of NVIDIA's CUDA
C++ Programming Guide (limits, shared memory, registers), the tuning guides of Turing, Ampere, Ada,
Hopper and Blackwell (shared memory reserved per block), the occupancy calculator that the CUDA
toolkit documents (allocation units), and the data sheet of the card named in each row
(multiprocessors, L2 cache).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlgpu.sim.errors import SimError

KIB = 1024


@dataclass(frozen=True)
class Arch:
    """The limits of a compute capability, and of one typical card that has it."""

    capability: tuple[int, int]
    name: str
    warps_per_sm: int
    blocks_per_sm: int
    shared_per_sm: int  # bytes
    shared_optin: int  # bytes a block may have once its kernel has asked for more than usual
    shared_reserved: int  # bytes that the system takes of each block's
    shared_unit: int  # shared memory is given out in multiples of this many bytes
    barriers_per_sm: int  # 0: known not to limit how many blocks fit
    card: str  # the card that the numbers below are of
    sms: int
    l2_bytes: int
    # The same everywhere:
    warp_size: int = 32
    max_threads_per_block: int = 1024
    max_block: tuple[int, int, int] = (1024, 1024, 64)
    max_grid: tuple[int, int, int] = (2**31 - 1, 65535, 65535)
    registers_per_sm: int = 65536
    registers_per_block: int = 65536
    registers_per_thread: int = 255
    register_unit: int = 256  # registers are given to warps in multiples of this many
    schedulers: int = 4  # parts of a multiprocessor, each with its own warps and registers
    shared_per_block: int = 48 * KIB  # bytes a block may have without asking
    constant_bytes: int = 64 * KIB
    param_bytes: int = 32764  # a kernel's parameters, since CUDA 12.1
    local_per_thread: int = 512 * KIB
    banks: int = 32  # of shared memory, 4 bytes wide
    sector: int = 32  # bytes, what caches load
    line: int = 128  # bytes, what caches name

    @property
    def threads_per_sm(self) -> int:
        """How many threads a multiprocessor holds at once."""
        return self.warps_per_sm * self.warp_size


def _arch(major: int, minor: int, name: str, *, warps: int, blocks: int, shared_kib: int,
          reserved: int, unit: int, barriers: int, card: str, sms: int, l2_mib: int) -> Arch:
    return Arch((major, minor), name, warps_per_sm=warps, blocks_per_sm=blocks,
                shared_per_sm=shared_kib * KIB, shared_optin=shared_kib * KIB - reserved,
                shared_reserved=reserved, shared_unit=unit, barriers_per_sm=barriers, card=card,
                sms=sms, l2_bytes=l2_mib * KIB**2)


ARCHS = {arch.capability: arch for arch in (
    _arch(7, 5, "Turing", warps=32, blocks=16, shared_kib=64, reserved=0, unit=256, barriers=0,
          card="T4", sms=40, l2_mib=4),
    _arch(8, 0, "Ampere", warps=64, blocks=32, shared_kib=164, reserved=KIB, unit=128, barriers=0,
          card="A100", sms=108, l2_mib=40),
    _arch(8, 6, "Ampere", warps=48, blocks=16, shared_kib=100, reserved=KIB, unit=128, barriers=0,
          card="A10", sms=72, l2_mib=6),
    _arch(8, 9, "Ada Lovelace", warps=48, blocks=24, shared_kib=100, reserved=KIB, unit=128,
          barriers=0, card="L4", sms=58, l2_mib=48),
    _arch(9, 0, "Hopper", warps=64, blocks=32, shared_kib=228, reserved=KIB, unit=128, barriers=64,
          card="H100 SXM", sms=132, l2_mib=50),
    _arch(10, 0, "Blackwell", warps=64, blocks=32, shared_kib=228, reserved=KIB, unit=128,
          barriers=64, card="B200", sms=148, l2_mib=126),
    _arch(12, 0, "Blackwell", warps=48, blocks=24, shared_kib=100, reserved=KIB, unit=128,
          barriers=24, card="RTX 5090", sms=170, l2_mib=96),
)}


def parse(arch: str) -> tuple[int, int, str]:
    """ "sm_90a" or "compute_90a" as (9, 0, "a").  SimError where it is neither."""
    found = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)([af]?)", arch)
    if found is None:
        raise SimError(f"arch: {arch!r} is no target such as 'sm_90' or 'sm_90a'")
    return int(found.group(1)), int(found.group(2)), found.group(3)


def find(arch: str) -> Arch:
    """The description of a target ("sm_90a").  SimError where the table has none."""
    major, minor, _ = parse(arch)
    try:
        return ARCHS[major, minor]
    except KeyError:
        known = ", ".join(f"sm_{a}{b}" for a, b in ARCHS)
        raise SimError(f"arch: {arch} is not described; the simulated GPU knows {known}") from None


def compute(arch: str) -> str:
    """The target as NVRTC wants it for PTX: "compute_90a"."""
    major, minor, suffix = parse(arch)
    return f"compute_{major}{minor}{suffix}"
