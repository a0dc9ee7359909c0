"""The ratios of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlgpu.extras import require

from .bars import BARS
from .peers import BASELINE, PEERS
from .record import Run

COLOURS = dict(zip(PEERS, ("#777777", "#1b7837", "#9970ab", "#000000", "#777700", "#bbbbbb",
                           "#d6604d", "#e08214", "#4393c3"), strict=True))


def draw(run: Run, path: Path) -> None:
    """Draw each row's ratios to the baseline on a logarithmic axis, left is faster."""
    require("matplotlib", "bench", "mlgpu bench --chart")
    from matplotlib.figure import Figure  # no window, no state of pyplot

    rows = [row for row in run.rows if any(row.ratios(peer) for peer in row.measures)]
    figure: Any = Figure(figsize=(9, 1.5 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    if not rows:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"no ratios: {BASELINE} was not measured", ha="center")
        figure.savefig(path)
        return
    for peer in run.peers:
        points = [(ratios[0], place) for place, row in enumerate(rows)
                  if (ratios := row.ratios(peer)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=COLOURS[peer], label=PEERS[peer].title)
    for place, row in enumerate(rows):
        if row.name in BARS and run.settings["device"] == "cpu":
            bar = BARS[row.name]
            for bound, peer in ((bar.numba, "mlgpu"), (bar.numpy, "mlgpu-numpy")):
                axes.plot([bound] * 2, [place - 0.35, place + 0.35], color=COLOURS[peer], alpha=0.6)
    axes.axvline(1, color=COLOURS[BASELINE])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.set_xlabel("time (or memory) / PyTorch eager; strokes are the bars")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
