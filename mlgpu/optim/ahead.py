"""What schedules move - rates and momenta - as a captured CUDA graph reads it: cells on the device.

A schedule that depends on nothing but its own state is followed by the graph alone: a kernel takes
the next row of a table, which the host has computed for many steps to come.  The numbers are made
by the schedules' own code, as they are where nothing is captured, and not anew on the device: its
cos and pow differ from the host's in the last bit, and rates that are computed each from the one
before would drift apart.  The host looks before each replay whether cells and table are what they
should be, and writes them only where somebody has changed a setting, or when the table ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from mlgpu.cuda import optimizer as kernels
from mlgpu.device import device_of, runtime
from mlgpu.errors import CaptureError
from mlgpu.op import wrap
from mlgpu.ops.optimizer import cell
from mlgpu.tensor import Tensor

ROWS = 4096  # steps that are computed ahead

Step = Callable[..., None]
Row = tuple[list[float], list[Any]]  # settings, and where the schedules are then


def settings_of(groups: Sequence[Mapping[str, Any]]) -> list[float]:
    """The groups' learning rates, then their momenta (Adam's beta1).

    Rates that lie on a device as tensors are nobody's to move but the program's: 0 stands for them.
    """
    return [*(0.0 if _on_device(group["lr"]) else float(group["lr"]) for group in groups),
            *(float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))
              for group in groups)]


def _on_device(lr: Any) -> bool:
    return isinstance(lr, Tensor) and lr.device.type != "cpu"


class Ahead:
    """The cells of one optimizer in one capture, and what will happen to them."""

    def __init__(self, optimizer: Any, capture: Any) -> None:
        self.optimizer = optimizer
        self.device = device_of(capture.index)
        self.groups = len(optimizer.param_groups)
        self._there = self._settings()  # what the device has
        self._cells = cell(np.array(self._there), self.device)._array
        self._table: Any = None
        self._steps: list[tuple[Any, Step, tuple[Any, ...], dict[str, Any]]] = []
        self._blind = False  # whether a schedule takes part whose steps are not known before
        self._rows: list[Row] = []
        self._row = 0  # the next one
        capture.before.append(self._prepare)
        capture.effects.append(self._follow)

    @staticmethod
    def of(optimizer: Any, capture: Any) -> Ahead:
        """Those of an optimizer, made when they are first needed."""
        found: Ahead | None = capture.settings.get(optimizer)
        if found is None:
            found = capture.settings[optimizer] = Ahead(optimizer, capture)
        if found.groups != len(optimizer.param_groups):
            raise CaptureError("add_param_group: an optimizer gets no more groups while its step "
                               "is captured; add them before")
        return found

    def rate(self, group: int) -> Tensor:
        """The cell of a group's learning rate, float64."""
        return wrap(self._cells[group:group + 1], self.device)

    def momentum(self, group: int) -> Tensor:
        """The cell of a group's momentum, or beta1."""
        return self.rate(self.groups + group)

    def step(self, scheduler: Any, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]
             ) -> None:
        """Record that a schedule moves on here, by `step(scheduler, *args, **kwargs)`."""
        if any(_on_device(group["lr"]) for group in self.optimizer.param_groups) or (
                not scheduler._foreseeable()):
            self._blind = True
            return
        if len(self._steps) == ROWS:
            raise CaptureError(f"step: a captured graph moves schedules on by at most {ROWS} steps")
        if self._table is None:
            self._table = cell(np.zeros(1 + ROWS * len(self._there)), self.device)._array
        self._steps.append((scheduler, step, args, kwargs))
        runtime(self.device).call(kernels.advance, (self._cells, self._table), self.device, 2)

    # --- around each replay ---------------------------------------------------------------------

    def _settings(self) -> list[float]:
        return settings_of(self.optimizer.param_groups[:self.groups])

    def _prepare(self) -> None:
        """Before a replay: write what is not as it should be."""
        settings = self._settings()
        if settings != self._there:
            self._write(self._cells, settings)
            self._there = settings
        elif not self._steps or self._goes_on():
            return
        if self._steps:
            self._rows, self._row = [(settings, self._places()), *self._future(settings)], 1
            self._write(self._table, [0.0, *(x for row, _ in self._rows[1:] for x in row)])

    def _goes_on(self) -> bool:
        """Whether the table has what the next replay needs."""
        return self._row + len(self._steps) <= len(self._rows) and (
            self._blind or self._rows[self._row - 1][1] == self._places())

    def _follow(self) -> None:
        """After a replay."""
        if self._steps:
            self._row += len(self._steps)
            self._there = self._rows[self._row - 1][0]

    def _places(self) -> list[Any]:
        return [scheduler._place() for scheduler, *_ in self._steps]

    def _write(self, array: Any, values: list[float]) -> None:
        engine = runtime(self.device)
        fresh, _ = engine.from_host(np.array(values), self.device, False)
        engine.copy_into(array[:len(values)], fresh)

    def _future(self, settings: list[float]) -> list[Row]:
        """What each step of the coming replays sets, by the schedules' own code."""
        number = len(self._steps)
        turns = ROWS // number
        if self._blind:  # what the host sets before a replay stays
            return [(settings, [])] * (turns * number)
        twin = _Twin(self.optimizer.param_groups[:self.groups])
        copies = deepcopy([scheduler for scheduler, *_ in self._steps], {id(self.optimizer): twin})
        rows: list[Row] = []
        for at in range(turns * number):
            _, step, args, kwargs = self._steps[at % number]
            try:
                step(copies[at % number], *args, **kwargs)
            except Exception:  # as past a schedule's end: its own step says so when that is due
                last = rows[-1] if rows else (settings, [])
                return rows + [last] * (number - len(rows) % number)
            rows.append((settings_of(twin.param_groups), [copy._place() for copy in copies]))
        return rows


class _Twin:
    """What a copy of a schedule has instead of the optimizer: settings of its own."""

    def __init__(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self.param_groups = [
            {name: float(value) if name == "lr" else value for name, value in group.items()
             if name != "params"} for group in groups]
