"""The updates of SGD and Adam: parameters, gradients and state are read and written once.

Each function takes lists, one entry per parameter: on CUDA one launch serves all of a dtype, and
nothing waits for the device.  Half types are computed in float32 and rounded once per step; complex
numbers as their two parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd.mode import mode
from mlgpu.cpu.optimizer import AdamRule, Rule, SgdRule, power, update
from mlgpu.cuda import optimizer as cuda_optimizer
from mlgpu.cuda.context import context
from mlgpu.device import Device, runtime
from mlgpu.errors import DeviceError
from mlgpu.inplace import check_writable
from mlgpu.op import Op, check_inputs, wrap
from mlgpu.storage import is_contiguous
from mlgpu.tensor import Tensor

__all__ = ["AdamSettings", "SgdSettings", "adam_", "alike", "confine_", "norm_of",
           "scale_to_norm_", "sgd_", "unscale_"]


@dataclass(frozen=True)
class SgdSettings:
    """What the parameters of a group have in common; `lr` may be a tensor.

    `momentum_cell`: a float64 tensor on CUDA, which has the momentum instead.
    """

    lr: float | Tensor
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    momentum_cell: Tensor | None = None


@dataclass(frozen=True)
class AdamSettings:
    """The same for Adam, whose beta1 `beta1_cell` has."""

    lr: float | Tensor
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    maximize: bool = False
    beta1_cell: Tensor | None = None


def sgd_(params: Sequence[Tensor], grads: Sequence[Tensor], momenta: Sequence[Tensor | None],
         first: Sequence[bool], settings: Sequence[SgdSettings], *,
         grad_factor: Tensor | None = None, found_inf: Tensor | None = None) -> None:
    """One step of SGD.  `momenta` are overwritten by the gradient where it is their `first`.

    Gradients are multiplied by `grad_factor` as they are read, and nothing changes where
    `found_inf` is not 0; both are float32 tensors of one element on the parameters' device.
    """
    for device, chosen in by_device(params):
        if device.type == "cuda":
            for same in _alike(chosen, params, momenta):
                _sgd_cuda(device, [params[i] for i in same], [grads[i] for i in same],
                          [momenta[i] for i in same], [first[i] for i in same],
                          [settings[i] for i in same], grad_factor, found_inf)
            continue
        if _skipped(found_inf):
            continue
        factor = _number(grad_factor)
        rules = [SgdRule(float(s.lr), s.momentum, s.dampening, s.weight_decay, s.nesterov,
                         s.maximize, first[i], factor)
                 for i, s in ((i, settings[i]) for i in chosen)]
        _update("sgd", device, rules, [params[i] for i in chosen], [grads[i] for i in chosen],
                [[momenta[i]] for i in chosen])


def adam_(params: Sequence[Tensor], grads: Sequence[Tensor], exp_avgs: Sequence[Tensor],
          exp_avg_sqs: Sequence[Tensor], max_exp_avg_sqs: Sequence[Tensor | None],
          steps: Sequence[Tensor], settings: Sequence[AdamSettings], *,
          grad_factor: Tensor | None = None, found_inf: Tensor | None = None) -> None:
    """One step of Adam; `max_exp_avg_sqs` are None without AMSGrad.  `steps` count from 0.

    Counts on a CUDA device (float32) are read and raised there.  `grad_factor` and `found_inf` as
    for `sgd_`; counts on the CPU of parameters on CUDA go on even where `found_inf` is not 0, which
    only the device knows.
    """
    for device, chosen in by_device(params):
        if device.type == "cuda":
            for same in _alike(chosen, params, max_exp_avg_sqs, steps):
                states = [(exp_avgs[i], exp_avg_sqs[i], max_exp_avg_sqs[i]) for i in same]
                _adam_cuda(device, [params[i] for i in same], [grads[i] for i in same], states,
                           [steps[i] for i in same], [settings[i] for i in same], grad_factor,
                           found_inf)
            continue
        if _skipped(found_inf):
            continue
        factor = _number(grad_factor)
        counts = [int(steps[i]._array) + 1 for i in chosen]
        rules: dict[Any, Rule] = {}
        for i, count in zip(chosen, counts, strict=True):
            s = settings[i]
            if (id(s), count) not in rules:
                rules[id(s), count] = AdamRule(float(s.lr), s.beta1, s.beta2, s.eps, s.weight_decay,
                                               s.decoupled, s.maximize, count, factor)
        _update("adam", device, [rules[id(settings[i]), count]
                                 for i, count in zip(chosen, counts, strict=True)],
                [params[i] for i in chosen], [grads[i] for i in chosen],
                [[exp_avgs[i], exp_avg_sqs[i], max_exp_avg_sqs[i]] for i in chosen])
        _count([steps[i] for i in chosen], counts)


def _update(name: str, device: Device, rules: Sequence[Rule], params: Sequence[Tensor],
            grads: Sequence[Tensor], states: Sequence[Sequence[Tensor | None]]) -> None:
    """The rules on the CPU, each on a parameter with what there is of its state."""
    groups = [[p, *(t for t in state if t is not None)]
              for p, state in zip(params, states, strict=True)]

    def launch(written: Sequence[Any], read: Sequence[Any]) -> None:
        rest = iter(written)
        update(rules, [[next(rest) for _ in group] for group in groups], read)

    many(name, device, launch, [t for group in groups for t in group], grads)


def _skipped(found_inf: Tensor | None) -> bool:
    return found_inf is not None and found_inf.item() != 0


def _number(factor: Tensor | None) -> float:
    return 1.0 if factor is None else float(factor.item())


# --- many tensors at once -------------------------------------------------------------------------


def by_device(tensors: Sequence[Tensor]) -> Iterator[tuple[Device, list[int]]]:
    """The places of the tensors on each device."""
    places: dict[Device, list[int]] = {}
    first = tensors[0]._storage.device if tensors else None
    if first is not None and all(t._storage.device is first for t in tensors):
        places[first] = [*range(len(tensors))]
        tensors = ()
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor._storage.device, []).append(place)
    yield from places.items()


def _alike(chosen: Sequence[int], params: Sequence[Tensor], *states: Sequence[Tensor | None]
           ) -> list[list[int]]:
    """The chosen places in lists that a launch each can serve: by dtype, and by what there is."""
    groups: dict[Any, list[int]] = {}
    kinds = zip(*[[None if t is None else t._storage.device.type for t in s] for s in states],
                strict=True) if states else [()] * len(params)
    for place, kind in enumerate(kinds):
        groups.setdefault((params[place]._array.dtype, *kind), []).append(place)
    if len(chosen) < len(params):
        wanted = set(chosen)
        groups = {key: [i for i in places if i in wanted] for key, places in groups.items()}
    return [places for places in groups.values() if places]


def many(name: str, device: Device, function: Callable[..., None], written: Sequence[Tensor],
         read: Sequence[Tensor | None] = ()) -> None:
    """`function(written arrays, read arrays)` on the device, in order with other uses of them."""
    op = _Named(name)
    others = [t for t in read if t is not None]
    check_inputs(op, [*written, *others])
    for tensor in written:
        if mode.grad or tensor._storage.inference or not is_contiguous(tensor._array):
            check_writable(op, tensor)
    count = len(written)
    arrays = [t._array for t in (*written, *others)]
    runtime(device).call(lambda *arrays: function(arrays[:count], arrays[count:]), arrays, device,
                         count)
    for tensor in written:
        tensor._storage.version += 1
    if context.capture is not None:
        context.capture.versions += [tensor._storage for tensor in written]


class _Named(Op):
    """What an operation on many tensors is called in errors."""

    def __init__(self, name: str) -> None:
        self.name = name


def _rate(lr: float | Tensor, device: Device) -> tuple[float, Tensor | None]:
    """A learning rate as a number, or as a tensor that kernels read."""
    if not isinstance(lr, Tensor) or lr._storage.device.type == "cpu":
        return float(lr), None
    if lr._storage.device != device or lr.dtype not in (dtypes.float32, dtypes.float64):
        raise DeviceError(f"lr: expected a float32 or float64 tensor on {device}, got {lr.dtype!r} "
                          f"on {lr.device}")
    return 0.0, lr


_Row = tuple[cuda_optimizer.Settings, Tensor | None, Tensor | None]  # with its cells


class _Rows:
    """The different settings of a launch, each once, and the tensors that they refer to."""

    def __init__(self) -> None:
        self.rows: dict[Any, int] = {}
        self.settings: list[cuda_optimizer.Settings] = []
        self.cells: list[Tensor] = []

    def place(self, key: Any, make: Callable[[], _Row]) -> int:
        """The number of the settings under this key."""
        found = self.rows.get(key)
        if found is None:
            settings, *cells = make()
            self.cells += [cell for cell in cells if cell is not None]
            lr, beta1 = (None if cell is None else cell._array for cell in cells)
            found = self.rows[key] = len(self.settings)
            self.settings.append(settings._replace(lr_cell=lr, beta1_cell=beta1))
        return found


def _sgd_cuda(device: Device, params: Sequence[Tensor], grads: Sequence[Tensor],
              momenta: Sequence[Tensor | None], first: Sequence[bool],
              settings: Sequence[SgdSettings], grad_factor: Tensor | None,
              found_inf: Tensor | None) -> None:
    rows = _Rows()

    def row(s: SgdSettings, begins: bool) -> _Row:
        lr, cell = _rate(s.lr, device)
        flags = (s.maximize * cuda_optimizer.MAXIMIZE | s.nesterov * cuda_optimizer.NESTEROV
                 | begins * cuda_optimizer.BEGINS)
        return cuda_optimizer.Settings(lr, s.weight_decay, 0.0, s.momentum, s.dampening, 0.0, 0.0,
                                       None, None, flags), cell, s.momentum_cell

    which = [rows.place((id(s), begins), partial(row, s, begins))
             for s, begins in zip(settings, first, strict=True)]
    buffers = [t for t in momenta if t is not None]
    count = len(params)

    def launch(written: Sequence[Any], read: Sequence[Any]) -> None:
        tensors = (zip(written[:count], read[:count], strict=True) if not buffers else
                   zip(written[:count], written[count:], read[:count], strict=True))
        factor, found = _scalars(read, grad_factor, found_inf)
        cuda_optimizer.sgd(list(tensors), which, rows.settings, factor, found)

    many("sgd", device, launch, [*params, *buffers], [*grads, *rows.cells, grad_factor, found_inf])


def _adam_cuda(device: Device, params: Sequence[Tensor], grads: Sequence[Tensor],
               states: Sequence[tuple[Tensor, Tensor, Tensor | None]], steps: Sequence[Tensor],
               settings: Sequence[AdamSettings], grad_factor: Tensor | None,
               found_inf: Tensor | None) -> None:
    rows = _Rows()
    if context.capture is not None and steps[0]._storage.device.type == "cpu":
        steps = _following(steps, device)
    counted = steps[0]._storage.device.type == "cuda"

    def row(s: AdamSettings, step: int) -> _Row:
        lr, cell = _rate(s.lr, device)
        flags = s.maximize * cuda_optimizer.MAXIMIZE | s.decoupled * cuda_optimizer.DECOUPLED
        rest, root = (0.0, 0.0) if counted else (1 - power(s.beta1, step),
                                                 math.sqrt(1 - power(s.beta2, step)))
        return cuda_optimizer.Settings(lr, s.weight_decay, s.eps, s.beta1, s.beta2, rest, root,
                                       None, None, flags), cell, s.beta1_cell

    counts = [0 if counted else int(step._array) + 1 for step in steps]
    which = [rows.place((id(s), step), partial(row, s, step))
             for s, step in zip(settings, counts, strict=True)]
    number, peak = len(params), states[0][2] is not None
    written = [*params, *(t for column in range(3 if peak else 2) for t in _column(states, column))]
    if counted:
        written += steps

    def launch(written: Sequence[Any], read: Sequence[Any]) -> None:
        columns = [written[i:i + number] for i in range(0, len(written), number)]
        tensors = zip(*columns[:4 if peak else 3], read[:number], strict=True)
        factor, found = _scalars(read, grad_factor, found_inf)
        cuda_optimizer.adam(list(tensors), columns[-1] if counted else None, which, rows.settings,
                            factor, found)

    many("adam", device, launch, written, [*grads, *rows.cells, grad_factor, found_inf])
    if not counted:
        _count(steps, counts)


def _count(steps: Sequence[Tensor], counts: Sequence[int]) -> None:
    """Write counts of steps on the CPU."""
    for step, count in zip(steps, counts, strict=True):
        step._array[...] = count
        step._storage.version += 1


def cell(values: Any, device: Device) -> Tensor:
    """A tensor that is set before each replay of the graph that is captured.

    It does not lie in the graph's memory, where it would share its place with others in turn.
    """
    from mlgpu.cuda.graphs import upload

    return wrap(runtime(device).call(lambda: upload(values), (), device), device)


class _Counts:
    """Counts of steps on the device, for a graph; those on the CPU follow its replays."""

    def __init__(self, steps: Sequence[Tensor], device: Device) -> None:
        self.steps, self.device = steps, device
        self.raised = [0] * len(steps)  # by a replay
        self._there = [-1.0] * len(steps)
        self._cells = cell(np.array(self._there, np.float32), device)._array
        context.capture.before.append(self._write)
        context.capture.effects.append(self._follow)

    def cell(self, place: int) -> Tensor:
        """One of them, which will be raised once more."""
        self.raised[place] += 1
        return wrap(self._cells[place:place + 1], self.device)

    def _write(self) -> None:
        counts = [float(step._array) for step in self.steps]
        if self._there != counts:
            engine = runtime(self.device)
            fresh, _ = engine.from_host(np.array(counts, np.float32), self.device, False)
            engine.copy_into(self._cells, fresh)
            self._there = counts

    def _follow(self) -> None:
        self._there = [a + b for a, b in zip(self._there, self.raised, strict=True)]
        for step, count, raised in zip(self.steps, self._there, self.raised, strict=True):
            step._array[...] = count
            step._storage.version += raised


def _following(steps: Sequence[Tensor], device: Device) -> list[Tensor]:
    """The same counts on the device, wherever else in the captured graph they are raised."""
    known = context.capture.counts
    fresh = [step for step in steps if id(step) not in known]
    if fresh:
        counts = _Counts(fresh, device)  # holds the tensors, so that no other gets their ids
        known.update({id(step): (counts, place) for place, step in enumerate(fresh)})
    found = [known[id(step)] for step in steps]
    return [counts.cell(place) for counts, place in found]


def _column(states: Sequence[tuple[Tensor, Tensor, Tensor | None]], column: int) -> list[Tensor]:
    return [state[column] for state in states]  # type: ignore[misc]


def _scalars(read: Sequence[Any], *given: Tensor | None) -> list[Any]:
    """The arrays of the last tensors that were read, None for those that are None."""
    rest = list(read[len(read) - sum(t is not None for t in given):])
    return [None if t is None else rest.pop(0) for t in given]


# --- over all gradients ---------------------------------------------------------------------------


def alike(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in lists of one device and dtype."""
    return [[tensors[i] for i in same] for _, chosen in by_device(tensors)
            for same in _alike(chosen, tensors)]


