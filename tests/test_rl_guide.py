"""The guide to reinforcement learning: its code runs, and prints what it says."""

from __future__ import annotations

import re
import runpy
import sys

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


def test_the_example_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_dqn.py", "--out", str(tmp_path),
                                      "--env-steps", "1100"])
    runpy.run_path(str(ROOT / "examples" / "train_dqn.py"), run_name="__main__")
    assert re.search(r"finished: mean return of 100 episodes \d+\.\d after 1,\d+ steps",
                     capsys.readouterr().out)
    assert (tmp_path / "report.html").exists()
