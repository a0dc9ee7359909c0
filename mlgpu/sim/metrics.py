"""The counters of a launch, by Nsight Compute's names or by readable ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from mlgpu.sim.errors import SimError
from mlgpu.sim.metric_names import ALIASES, METRICS, canonical


class MetricError(SimError, KeyError):
    """A counter that does not exist, or that this launch does not have."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show its repr


class Metrics(Mapping[str, float]):
    """Counter -> number.  Iteration gives Nsight Compute's names, in the table's order.

    `metrics["smsp__inst_executed.sum"]` and `metrics["instructions"]` are the same number.

    The counters named in `slow` are those that `later` gives, with a text that says why some are
    missing; it is called once, when one of them or all counters are asked for.
    """

    def __init__(self, values: Mapping[str, float], slow: Collection[str] = (),
                 later: Callable[[], tuple[Mapping[str, float], str]] | None = None) -> None:
        self._given: dict[str, float] = {}
        self._add(values)
        self._slow = {self._known(name) for name in slow}
        self._later = later
        self._missing = ""

    def _add(self, values: Mapping[str, float]) -> None:
        given = self._given | {
            self._known(name): value.item() if isinstance(value, np.generic) else value
            for name, value in values.items()}
        self._given = {name: given[name] for name in METRICS if name in given}

    @property
    def _values(self) -> dict[str, float]:
        """All counters."""
        if self._later is not None:
            more, self._missing = self._later()
            self._later = None
            self._add(more)
        return self._given

    def __getitem__(self, name: str) -> float:
        known = self._known(name)
        values = self._values if known in self._slow else self._given
        try:
            return values[known]
        except KeyError:
            why = f": {self._missing}" if known in self._slow and self._missing else ""
            raise MetricError(f"metric {name}: not counted in this launch "
                              f"({METRICS[known].description}){why}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        known = canonical(name) if isinstance(name, str) else None
        return known in (self._values if known in self._slow else self._given)

    def __getstate__(self) -> dict[str, object]:
        return {"_given": self._values, "_slow": self._slow, "_missing": self._missing,
                "_later": None}

    def __repr__(self) -> str:
        return f"<{len(self)} metrics; print(metrics.table()) shows them>"

    def as_dict(self, aliases: bool = False) -> dict[str, float]:
        """A plain dictionary, by Nsight Compute's names or by the readable ones."""
        return {METRICS[name].alias if aliases else name: value
                for name, value in self._values.items()}

    def table(self) -> str:
        """All counters as text, in groups, with units and both names."""
        lines: list[str] = []
        group = ""
        for name, value in self._values.items():
            metric = METRICS[name]
            if metric.group != group:
                group = metric.group
                lines += ["", group]
            lines.append(f"  {metric.alias:30} {shown(value):>18} {metric.unit:15} {name}")
        return "\n".join(lines[1:])

    @staticmethod
    def _known(name: str) -> str:
        known = canonical(name)
        if known is None:
            near = difflib.get_close_matches(name, [*METRICS, *ALIASES], n=3, cutoff=0.6)
            raise MetricError(f"metric {name}: there is none of this name" + (
                f"; perhaps {' or '.join(near)}" if near else ""))
        return known


def shown(value: float) -> str:
    """A number for the eye: whole where it is, else with two decimals."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.2f}"
