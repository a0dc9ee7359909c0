"""The source of a kernel with the launch's counts beside its lines.

An instruction counts at the line it was compiled from.  Code of other files (headers) that was put
into the kernel counts at the line of the kernel's file that led to it, and what belongs to no line
there is added up below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlgpu.sim.code import Code
from mlgpu.sim.counters import Counters, Traffic
from mlgpu.sim.ptx.syntax import Location
from mlgpu.sim.tally import executed


@dataclass
class Line:
    """What the instructions of one line did."""

    file: str
    number: int
    instructions: int = 0  # each counted once a warp
    threads: int = 0  # threads that executed them, their predicate on
    branches: int = 0  # conditional ones, each counted once a warp
    divergent: int = 0  # of those, times a warp's lanes parted
    traffic: dict[str, Traffic] = field(default_factory=dict)  # by space


def lines(code: Code, counters: Counters) -> dict[tuple[str, int], Line]:
    """The counts of every line that has some, by file and line."""
    main = main_file(code)
    found: dict[tuple[str, int], Line] = {}

    def at(location: Location) -> Line:
        place = home(location, main)
        return found.setdefault(place, Line(*place))

    for row in executed(code, counters):
        line = at(row.ins.location)
        line.instructions += row.warps
        line.threads += row.on
    for part in code.parts:
        if part.end is not None and counters.branches[part.number]:
            line = at(part.end.location)
            line.branches += counters.branches[part.number]
            line.divergent += counters.divergent[part.number]
    for (space, number), traffic in counters.traffic.items():
        at(code.sites[number].location).traffic.setdefault(space, Traffic()).add(traffic)
    return found


def main_file(code: Code) -> str:
    """The file that the kernel stands in."""
    return _outermost(code.location)[0]


def _outermost(location: Location) -> tuple[str, int]:
    return _place(location.calls[-1]) if location.calls else (location.file, location.line)


def _place(call: str) -> tuple[str, int]:
    file, _, number = call.rpartition(":")
    return file, int(number)


def home(location: Location, main: str) -> tuple[str, int]:
    """The innermost line of the kernel's file that led to a place; if none, the place itself."""
    if location.file != main:
        for call in location.calls:
            place = _place(call)
            if place[0] == main:
                return place
    return location.file, location.line


# -- columns ---------------------------------------------------------------------------------------

def _per(a: int, b: int) -> str:
    return f"{a / b:.1f}" if b else ""


def _against(line: Line, space: str) -> str:
    """Passes of a request, and (in brackets) what they would be at best."""
    t = line.traffic.get(space)
    return f"{t.passes / t.requests:.1f} ({t.ideal / t.requests:.1f})" if t and t.requests else ""


COLUMNS: tuple[tuple[str, str, Callable[[Line], str]], ...] = (
    ("inst", "instructions executed, each counted once a warp",
     lambda line: f"{line.instructions:,}"),
    ("threads", "threads of an instruction on average, without those its predicate switched off",
     lambda line: _per(line.threads, line.instructions)),
    ("global", "32-byte sectors of a request to global memory (if its bytes lay side by side)",
     lambda line: _against(line, "global")),
    ("shared", "passes over the banks of a request to shared memory (without conflicts)",
     lambda line: _against(line, "shared")),
    ("local", "sectors of a request to local memory (if its bytes lay side by side)",
     lambda line: _against(line, "local")),
    ("diverge", "conditional branches at which the threads of a warp parted, of all",
     lambda line: f"{line.divergent:,}/{line.branches:,}" if line.branches else ""),
)


# -- the text --------------------------------------------------------------------------------------

def text(code: Code, counters: Counters, files: Mapping[str, str], head: str) -> str:
    """The lines of the kernel and of the functions it uses, with counts; `head` comes first.

    `files` are the texts of files that are known; others are looked for on the disk."""
    main = main_file(code)
    every = lines(code, counters)
    here = {line.number: line for line in every.values() if line.file == main}
    written = _text_of(main, files)
    shown = _extents(here, written)
    cells = {n: [column(here[n]) if n in here else "" for _, _, column in COLUMNS] for n in shown}
    used = [i for i in range(len(COLUMNS)) if i < 2 or any(row[i] for row in cells.values())]
    widths = [max(len(COLUMNS[i][0]), *(len(row[i]) for row in cells.values())) for i in used]
    digits = max(4, len(str(max(shown, default=0))))
    rows = [head, "", f"{main}:", " | ".join([
        "line".rjust(digits), *(COLUMNS[i][0].rjust(w) for i, w in zip(used, widths, strict=True)),
        "source"])]
    rows.append("-" * len(rows[-1]))
    last = None
    for n in shown:
        if last is not None and n != last + 1:
            rows.append("...".rjust(digits))
        last = n
        rows.append(" | ".join([
            str(n).rjust(digits),
            *(cells[n][i].rjust(w) for i, w in zip(used, widths, strict=True)),
            written[n - 1] if n <= len(written) else ""]).rstrip())
    rows += ["", *(f"{COLUMNS[i][0]}: {COLUMNS[i][1]}" for i in used)]
    rows += _elsewhere(line for line in every.values() if line.file != main)
    return "\n".join(rows)


def _elsewhere(others: Iterable[Line]) -> list[str]:
    """Counts at no line of the kernel's file."""
    by_file: dict[str, int] = {}
    for line in others:
        by_file[line.file] = by_file.get(line.file, 0) + line.instructions
    return [f"not at a line above: {count:,} instructions of {file}"
            for file, count in sorted(by_file.items())]


def _text_of(main: str, files: Mapping[str, str]) -> list[str]:
    """The lines of the kernel's file, where it can be had."""
    if main in files:
        return files[main].split("\n")
    try:
        return Path(main).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []


_BEGINS = re.compile(r"__global__|__device__|\.(entry|func)\b")
_BEFORE = 40  # lines that a function's head is looked for above its first counted line


def _extents(counted: Iterable[int], written: list[str]) -> list[int]:
    """The counted lines with what lies between them in one function, and the functions' heads."""
    shown: set[int] = set()
    for number in sorted(counted):
        first = number
        for above in range(min(number, len(written)), max(number - _BEFORE, 0), -1):
            line = written[above - 1]
            if above in shown or (above < number and line.startswith("}")):
                first = above + 1 if above in shown else number
                break
            if _BEGINS.search(line):
                first = above
                break
        shown.update(range(first, number + 1))
    return sorted(shown)
