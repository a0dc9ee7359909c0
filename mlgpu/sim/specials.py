"""Special registers, made when read: (1, N) by thread, (B, 1) by block, (1, 1) else."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.group import WARP

if TYPE_CHECKING:
    from mlgpu.sim.launch import Launch

Array = np.ndarray[Any, Any]
WIDE = frozenset({"gridid", "current_graph_exec"})  # 64 bits


class Specials(dict[str, Array]):
    """The special registers of a batch, by name ("tid.x")."""

    def __init__(self, launch: Launch, first: int, count: int) -> None:
        super().__init__()
        self.launch, self.first, self.count = launch, first, count

    def __missing__(self, name: str) -> Array:
        value = self._by_thread(name)
        if value is None:
            value = self._by_block(name)
        if value is None:
            constant = self._constant(name)
            value = np.array([[constant]], bool if isinstance(constant, bool) else
                             np.uint64 if name in WIDE else np.uint32)
        self[name] = value
        return value

    def _by_thread(self, name: str) -> Array | None:
        return _threads(self.launch.block).get(name)

    def _by_block(self, name: str) -> Array | None:
        base, _, axis = name.partition(".")
        if name != "smid" and not (base in ("ctaid", "clusterid") and axis in ("x", "y", "z")):
            return None
        gx, gy, _ = self.launch.grid
        blocks = np.arange(self.first, self.first + self.count, dtype=np.int64)[:, None]
        value = {"x": lambda: blocks % gx, "y": lambda: blocks // gx % gy,
                 "z": lambda: blocks // (gx * gy),
                 "": lambda: blocks % self.launch.machine.arch.sms}[axis]()
        return value.astype(np.uint32)

    def _constant(self, name: str) -> int:
        launch = self.launch
        base, _, axis = name.partition(".")
        if axis:
            at = "xyzw".index(axis)
            if axis == "w":  # a fourth dimension, which is there for symmetry
                return 0
            return {"ntid": launch.block[at], "nctaid": launch.grid[at],
                    "nclusterid": launch.grid[at], "cluster_nctaid": 1}.get(base, 0)
        if base.startswith("envreg"):
            at = launch.workspace  # where cooperative groups keep what synchronises the grid
            return {"envreg1": at >> 32, "envreg2": at & 0xFFFFFFFF}.get(base, 0)
        return {"nwarpid": -(-launch.threads // WARP), "nsmid": launch.machine.arch.sms,
                "gridid": 1, "cluster_nctarank": 1, "is_explicit_cluster": False,
                "dynamic_smem_size": launch.dynamic_shared, "total_smem_size": launch.shared_size,
                "aggr_smem_size": launch.shared_size}.get(base, 0)


@functools.lru_cache(64)
def _threads(block: tuple[int, int, int]) -> dict[str, Array]:
    """The registers that depend on the thread alone."""
    bx, by, bz = block
    t = np.arange(bx * by * bz, dtype=np.uint32)[None]
    lane = t % np.uint32(WARP)
    bit = np.uint32(1) << lane
    return {"tid.x": t % np.uint32(bx), "tid.y": t // np.uint32(bx) % np.uint32(by),
            "tid.z": t // np.uint32(bx * by), "laneid": lane, "warpid": t // np.uint32(WARP),
            "lanemask_eq": bit, "lanemask_lt": bit - np.uint32(1),
            "lanemask_le": bit | (bit - np.uint32(1)), "lanemask_ge": ~(bit - np.uint32(1)),
            "lanemask_gt": ~(bit | (bit - np.uint32(1)))}
