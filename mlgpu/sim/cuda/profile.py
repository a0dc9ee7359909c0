"""What each kernel of a program did, all its launches added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from mlgpu.errors import MissingExtraError
from mlgpu.sim import listing, ptxas
from mlgpu.sim.code import Code
from mlgpu.sim.counters import Counters
from mlgpu.sim.errors import CompileError, SimError
from mlgpu.sim.facts import facts
from mlgpu.sim.launch import Launch
from mlgpu.sim.machine import Module
from mlgpu.sim.metric_names import canonical
from mlgpu.sim.report import texts
from mlgpu.sim.sectors import SECTOR
from mlgpu.sim.tally import tally

SHOWN = 20  # kernels of the table; the JSON has all
OWN = "cupy_"  # begins the names of CuPy's own kernels, whose registers are nobody's to save


@dataclass
class Row:
    """One kernel.  None: it was not counted, or there was nothing to count."""

    kernel: str
    launches: int
    instructions: int  # each counted once a warp
    share: float  # of the program's instructions
    load_bytes: int | None  # of the sectors that loads touch
    load_efficiency: float | None  # sectors that would do if each warp's bytes lay side by side
    store_bytes: int | None
    store_efficiency: float | None
    bank_conflicts: int | None
    divergent_branches: int
    branches: int
    registers: int | None
    occupancy: float | None  # per cent, at most, of the launch with the largest grid


@dataclass
class _Kernel:
    """The launches of one kernel of one module."""

    code: Code
    module: Module
    counters: Counters
    launches: int = 0
    largest: tuple[int, int, int] = field(default=(0, 0, 0))  # blocks, threads, dynamic shared


class Profile:
    """The launches of a program.  `add` is a watcher of a System."""

    def __init__(self) -> None:
        self._kernels: dict[int, _Kernel] = {}

    def add(self, launch: Launch, module: Module) -> None:
        """One launch, when it is over."""
        found = self._kernels.get(id(launch.code))
        if found is None:
            machine = launch.machine
            total = Counters(launch.code, machine.arch.l2_bytes, machine.counters)
            found = self._kernels[id(launch.code)] = _Kernel(launch.code, module, total)
        found.launches += 1
        found.counters.add(launch.counters)
        found.largest = max(found.largest, (launch.blocks, launch.threads, launch.dynamic_shared))

    def rows(self) -> list[Row]:
        """The kernels, by their share of all instructions."""
        by_name: dict[str, list[_Kernel]] = {}
        for kernel in self._kernels.values():
            by_name.setdefault(kernel.code.name, []).append(kernel)
        rows = [_row(name, kernels) for name, kernels in by_name.items()]
        total = sum(row.instructions for row in rows)
        for row in rows:
            row.share = row.instructions / total if total else 0.0
        return sorted(rows, key=lambda row: (-row.instructions, row.kernel))

    def source(self, name: str) -> str:
        """A kernel's source with the counts of all its launches beside the lines.

        Where no kernel is called so, of those whose names, as of templates, contain it.
        """
        every = self._kernels.values()
        found = [kernel for kernel in every if kernel.code.name == name] or [
            kernel for kernel in every if name in kernel.code.name]
        if not found:
            raise SimError(f"source of {name!r}: launched were "
                           f"{', '.join(row.kernel for row in self.rows()) or 'no kernels'}")
        return "\n\n".join(listing.text(
            kernel.code, kernel.counters, texts(kernel.module),
            f"{kernel.code.name}: {kernel.launches:,} launch{'' if kernel.launches == 1 else 'es'}")
            for kernel in found)

    def as_dicts(self) -> list[dict[str, Any]]:
        """The same as plain values, for JSON."""
        return [asdict(row) for row in self.rows()]

    def table(self) -> str:
        """The same for people; "" where nothing was launched."""
        rows = self.rows()
        if not rows:
            return ""
        used = [(head, shown) for head, shown in _COLUMNS
                if any(shown(row) not in ("", "0") for row in rows)]
        cells = [[head for head, _ in used],
                 *([shown(row) for _, shown in used] for row in rows[:SHOWN])]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join([line[0].ljust(widths[0]), *(
            cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]).rstrip()
            for line in cells]
        if len(rows) > SHOWN:
            lines.append(f"and {len(rows) - SHOWN} more, with "
                         f"{sum(row.share for row in rows[SHOWN:]):.1%} of the instructions")
        return "\n".join(lines)


def _row(name: str, kernels: list[_Kernel]) -> Row:
    values: dict[str, float] = {}
    for kernel in kernels:
        for metric, value in tally(kernel.code, kernel.counters).items():
            values[metric] = values.get(metric, 0) + value  # ratios among them are not used

    def of(alias: str) -> float:
        return values[canonical(alias) or ""]

    def moved(operation: str) -> tuple[int | None, float | None]:
        """Bytes of the sectors touched, and how many of these would do."""
        if not counted:
            return None, None
        sectors = of(f"global_{operation}_sectors")
        ideal = of(f"global_{operation}_sectors_ideal")
        return int(SECTOR * sectors), ideal / sectors if sectors else None

    counted = all(kernel.counters.enabled for kernel in kernels)
    registers, occupancy = _resources(kernels[-1])
    return Row(name, sum(kernel.launches for kernel in kernels), int(of("instructions")), 0.0,
               *moved("load"), *moved("store"), int(of("bank_conflicts")) if counted else None,
               int(of("divergent_branches")), int(of("branches")), registers, occupancy)


def _resources(kernel: _Kernel) -> tuple[int | None, float | None]:
    """Registers of a thread, and the occupancy that they leave; None without ptxas."""
    if kernel.code.name.startswith(OWN):
        return None, None
    arch = kernel.module.machine.arch
    try:
        found = ptxas.resources(kernel.module.ptx, kernel.module.machine.target)[kernel.code.name]
    except (MissingExtraError, CompileError, KeyError):
        return None, None
    blocks, threads, dynamic = kernel.largest
    told = facts(arch, blocks, threads, kernel.code.static_shared, dynamic, found)
    return found.registers, told["sm__maximum_warps_per_active_cycle_pct"]


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.0f}%"


def _short(name: str) -> str:
    return name if len(name) <= 36 else name[:33] + "..."


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("kernel", lambda row: _short(row.kernel)),
    ("launches", lambda row: f"{row.launches:,}"),
    ("share", lambda row: f"{row.share:.1%}"),
    ("loads", lambda row: _bytes(row.load_bytes)),
    ("coalesced", lambda row: _percent(row.load_efficiency)),
    ("stores", lambda row: _bytes(row.store_bytes)),
    ("coalesced", lambda row: _percent(row.store_efficiency)),
    ("conflicts", lambda row: "" if row.bank_conflicts is None else f"{row.bank_conflicts:,}"),
    ("divergent", lambda row: _percent(row.divergent_branches / row.branches
                                       if row.branches else None)),
    ("registers", lambda row: "" if row.registers is None else str(row.registers)),
    ("occupancy", lambda row: "" if row.occupancy is None else f"{row.occupancy:.0f}%"),
)
