"""Which display a run has: the dashboard in a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from mlgpu.train.callback import Callback
from mlgpu.train.plain import PlainLog


def display_for(choice: str) -> Callback:
    """The callback that shows a run: "dashboard", "plain", or "auto" for what fits here.

    Raises MissingExtraError for "dashboard" without rich.
    """
    if choice == "dashboard" or (choice == "auto" and sys.stderr.isatty()
                                 and find_spec("rich") is not None):
        from mlgpu.train.dashboard import Dashboard

        return Dashboard()
    return PlainLog()
