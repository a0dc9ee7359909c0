"""What a launch found and counted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from mlgpu.errors import MissingExtraError
from mlgpu.sim import listing, ptxas
from mlgpu.sim.errors import CompileError, Finding
from mlgpu.sim.facts import facts
from mlgpu.sim.metric_names import METRICS, canonical
from mlgpu.sim.metrics import Metrics, shown
from mlgpu.sim.tally import tally

if TYPE_CHECKING:
    from mlgpu.sim.launch import Launch
    from mlgpu.sim.listing import Line
    from mlgpu.sim.machine import Module

# What a summary shows, the first ten that say something.
TELLING = """instructions threads_on_per_instruction global_load_efficiency global_store_efficiency
    unique_bytes_read unique_bytes_written dram_bytes bank_conflicts local_load_sectors
    divergent_branches tensor_instructions global_atomic_sectors global_reduction_sectors
    shared_wavefronts barriers global_load_sectors global_store_sectors fp32_instructions
    integer_instructions branches warps""".split()
SHOWN = 10
# What depends on ptxas, which takes a while where it has not seen the module before.
SLOW = frozenset({"launch__registers_per_thread", "mlgpu__stack_bytes",
                  "launch__barrier_count", "mlgpu__spill_store_bytes",
                  "mlgpu__spill_load_bytes",
                  *(name for name, metric in METRICS.items() if metric.group == "occupancy")})


def texts(module: Module) -> dict[str, str]:
    """The files of a module that are known, by the names that findings have for them."""
    known = {"<ptx>": module.ptx}
    if module.source is not None:
        known[module.filename] = module.source
    return known


class Report:
    """The result of a launch: `findings`, `output` of printf, `metrics`, and `source()`."""

    def __init__(self, launch: Launch, module: Module) -> None:
        self.kernel = launch.code.name
        self.grid, self.block = launch.grid, launch.block
        self.findings: list[Finding] = launch.findings
        self.output = "".join(launch.output)
        self._code, self._counters = launch.code, launch.counters
        self._dynamic_shared = launch.dynamic_shared
        self._module = module

    @cached_property
    def metrics(self) -> Metrics:
        """The counters, by Nsight Compute's names or by readable ones.

        Those of ptxas (registers, spills) and the occupancy that follows from them are worked out
        when they are asked for.
        """
        known = {name: value for name, value in self._facts(None).items() if name not in SLOW}
        return Metrics(known | tally(self._code, self._counters), SLOW, self._assembled)

    def _facts(self, resources: ptxas.Resources | None) -> dict[str, float]:
        x, y, z = self.grid
        a, b, c = self.block
        return facts(self._module.machine.arch, x * y * z, a * b * c, self._code.static_shared,
                     self._dynamic_shared, resources)

    def _assembled(self) -> tuple[Mapping[str, float], str]:
        """The facts that depend on ptxas, and what keeps it from telling them."""
        try:
            found = ptxas.resources(self._module.ptx, self._module.machine.target)
        except (MissingExtraError, CompileError) as error:
            return self._facts(None), str(error)
        return self._facts(found.get(self.kernel)), ""

    def source(self) -> str:
        """The kernel's source with counts beside its lines."""
        return listing.text(self._code, self._counters, texts(self._module), str(self))

    def hot(self, n: int = 5) -> list[Line]:
        """The lines whose instructions were executed most, with their counts."""
        lines = listing.lines(self._code, self._counters).values()
        return sorted(lines, key=lambda line: (-line.instructions, line.file, line.number))[:n]

    def __str__(self) -> str:
        grid, block = ("x".join(map(str, dims)) for dims in (self.grid, self.block))
        count = len(self.findings)
        found = f"{count or 'no'} finding{'' if count == 1 else 's'}"
        text = [f"{self.kernel}: grid {grid}, block {block}: {found}"]
        text += [f"  {f.tool}: {f.kind} at {f.file}:{f.line}" for f in self.findings]
        told = [alias for alias in TELLING if self.metrics.get(alias)][:SHOWN]
        for alias in told:
            metric = METRICS[canonical(alias) or ""]
            text.append(f"  {alias:28} {shown(self.metrics[alias]):>16} {metric.unit:12} "
                        f"{metric.description}")
        return "\n".join(text)

    def __repr__(self) -> str:
        return f"<report of {self.kernel}: {len(self.findings)} findings; print(report) shows more>"
