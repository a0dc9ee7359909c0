"""A test of one row of the op table becomes one test for each operation, which runs all its rows.

A test for each row, dtype and property costs pytest more than what it does: there are tens of
thousands.  A row that fails or is skipped is reported as a subtest of its own, the others run on.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from table.case import Case, rows

ROWS = rows()


def operation(name: str) -> str:
    """Whose row this is: of `reduce/sum-dim (2)`, `reduce/sum`."""
    return re.split(r"-| \(", name, maxsplit=1)[0]


def each_row(dtypes: Callable[[Case], Iterable[str]]) -> Callable[[Callable[..., None]], Any]:
    """Run `check(case, dtype, *fixtures)` for every row, in its `dtypes`; none leaves it out."""
    groups: dict[str, list[tuple[str, Case, str]]] = {}
    for name, case in ROWS:
        for dtype in dtypes(case):
            groups.setdefault(operation(name), []).append((name, case, dtype))

    def of(check: Callable[..., None]) -> Any:
        def test(runs: list[tuple[str, Case, str]], subtests: Any, **fixtures: Any) -> None:
            for name, case, dtype in runs:
                try:
                    check(case, dtype, **fixtures)
                except (Exception, pytest.skip.Exception):
                    with subtests.test(row=name, dtype=dtype):
                        raise

        taken = ["runs", "subtests", *list(inspect.signature(check).parameters)[2:]]
        test.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in taken])
        test.__doc__ = check.__doc__
        return pytest.mark.parametrize("runs", list(groups.values()), ids=list(groups))(test)

    return of
