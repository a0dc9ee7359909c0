"""Runs lowered expressions on NumPy arrays, in blocks that stay in the cache.

Memory is read and written once: per block, every step runs on buffers of a block's size.  Operands
that are broadcast are sliced, never expanded; dimensions are taken in the output's memory order
and collapsed where all operands allow it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlgpu.cpu import fast
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import SERIAL, parallel
from mlgpu.expr.lower import Program, Step, step_function
from mlgpu.expr.numba import problem

# Elements per block.  Smaller ones would fit the second-level cache better, but every step of a
# block takes the interpreter's lock, for which threads wait longer than the cache saves.
BLOCK = 1 << 17

# What one call of NumPy's computes at the speed of memory, and as well as a compiled loop.
_BY_MEMORY = frozenset("add sub mul div neg square sqrt abs maximum minimum clamp_min clamp_max "
                       "eq ne lt le gt ge bitwise_and bitwise_or bitwise_xor".split())
# Elements of a task of such a call.
_TASK = 1 << 18

Array = np.ndarray[Any, Any]


def cast_step(x: Any, out: Any) -> None:
    """`x` in the dtype of `out`; complex to real keeps the real part."""
    if out.dtype.kind == "b":
        np.not_equal(x, 0, out=out)
        return
    if x.dtype.kind == "c" and out.dtype.kind != "c":
        x = x.real
    if x.dtype.kind in "fV" and out.dtype.kind in "iu" and out.dtype.itemsize < 8:
        x = x.astype(np.int64)  # wraps, where C leaves values out of range undefined
    np.copyto(out, x, casting="unsafe")


@functools.lru_cache(maxsize=4096)
def _functions(program: Program) -> list[Any]:
    return [cast_step if s.primitive == "cast" else step_function(s.primitive, s.attr)
            for s in program.steps]


@functools.lru_cache(maxsize=4096)
def _used(program: Program) -> list[int]:
    """The values before the first step that steps or outputs are made of."""
    used = {i for s in program.steps for i in s.operands} | set(program.outputs)
    return sorted(i for i in used if i < program.first_result)


def evaluate(program: Program, arguments: Sequence[Any], outs: Sequence[Array],
             fresh: bool = False) -> None:
    """Run `program` on arrays (and Python numbers) and write the results into `outs`.

    All outputs have one shape.  They may be the memory of an input only if they are the very same
    view, and `fresh` says that none is: to find that out takes as long as all else here.
    """
    values: list[Any] = [None] * len(program.dtypes)
    values[:program.arguments] = arguments
    values[program.arguments:program.arguments + len(program.constants)] = program.constants
    for value, argument, dtype in program.numbers:
        values[value] = np.asarray(arguments[argument]).astype(dtype.numpy)
    functions = _functions(program)
    size, shape = outs[0].size, outs[0].shape
    # What is no ufunc has temporaries, which belong in blocks, and wants a dimension.
    if (len(functions) == 1 and len(outs) == 1 and program.outputs[0] == program.steps[0].result
            and size < SERIAL and (isinstance(functions[0], np.ufunc)
                                   or (shape and size <= BLOCK))):
        functions[0](*[values[i] for i in program.steps[0].operands], out=outs[0])
        return
    if not size:
        return
    inputs = [i for i in _used(program) if isinstance(values[i], np.ndarray)]
    laid = _lay_out([values[i] for i in inputs] + list(outs), shape, outs[0])
    results = laid[len(inputs):]
    if len(functions) == 1 and program.steps[0].primitive in _BY_MEMORY and (
            len(outs) == 1 and results[0].ndim == 1
            and program.outputs[0] == program.steps[0].result):
        found = dict(zip(inputs, laid, strict=False))
        _run_call(functions[0], [found.get(i, values[i]) for i in program.steps[0].operands],
                  results[0])
        return
    loops = fast.load("expr", size) if problem(program) is None else None
    if loops is not None and loops.fits(laid):
        numbers = [values[value][()] for value, _, _ in program.numbers]
        loops.run(program, dict(zip(inputs, laid, strict=False)), numbers, results, fresh)
        return
    program = _ordered(program)
    values = [None if isinstance(v, np.ndarray) else v for v in values]  # of no use, any shape
    for i, array in zip(inputs, laid, strict=False):
        values[i] = array
    if size <= BLOCK and results[0].ndim == 1 and (fresh or not any(
            np.may_share_memory(out, a) for out in results for a in laid[:len(inputs)])):
        line = _line(program, tuple([isinstance(v, np.ndarray) and v.size == size
                                     for v in values]))
        if line is not None:
            line.run(values, results, size)
            return
    _run_blocks(program, values, results)


def _run_call(function: Any, operands: list[Any], out: Array) -> None:
    """One NumPy function along one dimension."""
    n = len(out)

    def body(task: int) -> None:
        piece = slice(task * _TASK, (task + 1) * _TASK)
        function(*[v[piece] if isinstance(v, np.ndarray) and v.shape == (n,) else v
                   for v in operands], out=out[piece])

    parallel(-(-n // _TASK), lambda: body, n)


def _lay_out(arrays: list[Array], shape: tuple[int, ...], guide: Array) -> list[Array]:
    """All arrays with the same number of dimensions, in the guide's memory order, collapsed."""
    if all(a.flags.c_contiguous and (a.shape == shape or a.size == 1) for a in arrays):
        return [a.reshape(-1) if a.size != 1 or a.shape == shape else a.reshape(1) for a in arrays]
    n = len(shape)
    arrays = [a[(None,) * (n - a.ndim)] for a in arrays]
    guide = guide[(None,) * (n - guide.ndim)]
    order = sorted(range(n), key=lambda d: (-abs(guide.strides[d]), d))
    arrays = [a.transpose(order) for a in arrays]
    return _collapsed(arrays, [shape[d] for d in order])


