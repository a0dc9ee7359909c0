"""The dashboard: a run in a terminal, drawn anew a few times a second by rich."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlgpu import memory
from mlgpu.extras import require
from mlgpu.memory import format_bytes
from mlgpu.train.callback import Callback
from mlgpu.train.plain import duration, ending, value_text
from mlgpu.train.plot import Series, plot
from mlgpu.train.record import Record, Run

if TYPE_CHECKING:
    from mlgpu.train.trainer import Trainer

STYLES = ("cyan", "magenta", "yellow", "green")
_CHART_LINES = 8
_WINDOW = 20  # steps that the throughput is a mean over
_FIRST = ("loss", "reward")  # curves that there is always room for


class Dashboard(Callback):
    """Progress, curves, throughput, learning rate, memory and the time that is left.

    Needs the extra `train` (rich); MissingExtraError without.  `console` is rich's, by default one
    on standard error.  What the program prints meanwhile appears above it.
    """

    def __init__(self, console: Any = None) -> None:
        require("rich", "train", "the dashboard")
        from rich.console import Console

        self.console = console or Console(stderr=True)
        self._live: Any = None
        self._trainer: Trainer | None = None
        self._series: dict[str, tuple[str, Series]] = {}  # with the kind of its records
        self._newest: dict[str, float] = {}
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)
        self._evaluation: tuple[int, int | None] | None = None
        self._checkpoint: tuple[float, Path] | None = None

    # --- events -----------------------------------------------------------------------------

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Begin to draw, with what a resumed run has told before."""
        from rich.live import Live

        self._trainer = trainer
        self._series.clear()
        self._marks.clear()
        for record in trainer.run.history:
            self._take(record)
        self._mark(trainer)
        self._live = Live(console=self.console, get_renderable=self.__rich__,
                          refresh_per_second=4, transient=True)
        self._live.start()

    def on_step_end(self, trainer: Trainer) -> None:
        """Note the time."""
        self._mark(trainer)

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """New points of the curves."""
        self._take(record)
        if record.kind == "evaluation":
            self._evaluation = None
            self._marks.clear()  # what it took is no part of the throughput
            self._mark(trainer)

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        """Show that it evaluates."""
        self._evaluation = (0, None)

    def on_evaluation_batch(self, trainer: Trainer, done: int, total: int | None) -> None:
        """How far it is."""
        self._evaluation = (done, total)

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """Show the newest."""
        self._checkpoint = (time.perf_counter(), path)

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        """The last picture stays, with how it ended."""
        self._stop(run)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """The last picture stays, above the traceback."""
        self._stop(trainer.run)

    def _stop(self, run: Run) -> None:
        self._evaluation = None
        if self._live is not None:
            self._live.stop()
            self._live = None
            self.console.print(self)
            self.console.print(ending(run), markup=False, highlight=False)

    def _take(self, record: Record) -> None:
        self._newest.update(record.values)
        for name, value in record.values.items():
            # What there is for every few steps is not drawn again for every epoch.
            kind, series = self._series.setdefault(name, (record.kind, Series(name)))
            if kind == record.kind:
                series.add(record.step, value)

    def _mark(self, trainer: Trainer) -> None:
        self._marks.append((time.perf_counter(), trainer.progress.step, trainer.progress.samples))

    # --- the picture ------------------------------------------------------------------------

    def __rich__(self) -> Any:
        """What is drawn."""
        from rich.console import Group
        from rich.panel import Panel

        trainer = self._trainer
        if trainer is None:
            return ""
        config = trainer.run.config
        title = f"{config['model']} · {config['parameters']:,} parameters · {config['device']}"
        parts = [self._progress(trainer), self._figures(trainer), *self._charts()]
        return Panel(Group(*parts), title=title, title_align="left", padding=(0, 1))

    def _progress(self, trainer: Trainer) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        step, total = trainer.progress.step, trainer.total_steps
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        epochs = "" if trainer.goal.epochs is None else f"/{trainer.goal.epochs}"
        steps = f"/{total:,}" if total is not None else ""
        bar = ProgressBar(total=total, completed=step, pulse=total is None)
        grid.add_row(f"epoch {max(trainer.epoch, 1)}{epochs}  step {step:,}{steps}", bar,
                     f"{duration(trainer.run.seconds)} · {self._left(trainer)}")
        if self._evaluation is not None:
            done, batches = self._evaluation
            grid.add_row("evaluating", ProgressBar(total=batches, completed=done,
                                                   pulse=batches is None),
                         f"{done}/{batches or '?'} batches")
        return grid

    def _left(self, trainer: Trainer) -> str:
        if trainer.interrupted and trainer.run.status == "running":
            return "ending after this step (Ctrl-C again: at once)"
        total, rates = trainer.total_steps, self._rates()
        if trainer.run.status != "running" or total is None or rates is None or not rates[0]:
            return trainer.run.status
        return f"{duration((total - trainer.progress.step) / rates[0])} left"

    def _rates(self) -> tuple[float, float] | None:
        """Steps and samples a second of late."""
        if len(self._marks) < 2:
            return None
        (began, step, samples), (ended, to_step, to_samples) = self._marks[0], self._marks[-1]
        seconds = max(ended - began, 1e-9)
        return (to_step - step) / seconds, (to_samples - samples) / seconds

    def _figures(self, trainer: Trainer) -> Any:
        from rich.table import Table
        from rich.text import Text

        shown = {name: value_text(name, value) for name, value in self._newest.items()
                 if name not in ("memory", "samples_per_second")}
        rates = self._rates()
        if rates is not None:
            shown["throughput"] = f"{value_text('samples_per_second', rates[1])} samples/s"
        used = memory.stats(trainer.device)
        shown["memory"] = format_bytes(used.allocated)
        shown["peak"] = format_bytes(used.peak)
        if trainer.run.best is not None:
            best = trainer.run.best
            shown["best"] = f"{best.monitor} {best.value:.4g} @{best.step:,}"
        if self._checkpoint is not None:
            shown["checkpoint"] = self._checkpoint[1].stem
        grid = Table.grid(padding=(0, 2), expand=True)
        for _ in range(3):
            grid.add_column(ratio=1, no_wrap=True)
        cells = [Text.assemble((f"{name} ", "dim"), value) for name, value in shown.items()]
        cells += [Text()] * (-len(cells) % 3)
        for first in range(0, len(cells), 3):
            grid.add_row(*cells[first:first + 3])
        return grid

    def _charts(self) -> list[Any]:
        from rich.table import Table

        groups = [group for group in self._groups() if any(len(s.steps) > 1 for s in group)]
        grids = []
        for first in range(0, len(groups), 2):
            grid = Table.grid(padding=(0, 2), expand=True)
            row = groups[first:first + 2]
            for _ in row:
                grid.add_column(ratio=1)
            width = max(10, (self.console.width - 8) // len(row) - 12)
            grid.add_row(*[_chart(group, width) for group in row])
            grids.append(grid)
        return grids

    def _groups(self) -> list[list[Series]]:
        """The curves that go together: the loss in training and evaluation, and so on; four."""
        hidden = ("samples_per_second", "memory", "grad_norm", "lr_", "skipped")
        groups: dict[str, list[Series]] = {}
        for name, (_, series) in self._series.items():
            if not name.startswith(hidden):
                groups.setdefault(name.removeprefix("val_"), []).append(series)
        rate = groups.pop("lr", None)
        names = sorted(groups, key=lambda name: name not in _FIRST)
        return [*[groups[name] for name in names[:3]], *([rate] if rate else [])]


def _chart(group: list[Series], width: int) -> Any:
    from rich.text import Text

    cells, (low, high), (left, right) = plot([(s.steps, s.values) for s in group], width,
                                             _CHART_LINES)
    text = Text(no_wrap=True)
    for number, series in enumerate(group):
        text.append(f"{series.name} {value_text(series.name, series.values[-1])}  ",
                    STYLES[number % len(STYLES)])
    for number, line in enumerate(cells):
        label = {0: high, len(cells) - 1: low}.get(number)
        shown = "" if label is None else value_text(group[0].name, label)
        text.append(f"\n{shown:>9} ┤", "dim")
        for character, owner in line:
            text.append(character, None if owner is None else STYLES[owner % len(STYLES)])
    text.append(f"\n{'':>10}{left:<{width // 2},}{right:>{width - width // 2},}", "dim")
    return text
