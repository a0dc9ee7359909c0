"""The table of docs/cuda-counters.md: what operations move and compute stays within its bars.

By default every sixth row, from the first on; MLGPU_COUNTERS=all counts all.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from mlgpu.sim.cuda.install import installed

if installed() is None:
    pytest.skip("counting needs simulated devices", allow_module_level=True)

SOURCE = Path(__file__).parents[2] / "benchmarks" / "cuda_counters.py"
spec = importlib.util.spec_from_file_location("cuda_counters", SOURCE)
table = sys.modules["cuda_counters"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)
ROWS = table.ROWS if os.environ.get("MLGPU_COUNTERS") == "all" else table.ROWS[::6]
LINES = table.PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("row", [pytest.param(r, id=r.name.replace(" ", "-")) for r in ROWS])
def test_bars(row):
    counted, least = table.count(row)
    assert counted.dram <= row.bytes * (least + row.extra) + 1024, counted.kernels
    assert counted.sectors <= row.sectors * counted.ideal, counted.kernels
    assert counted.shared <= 1.1 * counted.shared_ideal
    assert counted.tensor <= 1.001 * row.spare * row.tensor
    assert counted.tensor >= row.tensor
    shown = next(line for line in LINES if line.startswith(f"| {row.name} |"))
    cells = [cell.strip() for cell in shown.split("|")[2:8]]
    assert cells == [str(counted.launches), *table.ratios(row, counted, least)], (
        "run benchmarks/cuda_counters.py --write")