def _collapsed(arrays: list[Array], lengths: list[int]) -> list[Array]:
    """Neighbouring dimensions joined where one stride serves both in every array."""
    groups: list[list[int]] = []
    for d in range(len(lengths)):
        if lengths[d] == 1 and groups:
            continue
        if groups and all(_joins(a, groups[-1][-1], d) for a in arrays):
            groups[-1].append(d)
        else:
            groups.append([d])
    views = []
    for a in arrays:
        shape = [math.prod([a.shape[d] for d in g]) for g in groups]
        strides = [a.strides[g[-1]] for g in groups]
        views.append(np.lib.stride_tricks.as_strided(a, shape, strides))
    return views


def _joins(a: Array, outer: int, inner: int) -> bool:
    if a.shape[outer] == 1 and a.shape[inner] == 1:
        return True
    if a.shape[outer] == 1 or a.shape[inner] == 1:
        return False
    return bool(a.strides[outer] == a.strides[inner] * a.shape[inner])


def _run_blocks(program: Program, values: list[Any], outs: list[Array]) -> None:
    shape = outs[0].shape
    block = _block_lengths(shape)
    plan = _Registers(program, _result_shapes(program, values), [out.shape for out in outs],
                      _last_reads(program, values, outs))
    counts = [-(-n // b) for n, b in zip(shape, block, strict=True)]
    run, values = _lines(program), _scalars(program, values)
    arrays = [(i, v) for i, v in enumerate(values) if isinstance(v, np.ndarray) and v.ndim]

    def start() -> Callable[[int], None]:
        memory = plan.memory(math.prod(block))
        laid: dict[tuple[int, ...], dict[int, Array]] = {}  # the buffers as blocks of a size

        def body(task: int) -> None:
            places, sizes = [], []
            for n, b, count in zip(reversed(shape), reversed(block), reversed(counts), strict=True):
                task, place = divmod(task, count)
                places.append(slice(place * b, place * b + b))
                sizes.append(min(b, n - place * b))
            index, size = tuple(reversed(places)), tuple(reversed(sizes))
            results = laid.get(size)
            if results is None:
                results = laid[size] = {v: plan.buffer(memory, v, size) for v in plan.place}
            current = values.copy()
            for i, array in arrays:
                current[i] = _sliced(array, index)
            for value, array in results.items():
                current[value] = array
            targets = [_sliced(out, index) for out in outs]
            for value, position in plan.output.items():
                current[value] = targets[position]
            run(*current)
            for position, value in plan.copies:
                cast_step(np.asarray(current[value]), targets[position])

        return body

    parallel(math.prod(counts), start, outs[0].size)


@functools.lru_cache(maxsize=4096)
def _ordered(program: Program) -> Program:
    """The program with what needs more buffers before what needs fewer (Sethi and Ullman 1970)."""
    made = {step.result: step for step in program.steps}
    need = dict.fromkeys(range(len(program.dtypes)), 0)

    def before(values: Sequence[int]) -> list[int]:
        return sorted(dict.fromkeys(values), key=need.__getitem__, reverse=True)

    for step in program.steps:
        kept = [need[i] for i in before(step.operands) if need[i]]
        need[step.result] = max([count + n for n, count in enumerate(kept)], default=1)
    ordered: dict[int, Step] = {}
    waiting = [made[i] for i in reversed(before(program.outputs)) if i in made]
    while waiting:
        step = waiting[-1]
        first = [made[i] for i in before(step.operands) if i in made and i not in ordered]
        if first:
            waiting += reversed(first)
        else:
            ordered.setdefault(step.result, waiting.pop())
    return replace(program, steps=tuple(ordered.values()))


@functools.lru_cache(maxsize=4096)
def _lines(program: Program) -> Callable[..., None]:
    """The steps as one function of all values: a line of Python each, which writes its result.

    What the interpreter does between two steps is what other threads wait for.
    """
    names: dict[str, Any] = {}
    lines = []
    for n, (step, function) in enumerate(zip(program.steps, _functions(program), strict=True)):
        names[f"f{n}"] = function
        given = "".join([f"v{i}, " for i in step.operands])
        lines.append(f"  f{n}({given}out=v{step.result})\n")
    values = ", ".join([f"v{i}" for i in range(len(program.dtypes))])
    exec(f"def run({values}):\n{''.join(lines) or '  pass'}", names)
    run: Callable[..., None] = names["run"]
    return run


def _scalars(program: Program, values: list[Any]) -> list[Any]:
    """Operands of one element without dimensions, which NumPy's ufuncs take in half the time."""
    others = _of_others(program)
    return [v.reshape(()) if isinstance(v, np.ndarray) and v.size == 1 and i not in others else v
            for i, v in enumerate(values)]


@functools.lru_cache(maxsize=4096)
def _of_others(program: Program) -> frozenset[int]:
    """The operands of functions that are no ufuncs, and may want a dimension."""
    return frozenset(i for step, function in zip(program.steps, _functions(program), strict=True)
                     if not isinstance(function, np.ufunc) for i in step.operands)


def _block_lengths(shape: tuple[int, ...]) -> list[int]:
    """Full inner dimensions up to a block's size, a part of the next, one of the outer ones."""
    lengths, room = [1] * len(shape), BLOCK
    for d in reversed(range(len(shape))):
        lengths[d] = max(min(shape[d], room), 1)
        room //= lengths[d]
        if room <= 1 and lengths[d] < shape[d]:
            break
    return lengths


def _sliced(array: Array, index: tuple[slice, ...]) -> Array:
    return array[tuple(slice(None) if n == 1 else i
                       for n, i in zip(array.shape, index, strict=True))]


def _last_reads(program: Program, values: list[Any], outs: list[Array]) -> list[int]:
    """For each output, the last step that reads an argument in the same place, or 0."""
    read: dict[int, int] = {}
    for n, step in enumerate(program.steps):
        for i in step.operands:
            if isinstance(values[i], np.ndarray):
                read[values[i].ctypes.data] = n
    return [read.get(out.ctypes.data, 0) for out in outs]


def _result_shapes(program: Program, values: list[Any]) -> dict[int, tuple[int, ...]]:
    """The shape each result would have in full: no larger than its operands broadcast to."""
    shapes = {i: v.shape for i, v in enumerate(values) if isinstance(v, np.ndarray)}
    for step in program.steps:
        shapes[step.result] = np.broadcast_shapes(*[shapes[i] for i in step.operands])
    return shapes


class _Line:
    """A program as calls on whole arrays of one length, where they make one block."""

    def __init__(self, program: Program, plan: _Registers) -> None:
        self.program, self.plan = program, plan

    def run(self, values: list[Any], outs: list[Array], size: int) -> None:
        """`values` has the arguments."""
        plan, values = self.plan, _scalars(self.program, values)
        memory = plan.memory(size)
        for value, place in plan.place.items():
            dtype = plan.dtypes[value].numpy
            values[value] = memory[place][:size * dtype.itemsize].view(dtype)
        for value, position in plan.output.items():
            values[value] = outs[position]
        _lines(self.program)(*values)
        for position, value in plan.copies:
            cast_step(values[value], outs[position])


@functools.lru_cache(maxsize=4096)
def _line(program: Program, whole: tuple[bool, ...]) -> _Line | None:
    """A program of arguments that are whole or of one element, None where a result would not be.

    What is decided here depends on nothing else, so that it is decided once.
    """
    full = {i for i, known in enumerate(whole) if known}
    for step in program.steps:
        if not full.intersection(step.operands):
            return None
        full.add(step.result)
    if not full.issuperset(program.outputs):
        return None
    length: tuple[int, ...] = (2,)  # any would do
    shapes = {i: length if i in full else () for i in range(len(whole))}
    outputs = [length] * len(program.outputs)
    return _Line(program, _Registers(program, shapes, outputs, [0] * len(outputs)))


class _Registers:
    """Where each result lives: in an output, or in a buffer that later results reuse."""

    def __init__(self, program: Program, shapes: dict[int, tuple[int, ...]],
                 outs: Sequence[tuple[int, ...]], read: Sequence[int]) -> None:
        """`outs` are the shapes of the outputs; `read`, the last step that reads an argument in the
        same memory."""
        self.shapes = shapes
        self.dtypes = program.dtypes
        last = {i: n for n, s in enumerate(program.steps) for i in s.operands}
        made = {s.result: n for n, s in enumerate(program.steps)}
        self.output: dict[int, int] = {}
        self.copies: list[tuple[int, int]] = []
        for position, value in enumerate(program.outputs):
            fits = (value >= program.first_result and value not in self.output
                    and shapes[value] == outs[position]
                    and value not in last  # an output read again later may alias an input
                    and read[position] <= made[value])
            if fits:
                self.output[value] = position
            else:
                self.copies.append((position, value))
                last[value] = len(program.steps)
        self.place: dict[int, int] = {}
        self.widths: list[int] = []  # bytes of an element, for each buffer
        self._keep(program, last, made, read)

    def _keep(self, program: Program, last: dict[int, int], made: dict[int, int],
              read: Sequence[int]) -> None:
        """Find memory for what is computed on the way.

        The fewer buffers, the more of a block the second-level cache holds.  A ufunc may write over
        what it reads; other functions may write before they have read.
        """
        final = {position: value for value, position in self.output.items()}
        until = dict.fromkeys(final, -1)  # the last step that reads what is kept in an output
        direct = [isinstance(function, np.ufunc) for function in _functions(program)]
        free: dict[int, list[int]] = {}

        def output(n: int, result: int) -> int | None:
            """An output whose memory is of no other use while this result is."""
            for position, value in final.items():
                end = made[value]
                if (n < end and self._alike(value, result) and read[position] <= n
                        and until[position] < n + direct[n]
                        and last[result] < end + direct[end]):
                    until[position] = last[result]
                    return position
            return None

        for n, step in enumerate(program.steps):
            result = step.result
            ending = [i for i in dict.fromkeys(step.operands)
                      if last[i] == n and i in self.place]
            if result not in self.output:
                over = next((i for i in ending if direct[n] and self._alike(i, result)), None)
                idle = output(n, result)
                if idle is not None:
                    self.output[result] = idle
                elif over is not None:
                    self.place[result] = self.place[over]
                    ending.remove(over)
                else:
                    size = program.dtypes[result].itemsize
                    spare = free.setdefault(size, [])
                    if not spare:
                        self.widths.append(size)
                        spare.append(len(self.widths) - 1)
                    self.place[result] = spare.pop()
            for i in ending:
                free[program.dtypes[i].itemsize].append(self.place[i])

    def _alike(self, a: int, b: int) -> bool:
        """Whether the memory of one value does for the other."""
        return self.dtypes[a] is self.dtypes[b] and self.shapes[a] == self.shapes[b]

    def memory(self, block: int) -> list[Array]:
        """Buffers of `block` elements, for one thread."""
        return [empty((block * width,), np.uint8) for width in self.widths]

    def buffer(self, memory: list[Array], value: int, sizes: tuple[int, ...]) -> Array:
        full = self.shapes[value]
        shape = tuple(1 if n == 1 else b for n, b in zip(full, sizes[len(sizes) - len(full):],
                                                         strict=True))
        dtype = self.dtypes[value].numpy
        count = math.prod(shape)
        place = memory[self.place[value]]
        return place[:count * dtype.itemsize].view(dtype).reshape(shape)
