"""The guide to training: its code runs, and prints what it says."""

from __future__ import annotations

import pytest
from guide import ROOT, run, sections

GUIDE = "docs/training.md"
SECTIONS = [section for section in sections((ROOT / GUIDE).read_text(encoding="utf-8"))
            if any(block.info == "python" for block in section.blocks)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_the_guide(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(section, GUIDE, "none")
