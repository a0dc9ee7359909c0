"""What a launch's report tells: counters by name, the source with counts, a summary."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from sim.measure import ptx

from mlgpu import sim
from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim import listing, ptxas
from mlgpu.sim.metric_names import METRICS
from mlgpu.sim.metrics import MetricError, Metrics

SOURCE = r"""#include <cuda_fp16.h>

__device__ float square(float x) {
    return x * x;
}

__device__ __noinline__ float apart(float x) {

    return square(x) + 1.f;
}

__device__ float unused(float x) { return x; }

extern "C" __global__ void k(const float* a, float* b, const __half2* h, int n) {
    __shared__ float tile[32][32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __half2 twice = __hadd2(h[i], h[i]);
    tile[threadIdx.x][0] = square(a[i]);
    __syncwarp();

    // nothing is compiled here

    float2 f = __half22float2(twice);
    b[2 * i] = apart(tile[threadIdx.x][0]) + f.x + f.y;
}
"""
N, BLOCKS = 96, 4


@pytest.fixture(scope="module")
def report():
    """3 full warps, and a fourth that leaves."""
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    m = sim.Machine(arch="sm_80")
    mod = m.module(SOURCE, filename="squares.cu")
    a, h = np.ones(N, np.float32), np.ones(2 * N, np.float16)
    return mod.kernel("k").launch(BLOCKS, 32, [m.array(a), m.empty(2 * N), m.array(h), np.int32(N)])


def rows(text: str) -> dict[int, list[str]]:
    """The cells of each line of a listing."""
    found = {}
    columns = text.splitlines()[head(text)].count("|")
    for row in text.splitlines():
        cells = [cell.strip() for cell in row.split("|", columns)]
        if cells[0].isdigit():
            found[int(cells[0])] = cells[1:]
    return found


def head(text: str) -> int:
    """Which line of a listing names the columns."""
    return next(i for i, row in enumerate(text.splitlines()) if row.strip().startswith("line |"))


def test_every_metric_of_the_table_is_counted(report):
    """But for what depends on a limit that the target does not have."""
    counted = set(report.metrics) | {"launch__occupancy_limit_barriers"}
    if ptxas.find() is None:
        counted |= {name for name, metric in METRICS.items() if "ptxas" in metric.description}
    assert set(METRICS) <= counted | {"launch__occupancy_limit_registers"}
    assert all(value >= 0 for value in report.metrics.values())


def test_metrics_under_both_names(report):
    assert report.metrics["smsp__warps_launched.sum"] == report.metrics["warps"] == BLOCKS
    assert report.metrics["global_load_requests"] == 2 * 3
    assert report.metrics is report.metrics


def test_ptxas_is_asked_only_for_what_it_knows(report, monkeypatch):
    calls = []

    def resources(text, arch):
        calls.append(arch)
        return {"k": ptxas.Resources("k", 40, 8, 12, 16, 4096, {}, 1)}

    monkeypatch.setattr(ptxas, "resources", resources)
    fresh = sim.machine.Report.__new__(type(report))
    fresh.__dict__.update({k: v for k, v in report.__dict__.items() if k != "metrics"})
    metrics = fresh.metrics
    assert metrics["instructions"] > 0
    assert "global_load_sectors" in metrics
    assert str(fresh)
    assert not calls
    assert metrics["registers"] == 40
    assert (metrics["spill_stores"], metrics["spill_loads"], metrics["stack"]) == (8, 12, 16)
    # one warp a block: at most 32 blocks (sm_80), of 64 warps
    assert metrics["theoretical_occupancy"] == 50
    assert len(metrics) > 100
    assert calls == ["sm_80"]
    assert pickle.loads(pickle.dumps(fresh.metrics)) == metrics


def test_without_ptxas_its_counters_say_why(report, monkeypatch):
    def resources(text, arch):
        raise MissingExtraError("ptxas is not installed; pip install it")

    monkeypatch.setattr(ptxas, "resources", resources)
    fresh = sim.machine.Report.__new__(type(report))
    fresh.__dict__.update({k: v for k, v in report.__dict__.items() if k != "metrics"})
    with pytest.raises(MetricError, match=r"registers: not counted .*: ptxas is not installed"):
        fresh.metrics["registers"]
    assert "registers" not in fresh.metrics
    assert fresh.metrics["theoretical_occupancy"] == 50
    with pytest.raises(MetricError, match=r"none of this name"):
        fresh.metrics["register"]


def test_slow_counters_come_once():
    calls = []

    def later():
        calls.append(1)
        return {"registers": 12}, ""

    metrics = Metrics({"instructions": 5}, ["registers", "stack"], later)
    assert metrics["instructions"] == 5
    assert "branches" not in metrics
    with pytest.raises(MetricError):
        metrics["branches"]
    assert not calls
    assert dict(metrics) == {"launch__registers_per_thread": 12, "smsp__inst_executed.sum": 5}
    assert metrics["registers"] == 12
    with pytest.raises(MetricError, match=r"\(ptxas\)\)$"):
        metrics["stack"]
    assert calls == [1]


def test_real_ptxas(report):
    if ptxas.find() is None:
        pytest.skip("ptxas is not installed")
    assert 8 <= report.metrics["registers"] <= 40
    assert report.metrics["spill_stores"] == 0


# -- the source ------------------------------------------------------------------------------------

def test_lines_add_up(report):
    lines = listing.lines(report._code, report._counters).values()
    assert sum(line.instructions for line in lines) == report.metrics["instructions"]
    assert sum(line.threads for line in lines) == report.metrics["thread_instructions_on"]
    assert sum(line.branches for line in lines) == report.metrics["branches"]
    for space, total in (("global", report.metrics["global_load_sectors"]
                          + report.metrics["global_store_sectors"]),
                         ("shared", report.metrics["shared_wavefronts"])):
        assert sum(line.traffic[space].passes for line in lines if space in line.traffic) == total


def test_code_of_headers_counts_at_the_line_that_uses_it(report):
    """__hadd2 is a function of cuda_fp16.h; so is __half22float2: nothing counts elsewhere."""
    lines = listing.lines(report._code, report._counters)
    assert {file for file, _ in lines} == {"squares.cu"}
    assert lines["squares.cu", 18].traffic["global"].requests == 3


def test_functions_count_at_their_own_lines(report):
    """3 warps use square at line 19: a product at line 4.  In apart, which is called, product and
    sum are one instruction, at line 9 with the moves of its parameter and result."""
    counted = rows(report.source())
    assert counted[4][0] == "3"
    assert int(counted[9][0]) >= 3


def test_the_source_shows_what_was_compiled(report):
    text = report.source()
    shown = rows(text)
    lines = SOURCE.splitlines()
    # both functions and the kernel, each from its head on; not the unused one or the includes
    assert set(shown) == {3, 4, *range(7, 10), *range(14, 27)}
    for number, cells in shown.items():
        assert cells[-1] == lines[number - 1].strip()
    assert text.splitlines()[head(text)].split() == (
        "line | inst | threads | global | shared | diverge | source".split())
    assert shown[15][:-1] == [""] * 5  # a line without instructions
    assert shown[22][:-1] == [""] * 5
    assert [row.strip() for row in text.splitlines()].count("...") == 2


def test_counts_beside_lines(report):
    """Line 17: one warp of four leaves as a whole.  Line 19: 3 warps read a (4 sectors) and write a
    column of the tile, 32 words of one bank.  Line 25: every second float, 8 sectors."""
    shown = rows(report.source())
    assert shown[17][4] == "0/4"
    assert shown[19][2:4] == ["4.0 (4.0)", "32.0 (1.0)"]
    assert shown[25][2:4] == ["8.0 (4.0)", "32.0 (1.0)"]
    assert shown[19][1] == "32.0"


def test_the_columns_are_explained(report):
    text = report.source()
    for name, meaning, _ in listing.COLUMNS:
        assert (f"\n{name}: {meaning}" in text) == (name != "local")


def test_hot_lines(report):
    hot = report.hot(3)
    assert len(hot) == 3
    counts = [line.instructions for line in report.hot(100)]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == report.metrics["instructions"]
    assert hot[0].file == "squares.cu"
    assert hot[0].instructions == counts[0]


def test_source_of_ptx():
    """PTX without .loc is listed itself, from its .entry on."""
    text = ptx("st.global.u32 [%a], %n;", extra="// a comment")
    m = sim.Machine(arch="sm_80", checks=("memcheck",))
    report = m.module(text).kernel("k").launch(1, 1, [m.zeros(1), 0, np.uint32(0)])
    shown = rows(report.source())
    lines = text.splitlines()
    entry = next(i for i, line in enumerate(lines, 1) if ".entry" in line)
    store = next(i for i, line in enumerate(lines, 1) if "st.global" in line)
    assert min(shown) == entry
    assert shown[store] == ["1", "1.0", "1.0 (1.0)", lines[store - 1].strip()]
    assert report.hot(1)[0].file == "<ptx>"


def test_source_of_ptx_that_was_compiled_elsewhere(tmp_path, monkeypatch):
    """Its file is read where it can be; else the lines have counts and no text."""
    monkeypatch.chdir(tmp_path)
    text = ptx(".loc 1 3 0\nst.global.u32 [%a], %n;\n.loc 1 4 0").replace(
        "ld.param.u64 %q0", ".loc 1 2 0\nld.param.u64 %q0") + '.file 1 "away.cu"\n'
    m = sim.Machine(arch="sm_80")
    report = m.module(text).kernel("k").launch(1, 1, [m.zeros(1), 0, np.uint32(0)])
    assert rows(report.source())[3][-1] == ""
    (tmp_path / "away.cu").write_text("__global__ void k(int* a, int n)\n{\n    *a = n;\n}\n")
    shown = rows(report.source())
    assert [shown[n][-1] for n in (1, 2, 3, 4)] == ["__global__ void k(int* a, int n)", "{",
                                                    "*a = n;", "}"]
    assert shown[3][:3] == ["1", "1.0", "1.0 (1.0)"]


def test_local_memory_has_a_column():
    text = ptx("mov.u32 %r2, 1; st.local.u32 [%l], %r2;", local=16)
    m = sim.Machine(arch="sm_80")
    report = m.module(text).kernel("k").launch(1, 32, [0, 0, np.uint32(0)])
    lines = report.source().splitlines()
    assert lines[head(report.source())].split() == "line | inst | threads | local | source".split()


# -- the summary -----------------------------------------------------------------------------------

def test_the_summary(report):
    lines = str(report).splitlines()
    assert lines[0] == "k: grid 4x1x1, block 32x1x1: no findings"
    assert len(lines) == 11
    shown = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert shown["instructions"] == f"{report.metrics['instructions']:,}"
    assert shown["global_load_efficiency"] == "100"
    assert shown["global_store_efficiency"] == "50"
    assert shown["bank_conflicts"] == str(2 * 3 * 31)
    assert shown["unique_bytes_read"] == str(2 * 4 * N)
    assert "local_load_sectors" not in shown  # nothing to tell
    assert re.fullmatch(r"<report of k: 0 findings; print\(report\) shows more>", repr(report))


def test_findings_are_in_the_summary():
    m = sim.Machine(arch="sm_80", findings="collect")
    mod = m.module(ptx("st.global.u32 [%a+64], %n;"))
    report = mod.kernel("k").launch(1, 32, [m.zeros(4), 0, np.uint32(0)])
    lines = str(report).splitlines()
    assert lines[0] == "k: grid 1x1x1, block 32x1x1: 1 finding"
    assert lines[1].startswith("  memcheck: out of bounds at <ptx>:")
    assert report.metrics["global_store_requests"] == 0


def test_reports_are_apart():
    """A later launch changes nothing in an earlier report."""
    m = sim.Machine(arch="sm_80")
    kernel = m.module(ptx("red.global.add.u32 [%a], 1;")).kernel("k")
    a = m.zeros(1, np.uint32)
    first = kernel.launch(1, 32, [a, 0, np.uint32(0)])
    second = kernel.launch(3, 64, [a, 0, np.uint32(0)])
    assert (first.metrics["warps"], second.metrics["warps"]) == (1, 6)
    assert (first.metrics["global_reduction_requests"],
            second.metrics["global_reduction_requests"]) == (1, 6)
    assert a.numpy()[0] == 32 + 192
