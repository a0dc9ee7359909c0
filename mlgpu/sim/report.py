"""What a launch found and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlgpu.sim.errors import Finding

if TYPE_CHECKING:
    from mlgpu.sim.launch import Launch
    from mlgpu.sim.machine import Module


class Report:
    """The result of a launch."""

    def __init__(self, launch: Launch, module: Module) -> None:
        self.kernel = launch.code.name
        self.findings: list[Finding] = launch.findings
        self.output = "".join(launch.output)
        self._launch = launch
        self._module = module
