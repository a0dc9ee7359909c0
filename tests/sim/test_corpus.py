"""Every program of the corpus gives NumPy's results with no finding.

Each runs on two of the targets, in turn, and every second one warp by warp; MLGPU_CORPUS=all runs
each on every target and so.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from sim.corpus.program import FOLDER, TARGETS, Program, programs

from mlgpu import sim

PROGRAMS = programs()


EACH = [pytest.param(p, id=n) for n, p in PROGRAMS.items()]
ALL = os.environ.get("MLGPU_CORPUS") == "all"


def turns() -> Iterator[object]:
    """A program beside each of its targets."""
    pairs = itertools.cycle(itertools.combinations(TARGETS, 2))
    for (name, program), pair in zip(PROGRAMS.items(), pairs, strict=False):
        for target in TARGETS if ALL else pair:
            yield pytest.param(program, target, id=f"{name}-{target}")


@pytest.mark.parametrize(("program", "target"), list(turns()))
def test_program(program: Program, target: str) -> None:
    run(program, sim.Machine(arch=target, findings="raise"))


@pytest.mark.parametrize("program", EACH if ALL else EACH[::2])
def test_warps_one_after_the_other(program: Program) -> None:
    run(program, sim.Machine(arch="sm_90", findings="raise", schedule="warps"))


def run(program: Program, m: sim.Machine) -> None:
    """Run a program on a machine, if it exists there."""
    if not program.exists_on(m.target):
        pytest.skip(f"needs {program.since}")
    try:
        mod = program.load(m)
    except sim.CompileError as error:
        missing = [h for h in program.headers if f'cannot open source file "{h}"' in str(error)]
        if not missing:
            raise
        pytest.skip(f"the header {missing[0]} is not installed")
    program.run(m, mod)


def test_every_source_has_programs() -> None:
    sources = {p.source for p in PROGRAMS.values()}
    assert sources == set(FOLDER.glob("*.cu"))
