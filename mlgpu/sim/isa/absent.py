"""Instructions of PTX that the simulated GPU does not have, and what to use instead."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.ptx.syntax import Instruction

_CLUSTERS = ("clusters of blocks are not simulated: every block is a cluster of its own; share "
             "through global memory")
_TEXTURES = "textures and surfaces are not simulated; use global memory"
_HEAP = "allocation in a kernel is not simulated; pass a buffer"
_STACK = "stack memory of a size known only at run time is not simulated; use an array"
_WHY = {
    "wgmma": "products of a warpgroup are not simulated yet; use mma.sync or wmma",
    "tcgen05": "the fifth generation of tensor cores is not simulated yet; use mma.sync",
    "tensormap": "tensor maps are not simulated yet; use cp.async.bulk of rows",
    "mapa": _CLUSTERS, "getctarank": _CLUSTERS, "clusterlaunchcontrol": _CLUSTERS,
    "multimem": "memory of several GPUs is not simulated",
    "tex": _TEXTURES, "tld4": _TEXTURES, "txq": _TEXTURES, "istypep": _TEXTURES,
    "suld": _TEXTURES, "sust": _TEXTURES, "sured": _TEXTURES, "suq": _TEXTURES,
    "malloc": _HEAP, "free": _HEAP, "alloca": _STACK, "stacksave": _STACK, "stackrestore": _STACK,
    "brkpt": "breakpoints are not simulated; use trap or printf",
}


@instruction(*_WHY)
def absent(e: Emitter, ins: Instruction) -> None:
    """Refuse, and say what to do."""
    e.fail(_WHY[ins.opcode])
