"""The benchmark suite itself, on sizes that measure nothing: protocol, checks, figures, report."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from mlgpu import cli
from mlgpu.bench import check, clock, fresh, peers, report
from mlgpu.bench.bars import BARS, GATES, Bar, verdict
from mlgpu.bench.driver import Driver, Settings
from mlgpu.bench.process import Process, WorkerError
from mlgpu.bench.record import Measure, Row, interleaved
from mlgpu.bench.table import WORKLOADS
from mlgpu.bench.workload import Case

ALONE = ["--peers", "mlgpu-numpy", "--tiny", "--threads", "1"]


def bench(*arguments):
    return cli.main(["bench", *ALONE, *map(str, arguments)])


ON_THE_CPU = {name for name, w in WORKLOADS.items() if not w.cuda} | {*fresh.ROWS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Exit status, JSON and page of the whole suite in mlgpu alone."""
    folder = tmp_path_factory.mktemp("bench")
    status = bench("--rounds", 2, "--json", folder / "b.json", "--markdown", folder / "b.md",
                   "--chart", folder / "b.svg")
    return status, json.loads((folder / "b.json").read_text()), folder


def test_every_workload_runs_and_is_right(whole):
    status, found, _ = whole
    problems = [m["problem"] for row in found["rows"] for m in row["measures"].values()]
    assert problems == [""] * len(problems)
    assert status == 0
    assert {row["name"] for row in found["rows"]} == ON_THE_CPU


def test_json_holds_times_errors_machine_and_versions(whole):
    _, found, _ = whole
    for row in found["rows"]:
        measure = row["measures"]["mlgpu-numpy"]
        assert len(measure["values"]) == 2
        assert 0 < measure["best"] <= measure["median"]
        assert (measure["error"] is None) == (row["section"] == "process"
                                              and row["name"] != "cold_start")
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["machine"]["numpy"] == np.__version__
    assert f"numpy {np.__version__}" in found["peers"]["mlgpu-numpy"]


def test_the_page_says_how_it_was_made_and_names_what_is_not_installed(whole):
    _, found, folder = whole
    page = (folder / "b.md").read_text()
    assert "Made by `mlgpu bench --peers mlgpu-numpy --rounds 2 --markdown" in page
    assert "(b.svg)" in page
    assert all(f"`{row['name']}`" in page for row in found["rows"])
    for name in found["absent"]:
        assert f"not installed: `{name}` (pip install" in page


def test_the_chart_is_drawn(whole):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib")
    assert (whole[2] / "b.svg").read_text().startswith("<?xml")


def test_a_wrong_result_is_reported_and_not_timed(monkeypatch, capsys):
    wrong = replace(WORKLOADS["softmax"], reference=lambda a: {"output": np.ones_like(a["x"])})
    monkeypatch.setitem(WORKLOADS, "softmax", wrong)
    assert bench("--only", "softmax") == 1
    said = capsys.readouterr().out
    assert "FAILED softmax: mlgpu-numpy: differs from float64: output: error" in said
    assert " us " not in said


def test_the_float64_reference_is_held_to_numpy():
    """What mlgpu or PyTorch compute in float64 is what NumPy computes, where it is written out."""
    for name in ("xent_fb", "adamw25M"):
        workload = WORKLOADS[name]
        settings = Settings((name,), (), tiny=True)
        with closing(Driver(settings, {name: replace(workload, reference=None)})) as driver:
            arrays = workload.arrays(0, True)
            np.savez(driver.folder / "inputs.npz", **arrays)
            by, found = driver._reference(driver.workloads[name], arrays,
                                          driver.folder / "inputs.npz")
        assert by.endswith("in float64")
        # Cross-entropy's is rounded to float32 once.
        assert max(check.errors(found, workload.reference(arrays)).values()) < 1e-7


def test_a_dropout_that_drops_too_much_is_found():
    workload = WORKLOADS["dropout_4MB"]
    expected = workload.reference(workload.arrays(0, True))
    found = {**expected, "share": np.array([0.88])}
    assert check.failures(workload, check.errors(found, expected))
    assert not check.failures(workload, check.errors(expected, expected))
    assert check.worst(workload, check.errors(found, expected)) == 0


