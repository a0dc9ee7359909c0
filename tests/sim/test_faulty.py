"""Every bug of the faulty corpus is found by its tool at its line; its repaired twin is clean."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sim.faulty.fault import FOLDER, Fault, Marker, WrongResult, faults, markers

from mlgpu import sim
from mlgpu.sim.errors import Finding

FAULTS = faults()
SOURCES = sorted(FOLDER.glob("*.cu"))
# Two generations of the compiler: for targets from sm_100 on, its code differs.
CASES = [pytest.param(fault, target, id=f"{fault.source.stem}.{name}-{target}")
         for name, fault in FAULTS.items()
         for target in (max("sm_80", fault.since), "sm_120")]


class Recording:
    """A module whose launches leave their findings here."""

    def __init__(self, mod: Any) -> None:
        self.mod = mod
        self.findings: list[Finding] = []

    def kernel(self, name: str) -> Any:
        """The kernel, of which `launch` is all that is used."""
        return RecordedKernel(self.mod.kernel(name), self.findings)

    def symbol(self, name: str, dtype: Any = None) -> Any:
        """A variable of the module."""
        return self.mod.symbol(name, dtype)


class RecordedKernel:
    """A kernel whose launches leave their findings in a list."""

    def __init__(self, kernel: Any, findings: list[Finding]) -> None:
        self.kernel, self.findings = kernel, findings

    def launch(self, *args: Any, **options: Any) -> None:
        """Launch, and keep what was found."""
        self.findings += self.kernel.launch(*args, **options).findings


def load(m: sim.Machine, fault: Fault, options: tuple[str, ...]) -> Any:
    try:
        return m.module(fault.source.read_text(), (*options, f"-I{FOLDER}"),
                        filename=fault.source.name)
    except sim.CompileError as error:
        missing = [h for h in fault.headers if f'cannot open source file "{h}"' in str(error)]
        if not missing:
            raise
        pytest.skip(f"the header {missing[0]} is not installed")


def lines(finding: Finding, source: Path) -> list[int]:
    """The lines of the source that a finding names: its own, and those it was inlined into."""
    places = [f"{finding.file}:{finding.line}", *finding.calls]
    split = [place.rpartition(":") for place in places]
    return [int(line) for file, _, line in split if Path(file).name == source.name]


def allows(marker: Marker, finding: Finding, source: Path) -> bool:
    return (marker.tool == finding.tool and marker.kind == finding.kind
            and marker.kernel == finding.kernel and marker.line in lines(finding, source))


@pytest.mark.parametrize(("fault", "target"), CASES)
def test_found(fault: Fault, target: str) -> None:
    m = sim.Machine(arch=target, findings="collect", watchdog=5_000)
    recording = Recording(load(m, fault, ()))
    with suppress(WrongResult):  # it is a bug
        fault.run(m, recording)
    right, stray = [], []
    for finding in recording.findings:
        found = any(allows(marker, finding, fault.source) for marker in fault.markers)
        (right if found else stray).append(finding)
    assert not stray, "\n".join(map(str, stray))
    mine = [finding for finding in right if finding.tool in fault.tools]
    assert mine, "not found; others: " + "\n".join(map(str, right))
    assert all(finding.thread is not None and finding.block is not None for finding in mine)


@pytest.mark.parametrize(("fault", "target"), CASES)
def test_repaired_is_clean(fault: Fault, target: str) -> None:
    m = sim.Machine(arch=target, findings="raise")
    fault.run(m, load(m, fault, ("-DFIXED",)))


def test_every_kernel_at_fault_is_launched() -> None:
    marked = {(source, marker.kernel) for source in SOURCES for marker in markers(source)}
    assert marked == {(fault.source, name) for name, fault in FAULTS.items()}


def test_every_fault_is_marked_for_its_tools() -> None:
    for name, fault in FAULTS.items():
        assert set(fault.tools) <= {marker.tool for marker in fault.markers}, name


# Mistakes of the host, which no kernel shows.

def test_buffer_freed_twice() -> None:
    m = sim.Machine()
    buffer = m.zeros(4, "f4")
    buffer.free()
    with pytest.raises(sim.Finding, match=r"freed before, at .*test_faulty\.py:\d+") as caught:
        buffer.free()
    assert (caught.value.tool, caught.value.kind) == ("memcheck", "invalid free")


def test_freed_buffer_is_read_by_the_host() -> None:
    m = sim.Machine()
    buffer = m.zeros(4, "f4")
    buffer.free()
    with pytest.raises(sim.Finding, match="freed at") as caught:
        buffer.numpy()
    assert (caught.value.tool, caught.value.kind) == ("memcheck", "use after free")


def test_buffers_never_freed() -> None:
    m = sim.Machine()
    kept, freed = m.zeros(100, "f4"), m.zeros(50, "f4")
    freed.free()
    leaks = m.leaks()
    assert [(f.tool, f.kind, f.allocation.address, f.allocation.size) for f in leaks] == [
        ("memcheck", "leak", kept.ptr, 400)]
