"""Every code block of docs/simulated-gpu.md runs, and gives the output that stands below it."""

from __future__ import annotations

from pathlib import Path

import pytest
from guide import ROOT, Section, run, sections

from mlgpu import sim
from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError

GUIDE = ROOT / "docs" / "simulated-gpu.md"
SECTIONS = sections(GUIDE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", [pytest.param(s, id=s.title.replace(" ", "-"))
                                     for s in SECTIONS])
def test_section(section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        version = "nvrtc-" + ".".join(map(str, toolkit.nvrtc().version))
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "72")  # of the line that pytest prints
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    run(section, GUIDE.name, version)


def test_the_guide_has_examples() -> None:
    """Reading the guide found what there is: sections, and outputs to compare."""
    kinds = [block.info.partition(" ")[0] for s in SECTIONS for block in s.blocks]
    assert len(SECTIONS) >= 10
    assert min(kinds.count(kind) for kind in ("python", "cuda", "sh", "text")) >= 3


def test_the_example_of_the_readme() -> None:
    """What README.md says its example raises, it raises."""
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    readme = sections((ROOT / "README.md").read_text(encoding="utf-8"))
    block = next(s for s in readme if s.title == "The simulated GPU").blocks[0]
    with pytest.raises(sim.Finding) as found:
        exec(block.text, {})
    assert (found.value.tool, found.value.kind) == ("memcheck", "out of bounds")
