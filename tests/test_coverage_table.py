"""docs/coverage.md names what there is, and the tests that hold it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import mlgpu

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines() if line.startswith("| ") and "`" in line]


@cache
def words(path):
    return set(re.findall(r"\w+", (ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("row", ROWS, ids=[row[2].split("`")[1] for row in ROWS])
def test_row(row):
    assert len(row) == 4
    names = re.findall(r"`([^`]+)`", row[2])
    assert names
    for name in names:
        place = mlgpu
        for part in name.replace("F.", "nn.functional.", name.startswith("F.")).split("."):
            place = getattr(place, part)
        assert callable(place)
        assert name.split(".")[-1] in words(row[3]), f"{row[3]} does not test {name}"


def test_all_there_is_stands_in_it():
    """What was made for these lists is in the table: optimizers, schedules, losses."""
    named = set(re.findall(r"`[\w.]*?(\w+)`", TEXT))
    optimizers = set(mlgpu.optim.__all__) - {"Optimizer", "lr_scheduler", "swa_utils"}
    schedules = set(mlgpu.optim.lr_scheduler.__all__) - {"LRScheduler"}
    losses = {n for n in dir(mlgpu.nn) if n.endswith("Loss")} - {
        "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss"}
    assert (optimizers | schedules | losses) <= named
