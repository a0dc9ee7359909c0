"""Compiled forms of the hot loops, through Numba: the extra `mlgpu[fast]`.

Each module here holds compiled loops for one family and imports Numba; an operation asks `load`
for the module, and takes its NumPy form where it gets None.  Both write the same results within
rounding, and the same tests prove both.

Compiled loops let go of the interpreter and run on the library's own parallel loop
(`mlgpu.cpu.threads`), never on Numba's threads.  Machine code is cached on disk, by Numba.

The environment variable MLGPU_FAST is 1 (the default), 0 (off) or "always" (for tests: whatever
the size).
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

__all__ = ["ENOUGH", "load", "problem"]

# Elements from which an operation takes its compiled form.  A matter of shape alone, not of
# whether Numba is loaded already: results must not depend on what ran before.  A program that only
# meets smaller tensors never loads Numba (0.4 s, and once in a machine's life a compilation).
ENOUGH = 0 if os.environ.get("MLGPU_FAST") == "always" else 1 << 17

_modules: dict[str, ModuleType] = {}
_problem: str | None = None
_looked = False


def problem() -> str | None:
    """Why there are no compiled forms; None where there are."""
    global _problem, _looked
    if not _looked:
        if os.environ.get("MLGPU_FAST", "1") == "0":
            _problem = "MLGPU_FAST=0 turns it off"
        elif find_spec("numba") is None:
            _problem = "Numba is not installed (pip install 'mlgpu[fast]')"
        _looked = True
    return _problem


def load(family: str, work: int) -> ModuleType | None:
    """The compiled loops `mlgpu.cpu.fast.<family>` for `work` elements; None: use NumPy's."""
    if work < ENOUGH:
        return None
    module = _modules.get(family)
    if module is None:
        if problem() is not None:
            return None
        module = _modules[family] = import_module(f"mlgpu.cpu.fast.{family}")
    return module
