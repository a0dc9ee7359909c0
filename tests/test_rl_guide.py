"""The guide to reinforcement learning: its code runs, and prints what it says."""

from __future__ import annotations

import pytest
from guide import ROOT, run, sections

import mlgpu

GUIDE = "docs/reinforcement-learning.md"


@pytest.mark.parametrize("section", sections((ROOT / GUIDE).read_text(encoding="utf-8")),
                         ids=lambda section: section.title)
def test_the_guide(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mlgpu.manual_seed(0)
    run(section, GUIDE, "none")
