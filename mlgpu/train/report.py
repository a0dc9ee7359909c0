"""A run as one HTML page: no script, no network, readable in light and dark and by a reader."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

from mlgpu.io.atomic import replace_file
from mlgpu.memory import format_bytes
from mlgpu.nn.model_summary import HEADINGS, ModelSummary, rows, totals
from mlgpu.train.curves import Curve, chart, number_text
from mlgpu.train.plain import duration, value_text
from mlgpu.train.record import Run

_ROWS = 50  # of the table below a chart
_ASIDE = ("grad_norm", "lr", "loss_scale", "memory", "samples_per_second", "skipped")  # last


def write(run: Run, path: str | os.PathLike[str]) -> Path:
    """Write the page, atomically."""
    with replace_file(path) as file:
        file.write(page(run).encode())
    return Path(path)


def page(run: Run) -> str:
    """The page's text."""
    title = f"{run.config.get('model', 'A run')}: {run.status} at step {run.step:,}"
    style = resources.files("mlgpu.train").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<h1>{escape(str(run.config.get("model", "A run")))}
<span class="status {escape(run.status)}">{escape(run.status)}</span></h1>
<p>{escape(_sentence(run))}</p>
</header>
{_figures(run)}
<section aria-labelledby="curves"><h2 id="curves">Curves</h2>
<div class="charts">
{_charts(run)}
</div></section>
{_model(run)}
<div class="pair">
{_table("Configuration", run.config)}
{_table("Environment", run.environment)}
</div>
</main>
</body>
</html>
"""


def _sentence(run: Run) -> str:
    reason = f" ({run.reason})" if run.reason else ""
    started = run.environment.get("started")
    when = f" Begun {started}." if started else ""
    return (f"{run.status.capitalize()}{reason} after {run.step:,} steps and {run.epoch:,} epochs "
            f"in {duration(run.seconds)}.{when}")


# --- figures --------------------------------------------------------------------------------------


def _figures(run: Run) -> str:
    last = run.last
    figures = []
    if run.best is not None:
        figures.append((f"best {run.best.monitor}", number_text(run.best.value),
                        f"at step {run.best.step:,}" + (f": {run.best.path.stem}" if run.best.path
                                                        else "")))
    figures += [(name, number_text(last[name]), "last") for name in last
                if name == "loss" or name.startswith("val_")]
    figures.append(("wall time", duration(run.seconds), f"{run.step:,} steps"))
    if "samples_per_second" in last:
        rates = run.curve("samples_per_second")[1]
        figures.append(("throughput", value_text("samples_per_second", median(rates)),
                        "samples a second, median"))
    if "memory" in last:
        figures.append(("memory", format_bytes(int(max(run.curve("memory")[1]))),
                        f"peak on {run.config.get('device', 'the device')}"))
    if "parameters" in run.config:
        figures.append(("parameters", f"{run.config['parameters']:,}", "in the model"))
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
                    f"<small>{escape(note)}</small></dd></div>" for name, value, note in figures)
    return f'<dl class="figures">{cells}</dl>'


# --- curves ---------------------------------------------------------------------------------------


def _charts(run: Run) -> str:
    groups: dict[str, list[Curve]] = {}
    for name in run.names():
        kind = next(k for k in ("train", "epoch", "evaluation") if name in run.names(k))
        steps, values = run.curve(name, kind)
        groups.setdefault(name.removeprefix("val_"), []).append(Curve(name, steps, values))
    if not groups:
        return "<p>The run has told nothing yet.</p>"
    order = sorted(groups, key=lambda name: (name.startswith(_ASIDE), len(groups[name]) == 1))
    return "\n".join(_figure(name, groups[name], number) for number, name in enumerate(order))


def _figure(name: str, curves: Sequence[Curve], number: int) -> str:
    legend = "".join(f'<li><svg viewBox="0 0 24 8" aria-hidden="true"><line class="line s{i % 4}" '
                     f'x1="0" x2="24" y1="4" y2="4"/></svg>{escape(curve.name)} '
                     f"<strong>{escape(value_text(curve.name, curve.values[-1]))}</strong></li>"
                     for i, curve in enumerate(curves))
    tables = "".join(_values(curve) for curve in curves)
    text = number_text if name != "memory" else lambda value: format_bytes(int(value))
    return (f"<figure><figcaption><h3>{escape(name)}</h3><ul>{legend}</ul></figcaption>"
            f"{chart(name, curves, number, text)}"
            f"<details><summary>Values</summary>{tables}</details></figure>")


def _values(curve: Curve) -> str:
    every = -(-len(curve.steps) // _ROWS)
    points = list(zip(curve.steps, curve.values, strict=True))
    kept = points[::-1][::every][::-1]  # the last one always
    lines = [(f"{step:,}", value_text(curve.name, value)) for step, value in kept]
    note = f" (every {every}th)" if every > 1 else ""
    return _cells(("step", curve.name + note), lines)


# --- tables ---------------------------------------------------------------------------------------


def _model(run: Run) -> str:
    if run.summary is None:
        return ""
    summary = ModelSummary.from_dict(run.summary)
    lines = "".join(f"<li>{escape(line)}</li>" for line in totals(summary))
    return ('<section aria-labelledby="model"><h2 id="model">Model</h2>'
            f'<ul class="totals">{lines}</ul>'
            '<div class="wide" tabindex="0" role="region" aria-label="Layers of the model">'
            f"{_cells(HEADINGS, rows(summary), indented=True)}</div></section>")


def _table(title: str, values: Mapping[str, Any]) -> str:
    name = title.lower()
    lines = "".join(f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(str(value))}</td></tr>'
                    for key, value in values.items())
    return (f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>'
            f"<table>{lines}</table></section>")


def _cells(headings: Sequence[str], lines: Iterable[Sequence[str]], indented: bool = False) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join("<tr>" + "".join(_cell(cell, indented and place == 0)
                                    for place, cell in enumerate(line)) + "</tr>"
                   for line in lines)
    return f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(text: str, indented: bool) -> str:
    depth = len(text) - len(text.lstrip())
    if indented and depth:
        return f'<td style="padding-left:{depth / 2 + 0.6:g}em">{escape(text.strip())}</td>'
    return f"<td>{escape(text)}</td>"
