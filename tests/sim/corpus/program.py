"""A program of the corpus: CUDA kernels with the launches that compare them with NumPy.

A family is a CUDA source and a module of the same name beside it, whose functions are declared by
`@program`.  Each function launches kernels of the source and asserts what they must have computed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlgpu import sim

FOLDER = Path(__file__).parent
TARGETS = ("sm_75", "sm_80", "sm_90", "sm_120")
Run = Callable[["sim.Machine", Any], None]


@dataclass(frozen=True)
class Program:
    """Kernels of one source and the function that launches and judges them."""

    name: str  # "reduction.block_sum": family and function
    source: Path
    since: str  # the oldest target that has the features
    options: tuple[str, ...]  # of NVRTC
    names: tuple[str, ...]  # template instances, as `mod.kernel` calls them
    headers: tuple[str, ...]  # that not every installation of CUDA's headers has
    run: Run

    def exists_on(self, target: str) -> bool:
        """Whether the target has the features that the kernels use."""
        return number(target) >= number(self.since)

    def load(self, m: sim.Machine) -> Any:
        """The source as a module of the machine."""
        return m.module(self.source.read_text(), options=self.options, names=self.names)


PROGRAMS: dict[str, Program] = {}


def program(source: str, *, since: str = "sm_75", options: tuple[str, ...] = (),
            names: tuple[str, ...] = (), headers: tuple[str, ...] = ()) -> Callable[[Run], Run]:
    """Declare the function that runs kernels of a source of this folder."""
    def declare(run: Run) -> Run:
        name = f"{run.__module__.rpartition('.')[2]}.{run.__name__}"
        assert name not in PROGRAMS, name
        PROGRAMS[name] = Program(name, FOLDER / source, since, options, names, headers, run)
        return run
    return declare


def programs() -> dict[str, Program]:
    """All programs of all families."""
    for module in pkgutil.iter_modules([str(FOLDER)]):
        importlib.import_module(f"{__package__}.{module.name}")
    return PROGRAMS


def number(target: str) -> int:
    """90 of "sm_90a"."""
    return int("".join(c for c in target if c.isdigit()))
