"""The counters of a launch, by Nsight Compute's names or by readable ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

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
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        given = {self._known(name): value.item() if isinstance(value, np.generic) else value
                 for name, value in values.items()}
        self._values = {name: given[name] for name in METRICS if name in given}

    def __getitem__(self, name: str) -> float:
        known = self._known(name)
        try:
            return self._values[known]
        except KeyError:
            raise MetricError(f"metric {name}: not counted in this launch "
                              f"({METRICS[known].description})") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and canonical(name) in self._values

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
            lines.append(f"  {metric.alias:30} {_shown(value):>18} {metric.unit:15} {name}")
        return "\n".join(lines[1:])

    @staticmethod
    def _known(name: str) -> str:
        known = canonical(name)
        if known is None:
            near = difflib.get_close_matches(name, [*METRICS, *ALIASES], n=3, cutoff=0.6)
            raise MetricError(f"metric {name}: there is none of this name" + (
                f"; perhaps {' or '.join(near)}" if near else ""))
        return known


def _shown(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.2f}"