def unscale_(grads: Sequence[Tensor], inv_scale: Tensor, found_inf: Tensor) -> None:
    """Multiply all gradients by `inv_scale`; `found_inf` becomes 1 if an element was inf or NaN.

    Both are float32 tensors of one element on the gradients' device.
    """
    for same in alike(grads):
        device = same[0]._storage.device
        if device.type == "cuda":
            many("unscale", device,
                 lambda written, read: cuda_optimizer.unscale(written[:-1], read[0], written[-1]),
                 [*same, found_inf], [inv_scale])
            continue
        for grad in same:
            if not grad.isfinite().all().item():
                found_inf.fill_(1.0)
            grad.mul_(inv_scale.to(grad.device))


def norm_of(tensors: Sequence[Tensor], order: float) -> Tensor:
    """The norm of all elements of CUDA tensors of one dtype, 0-dim; order > 0 or -inf."""
    device = tensors[0]._storage.device
    check_inputs(_Named("get_total_norm"), tensors)
    norm = runtime(device).call(lambda *arrays: cuda_optimizer.norm(arrays, order),
                                [t._array for t in tensors], device)
    return wrap(norm, device)


def scale_to_norm_(grads: Sequence[Tensor], norm: Tensor, limit: float) -> None:
    """Multiply CUDA tensors of one dtype by min(1, limit / (norm + 1e-6))."""
    device = grads[0]._storage.device
    many("clip_grads_with_norm", device,
         lambda written, read: cuda_optimizer.clip(written, read[0], limit), grads,
         [norm.to(device)])


def confine_(grads: Sequence[Tensor], limit: float) -> None:
    """Confine each element of CUDA tensors of one dtype to ±limit."""
    many("clip_grad_value", grads[0]._storage.device,
         lambda written, read: cuda_optimizer.clamp(written, limit), grads)
