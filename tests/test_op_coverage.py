"""No public operation without a test, and none missing of those that PyTorch programs use.

`functions.txt` lists what deep-learning code in PyTorch calls; mlgpu has each under its name.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from table.case import rows

import mlgpu
from mlgpu import api

FOLDER = Path(__file__).parent
MODULES = {"nn.functional": mlgpu.nn.functional, "linalg": mlgpu.linalg, "fft": mlgpu.fft,
           "special": mlgpu.special, "vision": mlgpu.vision}

# What no test names, and why that is enough.
EXCEPTIONS = {
    "__array__": "np.asarray calls it, in test_interop.py",
}


def listed():
    lines = (FOLDER / "functions.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def found(name):
    """Whether a dotted name is there, as a function or as a method or attribute of Tensor."""
    place = mlgpu
    for part in name.split("."):
        if not hasattr(place, part):
            return "." not in name and hasattr(mlgpu.Tensor, name)
        place = getattr(place, part)
    return True


def public(module):
    names = getattr(module, "__all__", None) or [n for n in dir(module) if not n.startswith("_")]
    return {n for n in names if callable(getattr(module, n))
            and getattr(getattr(module, n), "__module__", "").startswith("mlgpu.")}


def operations():
    """Every public function and method, by where a program finds it."""
    methods = {name for table in (api.METHODS, api.PROPERTIES) for names in table.values()
               for name in names.split()}
    methods |= {f"{name}_" for names in api.INPLACE.values() for name in names.split()}
    return {"mlgpu": set(api.names()), "Tensor": methods | set(api.RENAMED) | set(api.CASTS),
            **{f"mlgpu.{name}": public(module) for name, module in MODULES.items()}}


@pytest.fixture(scope="module")
def mentioned():
    """The words of all tests and of the table, and what its rows, whose calls may be made of
    parts, are named for."""
    sources = [*FOLDER.glob("test_*.py"), *(FOLDER / "table").glob("*.py"),
               *(FOLDER / "pytorch").glob("*.py"), *(FOLDER / "cuda").glob("*.py")]
    words = {word for path in sources if path.name != Path(__file__).name
             for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    return words | {re.split(r"[/-]", name)[1] for name, _ in rows()}


@pytest.mark.parametrize("name", listed())
def test_what_programs_use_is_there(name):
    assert found(name), f"mlgpu has no {name}"


@pytest.mark.parametrize("place", list(operations()))
def test_every_operation_is_exercised(place, mentioned):
    names = operations()[place]
    assert names, "nothing found: the tables have moved"
    assert sorted(names - mentioned - set(EXCEPTIONS)) == []


def test_exceptions_are_needed(mentioned):
    everything = set().union(*operations().values())
    assert set(EXCEPTIONS) <= everything - mentioned
