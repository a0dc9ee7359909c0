"""One launch of a kernel: its arguments and dimensions checked, its blocks run batch by batch."""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.batch import Batch, Stop
from mlgpu.sim.code import Code
from mlgpu.sim.counters import Counters
from mlgpu.sim.errors import Finding, LaunchError, SimError
from mlgpu.sim.flags import Publication, Word
from mlgpu.sim.group import WARP
from mlgpu.sim.host import several
from mlgpu.sim.memory import Region
from mlgpu.sim.races import Races
from mlgpu.sim.site import LAUNCH_MARKS

if TYPE_CHECKING:
    from mlgpu.sim.machine import Machine

Array = np.ndarray[Any, Any]
Dim = int | Sequence[int]
# Threads that run at once: arrays of this many elements fit the caches, and Python's share of the
# time is small.
BATCH_THREADS = 32768
BATCH_BYTES = 1 << 28  # about what a batch may take, where smaller batches can help it
PARAMETERS = "the kernel's parameters"  # names their region; no variable is called so
# Among what a launch skips: it may copy what was never written, and the copy counts as that, too.
CARRY = "carry"
OUTPUT = 1 << 20  # characters that a launch prints at most, as on a GPU


class Launch:
    """The state that all batches of a launch share."""

    def __init__(self, machine: Machine, code: Code, grid: Dim, block: Dim, params: bytes,
                 shared_mem: int, cooperative: bool,
                 skip: frozenset[str] = frozenset()) -> None:
        self.machine = machine
        self.checks = machine.checks - skip
        self.carries = CARRY in skip
        self.code = code
        self.grid = _dim(code.name, "grid", grid, machine.arch.max_grid)
        self.block = _dim(code.name, "block", block, machine.arch.max_block)
        self.threads = self.block[0] * self.block[1] * self.block[2]
        self.blocks = self.grid[0] * self.grid[1] * self.grid[2]
        self.params = params
        self.cooperative = cooperative
        self.dynamic_shared = _whole(shared_mem, f"{code.name}: shared_mem={shared_mem!r}; "
                                                 "a whole number of bytes is needed")
        self._check_limits()
        static_end = code.dynamic_at if shared_mem else max(
            (start + size for start, size, _ in code.shared_at), default=0)
        self.shared_size = static_end + shared_mem
        self.shared_gaps = [g for g in code.shared_gaps if g[0] < self.shared_size]
        self.counters = Counters(code, machine.arch.l2_bytes, machine.counters)
        self.findings: list[Finding] = []
        self.output: list[str] = []
        self.printed = 0  # characters
        self.touched: list[Region] = []
        self.watch: Callable[[Region], None] | None = None  # sees them while they have marks
        self.clock = 0
        self.workspace = machine.grid_workspace() if cooperative else 0
        self.events: list[Any] = [None]  # the site of each event; 0 is before all
        self.published: dict[Word, Publication] = {}
        self.notes: dict[int, list[Any]] = {}  # accesses of regions that are not suspect (races.py)
        self.noted = 0
        self._param_region: Region | None = None
        self._seen: set[tuple[str, str, str, int]] = set()

    def _check_limits(self) -> None:
        name, arch = self.code.name, self.machine.arch
        if self.threads > arch.max_threads_per_block:
            raise LaunchError(f"{name}: a block of {self.block} has {self.threads} threads; at "
                              f"most {arch.max_threads_per_block} fit")
        if self.dynamic_shared < 0:
            raise LaunchError(f"{name}: shared_mem={self.dynamic_shared} is negative")
        total = self.code.dynamic_after + self.dynamic_shared if self.dynamic_shared \
            else self.code.static_shared
        self.shared_bytes = total
        if total > arch.shared_optin:
            raise LaunchError(f"{name}: {total:,} bytes of shared memory for a block "
                              f"({self.code.static_shared:,} static, {self.dynamic_shared:,} "
                              f"dynamic); {arch.name} has at most {arch.shared_optin:,}")
        if self.code.static_shared > arch.shared_per_block:
            raise LaunchError(f"{name}: {self.code.static_shared:,} bytes of static shared memory; "
                              f"at most {arch.shared_per_block:,}: use dynamic shared memory")
        if self.code.local_size > arch.local_per_thread:
            raise LaunchError(f"{name}: {self.code.local_size:,} bytes of local memory for a "
                              f"thread; at most {arch.local_per_thread:,}")
        if math.prod(self.code.directives.get("reqnctapercluster", (1,))) > 1:
            raise LaunchError(f"{name}: compiled for clusters of blocks (__cluster_dims__), which "
                              "are not simulated")
        if self.cooperative and self.blocks > self._resident():
            raise LaunchError(f"{name}: a cooperative grid of {self.blocks:,} blocks; at most "
                              f"{self._resident():,} such blocks run on the {arch.card} at once")
        for directive, test in (("reqntid", operator.eq), ("maxntid", operator.le)):
            want = self.code.directives.get(directive)
            if want is not None:
                product = math.prod(want)
                if not test(self.threads, product):
                    raise LaunchError(f"{name}: a block of {self.threads} threads; the kernel was "
                                      f"compiled for {'' if directive == 'reqntid' else 'at most '}"
                                      f"{product} (__launch_bounds__ or .{directive})")

    # -- running ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Run all blocks; findings are raised, or collected as the machine has it."""
        machine = self.machine
        if machine.unsettled:
            _recover(machine)
        machine.unsettled = True  # until nothing of this launch is left in memory
        per_batch = self.blocks if self.cooperative else self._blocks_at_once()
        try:
            with np.errstate(all="ignore"):
                self._run(per_batch)
        except Stop:
            pass
        except Finding:
            self._settle()
            raise
        except MemoryError as error:
            raise SimError(f"{self.code.name}: this computer has not enough memory for "
                           f"{min(per_batch, self.blocks)} blocks of {self.threads} threads at "
                           "once") from error
        self._settle()

    def _run(self, per_batch: int) -> None:
        batches = self._batches(per_batch)
        waiting: deque[Batch] = deque()
        while True:
            start = next(batches, None)
            if start is not None:
                batch = Batch(self, *start)
                if batch.run():
                    for b in waiting:
                        b.revive()
                else:
                    waiting.append(batch)
                    if len(waiting) * per_batch >= self._resident():
                        self._help(waiting)
            elif waiting:
                self._help(waiting)
            else:
                return

    def _settle(self) -> None:
        """Leave nothing of the launch in memory but what it computed."""
        for region in self.touched:
            self.counters.finish(region)
            if self.watch is not None:
                self.watch(region)
            _unmark(region)
        if self._param_region is not None:
            self.machine.space.drop(self._param_region)
        self.machine.unsettled = False

    def _batches(self, per_batch: int) -> Iterator[tuple[int, int]]:
        """The first block and the number of blocks of each batch."""
        for first in range(0, self.blocks, per_batch):
            yield first, min(per_batch, self.blocks - first)

    def _blocks_at_once(self) -> int:
        """How many blocks make a batch: fewer where each takes much memory."""
        longest = max(len(part.instructions) for part in self.code.parts)
        # shared memory with racecheck's notes of each cell; local memory; a segment's values
        block = (self.shared_size * (1 + 32 // self.code.cell)
                 + self.threads * (self.code.local_size + 8 * longest))
        return max(min(BATCH_THREADS // self.threads, BATCH_BYTES // max(block, 1)), 1)

    def _resident(self) -> int:
        """How many blocks are on the GPU at once at most: later ones cannot help a spinning one."""
        arch = self.machine.arch
        per_sm = min(arch.blocks_per_sm, arch.threads_per_sm // max(self.threads, WARP))
        if self.shared_bytes:
            per_sm = min(per_sm, max(arch.shared_per_sm // self.shared_bytes, 1))
        return max(per_sm, 1) * arch.sms

    def _help(self, waiting: deque[Batch]) -> None:
        """Run the batches that poll in turn, until all are done or none can help another."""
        idle = 0
        while waiting:
            batch = waiting.popleft()
            batch.revive()
            done = batch.run()
            if done:
                idle = 0
            else:
                waiting.append(batch)
                idle = 0 if batch.progressed else idle + 1
                if idle > len(waiting):
                    batch.stuck()

    def report(self, finding: Finding) -> None:
        """Raise a finding, or keep the first of its kind at its line."""
        if self.machine.findings == "raise":
            raise finding
        key = finding.tool, finding.kind, finding.file, finding.line
        if key not in self._seen:
            self._seen.add(key)
            self.findings.append(finding)

    def show(self, text: str) -> None:
        """Text that the kernel prints."""
        if self.printed <= OUTPUT:
            self.printed += len(text)
            self.output.append(text if self.printed <= OUTPUT else
                               f"[beyond {OUTPUT:,} characters, what is printed is left out]\n")

    # -- indices and special registers ------------------------------------------------------------

    def block_index(self, linear: int) -> tuple[int, int, int]:
        """blockIdx of a block number."""
        x, y, _ = self.grid
        return linear % x, linear // x % y, linear // (x * y)

    def thread_index(self, linear: int) -> tuple[int, int, int]:
        """threadIdx of a thread number."""
        x, y, _ = self.block
        return linear % x, linear // x % y, linear // (x * y)

    def param(self, offset: int, dtype: np.dtype[Any]) -> Array:
        """A parameter of the kernel."""
        return np.frombuffer(self.params, dtype, 1, offset).reshape(1, 1)

    def param_address(self, offset: int) -> Array:
        """The address of a parameter, for kernels that index them."""
        if self._param_region is None:
            region = self.machine.space.allocate(max(len(self.params), 1), PARAMETERS,
                                                 f"the launch of {self.code.name}", read_only=True)
            region.data[:len(self.params)] = np.frombuffer(self.params, np.uint8)
            region.marks[:] = 1
            self._param_region = region
        return np.array([[self._param_region.start + offset]], np.uint64)

    def text(self, address: int) -> str:
        """A C string in device memory."""
        region = self.machine.space.find(address, address + 1)
        if region is None:
            return f"<{address:#x}>"
        at = address - region.start
        raw = region.data[at:min(region.size, at + OUTPUT)].tobytes()
        return raw.split(b"\0", 1)[0].decode(errors="replace")

    def describe_shared(self, offset: int) -> str:
        """Where an offset outside the block's shared arrays lies."""
        arrays = [*self.code.shared_at]
        if self.dynamic_shared:
            arrays.append((self.code.dynamic_at, self.dynamic_shared, "dynamic shared memory"))
        before = max((a for a in arrays if a[0] <= offset), default=None)
        if before is None:
            return "the block has none" if not arrays else "outside"
        start, size, name = before
        return f"{offset - start - size} bytes after the end of '{name}' ({size:,} bytes)"

    def make_races(self, batch: Batch) -> Any:
        """What racecheck keeps for a batch (None: it is off)."""
        if "racecheck" in self.checks or "initcheck" in self.checks:
            return Races(batch, self.published)
        return None


def _unmark(region: Region) -> None:
    """Forget what the launch did to a region."""
    region.touched = False
    region.stamps = region.race = None
    region.marks[region.reached()] &= np.uint8(~LAUNCH_MARKS & 0xFF)
    region.low, region.high = len(region.marks), 0


def _recover(machine: Machine) -> None:
    """Forget all of a launch that was interrupted, at whatever step."""
    for region in machine.space.reachable()[0]:
        region.low, region.high = 0, len(region.marks)  # an access may not have told yet
        _unmark(region)
        if region.name == PARAMETERS:
            machine.space.drop(region)
    machine.unsettled = False


def _dim(kernel: str, what: str, value: Dim, limits: tuple[int, int, int]) -> tuple[int, int, int]:
    """Three dimensions from one to three numbers."""
    wrong = f"{kernel}: {what}={value!r}; one to three whole numbers are needed"
    given = several(value)
    if not 1 <= len(given) <= 3:
        raise LaunchError(wrong)
    x, y, z = [_whole(v, wrong) for v in given] + [1] * (3 - len(given))
    for size, limit, axis in zip((x, y, z), limits, "xyz", strict=True):
        if not 1 <= size <= limit:
            raise LaunchError(f"{kernel}: {what}={value!r}; {axis} must be 1 to {limit:,}")
    return x, y, z


def _whole(value: object, wrong: str) -> int:
    """A number of Python or NumPy that is whole, and no bool."""
    if isinstance(value, (bool, np.bool_)):
        raise LaunchError(wrong)
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise LaunchError(wrong) from None
