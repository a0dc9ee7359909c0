"""`mlgpu sim check program.py`: any program that uses CuPy, its findings and its counters."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim import SimError, cli
from mlgpu.sim.counters import Counters
from mlgpu.sim.cuda.findings import Findings
from mlgpu.sim.cuda.install import installed, real_devices
from mlgpu.sim.cuda.profile import Profile
from mlgpu.sim.errors import Finding
from mlgpu.sim.launch import Launch
from mlgpu.sim.machine import Module
from mlgpu.sim.report import Report

pytestmark = pytest.mark.skipif(bool(real_devices()), reason="there is a real GPU")

SHIFT = """\
import sys
import cupy as cp
kernel = cp.RawKernel(r'''
extern "C" __global__ void shift(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = x[i + 1];
}''', "shift")
x = cp.arange(1000, dtype=cp.float32)
y = cp.zeros_like(x)
for _ in range(3):
    kernel((4,), (256,), (x, y, cp.int32(1000 - CORRECT)))
"""


def check(folder: Path, program: str, *options: str, arguments: tuple[str, ...] = (),
          variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program under the command."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, "-m", "mlgpu", "sim", "check", *options, str(path), *arguments],
        capture_output=True, text=True, timeout=120, env=os.environ | (variables or {}))


def test_findings_are_printed_once_and_the_program_goes_on(tmp_path: Path) -> None:
    program = SHIFT.replace("- CORRECT", "") + "print(sys.argv[1:], float(y[:999].sum()))\n"
    done = check(tmp_path, program, "--json", str(tmp_path / "out.json"),
                 arguments=("-v", "--raise", "x"))
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "['-v', '--raise', 'x'] 499500.0"
    assert lines[1].startswith("memcheck: out of bounds: read of 4 bytes")
    assert lines[2:4] == ["    at shift (shift.cu:5)",
                          "    by thread (231, 0, 0) of block (3, 0, 0)"]
    assert lines[5:7] == [f"    launched at {tmp_path / 'program.py'}:12", "    in 3 launches"]
    assert lines[7].split() == ["kernel", "launches", "share", "loads", "coalesced", "stores",
                                "coalesced", "divergent", *lines[7].split()[8:]]
    row = next(line for line in lines if line.startswith("shift "))
    assert row.split()[1] == "3"
    assert lines[-1] == "program.py: sm_90: 1 finding"

    told = json.loads((tmp_path / "out.json").read_text())
    [finding] = told["findings"]
    assert (finding["kernel"], finding["line"], finding["launches"]) == ("shift", 5, 3)
    assert finding["text"] == "\n".join(lines[1:6])
    assert told["arguments"] == ["-v", "--raise", "x"]
    kernel = next(k for k in told["kernels"] if k["kernel"] == "shift")
    assert kernel["store_bytes"] == 3 * 1000 * 4
    assert kernel["store_efficiency"] == 1
    assert sum(k["share"] for k in told["kernels"]) == pytest.approx(1)


def test_a_clean_program(tmp_path: Path) -> None:
    """Its options reach the devices; nothing is counted where that was not wanted."""
    done = check(tmp_path, SHIFT.replace("CORRECT", "1") + textwrap.dedent("""
        count = cp.cuda.runtime.getDeviceCount()
        print(count, cp.cuda.Device().compute_capability, cp.cuda.runtime.memGetInfo()[1])
        """), "--devices", "3", "--arch", "sm_80", "--memory", "1 MiB", "--no-counters",
        "--allocations", "separate", "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"3 80 {1 << 20}\nprogram.py: sm_80: no findings\n"


def test_stopping_at_the_first_finding(tmp_path: Path) -> None:
    program = SHIFT.replace("- CORRECT", "") + textwrap.dedent("""
        try:
            y.get()
        except cp.cuda.runtime.CUDARuntimeError as error:
            print(error.status)
            raise
        print("never")
        """)
    done = check(tmp_path, program, "--raise", "--check", "memcheck")
    assert done.returncode == 1
    assert done.stdout.startswith("700\nmemcheck: out of bounds")
    assert "in 3 launches" not in done.stdout  # nothing runs after the error
    assert done.stderr.count("memcheck: out of bounds") == 2  # the finding, then CuPy's error
    frames = re.findall(r'File "([^"]+)"', done.stderr)
    assert frames[0] == str(tmp_path / "program.py")
    assert not [f for f in frames if f.endswith(("runpy.py", "cli.py", "batch.py"))]


def test_checks_can_be_left_out(tmp_path: Path) -> None:
    done = check(tmp_path, SHIFT.replace("- CORRECT", ""), "--no-check", "--no-counters")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "program.py: sm_90: no findings (checks are off)\n"


@pytest.mark.parametrize(("ending", "status"), [
    ("sys.exit(7)", 7), ("sys.exit('no')", 1), ("1 / 0", 1)])
def test_the_status_is_the_programs(ending: str, status: int, tmp_path: Path) -> None:
    done = check(tmp_path, f"import sys\n{ending}\n")
    assert done.returncode == status
    assert ("ZeroDivisionError" in done.stderr) == ("/" in ending)
    assert done.stdout == "program.py: sm_90: no findings\n"


def test_memory_that_is_left(tmp_path: Path) -> None:
    """Arrays of the program go with it; what was taken by hand stays."""
    done = check(tmp_path, """\
        import cupy as cp
        import mlgpu
        assert mlgpu.ones(3).sum().item() == 3
        array = cp.zeros(1000)
        for _ in range(2):
            cp.cuda.runtime.malloc(1234)
        """, "--no-counters")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "note: 2,468 bytes of device memory are in use at the end:",
        f"    2 times 1,234 bytes, made at {tmp_path / 'program.py'}:6"]


@pytest.mark.parametrize("ending", ["", "sys.exit(0)"])
def test_the_last_work_has_its_arrays(ending: str, tmp_path: Path) -> None:
    """What the program did not wait for is done before its arrays go, and without an order."""
    done = check(tmp_path, f"""\
        import sys
        import cupy as cp
        one, two = (cp.cuda.Stream(non_blocking=True) for _ in range(2))
        x = cp.ones(1000, cp.float32)
        cp.cuda.Device().synchronize()
        with one:
            x *= 2
        with two:
            y = x + 1
        {ending}
        """, "--no-counters")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("racecheck: read after write: ")
    assert done.stdout.endswith("program.py: sm_90: 1 finding\n")


def test_processes_that_the_program_starts_follow(tmp_path: Path) -> None:
    done = check(tmp_path, """\
        import subprocess, sys
        print(subprocess.run([sys.executable, "-c",
            "from mlgpu.cuda.loading import load; "
            "print(load().cuda.runtime.getDeviceCount())"], capture_output=True, text=True).stdout)
        """, "--devices", "5")
    assert done.stdout.startswith("5\n"), done.stderr


def test_sources_are_shown(tmp_path: Path) -> None:
    done = check(tmp_path, SHIFT.replace("CORRECT", "1"), "--source", "shift", "--source", "none")
    assert done.returncode == 2
    assert "shift: 3 launches\n\nshift.cu:\n" in done.stdout
    assert done.stdout.endswith("program.py: sm_90: no findings\n")
    assert done.stderr == ("mlgpu sim check: source of 'none': launched were "
                           "shift, cupy_arange__float_float_float32\n")


def test_what_cannot_be_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["check", str(tmp_path / "absent.py")]) == 2
    assert capsys.readouterr().err == (f"mlgpu sim check: there is no file "
                                       f"{tmp_path / 'absent.py'}\n")
    path = tmp_path / "program.py"
    path.write_text("")
    assert cli.main(["check", str(path)]) == 2  # CuPy is imported in this process
    assert "mlgpu sim check: install: " in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        cli.main(["check", "--devices", "0", str(path)])
    assert end.value.code == 2


# -- in this process -------------------------------------------------------------------------------

def test_a_profile_adds_launches_up() -> None:
    """As the reports of the launches say, one by one."""
    system = installed()
    assert system is not None
    profile, reports = Profile(), []

    def watch(launch: Launch, module: Module) -> None:
        reports.append(Report(launch, module))

    kernel = cp.RawKernel("""
        extern "C" __global__ void stride(const float* x, float* y, int step) {
            __shared__ float copy[32 * 32];
            copy[threadIdx.x * 32] = x[threadIdx.x * step];
            __syncthreads();
            if (threadIdx.x < 20) y[threadIdx.x] = copy[threadIdx.x * 32];
        }""", "stride")
    x, y = cp.ones(32 * 8, cp.float32), cp.empty(32, cp.float32)
    cp.cuda.runtime.deviceSynchronize()
    system.watchers += [watch, profile.add]
    try:
        for step in (1, 8, 8):
            kernel((1,), (32,), (x, y, np.int32(step)))
        (x + 1).sum()
        system.drain()
    finally:
        system.watchers.clear()
    row = next(row for row in profile.rows() if row.kernel == "stride")
    own = [r.metrics for r in reports if r.kernel == "stride"]
    assert (row.launches, len(profile.rows())) == (3, 3)
    assert row.instructions == sum(m["instructions"] for m in own)
    assert row.load_bytes == 32 * (4 + 32 + 32)
    assert row.load_efficiency == pytest.approx(12 / 68)
    assert row.bank_conflicts == sum(m["bank_conflicts"] for m in own) == 3 * (31 + 19)
    assert (row.divergent_branches, row.branches) == (3, 3)
    assert "stride" in profile.table()
    text = profile.source("stride").splitlines()
    assert text[0] == "stride: 3 launches"
    line = next(row for row in text if "copy[threadIdx.x * 32] = x[threadIdx.x * step];" in row)
    assert "| 22.7 (4.0) |" in line  # (4 + 32 + 32) / 3 sectors
    assert profile.source("trid") == profile.source("stride")
    with pytest.raises(SimError, match="source of 'other': launched were cupy_sum, cupy_add"):
        profile.source("other")
    total = Counters(reports[0]._code, 1 << 20)
    total.add(reports[0]._counters)
    assert total.l2.read_from_dram == reports[0]._counters.l2.read_from_dram == 4


def test_findings_are_kept_by_place() -> None:
    found = Findings()
    first = Finding("memcheck", "out of bounds", "a", "k", "k.cu", 3)
    for finding in (first, Finding("memcheck", "out of bounds", "b", "k", "k.cu", 3),
                    Finding("memcheck", "out of bounds", "c", "k", "k.cu", 4)):
        found.add(finding)
    assert [(str(f.message), found.count(f)) for f in found] == [("a", 2), ("c", 1)]
    found.clear()
    assert len(found) == 0


def test_an_empty_profile_has_no_table() -> None:
    assert Profile().table() == ""
    assert Profile().as_dicts() == []
