"""One program over many small and large arrays: what optimizers run each step.

Compiled, all pieces of all arrays are tasks of one parallel loop; on NumPy small arrays take the
program's steps directly, without the plans that pay for large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cpu import fast
from mlgpu.cpu.evaluate import _functions, evaluate
from mlgpu.cpu.threads import parallel
from mlgpu.expr.lower import Program
from mlgpu.expr.numba import problem, read_arguments

Array = np.ndarray[Any, Any]
Call = tuple[Sequence[Array], Array, Sequence[float]]

_TASK = 1 << 18  # elements of a task of a compiled loop
_SMALL = 1 << 14  # elements up to which an array and its temporaries stay in the cache


def update(programs: Sequence[Program], calls: Sequence[Call]) -> None:
    """For each (written, read, numbers) overwrite `written` by the program's results.

    The program's arguments are the first array written, the one read, the others written, then the
    numbers.  Arrays of a call have one shape.
    """
    loops = fast.load("expr", sum(read.size for _, read, _ in calls))
    tasks: list[tuple[Any, list[Array], list[Any]]] = []
    for program, (written, read, numbers) in zip(programs, calls, strict=True):
        if not read.size:
            continue
        arguments = [written[0], read, *written[1:], *numbers]
        plain = all(a.flags.c_contiguous for a in (*written, read))
        if plain and loops is not None and problem(program) is None:
            tasks += _tasks(loops, program, written, read, arguments)
        elif plain and read.size <= _SMALL:
            _directly(program, written, arguments)
        else:
            evaluate(program, arguments, list(written))
    if not tasks:
        return

    def body(task: int) -> None:
        loop, arrays, given = tasks[task]
        loop(*arrays, *given)

    for loop, arrays, given in {id(task[0]): task for task in tasks}.values():
        loop(*[a[:0] for a in arrays], *given)  # compiles, if need be, before threads ask for it
    parallel(len(tasks), lambda: body, sum(t[1][0].size for t in tasks))


def _tasks(loops: Any, program: Program, written: Sequence[Array], read: Array,
           arguments: list[Any]) -> list[tuple[Any, list[Array], list[Any]]]:
    """The compiled loop with the pieces of its arrays."""
    used = read_arguments(program)
    shared = tuple((i, max(i - 1, 0)) for i in used if i != 1)
    loop = loops._flat(program, frozenset(), shared)
    flat = [loops._bits(a.reshape(-1)) for a in (*written, *([read] if 1 in used else []))]
    numbers = _numbers(program, arguments)
    return [(loop, [a[start:start + _TASK] for a in flat], numbers)
            for start in range(0, read.size, _TASK)]


def _numbers(program: Program, arguments: list[Any]) -> list[Any]:
    return [dtype.numpy.type(arguments[argument]) for _, argument, dtype in program.numbers]


def _directly(program: Program, written: Sequence[Array], arguments: list[Any]) -> None:
    values: list[Any] = [None] * len(program.dtypes)
    values[:program.arguments] = arguments
    values[program.arguments:program.arguments + len(program.constants)] = program.constants
    for (value, _, _), number in zip(program.numbers, _numbers(program, arguments), strict=True):
        values[value] = number
    shape = written[0].shape
    for step, function in zip(program.steps, _functions(program), strict=True):
        out = np.empty(shape, program.dtypes[step.result].numpy)
        function(*[values[i] for i in step.operands], out=out)
        values[step.result] = out
    for array, value in zip(written, program.outputs, strict=True):
        np.copyto(array, values[value])