@pytest.mark.parametrize(("found", "expected", "value"), [
    ([1.0, 2.0], [1.0, 2.5], 0.2),
    ([1.0, math.nan], [1.0, math.nan], math.inf),
    ([1.0, math.nan], [1.0, 2.0], math.inf),
    ([1.0], [1.0, 2.0], math.inf),
    ([0.0], [0.0], 0.0),
    ([1.0], [0.0], math.inf),
    ([], [], 0.0),
])
def test_error(found, expected, value):
    assert check.error(np.array(found), np.array(expected)) == pytest.approx(value)


def test_a_result_that_only_one_has_is_wrong():
    assert check.errors({"a": np.ones(1)}, {"b": np.ones(1)}) == {"a": math.inf, "b": math.inf}


def rows(mine, theirs, name="softmax"):
    row = Row(name, "rows", "a title")
    for peer, values in (("mlgpu-numpy", mine), ("torch", theirs)):
        row.measures[peer] = measure = Measure()
        for value in values:
            measure.add(value, value / 2, value * 2)
    return row


def test_ratios_pair_the_rounds():
    row = rows([1.0, 4.0, 9.0], [2.0, 2.0, 3.0])
    assert row.ratios("mlgpu-numpy") == (2.0, 0.5)
    assert row.ratios("torch") is None
    row.measures["torch"].failed("gone")
    assert row.ratios("mlgpu-numpy") is None
    assert row.problems() == ["softmax: torch: gone"]


@pytest.mark.parametrize(("mine", "word"), [
    ([1.0, 1.0], "met, stretch too"), ([1.5, 1.5], "met"), ([3.0, 3.0], "not met"),
    ([1.0, 3.0, 3.0], "met by the best"), ([1.9, 1.9, 1.9], "met")])
def test_verdicts(mine, word):
    row = rows(mine, [1.0] * len(mine))
    assert verdict({"softmax": Bar(2.0, 1.4, 1.0)}, row, "mlgpu-numpy") == (2.0, word)
    assert verdict({}, row, "mlgpu-numpy") is None
    assert verdict({"softmax": Bar(2.0, 1.4)}, row, "torch") is None


def test_bars_and_gates_are_of_rows_that_exist():
    assert {*BARS, *GATES} <= {*WORKLOADS, *fresh.ROWS}


def test_who_comes_first_changes():
    asked = []
    interleaved(["a", "b", "c"], 3, asked.append)
    assert "".join(asked) == "abcbcacab"


def test_a_sample_is_the_median_of_calls_after_a_warm_up():
    said = []
    case = Case(lambda: said.append("call"), dict, lambda: said.append("prepare"))
    times = iter([9.0, 3.0])

    def timer(call):
        call()
        return next(times)

    found = clock.sample(case, timer, 0, 0)
    assert (found.median, found.best, found.p99, found.calls) == (3.0, 3.0, 3.0, 1)
    assert said == ["prepare", "call"] * 2


def test_a_workers_error_is_its_traceback():
    with closing(Process(peers.PEERS["mlgpu-numpy"], "cpu", "float32", 1)) as process:
        with pytest.raises(WorkerError, match=r"(?s)Traceback.*none\.npz"):
            process.ask("setup", workload="softmax", inputs="none.npz")
        assert process.alive


def test_a_worker_that_ends_is_reported_and_replaced(monkeypatch):
    settings = Settings(("gemm256",), ("mlgpu-numpy",), 2, tiny=True, warm=0, least=0)
    found = []
    with closing(Driver(settings)) as driver:
        process = driver._process("mlgpu-numpy", "float32", "cpu")
        ask = process.ask

        def dying(do, **request):
            if do == "sample":
                process._process.kill()
            return ask(do, **request)

        monkeypatch.setattr(process, "ask", dying)
        driver.run(found.append)
        driver.run(found.append)
    (problem,) = found[0].problems()
    assert "the process of mlgpu-numpy ended with status" in problem
    assert not found[1].problems()
    assert len(found[1].measures["mlgpu-numpy"].values) == 2


