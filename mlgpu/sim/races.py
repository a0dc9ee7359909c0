"""racecheck: the last accesses of every cell of memory, and whether the next one is ordered after.

Two accesses of a cell by different threads, one of them a write and not both strong (atomic,
volatile and the like), are a race unless the first happens before the second (`order.py`).  Per
cell the last write, the last strong write, and the last two reads (of different warps) are kept as
one number each, event and thread packed, so that a barrier clears nothing: it raises the event up
to which everything is ordered, and most accesses are settled by one maximum.

Shared memory has these shadows always (they also say what was ever written).  Global memory gets
them when a launch touches the same bytes twice in a way that could matter; until then the accesses
are only noted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlgpu.sim.conflict import Conflicts
from mlgpu.sim.flags import Publication, Word
from mlgpu.sim.global_races import GlobalRaces
from mlgpu.sim.order import Order
from mlgpu.sim.shared_races import SharedRaces

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch


class Races:
    """racecheck, and initcheck of shared memory, for a batch."""

    def __init__(self, x: Batch, published: dict[Word, Publication]) -> None:
        self.order = Order(x, published)
        conflicts = Conflicts(x, self.order)
        self.shared = SharedRaces(x, conflicts)
        self.globals = GlobalRaces(x, conflicts)
