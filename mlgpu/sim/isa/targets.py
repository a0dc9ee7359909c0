"""Which targets have an instruction: for others ptxas refuses it, and so does the simulated GPU.

What NVRTC writes fits its target; what stands in `asm` may not, and then compiles nowhere else.
"""

from __future__ import annotations

from functools import lru_cache

from mlgpu.sim.emit import Emitter
from mlgpu.sim.ptx.syntax import Instruction

_BRAIN = "bf16 bf16x2"
# Opcodes (none: all), modifiers of which the instruction has one (none: any form), the least target
_RULES = [(frozenset(opcodes.split()), frozenset(mods.split()), least) for opcodes, mods, least in (
    ("cp mbarrier redux createpolicy discard applypriority", "", 80),
    ("elect stmatrix griddepcontrol setmaxnreg", "", 90),
    ("", "L2::cache_hint L2::256B L2::evict_first L2::evict_last L2::evict_normal", 80),
    ("", "cluster shared::cluster", 90),
    ("cp", "bulk", 90), ("cp", "cp_mask", 100), ("mbarrier", "expect_tx complete_tx try_wait", 90),
    ("fence", "async mbarrier_init", 90),
    ("atom red", f"{_BRAIN} v2 v4 v8", 90), ("ld st", "v8", 100),
    ("cvt", f"{_BRAIN} tf32 f16x2", 80), ("cvt", "e4m3x2 e5m2x2", 89),
    ("cvt", "e2m1x2 e2m3x2 e3m2x2 ue8m0x2 e4m3x4 e5m2x4 e2m1x4 e2m3x4 e3m2x4 rs", 100),
    ("wmma", "bf16 tf32 f64 m16n16k8", 80), ("mma", "tf32 f64", 80), ("mma", "bf16", 80),
    ("mma", "e4m3 e5m2", 89), ("mma", "m16n8k4 m16n8k16 m16n8k32 m16n8k64 m16n8k128 m16n8k256", 80),
    ("fma", f"{_BRAIN} relu", 80), ("neg abs", _BRAIN, 80),
    ("min max", f"{_BRAIN} f16 f16x2 NaN", 80), ("min max", "xorsign", 86),
    ("min max", "relu u16x2 s16x2", 90), ("add sub", f"u16x2 s16x2 {_BRAIN}", 90),
    ("mul setp set tanh ex2", _BRAIN, 90), ("add sub mul fma", "f32x2", 100))]

_WIDE = ("b64", "u64", "s64", "f64")


def check(e: Emitter, ins: Instruction, target: int) -> None:
    """PtxError where a target such as 90 does not have the instruction."""
    least = needs(ins.opcode, ins.mods, len(ins.operands))
    if target < least:
        e.malformed(f"this needs a target of sm_{least} or newer; the PTX is for sm_{target}")


@lru_cache(4096)
def needs(opcode: str, mods: tuple[str, ...], operands: int) -> int:
    """The least target that has an instruction."""
    given = frozenset(mods)
    least = max((t for opcodes, some, t in _RULES if (not opcodes or opcode in opcodes)
                 and (not some or some & given)), default=0)
    special = {  # what no single modifier tells
        90: (opcode == "cvt" and "bf16" in given and "f32" not in given)
            or (opcode == "mma" and "f64" in given and "m8n8k4" not in given),
        100: (opcode in ("ld", "st") and "v4" in given and not given.isdisjoint(_WIDE))
             or (opcode in ("min", "max") and operands > 3)
             or (opcode in ("add", "sub", "fma") and "f32" in given
                 and not given.isdisjoint(("f16", "bf16")))}
    return max(least, *(t for t, holds in special.items() if holds), 0)
