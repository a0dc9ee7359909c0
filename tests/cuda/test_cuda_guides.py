"""Every code block of the guides to CUDA runs, and gives the output that stands below it."""

from __future__ import annotations

from pathlib import Path

import pytest
from guide import ROOT, Section, run, sections

import mlgpu
from mlgpu.sim.cuda.install import installed

GUIDE = ROOT / "docs" / "cuda-kernels.md"
SECTIONS = sections(GUIDE.read_text(encoding="utf-8"))
DEVICES = ROOT / "docs" / "cuda.md"


@pytest.mark.parametrize("section", [
    pytest.param(s, id=s.title.replace(" ", "-"))
    for s in sections(DEVICES.read_text(encoding="utf-8"))])
def test_devices(section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(section, DEVICES.name, "")


def test_kernels_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sections build on each other, up to the one that ends badly."""
    monkeypatch.chdir(tmp_path)
    blocks = [b for s in SECTIONS if not s.title.startswith("Testing") for b in s.blocks]
    assert len(blocks) > 6
    run(Section("the guide", blocks), GUIDE.name, "")


@pytest.mark.cuda_findings
@pytest.mark.skipif(installed() is None, reason="what it does would upset a real GPU")
def test_the_careless_kernel_is_found() -> None:
    section = next(s for s in SECTIONS if s.title.startswith("Testing"))
    (block,) = [b for b in section.blocks if b.info == "python"]
    exec(block.text, {"mlgpu": mlgpu})
    with pytest.raises(RuntimeError, match="out of bounds: read of 4 bytes"):
        mlgpu.cuda.synchronize()
    installed().reset()  # the error sticks to the device, as on a GPU
