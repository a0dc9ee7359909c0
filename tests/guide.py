"""Running the code blocks of a guide: each of them runs, and gives the output that stands below it.

Blocks of a section run in order, in one namespace and one empty folder:

- `python` is executed; `cuda`, and `python` that begins with the comment of a file's name, become
  files of that name; `sh` runs the lines of `mlgpu`, `python` and `pytest` that it holds.
- `text` is what the block before it must have printed, with `...` for what differs from machine to
  machine.

A block with a compiler behind its kind, `text nvrtc-12.9`, counts only where that one is used.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mlgpu import cli

ROOT = Path(__file__).parent.parent


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
    """The sections of a guide that have blocks."""
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


def run(section: Section, guide: str, compiler: str) -> None:
    """Run a section's blocks in the current folder, and compare what they print."""
    namespace: dict[str, Any] = {"__name__": "example"}
    found: str | None = None
    above = 0
    for block in section.blocks:
        kind, _, wants = block.info.partition(" ")
        if wants not in ("", compiler):
            continue
        if kind != "text":
            found = printed(block, namespace, above)
            above += block.text.count("\n") if kind == "python" and not block.file else 0
        else:
            assert found is not None, f"line {block.line}: output of nothing"
            checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.REPORT_UDIFF
            example = doctest.Example("", block.text)
            assert checker.check_output(block.text, found, flags), (
                f"{guide}, line {block.line}:\n"
                + checker.output_difference(example, found, flags))


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
    variables = {}
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, _, variables[name] = words.pop(0).partition("=")
    if words[:3] == ["mlgpu", "sim", "check"] or (words[0] == "mlgpu" and variables):
        _process(["-m", *words], variables)
    elif words[0] == "mlgpu":
        cli.main(words[1:])
    elif words[0] == "python":
        _process(words[1:], variables)
    elif words[0] == "pytest":
        known = any(e.value == "mlgpu_pytest" for e in entry_points(group="pytest11"))
        plugin = [] if known else ["-p", "mlgpu_pytest"]  # where mlgpu is not installed
        _process(["-m", "pytest", *plugin, "-p", "no:cacheprovider", *words[1:]], variables)
    else:  # an extra to install, which there must be
        assert words[:2] == ["pip", "install"]
        for extra in re.findall(r"mlgpu\[([\w,]+)\]", " ".join(words)):
            assert {*extra.split(",")} <= _extras()


def _process(words: list[str], variables: dict[str, str]) -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, timeout=300,
                          stderr=subprocess.STDOUT,
                          env=os.environ | {"PYTHONPATH": path} | variables)
    print(done.stdout, end="")


def _extras() -> set[str]:
    """The extras of the project."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return set(re.findall(r"^(\w[\w-]*) = \[", table, re.MULTILINE))
