"""The command line of the simulated GPU: arguments as text, exit status, what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from mlgpu import cli
from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim.arguments import make
from mlgpu.sim.errors import SimError

SOURCE = """#include "scale.cuh"
#include <stdio_is_not_needed.h>

template <class T> __global__ void fill(T* x, T value) { x[threadIdx.x] = value; }

extern "C" __global__ void scale(const float* x, float* y, float factor, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0) printf("n is %d\\n", n);
    if (i < n) y[i] = x[i] * factor * SCALE;
}

extern "C" __global__ void shifted(const float* x, float* y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i + 1];
}
"""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A file with kernels, its headers and the current folder."""
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "stdio_is_not_needed.h").write_text("")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "scale.cuh").write_text("#ifndef SCALE\n#define SCALE 1\n#endif\n")
    (tmp_path / "src" / "kernel.cu").write_text(SOURCE)
    return "src/kernel.cu"


def run(capsys, *args):
    """Exit status, standard output and standard error."""
    status = cli.main(["sim", "run", *map(str, args)])
    told = capsys.readouterr()
    return status, told.out, told.err


SCALE = ("--kernel", "scale", "-I", "inc", "--grid", 2, "--block", 64, "--arg", "arange:f32:100",
         "--arg", "empty:f32:100", "--arg", "f32:0.5", "--arg", "i32:100")


def test_a_clean_kernel_ends_with_0(kernel, capsys):
    status, out, err = run(capsys, kernel, *SCALE)
    assert (status, err) == (0, "")
    assert out == "n is 100\nscale: grid 2, block 64, sm_90: no findings\n"


def test_buffers_are_printed_and_saved(kernel, capsys, tmp_path):
    status, out, _ = run(capsys, kernel, *SCALE, "-D", "SCALE=4", "--print", "1", "--save",
                         f"1={tmp_path / 'out.npy'}", "--save", f"0={tmp_path / 'in.npy'}")
    assert status == 0
    assert "argument 1: float32 100\n[  0.   2.   4." in out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.arange(100, dtype="f4") * 2)
    np.testing.assert_array_equal(np.load(tmp_path / "in.npy"), np.arange(100, dtype="f4"))


def test_files_and_templates(kernel, capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 8), np.float64))
    status, out, _ = run(capsys, kernel, "--kernel", "fill<double>", "-Iinc", "--block", "8,4",
                         "--arg", "x.npy", "--arg", "f64:2.5", "--print", "all", "--arch", "sm_80")
    assert status == 0
    assert "argument 0: float64 4x8\n[[2.5 2.5 2.5" in out
    assert "block 8x4, sm_80" in out


def test_findings_end_with_1_and_their_text(kernel, capsys):
    args = (kernel, "--kernel", "shifted", "-Iinc", "--block", 32, "--arg", "zeros:f32:32",
            "--arg", "zeros:f32:32")
    status, out, err = run(capsys, *args)
    assert (status, err) == (1, "")
    assert "memcheck: out of bounds" in out
    assert "src/kernel.cu:14" in out
    assert "by thread (31, 0, 0) of block (0, 0, 0)" in out
    assert out.endswith("sm_90: 1 finding\n")
    status, out, _ = run(capsys, *args, "--check", "racecheck,initcheck")
    assert status == 0
    status, out, _ = run(capsys, *args, "--no-check")
    assert status == 0
    assert out.endswith("no findings (checks are off)\n")


def test_uninitialised_reads_are_found(kernel, capsys):
    status, out, _ = run(capsys, kernel, "--kernel", "shifted", "-Iinc", "--block", 32,
                         "--arg", "empty:f32:33", "--arg", "empty:f32:32")
    assert status == 1
    assert "initcheck: uninitialized read" in out


def test_json_has_everything(kernel, capsys):
    status, out, _ = run(capsys, kernel, *SCALE, "--json", "--print", "1", "--roofline", "L4")
    assert status == 0
    told = json.loads(out)
    assert told["findings"] == []
    assert told["output"] == "n is 100\n"
    assert told["arguments"]["1"] == [i / 2 for i in range(100)]
    assert told["metrics"]["launch__grid_size"] == 2
    assert told["metrics"]["l1tex__t_requests_pipe_lsu_mem_global_op_st.sum"] == 4
    assert told["estimate"]["device"] == "L4"
    status, out, _ = run(capsys, kernel, "--kernel", "fill<float>", "-Iinc", "--block", 2,
                         "--arg", "zeros:f32:1", "--arg", "f32:nan", "--json", "--print", "0")
    told = json.loads(out)
    assert status == 1
    assert told["arguments"]["0"] == ["nan"]
    (finding,) = told["findings"]
    assert (finding["tool"], finding["kind"]) == ("memcheck", "out of bounds")
    assert (finding["line"], finding["thread"], finding["size"]) == (4, [1, 0, 0], 4)
    assert finding["text"].startswith("memcheck: out of bounds")


def test_source_metrics_and_estimate_are_shown(kernel, capsys):
    status, out, _ = run(capsys, kernel, *SCALE, "--source", "--metrics", "--roofline", "H100")
    assert status == 0
    assert "y[i] = x[i] * factor * SCALE;" in out
    assert "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum" in out
    assert "estimate for H100" in out


@pytest.mark.parametrize("change", [
    ["--grid", "0"], ["--grid", "1,2,3,4"], ["--grid", "-1"], ["--block", "x"], ["--block", ""],
    ["--shared-mem", "lots"], ["--check", "memchek"], ["--check", ""], ["--print", "first"],
    ["--save", "1"], ["--save", "out.npy"], ["--seed", "x"], ["--unknown"],
    ["--check", "memcheck", "--no-check"]])
