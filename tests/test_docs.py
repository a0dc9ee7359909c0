"""Every public function, method and class says what it does; the documentation shows them all."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mlgpu
from mlgpu import Tensor, api

ROOT = Path(__file__).parent.parent
MODULES = ["mlgpu", "mlgpu.amp", "mlgpu.autograd", "mlgpu.autograd.functional", "mlgpu.checkpoint",
           "mlgpu.cuda", "mlgpu.data", "mlgpu.data.datasets", "mlgpu.errors", "mlgpu.fft",
           "mlgpu.io", "mlgpu.linalg",
           "mlgpu.memory", "mlgpu.nn", "mlgpu.nn.functional", "mlgpu.nn.init", "mlgpu.nn.utils",
           "mlgpu.nn.utils.prune", "mlgpu.nn.utils.rnn", "mlgpu.optim", "mlgpu.optim.lr_scheduler",
           "mlgpu.peft", "mlgpu.profiler", "mlgpu.quantization", "mlgpu.rl", "mlgpu.sim",
           "mlgpu.sim.metrics", "mlgpu.signal.windows", "mlgpu.sim.roofline", "mlgpu.special",
           "mlgpu.testing",
           "mlgpu.train", "mlgpu.utils.checkpoint", "mlgpu.vision"]


def silent(found, name):
    """Whether something of this package has no docstring of its own."""
    return not (inspect.getdoc(found) or "").strip() and not name.startswith("_")


def members(kind):
    """What a class defines itself, by name; what it inherits is its base's to say."""
    return {name: member for name, member in vars(kind).items()
            if callable(member) or isinstance(member, (property, classmethod, staticmethod))}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring(module):
    if module == "mlgpu.cuda":
        pytest.importorskip("cupy", reason="the functions of mlgpu.cuda need CuPy to be loaded")
    found = import_module(module)
    names = getattr(found, "__all__", [n for n in dir(found) if not n.startswith("_")])
    undocumented = [] if found.__doc__ else [module]
    for name in names:
        value = getattr(found, name)
        home = getattr(value, "__module__", None) or type(value).__module__
        if not callable(value) or not str(home).startswith("mlgpu"):
            continue
        if silent(value, name):
            undocumented.append(name)
        if inspect.isclass(value):
            undocumented += [f"{name}.{m}" for m in members(value) if silent(getattr(value, m), m)]
    assert not undocumented


def test_every_method_of_the_tensor_has_a_docstring():
    for name in [*api.RENAMED, *dir(Tensor)]:
        assert name.startswith("_") or inspect.getdoc(getattr(Tensor, name)), name


def test_docstrings_are_sentences():
    for name in api.names():
        first = (inspect.getdoc(getattr(mlgpu, name)) or "").partition("\n\n")[0]
        assert re.search(r"[.:]\)?$", first), f"{name}: {first!r}"


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="mlgpu.cuda needs CuPy")
@pytest.mark.skipif(importlib.util.find_spec("pdoc") is None, reason="needs mlgpu[docs]")
def test_the_pages_show_every_function_and_method(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "build.py", tmp_path], check=True,
                   capture_output=True)
    page = (tmp_path / "mlgpu.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'<(?:section|div) id="([^"]+)"', page))
    methods = [f"Tensor.{name}" for name in dir(Tensor) if not name.startswith("_")]
    assert not {*api.names(), *methods} - shown
    functional = (tmp_path / "mlgpu" / "nn" / "functional.html").read_text(encoding="utf-8")
    assert 'id="cross_entropy"' in functional
    assert not (tmp_path / "mlgpu" / "ops.html").exists()
