"""The typed declarations: up to date with the table, shipped, and right for a user's program."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import mlgpu

ROOT = Path(__file__).parent.parent
STUBS = ("functions.pyi", "methods.pyi", "py.typed")

PROGRAM = '''
import mlgpu
from mlgpu import Tensor, nn
from mlgpu.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.relu(self.first(x)))
        return y


@mlgpu.fuse
def scaled(a: Tensor, b: float) -> Tensor:
    return a * b


def train(steps: int) -> float:
    model = Net()
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=1e-3)
    x: Tensor = mlgpu.randn(16, 4).clamp(-1, 1)
    y: Tensor = scaled(x[:, :2], 2.0).add_(1, alpha=2).detach()
    for _ in range(steps):
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss)


weight = nn.Parameter(mlgpu.zeros(3, dtype=mlgpu.float64, device=mlgpu.device("cpu")))
with mlgpu.no_grad():
    weight -= 1
same: nn.Parameter = weight.mul_(2)
flags: Tensor = (weight > 0) & ~(weight == 1)
chosen: Tensor = mlgpu.where(flags, weight, 0)
values, indices = weight.max(dim=0)
largest: Tensor = mlgpu.max(weight)
rows: int = weight.size(0)
total: Tensor = weight.float().T.sum(dim=(0,), keepdim=True) + mlgpu.linalg.norm(weight)
kind: mlgpu.dtype = total.dtype
'''

# Each line is wrong, and a checker must say so.
WRONG = '''
import mlgpu
x = mlgpu.ones(2)
x.no_such_method()
mlgpu.no_such_function(x)
x.add("one")
x.reshape(2).sum(dims=0)
text: str = x.exp()
'''

needs_mypy = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mlgpu[dev]")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="docs/stubs.py needs typing.get_overloads")
def test_stubs_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs" / "stubs.py", "--check"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_stubs_travel_with_the_package():
    for name in STUBS:
        assert (Path(mlgpu.__file__).parent / name).is_file()


def check(program: str, folder: Path) -> list[str]:
    """What mypy finds in a user's program that imports mlgpu as an installed package."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--no-error-summary",
                           "program.py"], cwd=folder, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()


@needs_mypy
def test_a_program_type_checks(tmp_path):
    assert check(PROGRAM, tmp_path) == []


@needs_mypy
def test_wrong_programs_do_not(tmp_path):
    found = check(WRONG, tmp_path)
    lines = {int(line.split(":")[1]) for line in found if ": error:" in line}
    assert lines == {4, 5, 6, 7, 8}, found
