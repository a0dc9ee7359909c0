"""A run as text: rows as they are finished, and docs/performance.md."""

from __future__ import annotations

from typing import Any

from mlgpu.memory import format_bytes

from .bars import BARS, Bar, verdict
from .peers import BASELINE, PEERS
from .record import Measure, Row, Run

HEAD = ("workload", "library", "median", "best", "p99", "rate", "ratio", "of best", "err f64",
        "err torch", "bar", "")
_WIDTHS = (20, 13, 9, 9, 9, 10, 7, 7, 8, 9, 5, 0)


def shown(value: float, unit: str) -> str:
    """Seconds or bytes with three digits."""
    if unit == "B":
        return format_bytes(int(value))
    for name, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {name}" if value < 1000 * scale else f"{value:.0f} s"
    return f"{value * 1e6:.3g} us"


def _rate(row: Row, measure: Measure) -> str:
    """Bytes or operations per second of the best call."""
    if row.work is None:
        return ""
    amount, unit = row.work
    return f"{amount / measure.best * 1e-9:.3g} {'GB/s' if unit == 'B' else 'GF/s'}"


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def cells(row: Row, peer: str, bars: dict[str, Bar]) -> tuple[str, ...]:
    """One library's line in a row."""
    measure = row.measures[peer]
    if not measure.values:
        return (row.name, peer, measure.problem.splitlines()[-1])
    ratios, judged = row.ratios(peer), verdict(bars, row, peer)
    timed = row.unit == "s"
    return (row.name, peer, shown(measure.median, row.unit), shown(measure.best, row.unit),
            shown(measure.p99, row.unit) if timed else "", _rate(row, measure),
            *(("", "") if ratios is None else (f"{ratios[0]:.2f}", f"{ratios[1]:.2f}")),
            _error(measure.error), _error(measure.error_to_baseline),
            *(("", "") if judged is None else (f"{judged[0]:.2f}", judged[1])))


def line(given: tuple[str, ...]) -> str:
    """Cells in columns, for a terminal."""
    return " ".join(cell.ljust(width) if i < 2 or i == 11 else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(given, _WIDTHS, strict=False))).rstrip()


def lines(row: Row, bars: dict[str, Bar]) -> list[str]:
    """A finished row for a terminal, what went wrong below it."""
    said = [line(cells(row, peer, bars)) for peer, m in row.measures.items() if not m.absent]
    for problem in row.problems():
        first, *rest = problem.splitlines()
        said += [f"  FAILED {first}", *(f"    {text}" for text in rest[-6:])]
    return said


def heading(run_machine: dict[str, Any]) -> list[str]:
    """The machine in words."""
    m = run_machine
    memory = "" if m["memory"] is None else f", {format_bytes(m['memory'])}"
    gpus = "".join(f", GPU {name}" for name in m["gpus"])
    return [f"{m['cpu']}, {m['cores']} cores{memory}{gpus}; {m['system']}",
            f"Python {m['python']}, NumPy {m['numpy']}, BLAS {', '.join(m['blas'])}"]


def summary(run: Run, bars: dict[str, Bar]) -> list[str]:
    """Bars that are met, met by one of the two ratios, and not met."""
    judged = [(row.name, peer, found[1]) for row in run.rows for peer in row.measures
              if (found := verdict(bars, row, peer)) is not None]
    if not judged:
        return []
    said = [f"bars: {sum(v.startswith('met') for *_, v in judged)} of {len(judged)} met"]
    said += [f"  {name}: {peer}: {v}" for name, peer, v in judged
             if v not in ("met", "met, stretch too")]
    return said


