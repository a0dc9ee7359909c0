"""What a run found: per workload and library its times, ratios and errors, as JSON too."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .peers import BASELINE


@dataclass
class Measure:
    """One library in one row.  Values are seconds for one operation, or bytes."""

    values: list[float] = field(default_factory=list)  # the median of each round's calls
    bests: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)
    error: float | None = None  # against float64: the worst of the results
    error_to_baseline: float | None = None
    problem: str = ""  # why there are no values: a check that failed, an exception
    absent: str = ""  # why there is nothing to measure: no form, not installed

    def add(self, value: float, best: float, p99: float) -> None:
        """One more round."""
        self.values.append(value)
        self.bests.append(best)
        self.p99s.append(p99)

    def failed(self, problem: str) -> None:
        """What was measured before does not count: ratios pair the rounds."""
        self.problem = problem
        for taken in (self.values, self.bests, self.p99s):
            taken.clear()

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.values)

    @property
    def best(self) -> float:
        """The best call of all rounds."""
        return min(self.bests)

    @property
    def p99(self) -> float:
        """The 99th percentile of a round's calls, the median over the rounds."""
        return statistics.median(self.p99s)


@dataclass
class Row:
    """One workload."""

    name: str
    section: str
    title: str
    unit: str = "s"  # or "B"
    work: tuple[float, str] | None = None  # bytes ("B") or operations ("FLOP") of one value
    reference: str = ""  # what computed the float64 results
    measures: dict[str, Measure] = field(default_factory=dict)

    def ratios(self, peer: str) -> tuple[float, float] | None:
        """Over the baseline: the median of the rounds' ratios, and the ratio of the bests."""
        mine, base = self.measures.get(peer), self.measures.get(BASELINE)
        if peer == BASELINE or mine is None or base is None or not mine.values or not base.values:
            return None
        paired = [a / b for a, b in zip(mine.values, base.values, strict=True)]
        return statistics.median(paired), mine.best / base.best

    def problems(self) -> list[str]:
        """What went wrong, with the library's name."""
        return [f"{self.name}: {peer}: {m.problem}" for peer, m in self.measures.items()
                if m.problem]

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        found = asdict(self)
        for peer, measure in self.measures.items():
            if measure.values:
                ratios = self.ratios(peer)
                found["measures"][peer] |= {
                    "median": measure.median, "best": measure.best, "p99": measure.p99,
                    "ratio": ratios and ratios[0], "ratio_of_best": ratios and ratios[1]}
        return found


@dataclass
class Run:
    """Everything that a run found."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    peers: dict[str, str]  # the name of each that was measured, and its versions in words
    absent: dict[str, str]  # those that are not installed, and how they are
    rows: list[Row] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What went wrong in any row."""
        return [problem for row in self.rows for problem in row.problems()]

    def as_dict(self) -> dict[str, Any]:
        """The run as plain values."""
        return {"machine": self.machine, "settings": self.settings, "peers": self.peers,
                "absent": self.absent, "rows": [row.as_dict() for row in self.rows]}


def interleaved(peers: Sequence[str], rounds: int, ask: Callable[[str], None]) -> None:
    """Ask each peer once per round; who comes first changes, so that nobody always follows one."""
    for number in range(rounds):
        turn = number % max(len(peers), 1)
        for peer in [*peers[turn:], *peers[:turn]]:
            ask(peer)
