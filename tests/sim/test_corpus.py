"""Every program of the corpus gives NumPy's results with no finding, on every target."""

from __future__ import annotations

import pytest
from sim.corpus.program import FOLDER, TARGETS, Program, programs

from mlgpu import sim

PROGRAMS = programs()


EACH = [pytest.param(p, id=n) for n, p in PROGRAMS.items()]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("program", EACH)
def test_program(program: Program, target: str) -> None:
    run(program, sim.Machine(arch=target, findings="raise"))


@pytest.mark.parametrize("program", EACH)
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