def markdown(run: Run, command: str, chart: str | None) -> str:
    """docs/performance.md, whole."""
    s = run.settings
    text = [
        "# Performance", "",
        f"Made by `{command}`; edit `mlgpu/bench/report.py`, not this page.", "",
        ("Every library has a process of its own; a driver asks each in turn for one sample of one "
         f"workload ({s['warm'] * 1e3:.0f} ms of calls unmeasured, then "
         f"{s['least'] * 1e3:.0f} ms or more, the median of the calls), {s['rounds']} rounds."),
        "",
        ("- **ratio**: time over PyTorch eager's, the median over the rounds of the ratio within a "
         "round; **of best**: the ratio of the best calls. Below 1 is faster."),
        ("- **err f64**, **err torch**: the largest error of outputs and gradients against float64 "
         "and against PyTorch, over the largest value, worst of the workload's results. They are "
         "checked before anything is timed."),
        "- **rate**: what the mathematics must move or compute, over the best time.",
        *([] if s["device"] != "cpu" else [
            "- **bar**: the ratio that mlgpu is held to. `met`: by both ratios."]),
        "- Times are for one operation; the same inputs, made from one seed, go to all.",
        *([] if s["device"] == "cpu" else [
            ("- They are taken between CUDA events around the call. Where the device waits for the "
             "host, as in eager steps of small tensors, they are the host's; steps that are "
             "replayed as CUDA graphs show the kernels alone. Both libraries compute in full "
             "float32.")]), ""]
    text += ["## Machine", "", *(f"- {fact}" for fact in heading(run.machine)),
             (f"- {s['threads']} threads for every library, device `{s['device']}`, "
              f"seed {s['seed']}")]
    text += [f"- `{name}`: {PEERS[name].title}; {versions}" for name, versions in run.peers.items()]
    text += [f"- not installed: `{name}` ({install})" for name, install in run.absent.items()]
    text.append("")
    if chart is not None:
        text += [f"![Ratios to PyTorch eager]({chart})", ""]
    text += _bars_table(run)
    sections = dict.fromkeys(row.section for row in run.rows)
    for section in sections:
        text += [f"## {section.capitalize()}", ""]
        for row in (r for r in run.rows if r.section == section):
            text += _markdown_row(row)
    return "\n".join(text)


def _bars_table(run: Run) -> list[str]:
    rows = [row for row in run.rows if row.name in BARS and run.settings["device"] == "cpu"]
    if not any(verdict(BARS, row, peer) for row in rows for peer in row.measures):
        return []
    parts = [peer for peer in run.peers if PEERS[peer].part]
    text = ["## Bars", "", "Ratio (ratio of best) to PyTorch eager, and the bar.", ""]
    if parts:
        text += [*(f"- `{peer}`: {PEERS[peer].title}." for peer in parts),
                 ("- These are estimates of what part of the work takes, no bounds: mlgpu is "
                  "faster than some of them."), ""]
    text += [f"| workload | mlgpu, NumPy alone | | mlgpu | |{''.join(f' {p} |' for p in parts)}",
             f"|---|--:|---|--:|---|{'--:|' * len(parts)}"]
    for row in rows:
        found = [row.title]
        for peer in ("mlgpu-numpy", "mlgpu"):
            judged, ratios = verdict(BARS, row, peer), row.ratios(peer)
            found += ["", ""] if judged is None or ratios is None else [
                f"{ratios[0]:.2f} ({ratios[1]:.2f})", f"<= {judged[0]:.2f}: {judged[1]}"]
        for peer in parts:
            ratios = row.ratios(peer)
            found.append("" if ratios is None else f"{ratios[0]:.2f} ({ratios[1]:.2f})")
        text.append(f"| {' | '.join(found)} |")
    return [*text, ""]


def _markdown_row(row: Row) -> list[str]:
    text = [f"### {row.title} (`{row.name}`)", "",
            "| library | median | best | p99 | rate | ratio | of best | err f64 | err torch |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for peer in (peer for peer, measure in row.measures.items() if not measure.absent):
        found = cells(row, peer, {})
        text.append(f"| {' | '.join([*found[1:10], *[''] * (10 - len(found))])} |")
    if row.reference:
        text += ["", f"Errors are against {row.reference}."]
    return [*text, ""]


__all__ = ["BASELINE", "HEAD", "cells", "heading", "line", "lines", "markdown", "shown", "summary"]
