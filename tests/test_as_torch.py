"""Programs written for PyTorch, run by `python -m mlgpu.as_torch`.

What they rely on stands in written_for_torch.py; the losses of the examples, as torch 2.13 printed
them, in written_for_torch.txt.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parent / "examples" / "pytorch"
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MLGPU_CUDA": "",
         "PYTHONPATH": str(FOLDER.parent)}


def recorded():
    parts = (FOLDER / "written_for_torch.txt").read_text().split("== ")
    return {name: text for name, _, text in (part.partition("\n") for part in parts) if name}


def run(*arguments, check=True, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                          check=check, env=ALONE, **options)


def under_mlgpu(*arguments, **options):
    return run("-m", "mlgpu.as_torch", *map(str, arguments), **options)


def same(found, expected, absolute=2e-3):
    """The same text, and numbers that differ by no more than rounding that training makes grow."""
    number = r"-?\d+\.\d+(?:e-?\d+)?"
    assert re.sub(number, "#", found) == re.sub(number, "#", expected)
    for a, b in zip(re.findall(number, found), re.findall(number, expected), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-2, abs=absolute), (a, b)


@pytest.mark.parametrize("name", list(recorded()))
def test_examples_print_pytorchs_losses(name):
    found = under_mlgpu(EXAMPLES / f"{name}.py").stdout
    # One decimal of a loss in a half type, which each library rounds its own way.
    same(found, recorded()[name], 0.11 if name == "mixed_precision" else 2e-3)


@pytest.mark.parametrize("name", list(recorded()))
def test_pytorch_prints_what_is_recorded(name):
    pytest.importorskip("torch")
    found = run("-W", "ignore", str(EXAMPLES / f"{name}.py")).stdout
    same(found, recorded()[name], 0.11 if name == "mixed_precision" else 2e-3)


def test_every_example_is_recorded():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"seeds", "packages"}
    assert scripts == set(recorded())
    assert len(scripts) >= 10


@pytest.mark.parametrize("library", ["mlgpu", "torch"])
def test_what_programs_rely_on(library):
    pytest.importorskip("numpy" if library == "mlgpu" else "torch")
    module = ("-m", "mlgpu.as_torch") if library == "mlgpu" else ("-W", "ignore")
    done = run(*module, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               *(("-W", "ignore") if library == "torch" else ()),
               str(FOLDER / "written_for_torch.py"), check=False, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_program_sees_itself_as_it_would(tmp_path):
    (tmp_path / "helper.py").write_text("import torch\nVALUE = torch.ones(2).sum().item()\n")
    script = tmp_path / "program.py"
    script.write_text("import sys, helper, torch\n"
                      "print(__name__, sys.argv[1:], helper.VALUE, torch.__version__)\n"
                      "sys.exit(3)\n")
    done = under_mlgpu(script, "--lr", "0.1", check=False)
    assert done.stdout == "__main__ ['--lr', '0.1'] 2.0 2.13.0+mlgpu\n"
    assert done.returncode == 3


def test_an_error_of_the_program_is_its_own(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("import torch\n\n\ndef f():\n    torch.ones(2) @ torch.ones(3)\n\n\nf()\n")
    done = under_mlgpu(script, check=False)
    assert done.returncode == 1
    assert 'program.py", line 5, in f' in done.stderr
    assert done.stderr.splitlines()[-1].startswith("mlgpu.errors.ShapeError: ")


def test_processes_of_a_program_have_torch_answered_too(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("""
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.full((2,), float(i))

if __name__ == "__main__":
    print([x.sum().item() for x in DataLoader(Rows(), batch_size=2, num_workers=2)])
""")
    assert under_mlgpu(script).stdout == "[2.0, 10.0]\n"


def test_what_may_stay_on_the_cpu_beside_cuda(tmp_path):
    pytest.importorskip("cupy")
    script = tmp_path / "program.py"
    script.write_text("""
import io
import torch

x = torch.arange(3.0, device="cuda")
print(x[torch.tensor([2, 0])].tolist(), x[torch.tensor([True, False, True])].tolist())
print((torch.tensor(2.0) * x).tolist(), torch.where(x > 1, x, torch.tensor(0.0)).tolist())
x[torch.tensor(0)] = torch.tensor(5.0)
print(x.tolist(), x.copy_(torch.ones(3)).tolist())
file = io.BytesIO()
torch.save([x, x[1:]], file)
file.seek(0)
a, b = torch.load(file)
b.zero_()
print(a.tolist(), a.device, torch.load(file, map_location="cpu")[0].type())
try:
    x + torch.ones(3)
except RuntimeError as error:
    print(error)
""")
    simulated = {} if find_library("cuda") else {"MLGPU_CUDA": "sim"}
    done = subprocess.run([sys.executable, "-m", "mlgpu.as_torch", str(script)], text=True,
                          capture_output=True, env={**ALONE, **simulated}, check=False)
    assert done.stdout.splitlines() == [
        "[2.0, 0.0] [0.0, 2.0]", "[0.0, 2.0, 4.0] [0.0, 0.0, 2.0]",
        "[5.0, 1.0, 2.0] [1.0, 1.0, 1.0]",
        "[1.0, 0.0, 0.0] cuda:0 torch.FloatTensor",
        "add: tensors are on cuda:0 and cpu; move one with .to()"], done.stderr


def test_usage():
    done = run("-m", "mlgpu.as_torch", check=False)
    assert (done.returncode, "usage:" in done.stderr) == (2, True)
    assert "script.py" in under_mlgpu("--help").stdout


def test_the_real_torch_is_refused_once_it_is_there():
    done = run("-c", "import sys, types; sys.modules['torch'] = types.ModuleType('torch');"
                     "from mlgpu.as_torch import install; install()", check=False)
    assert "torch has been imported already" in done.stderr
    assert run("-c", "from mlgpu.as_torch import install; install(); install(); import torch;"
                     "print(torch.zeros(2).shape)").stdout == "torch.Size([2])\n"
