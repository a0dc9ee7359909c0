"""The package itself: import cost, optional imports, the table of names, the kernel sources."""

from __future__ import annotations

import inspect
import os
import statistics
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

import mlgpu
from mlgpu import api
from mlgpu.cuda.sources import kernels_dir

HEAVY = ("cupy", "torch", "scipy", "matplotlib", "sklearn", "tqdm", "pynvml", "numba",
         "threadpoolctl", "safetensors", "ml_dtypes")


SLOW = {"argparse", "asyncio", "concurrent", "ctypes", "email", "http", "importlib.metadata",
        "json", "logging", "multiprocessing", "platform", "socket", "subprocess", "tempfile",
        "unittest", "urllib", "zipfile"}


def run(code: str, **environment: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True, env={**os.environ, **environment}).stdout


def test_import_brings_no_optional_package():
    loaded = run("import mlgpu, sys; print(*sys.modules)").split()
    assert not set(HEAVY) & {name.partition(".")[0] for name in loaded}


def test_import_brings_nothing_slow_of_the_standard_library():
    loaded = run("import sys, numpy; known = set(sys.modules); import mlgpu; "
                 "print(*set(sys.modules) - known)").split()
    assert not SLOW & {*loaded, *(name.partition(".")[0] for name in loaded)}
    roots = {name.partition(".")[0] for name in loaded}
    assert roots - sys.stdlib_module_names == {"mlgpu"}


def test_import_costs_less_than_50_ms_on_top_of_numpy(tmp_path):
    # Processor time, which other programs do not lengthen, with bytecode kept between runs.
    written = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}

    def seconds(imports: str) -> float:
        return float(run(f"import time; {imports}; print(time.process_time())", **written))

    seconds("import mlgpu")
    pairs = [(seconds("import numpy"), seconds("import numpy; import mlgpu")) for _ in range(7)]
    assert statistics.median(both - alone for alone, both in pairs) < 0.050


@pytest.mark.parametrize("module", sorted({*api.FUNCTIONS, *api.METHODS, *api.PROPERTIES}))
def test_every_name_in_the_table_exists(module):
    found = import_module(module)
    for table in (api.FUNCTIONS, api.METHODS, api.PROPERTIES):
        for name in table.get(module, "").split():
            assert callable(getattr(found, name)), f"{module}.{name}"


def test_every_public_function_has_a_docstring_and_types():
    for name in api.names():
        function = getattr(mlgpu, name)
        if not inspect.isfunction(function):
            continue
        assert inspect.getdoc(function), name
        assert function.__annotations__.get("return"), name


def test_names_are_listed_and_unknown_ones_are_attribute_errors():
    assert {"zeros", "reshape", "nn", "float32"} <= set(dir(mlgpu))
    with pytest.raises(AttributeError, match="no_such_function"):
        mlgpu.no_such_function  # noqa: B018


def test_kernel_sources_are_found():
    assert (kernels_dir() / "common.cuh").read_text()


def test_no_two_test_files_share_a_name():
    """pytest imports them by it: the second would be taken for the first."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
