"""Every program of the corpus gives NumPy's results with no finding, on every target."""

from __future__ import annotations

import pytest
from sim.corpus.program import FOLDER, TARGETS, Program, programs

from mlgpu import sim

PROGRAMS = programs()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("program", [pytest.param(p, id=n) for n, p in PROGRAMS.items()])
def test_program(program: Program, target: str) -> None:
    if not program.exists_on(target):
        pytest.skip(f"needs {program.since}")
    m = sim.Machine(arch=target, findings="raise")
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
