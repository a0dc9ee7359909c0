"""What a run shows: the dashboard in a terminal, plain lines elsewhere, curves in Braille."""

from __future__ import annotations

import io
import itertools
import math
import re

import pytest

import mlgpu
from mlgpu import extras, nn, train
from mlgpu.errors import MissingExtraError
from mlgpu.train.plot import Series, plot

BATCH = [(mlgpu.zeros(2, 1), mlgpu.ones(2, 1))] * 3


def trainer(*callbacks, **options):
    model = nn.Linear(1, 1)
    return train.Trainer(model, mlgpu.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss(),
                         callbacks=callbacks, **{"display": "none", "log_every": 1, **options})


# --- plain ----------------------------------------------------------------------------------------


def test_without_a_terminal_there_are_plain_lines(capsys):
    trainer(display="auto").fit(BATCH, BATCH, epochs=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0] == "training Linear (2 parameters) on cpu"
    assert re.fullmatch(r"0:00:0\d  epoch 1  step 1  loss [\d.]+  lr 1\.000e-01  "
                        r"samples_per_second [\d.,e+]+  memory [\d.]+ \w+", lines[1])
    assert [line.split("  ")[1:3] for line in lines[2:6]] == [["epoch 1", "step 3"]] * 2 + [
        ["epoch 2", "step 6"]] * 2
    assert re.fullmatch(r"finished at step 6, epoch 2, after 0:00:0\d; best val_loss [\d.]+ at "
                        "step 6", lines[6])
    assert shown.err.replace("\n", "").isprintable()


def test_lines_of_training_keep_their_distance():
    for interval, count in ((0.0, 6), (1e9, 1)):
        file = io.StringIO()
        trainer(train.PlainLog(interval, file)).fit(BATCH, epochs=2)
        assert len(re.findall(" lr ", file.getvalue())) == count


def test_a_failure_is_said(capsys):
    bad = [(mlgpu.full((1, 1), math.nan), mlgpu.ones(1, 1))]
    with pytest.raises(mlgpu.NonFiniteError):
        trainer(display="plain").fit(BATCH + bad, epochs=1)
    assert "failed (NonFiniteError: Trainer: the loss of step 4" in capsys.readouterr().err


# --- the dashboard --------------------------------------------------------------------------------


class Screen:
    """A dashboard whose terminal is a string."""

    def __init__(self, width=100):
        console = pytest.importorskip("rich.console").Console
        self.file = io.StringIO()
        self.dashboard = train.Dashboard(console(file=self.file, width=width, force_terminal=True,
                                                 color_system=None, height=60))
        self._make = console

    def picture(self, width=100):
        file = io.StringIO()
        self._make(file=file, width=width, color_system=None).print(self.dashboard)
        return file.getvalue()


class Looking(train.Callback):
    def __init__(self, screen):
        self.screen, self.pictures = screen, []

    def on_evaluation_batch(self, trainer, done, total):
        self.pictures.append(self.screen.picture())

    def on_step_end(self, trainer):
        self.pictures.append(self.screen.picture())


def test_the_dashboard_shows_where_a_run_is(tmp_path):
    screen = Screen()
    looking = Looking(screen)
    run = trainer(screen.dashboard, looking, folder=tmp_path).fit(BATCH, BATCH, epochs=4)
    evaluating = looking.pictures[10]
    assert "Linear · 2 parameters · cpu" in evaluating
    assert "epoch 2/4  step 6/12" in evaluating
    assert re.search(r"evaluating +━+ +2/3 batches", evaluating)
    assert re.search(r"\d:\d\d:\d\d · \d:\d\d:\d\d left", looking.pictures[4])
    assert "throughput" in looking.pictures[4]
    final = screen.picture()
    for part in ("epoch 4/4  step 12/12", "· finished", "loss ", "val_loss ", "lr 1.000e-01",
                 "memory ", "best val_loss ", " @12 ", "peak ", "checkpoint step-00000012", "┤"):
        assert part in final
    assert any(0x2800 < ord(character) < 0x2900 for character in final)
    assert all(len(line) == 100 for line in final.splitlines())
    assert all(len(line) == 40 for line in screen.picture(40).splitlines())
    written = screen.file.getvalue()
    assert written.endswith(f"best val_loss {run.best.value:.6g} at step 12\n")
    again = Screen()
    resumed = trainer(again.dashboard, folder=tmp_path)
    resumed.fit(BATCH, BATCH, epochs=4, resume=True)
    assert "⠤" in again.picture() or "⢄" in again.picture()  # the curves of before


def test_the_dashboard_of_a_run_without_end_and_of_an_interrupted_one():
    screen = Screen()

    class Ending(train.Callback):
        def on_step_end(self, trainer):
            trainer._interrupt.asked = trainer.progress.step == 4
            self.picture = screen.picture()

    ending = Ending()
    run = trainer(screen.dashboard, ending).fit((batch for batch in BATCH * 9), epochs=1)
    assert run.status == "interrupted"
    assert "ending after this step" in ending.picture
    assert "step 4 " in ending.picture
    assert "· interrupted" in screen.picture()


def test_the_dashboard_needs_rich(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"rich.*pip install 'mlgpu\[train\]'"):
        trainer(display="dashboard")


# --- curves as text -------------------------------------------------------------------------------


def lines(cells):
    return ["".join(character for character, _ in row) for row in cells]


def test_a_line_of_dots():
    cells, values, steps = plot([([0, 10], [0.0, 1.0])], 4, 2)
    assert (values, steps) == ((0.0, 1.0), (0, 10))
    assert lines(cells) == ["  ⡠⠊", "⡠⠊  "]
    assert {owner for row in cells for _, owner in row} == {0, None}


def test_curves_with_gaps_without_points_and_flat_ones():
    cells, values, _ = plot([([1, 2, 3], [math.nan] * 3), ([1, 2, 3], [2.0, math.inf, 2.0])], 3, 1)
    assert values == (2.0, 2.0)
    assert lines(cells) == ["⠤⠤⠤"]
    assert cells[0][0][1] == 1
    assert lines(plot([([], [])], 3, 2)[0]) == ["   ", "   "]


def test_series_stay_short():
    series = Series("loss", limit=100)
    for step in range(10_000):
        series.add(step, float(step))
    assert 50 <= len(series.steps) <= 101
    assert series.steps[0] == 0
    gaps = {b - a for a, b in itertools.pairwise(series.steps)}
    assert len(gaps) == 1
