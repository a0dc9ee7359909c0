"""Every code block of docs/simulated-gpu.md runs, and gives the output that stands below it.

Blocks of a section run in order, in one namespace and one empty folder:

- `python` is executed; `cuda`, and `python` that begins with the comment of a file's name, become
  files of that name; `sh` runs the lines of `mlgpu` and `pytest` that it holds.
- `text` is what the block before it must have printed, with `...` for what differs from machine to
  machine.

A block with a compiler behind its kind, `text nvrtc-12.9`, counts only where that one is used.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from mlgpu import cli, sim
from mlgpu.errors import MissingExtraError
from mlgpu.sim import toolkit

GUIDE = Path(__file__).parents[2] / "docs" / "simulated-gpu.md"


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind the fence, its lines, and where the first of them is."""

    info: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """The name of the file that it is, by its first line."""
        found = re.match(r"(?://|#) (\w+\.(?:cu|py))\n", self.text)
        return found[1] if found else ""


@dataclass
class Section:
    """What stands under a heading."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def sections(text: str) -> list[Section]:
    """The sections of the guide that have blocks."""
    found = [Section("introduction")]
    info, begun, lines = None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"```(.*)$", line)
        if info is None and fence:
            info, begun, lines = fence[1].strip(), number + 1, []
        elif fence:
            found[-1].blocks.append(Block(info, "\n".join([*lines, ""]), begun))
            info = None
        elif info is not None:
            lines.append(line)
        elif line.startswith("## "):
            found.append(Section(line.removeprefix("## ")))
    assert info is None, "a block has no end"
    return [section for section in found if section.blocks]


def printed(block: Block, namespace: dict[str, Any], above: int) -> str | None:
    """Run a block; what it prints, or None where it is none that runs."""
    kind = block.info.partition(" ")[0]
    if block.file:
        Path(block.file).write_text(block.text)
        return None
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if kind == "python":  # a section is one file of Python, in what findings say
            code = "\n" * above + block.text
            exec(compile(code, "example.py", "exec"), namespace)
        elif kind == "sh":
            for command in block.text.replace("\\\n", " ").splitlines():
                shell(shlex.split(command))
        else:
            assert kind in ("text", "yaml"), f"line {block.line}: a block of {block.info!r}"
            return None
    return out.getvalue()


def shell(words: list[str]) -> None:
    """One command line of the guide."""
    if words[0] == "mlgpu":
        cli.main(words[1:])
    elif words[0] == "pytest":
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        print(done.stdout, end="")
    else:  # an extra to install, which there must be
        extra = re.fullmatch(r"mlgpu\[(\w+)\]", words[-1])
        assert words[:2] == ["pip", "install"]
        assert extra
        assert extra[1] in (metadata("mlgpu").get_all("Provides-Extra") or [])


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
    namespace: dict[str, Any] = {"__name__": "example"}
    found: str | None = None
    above = 0
    for block in section.blocks:
        kind, _, wants = block.info.partition(" ")
        if wants not in ("", version):
            continue
        if kind != "text":
            found = printed(block, namespace, above)
            above += block.text.count("\n") if kind == "python" and not block.file else 0
        else:
            assert found is not None, f"line {block.line}: output of nothing"
            checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.REPORT_UDIFF
            example = doctest.Example("", block.text)
            assert checker.check_output(block.text, found, flags), (
                f"{GUIDE.name}, line {block.line}:\n"
                + checker.output_difference(example, found, flags))


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
    readme = sections((GUIDE.parents[1] / "README.md").read_text(encoding="utf-8"))
    block = next(s for s in readme if s.title == "The simulated GPU").blocks[0]
    with pytest.raises(sim.Finding) as found:
        exec(block.text, {})
    assert (found.value.tool, found.value.kind) == ("memcheck", "out of bounds")