def test_a_library_that_cannot_be_loaded_is_reported(monkeypatch):
    """Where it computes the float64 results as well as where it is timed."""
    # The worker's own table knows no such name: it fails where a library's import would.
    monkeypatch.setitem(peers.PEERS, "mlgpu-numpy",
                        replace(peers.PEERS["mlgpu-numpy"], name="unknown"))
    rows = []
    for name in ("adamw25M", "softmax"):
        settings = Settings((name,), ("mlgpu-numpy",), 1, tiny=True, warm=0, least=0)
        with closing(Driver(settings)) as driver:
            driver.run(rows.append)
    for row in rows:
        (problem,) = row.problems()
        assert "start: Traceback" in problem
        assert "KeyError: 'unknown'" in problem
        assert not row.measures["mlgpu-numpy"].values


def test_another_librarys_process_holds_nothing_of_mlgpu():
    program = peers.command("worker")
    program[2] = program[2].replace(".main()", "") + "print('mlgpu' in sys.modules)"
    done = subprocess.run(program, capture_output=True, text=True, check=True,
                          env=peers.environment(peers.PEERS["mlgpu-numpy"], 1))
    assert done.stdout == "False\n"


def test_threads_and_environment_of_a_process():
    found = peers.environment(peers.PEERS["mlgpu-numpy"], 3)
    assert found["OPENBLAS_NUM_THREADS"] == found["OMP_NUM_THREADS"] == "3"
    assert found["MLGPU_FAST"] == "0"


def test_list_names_everything(capsys):
    assert bench("--list") == 0
    said = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in said} == ON_THE_CPU
    assert bench("--list", "--device", "cuda", "--only", "graphs") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert bench("--list", "--only", "models") == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["models"] * 5


@pytest.mark.parametrize(("arguments", "said"), [
    (["--only", "no_such"], "no workload or section is named no_such"),
    (["--peers", "no_such"], "no library is named no_such"),
    (["--rounds", "0"], "at least 1")])
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(SystemExit, match=said):
        cli.main(["bench", "--tiny", *arguments])


def test_a_library_that_is_not_installed_is_named_with_its_install(monkeypatch):
    monkeypatch.setitem(peers.PEERS, "jax", replace(peers.PEERS["jax"], modules=("no_such_one",)))
    with pytest.raises(SystemExit, match=r"jax is not installed \(pip install jax\)"):
        cli.main(["bench", "--tiny", "--peers", "jax"])


@pytest.mark.parametrize(("value", "unit", "text"), [
    (1.5, "s", "1.5 s"), (0.0123, "s", "12.3 ms"), (4.56e-6, "s", "4.56 us"), (2e-7, "s", "0.2 us"),
    (3 << 20, "B", "3.00 MiB"), (1234.0, "s", "1234 s")])
def test_figures(value, unit, text):
    assert report.shown(value, unit) == text


@pytest.mark.parametrize("peer", [name for name in peers.PEERS if not name.startswith("mlgpu")])
def test_other_libraries_agree(peer, capsys):
    if not peers.PEERS[peer].installed():
        pytest.skip(f"{peer} is not installed ({peers.PEERS[peer].install})")
    names = ["mlp_infer1", "conv_f", "silu_4MB", "import"]
    if peer != "torch-compile":  # compiles for long
        names += ["models", "products", "rows", "dropout_4MB", "adamw25M", "gelu_fb_4MB"]
    status = cli.main(["bench", "--tiny", "--rounds", "1", "--peers", peer, "--only", *names])
    assert status == 0, capsys.readouterr().out


@pytest.mark.skipif(find_spec("cupy") is None, reason="CUDA devices need CuPy")
def test_on_a_simulated_gpu():
    done = subprocess.run(
        [sys.executable, "-m", "mlgpu", "bench", "--device", "cuda", "--tiny", "--rounds", "1",
         "--peers", "mlgpu", "--only", "gemm256", "gelu_fb_4MB", "softmax", "graphs"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "MLGPU_CUDA": "sim", "CUDA_VISIBLE_DEVICES": "-1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" mlgpu ") >= 6
