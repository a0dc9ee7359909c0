"""The pytest plugin `--cuda-sim`, on test files of other projects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlgpu.sim.cuda.install import real_devices

pytestmark = pytest.mark.skipif(bool(real_devices()), reason="there is a real GPU")
ROOT = Path(__file__).parents[2]

KERNEL = '''
import cupy as cp
import pytest

shift = cp.RawKernel(r"""
extern "C" __global__ void shift(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = x[i + 1];
}""", "shift")


def run(n):
    x, y = cp.arange(100, dtype=cp.float32), cp.zeros(100, cp.float32)
    shift((1,), (128,), (x, y, cp.int32(n)))
    return y
'''


def pytest_on(folder: Path, *options: str, code: int = 1, **files: str) -> str:
    """What pytest prints, run on files."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    environment = {k: v for k, v in os.environ.items()
                   if not k.startswith(("MLGPU_CUDA", "MLGPU_SIM_", "PYTEST_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment["COLUMNS"] = "100"
    loaded = [] if _is_installed() else ["-p", "mlgpu_pytest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-W", "error", *loaded, "-p", "no:cacheprovider",
         "--rootdir", str(folder), *options], cwd=folder, capture_output=True, text=True,
        env=environment, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def _is_installed() -> bool:
    from importlib.metadata import entry_points

    return any(e.value == "mlgpu_pytest" for e in entry_points(group="pytest11"))


def outcomes(text: str) -> dict[str, str]:
    """How each test ended."""
    return {m[2]: m[1] for m in re.finditer(r"^(PASSED|FAILED|ERROR|SKIPPED) \S+::(\w+)", text,
                                            re.MULTILINE)}


def section(text: str, test: str) -> str:
    """What stands below a test's own headline."""
    return re.split(r"^_+ ([\w ]+) _+$", text, flags=re.MULTILINE)[1:][
        2 * re.findall(r"^_+ ([\w ]+) _+$", text, re.MULTILINE).index(test) + 1]


def test_findings_fail_the_test_that_they_belong_to(tmp_path: Path) -> None:
    text = pytest_on(tmp_path, "--cuda-sim", test_shift=KERNEL + '''

def test_right():
    assert run(99)[98] == 99

def test_seen():
    run(100).get()

def test_swallowed():
    try:
        run(100).get()
    except cp.cuda.runtime.CUDARuntimeError:
        pass

def test_never_waited_for():
    run(100)

def test_begins_afresh():
    assert run(99)[0] == 1

@pytest.mark.cuda_findings
def test_wants_it(cuda_sim):
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="shift.cu:5"):
        run(100).get()
    assert [f.kind for f in cuda_sim.findings] == ["out of bounds"]

def test_last(cuda_sim):
    assert len(cuda_sim.findings) == 0
    assert cp.cuda.runtime.getDeviceCount() == len(cuda_sim.devices) == 2

def test_another_failure():
    run(100)
    assert 1 == 2

@pytest.fixture
def late():
    yield
    run(100)

def test_with_teardown(late):
    pass

def test_skipping():
    run(100)
    pytest.skip("reason")
''')
    assert "CUDA: 2 simulated devices sm_90 of 4 GiB, seed 0 (MLGPU_CUDA=sim)" in text
    ended = outcomes(text)
    assert {name for name, end in ended.items() if end == "FAILED"} == {
        "test_seen", "test_swallowed", "test_never_waited_for", "test_another_failure",
        "test_skipping"}
    assert {name for name, end in ended.items() if end == "ERROR"} == {"test_with_teardown"}
    assert "5 failed, 5 passed, 1 error" in text
    assert text.count("at shift (shift.cu:5)") >= 6
    swallowed = section(text, "test_never_waited_for")
    assert "memcheck: out of bounds: read of 4 bytes" in swallowed
    assert re.search(r"launched at .*test_shift.py:15", swallowed)
    another = section(text, "test_another_failure")
    assert "assert 1 == 2" in another
    assert "memcheck: out of bounds" in another.partition("simulated CUDA")[2]


def test_conftest_may_import_cupy_and_workers_follow(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    text = pytest_on(
        tmp_path, "--cuda-sim", "--cuda-sim-devices=3", "--cuda-sim-arch=sm_80", "-n1",
        "--cuda-sim-memory=64 MiB", "--cuda-sim-seed=4", "--cuda-sim-allocations=separate",
        conftest="import cupy", test_shift=KERNEL + '''

@pytest.mark.parametrize("n", [98, 99])
def test_right(n, cuda_sim, worker_id):
    assert worker_id.startswith("gw")
    assert run(n)[n - 1] == n
    assert len(cuda_sim.devices) == 3 and not cuda_sim.streams.hurt
    assert cp.cuda.Device().compute_capability == "80"
    assert cp.cuda.runtime.memGetInfo()[1] == 64 << 20

def test_wrong():
    run(100)

def test_processes_of_tests():
    import subprocess, sys
    code = "from mlgpu.cuda.loading import load; print(load().cuda.runtime.getDeviceCount())"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"3\\n"
''')
    assert "3 simulated devices sm_80 of 64 MiB, seed 4" in text
    assert "1 failed, 3 passed" in text
    assert "at shift (shift.cu:5)" in text


def test_without_the_option_it_does_nothing(tmp_path: Path) -> None:
    text = pytest_on(tmp_path, "--strict-markers", code=0, test_plain='''
        import sys
        import pytest

        def test_nothing_is_imported():
            assert not {"cupy", "llvmlite", "mlgpu", "numpy"} & {*sys.modules}

        def test_simulated(cuda_sim):
            raise AssertionError("never")

        @pytest.mark.cuda_findings
        def test_marked():
            pass
        ''')
    assert "2 passed, 1 skipped" in text
    assert "CUDA is not simulated; run pytest --cuda-sim" in text
    assert "simulated device" not in text


def test_loading_it_costs_less_than_5_ms(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code = ("import time, pytest; t = time.process_time(); import mlgpu_pytest; "
            "print(time.process_time() - t)")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "",
                                "PYTHONPYCACHEPREFIX": str(tmp_path / "out")}
    times = [float(subprocess.check_output([sys.executable, "-c", code], env=environment))
             for _ in range(3)]
    assert min(times) < 0.005


@pytest.mark.parametrize(("options", "message"), [
    (["--cuda-sim-arch=sm_80"], "--cuda-sim-arch means nothing without --cuda-sim"),
    (["--cuda-sim", "--cuda-sim-arch=sm_1"], "--cuda-sim: "),
    (["--cuda-sim", "--cuda-sim-devices=two"], "MLGPU_SIM_DEVICES='two': a whole number")])
def test_wrong_options(options: list[str], message: str, tmp_path: Path) -> None:
    text = pytest_on(tmp_path, *options, code=4, test_empty="def test_empty(): pass")
    assert message in text
    assert "Traceback" not in text
