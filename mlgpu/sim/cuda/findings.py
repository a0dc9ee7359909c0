"""The findings of a program, whatever became of the errors that they led to."""

from __future__ import annotations

from collections.abc import Iterator

from mlgpu.sim.errors import Finding


class Findings:
    """The first finding of each kind at each line of each kernel, and how often it came."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, str, int], Finding] = {}
        self._counts: dict[Finding, int] = {}

    def add(self, finding: Finding) -> None:
        """One more."""
        key = finding.kernel, finding.tool, finding.kind, finding.file, finding.line
        first = self._found.setdefault(key, finding)
        self._counts[first] = self._counts.get(first, 0) + 1

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()
        self._counts.clear()

    def count(self, finding: Finding) -> int:
        """In how many launches one was found."""
        return self._counts[finding]

    def __iter__(self) -> Iterator[Finding]:
        return iter(list(self._counts))

    def __len__(self) -> int:
        return len(self._counts)
