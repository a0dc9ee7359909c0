"""Every code block of docs/simulated-cuda.md runs, and gives the output that stands below it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from guide import ROOT, Section, run, sections

from mlgpu.cuda import toolkit
from mlgpu.sim.cuda.install import real_devices

GUIDE = ROOT / "docs" / "simulated-cuda.md"
SECTIONS = sections(GUIDE.read_text(encoding="utf-8"))


@pytest.mark.skipif(bool(real_devices()), reason="there is a real GPU")
@pytest.mark.parametrize("section", [pytest.param(s, id=s.title.replace(" ", "-"))
                                     for s in SECTIONS])
def test_section(section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "72")  # of the line that pytest prints
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in [name for name in os.environ if name.startswith(("MLGPU_CUDA", "MLGPU_SIM_"))]:
        monkeypatch.delenv(name)
    run(section, GUIDE.name, "nvrtc-" + ".".join(map(str, toolkit.nvrtc().version)))


def test_the_guide_has_examples() -> None:
    kinds = [block.info.partition(" ")[0] for s in SECTIONS for block in s.blocks]
    assert len(SECTIONS) >= 5
    assert min(kinds.count(kind) for kind in ("python", "sh", "text")) >= 5
