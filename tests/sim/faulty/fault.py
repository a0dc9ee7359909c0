"""A faulty kernel of the corpus: what it is launched with, and what must be found where.

A family is a CUDA source and a module of the same name beside it.  Each kernel is written twice in
one source: with a realistic bug, and under `#ifdef FIXED` repaired.  A comment behind a line of the
faulty one says what a finding there may be:

    y[i] = row[t - 1];  // FAULT(kernel): racecheck: read after write; memcheck: out of bounds

A race has two sides, and either may come later: both lines are marked then, each with the kind that
it is reported as.  Kinds of one tool are separated by commas, tools by semicolons.  The tool that
must find the bug is the one that the family is named after, or one of those given to `@fault`;
markers of other tools say what may be found besides.

The functions declared by `@fault` are named after the kernel at fault.  They launch both forms the
same way, and judge the results by `expect`, which the faulty form may fail.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu import sim

FOLDER = Path(__file__).parent
IN_VAIN = ("synccheck", "watchdog")  # a wait that never ends may be seen as an endless loop
Run = Callable[["sim.Machine", Any], None]


class WrongResult(AssertionError):
    """A kernel did not compute what it should have."""


@dataclass(frozen=True)
class Marker:
    """A finding that a comment in a source allows."""

    kernel: str
    tool: str
    kind: str
    line: int


@dataclass(frozen=True)
class Fault:
    """A kernel with a bug, and the function that launches it."""

    kernel: str
    source: Path
    since: str  # the oldest target that has the features
    headers: tuple[str, ...]  # that not every installation of CUDA's headers has
    tools: tuple[str, ...]  # one of which must find the bug
    run: Run

    @property
    def markers(self) -> list[Marker]:
        """What may be found in the faulty form."""
        return [m for m in markers(self.source) if m.kernel == self.kernel]


FAULTS: dict[str, Fault] = {}


def fault(source: str, *, since: str = "sm_75", headers: tuple[str, ...] = (),
          tools: tuple[str, ...] = ()) -> Callable[[Run], Run]:
    """Declare the function that launches the kernel it is named after."""
    own = (source.partition(".")[0].partition("_")[0],)

    def declare(run: Run) -> Run:
        name = run.__name__
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, FOLDER / source, since, headers, tools or own, run)
        return run
    return declare


def faults() -> dict[str, Fault]:
    """All faults of all families."""
    for module in pkgutil.iter_modules([str(FOLDER)]):
        importlib.import_module(f"{__package__}.{module.name}")
    return FAULTS


@functools.cache
def markers(source: Path) -> tuple[Marker, ...]:
    """The markers of a source."""
    found = []
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if "FAULT(" not in line:
            continue
        comment = re.search(r"// FAULT\((\w+)\): (.+)$", line)
        assert comment, f"{source.name}:{number}: {line}"
        for part in comment[2].split("; "):
            tool, kinds = part.split(": ")
            found += [Marker(comment[1], tool, kind, number) for kind in kinds.split(", ")]
    return tuple(found)


def expect(found: Any, wanted: Any, rtol: float = 0) -> None:
    """The buffer or array holds what it should."""
    actual = found.numpy() if isinstance(found, sim.Buffer) else np.asarray(found)
    wanted = np.asarray(wanted)
    if not np.allclose(actual, wanted.reshape(actual.shape), rtol=rtol, atol=rtol):
        raise WrongResult(f"{actual} instead of {wanted}")
