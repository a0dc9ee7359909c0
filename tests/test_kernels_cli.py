"""`mlgpu kernels`: what a program used is built ahead of time, and listed with what it takes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mlgpu import cli
from mlgpu.cuda import instances, toolkit
from mlgpu.cuda.compile import compile
from mlgpu.cuda.instances import Instance
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import FormatError, MissingExtraError

SOURCE = 'extern "C" __global__ void __launch_bounds__(128) twice(float* x) { *x *= 2; }'
SPILLING = """extern "C" __global__ void __launch_bounds__(1024) sum(float* x, int n) {
  float kept[200];
  for (int i = 0; i < 200; ++i) kept[i] = x[i * n];
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < 200; ++i) kept[i] = kept[i] * kept[(i + 1) % 200] + x[j];
  for (int i = 0; i < 200; ++i) x[i] = kept[i];
}"""


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("MLGPU_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("MLGPU_NVRTC", raising=False)


def used(tmp_path, *lines: str) -> str:
    path = tmp_path / "used.txt"
    path.write_text("# a comment\n\n" + "".join(f"{line}\n" for line in lines))
    return str(path)


def generated(source: str = SOURCE) -> str:
    return json.dumps({"filename": "made.cu", "names": [], "options": [], "source": source})


def test_a_process_notes_what_it_uses(tmp_path, monkeypatch):
    path = tmp_path / "used.txt"
    monkeypatch.setenv(instances.VARIABLE, str(path))
    family = next(kernels_dir().glob("*.cu"))
    text = family.read_text() + "\ntemplate <int N> __global__ void ml_test(int* x) { *x = N; }\n"
    compile(text, "sm_80", ["ml_test<3>"], filename=family.name)
    compile(text, "sm_90", ["ml_test<3>"], filename=family.name)
    compile(SOURCE, "sm_80", filename="made.cu")
    assert path.read_text().splitlines() == [
        f"{family.stem} ml_test<3>", f"{family.stem} ml_test<3>", generated()]
    assert set(instances.read(path)) == {Instance("made.cu", (), (), SOURCE),
                                         Instance(family.name, ("ml_test<3>",))}


def test_what_was_built_runs_without_a_compiler(tmp_path, monkeypatch, capsys):
    out = tmp_path / "images"
    assert cli.main(["kernels", "build", "--used", used(tmp_path, generated()), "--arch", "sm_80",
                     "compute_90", "--out", str(out)]) == 0
    assert f"2 images, 0.0 MiB, in {out}" in capsys.readouterr().out
    code = f"""
from mlgpu.cuda import toolkit
from mlgpu.cuda.compile import compile
toolkit._libraries = lambda: iter(())  # no compiler here
print(compile({SOURCE!r}, "sm_86", filename="made.cu").path)
print(compile({SOURCE!r}, "sm_120", filename="made.cu", kind="ptx").path)
"""
    monkeypatch.setenv("MLGPU_KERNELS_DIR", str(out))
    monkeypatch.setenv("MLGPU_CACHE_DIR", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    suffixes = [line.rpartition(".")[2] for line in done.stdout.splitlines()]
    assert suffixes == ["cubin", "ptx"]


def test_list_tells_what_kernels_take(tmp_path, capsys):
    path = used(tmp_path, generated(), generated(SPILLING))
    try:
        assert cli.main(["kernels", "list", "--used", path, "--arch", "sm_80", "--json"]) == 0
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    rows = {row["kernel"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows["made twice"][key] for key in ("arch", "spills", "local", "shared", "threads")] \
        == ["sm_80", 0, 0, 0, 128]
    assert rows["made twice"]["occupancy"] == 100
    assert rows["made sum"]["registers"] <= 64
    assert rows["made sum"]["local"] > 0
    assert cli.main(["kernels", "list", "--used", path, "--arch", "sm_80"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["kernel", "arch", "registers", "spills", "local", "shared",
                               "threads", "occupancy"]
    assert len(lines) == 2


def test_launches_may_be_known(tmp_path):
    family = sorted(kernels_dir().glob("*.cu"))[0].stem
    path = used(tmp_path, f"{family} f<int, 2> @128 4096", f"{family} g", family)
    assert instances.chosen(path) == [
        Instance(f"{family}.cu", ()), Instance(f"{family}.cu", ("f<int, 2>",), (), None, 128, 4096),
        Instance(f"{family}.cu", ("g",))]
    assert instances.chosen(path, [family]) == instances.chosen(path)


def test_what_ships_can_be_read():
    assert len(instances.read(instances.shipped())) > 100


@pytest.mark.parametrize(("lines", "told"), [
    (["nofamily f<int>"], "used.txt:3: there is no kernels/nofamily.cu"),
    ([f"{next(kernels_dir().glob('*.cu')).stem} f @12"], "used.txt:3: behind @ two numbers"),
    (["{}"], "used.txt:3: not a kernel"), (["{broken"], "used.txt:3: not a kernel"),
    (['{"filename": 3, "names": [], "options": [], "source": ""}'], "text is needed"),
    ([generated("int x = y;")], 'identifier "y" is undefined')])
def test_what_is_wrong_is_told(tmp_path, capsys, lines, told):
    assert cli.main(["kernels", "list", "--used", used(tmp_path, *lines)]) == 1
    assert told in capsys.readouterr().err


def test_families_and_targets_that_do_not_exist_are_told(tmp_path, capsys):
    assert cli.main(["kernels", "list", "--used", used(tmp_path, generated()), "none"]) == 1
    assert "lists no kernel of none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["kernels", "build", "--arch", "80"])
    assert "no target" in capsys.readouterr().err
    with pytest.raises(FormatError):
        instances.chosen(used(tmp_path, generated()), ["none"])
