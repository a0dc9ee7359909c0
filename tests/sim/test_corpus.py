"""Every program of the corpus gives NumPy's results with no finding.

Each runs on one target: the programs of a source, which is compiled for two, one from each side of
the step to sm_90, take turns.  Every fourth one also runs warp by warp.  MLGPU_CORPUS=all runs each
on every target and so.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from sim.corpus.program import FOLDER, TARGETS, Program, programs

from mlgpu import sim

PROGRAMS = programs()
ALL = os.environ.get("MLGPU_CORPUS") == "all"
SIDES = TARGETS[:2], TARGETS[2:]


def turns(warps: bool = False) -> Iterator[object]:
    """A program beside its target, or, of those that run warp by warp, beside its other one."""
    groups = itertools.groupby(PROGRAMS.items(), lambda item: item[1].source)
    for place, (_, members) in enumerate(groups):
        pair = [side[place // (k + 1) % 2] for k, side in enumerate(SIDES)]
        for turn, (name, program) in enumerate(members):
            possible = [t for t in pair if program.exists_on(t)] or [TARGETS[-1]]
            target = possible[(turn + warps) % len(possible)]
            if ALL or not warps or turn % 4 == 0:
                for each in TARGETS if ALL else (target,):
                    yield pytest.param(program, each, id=f"{name}-{each}")


@pytest.mark.parametrize(("program", "target"), list(turns()))
def test_program(program: Program, target: str) -> None:
    run(program, sim.Machine(arch=target, findings="raise"))


@pytest.mark.parametrize(("program", "target"), list(turns(warps=True)))
def test_warps_one_after_the_other(program: Program, target: str) -> None:
    run(program, sim.Machine(arch=target, findings="raise", schedule="warps"))


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
