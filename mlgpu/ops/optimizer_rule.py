"""Updates of parameters that are written once, as elementwise expressions.

On the CPU an expression runs as one pass over each parameter with its state (compiled where Numba
is there), on CUDA as one generated kernel over all of them.  Half types are computed in float32 and
rounded once per step; complex numbers as their two parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.many import update
from mlgpu.cuda import optimizer as cuda_optimizer
from mlgpu.device import Device
from mlgpu.expr import many as emit
from mlgpu.expr.graph import trace
from mlgpu.expr.lower import NUMBER, TENSOR, Operand, Program, lower, step_function
from mlgpu.ops.optimizer import (
    _number,
    _rate,
    _scalars,
    _skipped,
    by_device,
    many,
)
from mlgpu.tensor import Tensor

__all__ = ["Rule", "RuleSettings", "apply_rule_"]


@dataclass(frozen=True, eq=False)
class Rule:
    """How an optimizer changes an element, and what it keeps.

    `arrays` names the state that is like the parameter, `singles` single numbers beside it.
    `follow(*singles, *settings)` gives the singles after the step, then coefficients, in float64;
    the first setting is the learning rate.  `change(p, g, *arrays, *coefficients)` gives the
    parameter and the arrays; numbers meet elements there, never each other.
    """

    name: str
    arrays: tuple[str, ...]
    singles: tuple[str, ...]
    settings: int
    follow: Callable[..., tuple[Any, ...]]
    change: Callable[..., tuple[Any, ...]]
    momentum: int = -1  # which setting schedules move beside the rate
    scratch: int = 0  # arrays that are written, and of no use after the step
    single: dtypes.dtype = dtypes.float32  # of single numbers

    @property
    def written(self) -> int:
        """How many arrays the update writes, the parameter among them."""
        return 1 + len(self.arrays) + self.scratch


@dataclass(frozen=True)
class RuleSettings:
    """What the parameters of a group have in common; the learning rate may be a tensor.

    `momentum_cell`: a float64 tensor on CUDA, which has the momentum instead.
    """

    numbers: tuple[float | Tensor, ...]
    maximize: bool = False
    momentum_cell: Tensor | None = None


@lru_cache(maxsize=256)
def _follow(rule: Rule) -> Program:
    count = len(rule.singles) + rule.settings
    outputs = trace(rule.follow, count)
    return lower(f"{rule.name} numbers", outputs, [Operand(dtypes.float64, TENSOR)] * count,
                 [dtypes.float64] * len(outputs))


def _coefficients(rule: Rule) -> int:
    return len(_follow(rule).outputs) - len(rule.singles)


@lru_cache(maxsize=256)
def _change(rule: Rule, dtype: Any) -> Program:
    """The update for arrays of a dtype; the last number is the factor of the gradient."""
    arrays, numbers = 1 + rule.written, _coefficients(rule)

    def scaled(p: Any, g: Any, *rest: Any) -> tuple[Any, ...]:
        return rule.change(p, g * rest[-1], *rest[:-1])

    element = Operand(dtypes.from_numpy(dtype), TENSOR)
    number = Operand(dtypes.float64, NUMBER)
    return lower(rule.name, trace(scaled, arrays + numbers + 1),
                 [element] * arrays + [number] * (numbers + 1), [element.dtype] * (arrays - 1))


def _computed(program: Program, arguments: Sequence[float]) -> list[float]:
    """What a program of single numbers gives."""
    values: list[Any] = [*(np.float64(x) for x in arguments), *program.constants]
    for step in program.steps:
        out = np.empty((), program.dtypes[step.result].numpy)
        function = step_function(step.primitive, step.attr)
        function(*[values[i] for i in step.operands], out=out)
        values.append(out)
    return [float(values[i]) for i in program.outputs]


def apply_rule_(rule: Rule, params: Sequence[Tensor], grads: Sequence[Tensor],
                states: Sequence[Sequence[Tensor]], singles: Sequence[Sequence[Tensor]],
                settings: Sequence[RuleSettings], *, grad_factor: Tensor | None = None,
                found_inf: Tensor | None = None) -> None:
    """One step for all parameters: `states` has the rule's arrays of each, `singles` its numbers.

    Everything is on its parameter's device.  Gradients are multiplied by `grad_factor` as they are
    read, and nothing changes where `found_inf` is not 0; both are float32 tensors of one element.
    """
    for device, chosen in by_device(params):
        if device.type == "cuda":
            by_dtype: dict[Any, list[int]] = {}
            for i in chosen:
                by_dtype.setdefault(params[i]._array.dtype, []).append(i)
            for same in by_dtype.values():
                _on_cuda(rule, device, [params[i] for i in same], [grads[i] for i in same],
                         [states[i] for i in same], [singles[i] for i in same],
                         [settings[i] for i in same], grad_factor, found_inf)
        elif not _skipped(found_inf):
            _on_cpu(rule, device, [params[i] for i in chosen], [grads[i] for i in chosen],
                    [states[i] for i in chosen], [singles[i] for i in chosen],
                    [settings[i] for i in chosen], _number(grad_factor))


def _on_cpu(rule: Rule, device: Device, params: Sequence[Tensor], grads: Sequence[Tensor],
            states: Sequence[Sequence[Tensor]], singles: Sequence[Sequence[Tensor]],
            settings: Sequence[RuleSettings], factor: float) -> None:
    follow, kept, each = _follow(rule), len(rule.singles), rule.written
    known: dict[Any, list[float]] = {}
    numbers = []
    for single, s in zip(singles, settings, strict=True):
        key = (id(s), *(float(t._array) for t in single))
        if key not in known:
            known[key] = _computed(follow, [*key[1:], *map(float, s.numbers)])
        numbers.append(known[key])

    def launch(written: Sequence[Any], read: Sequence[Any]) -> None:
        programs, calls = [], []
        for i, (g, s) in enumerate(zip(read, settings, strict=True)):
            scale = -factor if s.maximize else factor
            for *own, grad in _parts([*written[i * each:i * each + each], g]):
                programs.append(_change(rule, grad.dtype))
                calls.append((own, grad, (*numbers[i][kept:], scale)))
        update(programs, calls)

    many(rule.name, device, launch,
         [t for p, state in zip(params, states, strict=True) for t in (p, *state)], grads)
    for single, found in zip(singles, numbers, strict=True):
        for tensor, value in zip(single, found[:kept], strict=True):
            tensor._array[...] = value
            tensor._storage.version += 1


def _parts(arrays: Sequence[Any]) -> list[list[Any]]:
    """The arrays; complex ones as two parts."""
    if arrays[0].dtype.kind != "c":
        return [list(arrays)]
    return [[a.real for a in arrays], [a.imag for a in arrays]]


def _on_cuda(rule: Rule, device: Device, params: Sequence[Tensor], grads: Sequence[Tensor],
             states: Sequence[Sequence[Tensor]], singles: Sequence[Sequence[Tensor]],
             settings: Sequence[RuleSettings], grad_factor: Tensor | None,
             found_inf: Tensor | None) -> None:
    rows: dict[int, int] = {}
    found: list[tuple[RuleSettings, float, Tensor | None]] = []
    cells: list[Tensor] = []
    for s in settings:
        if id(s) not in rows:
            rows[id(s)] = len(found)
            rate, cell = _rate(s.numbers[0], device)
            found.append((s, rate, cell))
            cells += [t for t in (cell, s.momentum_cell) if t is not None]
    which = [rows[id(s)] for s in settings]
    packed = [cuda_optimizer.RuleSettings(
        (rate, *map(float, s.numbers[1:])), None if cell is None else cell._array,
        None if s.momentum_cell is None else s.momentum_cell._array, s.maximize)
        for s, rate, cell in found]
    count, arrays, kept = len(params), rule.written, len(rule.singles)
    wide = dtypes.compute_dtype(dtypes.from_numpy(params[0]._array.real.dtype)).numpy
    shape = emit.Shape(arrays, kept, rule.settings, rule.momentum, rule.single)

    def launch(written: Sequence[Any], read: Sequence[Any]) -> None:
        own, rest = written[:count * arrays], written[count * arrays:]
        factor, inf = _scalars(read, grad_factor, found_inf)
        cuda_optimizer.apply_rule(
            _follow(rule), _change(rule, wide), shape,
            [(*own[i * arrays:(i + 1) * arrays], read[i]) for i in range(count)],
            [rest[i * kept:(i + 1) * kept] for i in range(count)], which, packed, factor, inf)

    many(rule.name, device, launch,
         [*(t for p, state in zip(params, states, strict=True) for t in (p, *state)),
          *(t for single in singles for t in single)],
         [*grads, *cells, grad_factor, found_inf])
