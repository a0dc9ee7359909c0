"""The instructions of a kernel that access memory, as its accesses are known at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.sim.memory import INIT, POISON, READ, WRITTEN
from mlgpu.sim.ptx.syntax import Location

ATOMIC, STRONG_READ = 8, 16  # more marks: by atomics and other strong accesses of this launch
LAUNCH_MARKS = READ | WRITTEN | ATOMIC | STRONG_READ


@dataclass(eq=False)
class Site:
    """An instruction that accesses memory."""

    number: int
    text: str
    location: Location
    access: str  # "read", "write", "atomic"
    space: str  # "global", "shared", "local", "const", "" (generic)
    dtype: np.dtype[Any]  # of one element
    count: int = 1  # elements of a vector
    strong: bool = False  # volatile, relaxed, acquire, release or atomic
    acquire: bool = False
    release: bool = False
    scope: str = "gpu"
    again: bool = False  # more bytes of an access that is counted already

    def __post_init__(self) -> None:
        self.size = self.dtype.itemsize * self.count
        self.piece = min(self.size, 16)  # accessed in pieces of at most 16 bytes
        self.pieces = self.size // self.piece
        self.shift = self.piece.bit_length() - 1
        ones = int.from_bytes(b"\x01" * min(self.piece, 8), "little")
        self.init, self.read_mark = ones * INIT, ones * READ
        self.poison = ones * POISON
        self.ones = ones