def test_wrong_usage_ends_with_2(kernel, capsys, change):
    with pytest.raises(SystemExit) as stopped:
        run(capsys, kernel, *SCALE, *change)
    assert stopped.value.code == 2
    assert "usage: mlgpu sim" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "told"), [
    (["--kernel", "scal"], "this module has .*scale"),
    (["--arch", "sm_12345"], "sm_12345"),
    (["--arg", "i32:1"], "5 arguments; the kernel has 4"),
    (["--arg", "i32:x"], "argument 'i32:x'"),
    (["--arg", "nothing.npy"], "nothing.npy"),
    (["--block", "2048"], "2048"),
    (["--print", "2"], "--print 2: there is no such buffer"),
    (["--print", "9"], "--print 9: there is no such buffer"),
    (["--save", "3=x.npy"], "--save 3: there is no such buffer"),
    (["--roofline", "abacus"], "described are A100"),
    (["--option=--no-such"], "no-such"),
    (["-DSCALE=oops"], r"kernel.cu\(9\)"),
])
def test_what_cannot_run_ends_with_2_and_why(kernel, capsys, change, told):
    import re

    status, out, err = run(capsys, kernel, *SCALE, *change)
    assert (status, out) == (2, "")
    assert re.search(told, err), err
    assert "Traceback" not in err


def test_files_that_are_not_there_or_no_text(capsys, tmp_path):
    assert run(capsys, tmp_path / "no.cu", "--kernel", "k", "--block", 1)[0] == 2
    (tmp_path / "image.cu").write_bytes(b"\xff\xfe\x00")
    status, _, err = run(capsys, tmp_path / "image.cu", "--kernel", "k", "--block", 1)
    assert status == 2
    assert "mlgpu sim run:" in err


def test_help_lists_the_forms(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sim", "run", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for word in ("random:TYPE:SHAPE", "FILE.npy", "--cooperative", "exit status"):
        assert word in out
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sim"])
    assert stopped.value.code == 2


def test_the_main_command_lists_it_and_does_not_import_it():
    code = ("import sys; from mlgpu import cli; assert 'sim' in cli.parser().format_help(); "
            "cli.main(['info']); print('mlgpu.sim' in sys.modules)")
    # Other tests may have asked for simulated devices, in processes that this one starts too.
    environment = {name: value for name, value in os.environ.items() if name != "MLGPU_CUDA"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=environment)
    assert done.stdout.splitlines()[-1] == "False"


# -- arguments from text --------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "value"), [
    ("i32:-5", np.int32(-5)), ("u64:0xffffffffffffffff", np.uint64(2**64 - 1)),
    ("u8:255", np.uint8(255)), ("f32:1.5", np.float32(1.5)), ("f64:1e300", np.float64(1e300)),
    ("f16:-inf", np.float16(-np.inf)), ("bf16:1.5", ml_dtypes.bfloat16(1.5)),
    ("bool:true", np.bool_(True)), ("bool:0", np.bool_(False)), ("null", np.uint64(0)),
    ("e4m3:448", ml_dtypes.float8_e4m3fn(448))])
def test_numbers(form, value):
    made = make(form)
    assert not made.buffer
    assert type(made.value) is type(value)
    assert made.value == value


@pytest.mark.parametrize(("form", "array"), [
    ("zeros:f32:2x3", np.zeros((2, 3), np.float32)), ("ones:i8:4", np.ones(4, np.int8)),
    ("arange:u8:256", np.arange(256, dtype=np.uint8)), ("arange:i64:0", np.zeros(0, np.int64)),
    ("arange:bf16:5", np.arange(5).astype(ml_dtypes.bfloat16)),
    ("ones:bool:2", np.array([True, True]))])
def test_buffers(form, array):
    made = make(form)
    assert made.buffer
    assert made.value.dtype == array.dtype
    np.testing.assert_array_equal(made.value, array)


def test_empty_buffers_have_no_values():
    made = make("empty:f16:3x5")
    assert made.buffer
    assert made.empty == ((3, 5), np.dtype(np.float16))
    assert made.value is None


def test_random_buffers_follow_seed_and_position():
    first = make("random:f32:1000").value
    np.testing.assert_array_equal(make("random:f32:1000").value, first)
    for other in (make("random:f32:1000", seed=1), make("random:f32:1000", position=1)):
        assert (other.value != first).mean() > 0.9
    assert abs(first.mean()) < 0.2
    assert abs(first.std() - 1) < 0.2
    numbers = make("random:i32:10000:-3:4").value
    assert set(numbers.tolist()) == set(range(-3, 4))
    spread = make("random:f64:1000:2:5").value
    assert 2 <= spread.min() < 2.1 < 4.9 < spread.max() < 5
    everything = make("random:u8:10000").value
    assert set(everything.tolist()) == set(range(256))
    assert set(make("random:bool:100").value.tolist()) == {False, True}


@pytest.mark.parametrize("form", [
    "", "5", "i32", "i32:", "i32:1.5", "i32:2147483648", "u8:-1", "f32:1e39", "f16:70000",
    "bool:maybe", "i33:5", "f32:1:2", "zeros:f32", "zeros:f32:", "zeros:f32:-4", "zeros:f32:2y",
    "zeros:float:4", "zeros:f32:4:5", "empty:f32:4:1:2", "random:f32:4:1", "random:i32:4:9:1",
    "random:u8:4:0:300", "random:bool:4:0:1", "arange:u8:257", "arange:i8:129",
    "arange:f16:70000", "missing.npy", "NULL"])
def test_other_texts_are_refused(form):
    with pytest.raises(SimError, match="argument "):
        make(form)


def test_objects_in_files_are_never_loaded(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SimError, match="argument"):
        make(str(tmp_path / "evil.npy"))
