"""What a process imports that a program has started, before what it is to do: see processes.py."""

import json
import os
import runpy

from mlgpu.as_torch.finder import install
from mlgpu.as_torch.processes import MAIN

if MAIN in os.environ:  # else this is imported to be looked at
    install()
    _given = json.loads(os.environ[MAIN])
    if "init_main_from_path" in _given:
        globals().update(runpy.run_path(_given["init_main_from_path"], run_name="__mp_main__"))
    elif not _given.get("init_main_from_name", "__main__").endswith("__main__"):
        globals().update(runpy.run_module(_given["init_main_from_name"], run_name="__mp_main__",
                                          alter_sys=True))
