"""`pytest --torch`: only the tests that PyTorch takes part in.

CI runs them where it is installed, after everything has run where it is not.  It takes part in a
test if the test (by its id or in its code), a fixture of it, or a function of the tests that one of
these calls names torch; a test that skips for want of PyTorch and is not found so fails, since
nothing would ever run it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

NAMES = {"torch", "twin"}
FOLDER = str(Path(__file__).parent)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--torch"):
        taken = {item: takes_part(item) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not taken[item]])
        items[:] = [item for item in items if taken[item]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if "torch" in reason.lower() and not takes_part(item):
            report.outcome = "failed"
            report.longrepr = f"pytest --torch would not run this test: {reason}"
    return report


def takes_part(item: Any) -> bool:
    """Whether PyTorch takes part in a test, as far as names tell."""
    if hasattr(item.module, "torch") or "torch" in item.name:
        return True
    fixtures = [found.func for made in item._fixtureinfo.name2fixturedefs.values()
                for found in made]
    seen: set[FunctionType] = set()
    return any(_names_torch(function, seen) for function in (item.function, *fixtures))


def _names_torch(function: Any, seen: set[FunctionType]) -> bool:
    """Whether a function of the tests names it, or calls one that does."""
    function = getattr(function, "__wrapped__", function)
    if (not isinstance(function, FunctionType) or function in seen
            or not function.__code__.co_filename.startswith(FOLDER)):
        return False
    seen.add(function)
    words = set(_words(function.__code__))
    return not words.isdisjoint(NAMES) or any(
        _names_torch(function.__globals__.get(word), seen) for word in words)


def _words(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_varnames
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
        elif isinstance(constant, str):
            yield constant
