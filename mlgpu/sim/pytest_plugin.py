"""What `pytest --cuda-sim` does: each test begins with fresh devices and fails with what they find.

The options, and what is there without them, are in mlgpu_pytest.py.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest

from mlgpu.cuda import environment
from mlgpu.errors import MlgpuError
from mlgpu.sim.cuda.install import install, installed
from mlgpu.sim.cuda.system import System

NAME = "mlgpu-cuda-sim"
Phase = Generator[None, Any, Any]


def start(config: pytest.Config, given: Mapping[str, str | None]) -> None:
    """Install the devices in this process, and have those that it starts do so too."""
    if config.pluginmanager.has_plugin(NAME):
        return
    environment.ask(given)
    try:
        system = installed()
        if system is None:
            system = install(**environment.options())
    except MlgpuError as error:
        raise pytest.UsageError(f"--cuda-sim: {error}") from error
    config.pluginmanager.register(Simulated(system), NAME)


class Simulated:
    """The hooks of pytest that the devices need."""

    def __init__(self, system: System) -> None:
        self.system = system

    def pytest_report_header(self) -> str:
        return f"CUDA: {environment.described()}"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Phase:
        self.system.reset()
        try:
            return (yield)
        except BaseException as error:
            self._explain(item, "setup", error)
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Phase:
        return (yield from self._phase(item, "call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Phase:
        return (yield from self._phase(item, "teardown"))

    def _phase(self, item: pytest.Item, when: str) -> Phase:
        """A part of a test, which fails where something was found, whatever became of it."""
        try:
            result = yield
        except pytest.skip.Exception:
            self._fail(item)
            raise
        except BaseException as error:
            self._explain(item, when, error)
            raise
        self._fail(item)
        return result

    def _fail(self, item: pytest.Item) -> None:
        told = self._told(item)
        if told:
            pytest.fail("\n\n".join(told), pytrace=False)

    def _explain(self, item: pytest.Item, when: str, error: BaseException) -> None:
        """Show with an error what was found and does not stand in it."""
        told = [text for text in self._told(item) if text not in str(error)]
        if told:
            item.add_report_section(when, "simulated CUDA", "\n\n".join(told))

    def _told(self, item: pytest.Item) -> list[str]:
        """Do all that waits, so that what it finds belongs to this test; what was found so far."""
        if item.get_closest_marker("cuda_findings") is not None:
            return []
        told = []
        while True:
            try:
                self.system.drain()
            except Exception as error:
                told.append(f"work that the test did not wait for failed: {error}")
            else:
                break
        for finding in self.system.findings:
            count = self.system.findings.count(finding)
            told.append(f"{finding}{f' (in {count} launches)' * (count > 1)}")
        self.system.reset()  # what comes next is not to suffer from it
        return told
