"""Running a program as `python script.py` and `python -m module` do, with torch answered."""

from __future__ import annotations

import io
import os
import runpy
import sys
from types import ModuleType

from mlgpu.as_torch.finder import install


def run_script(path: str, arguments: list[str]) -> None:
    """Run the file as `__main__`, with its folder first on the path and `sys.argv` as it expects.

    Whatever it raises is raised.
    """
    install()
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    with io.open_code(os.path.abspath(path)) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    # Not runpy.run_path, which takes the module away before what a program leaves behind has run.
    main = ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def run_module(name: str, arguments: list[str]) -> None:
    """As `python -m name`."""
    install()
    sys.argv = [name, *arguments]
    sys.path[0] = os.getcwd()
    runpy.run_module(name, run_name="__main__", alter_sys=True)
