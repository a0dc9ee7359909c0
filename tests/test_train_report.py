"""The HTML report: whole, self-contained, escaped, readable in light and dark."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

import mlgpu
from mlgpu import nn, train
from mlgpu.train.curves import Curve, chart, ticks
from mlgpu.train.record import Record, Run


class Checker(HTMLParser):
    """Collects tags, their attributes and text; fails where an end does not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    mlgpu.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = mlgpu.rand(12, 3), mlgpu.randint(2, (12,))
    trainer = train.Trainer(
        model, mlgpu.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), log_every=1,
        folder=tmp_path_factory.mktemp("run"), display="none",
        config={"note": "<script>alert('no')</script>"})
    return trainer.fit([(x, y)] * 25, [(x, y)], epochs=4)


def test_the_page_is_whole_and_stands_alone(run, tmp_path):
    path = run.report(tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    page = Checker(text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"https?://|url\(|@import|\bsrc=|\bhref=", text)
    assert "<script>alert('no')</script>" in page.text  # as text
    for part in ("Sequential", "finished", "best val_loss", "0: Linear", "note", "SGD",
                 "numpy", f"{run.step:,} steps", run.best.path.stem,
                 "(with what backward needs)"):
        assert part in page.text, part
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = " ".join(value for name, value in page.attributes if name == "aria-labelledby").split()
    assert set(named) <= set(ids)
    assert page.tags.count("figure") == 4  # loss, lr, throughput, memory
    assert page.tags.count("svg") == page.tags.count("figure") + page.tags.count("li") - 4


def test_a_report_of_a_resumed_run_has_all_of_it(run, tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    trainer = train.Trainer(model, mlgpu.optim.SGD(model.parameters(), lr=0.1), display="none",
                            step=lambda model, batch: model(batch[0]).sum(), folder=run.folder)
    again = trainer.fit([], epochs=4, resume=True)
    assert again.summary == run.summary
    assert [r.as_dict() for r in again.history] == [r.as_dict() for r in run.history]
    assert again.best == run.best
    assert "0: Linear" in again.report(tmp_path / "again.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_runs_that_told_nothing_or_ended_badly(status):
    from mlgpu.train.report import page

    empty = Run({}, {}, status=status, reason="a < b")
    assert "The run has told nothing yet" in Checker(page(empty)).text
    assert "a &lt; b" in page(empty)
    values = {"loss": math.nan, "<b>": 1.0}
    odd = Run({"model": "<M>"}, {}, [Record("train", 1, 1, 0.5, values)], status=status)
    shown = Checker(page(odd)).text
    assert "no value is finite" in shown
    assert "<b> 1 at step 1" in shown


# --- curves ---------------------------------------------------------------------------------------


def test_round_numbers():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-3, 47, 5) == [0, 10, 20, 30, 40]
    assert ticks(0.0012, 0.0031, 5) == [0.0015, 0.002, 0.0025, 0.003]


def test_an_axis_over_decades():
    svg = chart("x", [Curve("x", [1, 2, 3], [1e-3, 1.0, 10.0])], 0)
    places = re.findall(r'points="([^"]*)"', svg)[0].split()
    heights = [float(place.split(",")[1]) for place in places]
    assert (heights[0] - heights[1]) / (heights[1] - heights[2]) == pytest.approx(3, rel=0.01)
    assert "greatest 10 at step 3" in svg


def test_many_points_keep_their_extremes():
    values = [math.sin(i / 500) for i in range(20_000)]
    values[7_777], values[123] = 5.0, math.inf
    svg = chart("x", [Curve("x", range(20_000), values)], 0)
    raw, line = re.findall(r'points="([^"]*)"', svg)
    assert len(raw.split()) <= 800
    assert len(line.split()) <= 800
    assert "greatest 5 at step 7,777" in svg
    heights = [float(place.split(",")[1]) for place in raw.split()]
    assert min(heights) < 30
    assert "<circle" not in svg


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart_in_light_and_dark():
    """WCAG 2: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    style = resources.files("mlgpu.train").joinpath("report.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for ground in ("page", "card"):
            for text in ("text", "quiet", "good", "bad", "warn"):
                assert contrast(colours[text], colours[ground]) >= 4.5, text
            for line in ("s0", "s1", "s2", "s3"):
                assert contrast(colours[line], colours[ground]) >= 3, line
