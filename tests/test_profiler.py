"""mlgpu.profiler: what is recorded, how it is summed up, and that nothing stays behind."""

from __future__ import annotations

import json
import threading
import time

import pytest
from guide import ROOT, run, sections

import mlgpu
from mlgpu.cpu.runtime import CpuRuntime
from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.profiler import (
    Event,
    EventAverage,
    EventList,
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    tensorboard_trace_handler,
)

SECTIONS = sections((ROOT / "docs" / "profiler.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", [pytest.param(s, id=s.title.replace(" ", "-"))
                                     for s in SECTIONS])
def test_the_guide(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(section, "profiler.md", "")


def names(prof):
    return [event.name for event in prof.events()]


def test_operations_are_recorded_in_order(device):
    x = mlgpu.ones(4, 8, device=device)
    with profile() as prof:
        y = x.mul(x)
        y.relu_()
        y.reshape(8, 4)
    assert names(prof) == ["mul", "relu_", "view"]
    mul, relu, view = prof.events()
    assert (mul.bytes, relu.bytes, view.bytes) == (3 * 128, 2 * 128, 0)
    assert mul.device == str(x.device)
    assert 0 <= mul.start <= mul.start + mul.time <= relu.start


def test_gradients_have_names_of_their_own():
    x = mlgpu.ones(4, requires_grad=True)
    with profile() as prof:
        x.relu().sum().backward()
    assert {"relu", "sum", "relu_backward", "sum_backward"} <= set(names(prof))


def test_ranges_hold_what_runs_in_them():
    x = mlgpu.ones(4)

    @record_function("inner")
    def inner():
        return x.exp()

    with profile() as prof, record_function("outer"):
        inner()
        x.log()
    outer, inside, exp, log = prof.events()
    assert (outer.name, inside.name, exp.name, log.name) == ("outer", "inner", "exp", "log")
    assert (inside.parent, exp.parent, log.parent) == (outer, inside, outer)
    assert outer.children == [inside, log]
    assert outer.self_time == pytest.approx(outer.time - inside.time - log.time)
    assert [e.kind for e in (outer, exp)] == ["range", "operator"]


def test_memory_is_what_stays():
    x = mlgpu.ones(1000)
    with profile(profile_memory=True) as prof, record_function("all"):
        y = x.exp()
        z = x.exp()
        del y
    whole, first, second = prof.events()
    assert (first.memory["cpu"], second.memory["cpu"]) == (4000, 4000)
    assert whole.memory["cpu"] == 4000
    assert whole.self_memory("cpu") == -4000
    points = [p for p in prof.memory_timeline() if p.device == "cpu"]
    assert len(points) == 6
    assert points[-1].allocated - points[0].allocated == 4000
    assert [p.time for p in points] == sorted(p.time for p in points)
    assert z.numel() == 1000
    with profile() as prof:
        x.exp()
    assert prof.memory_timeline() == []


def test_shapes_group_and_lines_are_known():
    with profile(record_shapes=True, with_stack=True) as prof:
        for n in (2, 3, 3):
            mlgpu.ones(n, 4).sum(0)
    rows = [row for row in prof.key_averages(group_by_input_shape=True) if row.key == "sum"]
    assert [(row.input_shapes, row.count) for row in rows] == [(((2, 4),), 1), (((3, 4),), 2)]
    (row,) = [row for row in prof.key_averages() if row.key == "sum"]
    assert row.count == 3
    assert all(event.where.startswith(__file__) for event in prof.events())


def made(name, time, parent=None, **values):
    event = Event(name, "operator", 1, time=time, parent=parent, **values)
    if parent is not None:
        parent.children.append(event)
    return event


def test_averages():
    outer = made("a", 10.0, memory={"cpu": 100, "cuda:0": 7})
    inner = made("b", 4.0, outer, memory={"cpu": 30}, bytes=64, device_start=1.0, device_time=9.0)
    again = made("a", 1.0, inner, kernels=["k", "k"], bytes=1)
    a, b = EventList.of([outer, inner, again])
    assert (a.count, a.cpu_time_total, a.self_cpu_time_total, a.cpu_time) == (2, 10.0, 7.0, 5.0)
    assert (a.cpu_memory_usage, a.self_cpu_memory_usage) == (100, 70)
    assert (a.device_memory_usage, a.device_time_total, a.kernels) == (7, 9.0, 2)
    assert (b.cpu_time_total, b.self_cpu_time_total, b.bytes) == (4.0, 3.0, 64)
    assert (b.device_time_total, b.self_device_time_total) == (9.0, 9.0)
    total = EventList([a, b]).total_average()
    assert (total.count, total.cpu_time_total, total.device_time_total) == (3, 10.0, 9.0)
    assert (total.bytes, total.kernels) == (65, 2)


def test_the_table():
    rows = EventList([
        EventAverage("small", count=2, self_cpu_time_total=500.0, cpu_time_total=500.0),
        EventAverage("x" * 80, count=1, self_cpu_time_total=1.5e6, cpu_time_total=2e6)])
    lines = rows.table(sort_by="self_cpu_time_total").splitlines()
    assert lines[1].split()[:4] == ["Name", "Self", "CPU", "%"]
    assert "CUDA" not in lines[1]
    assert lines[3].startswith("x" * 52 + "...")
    assert "1.500s" in lines[3]
    assert "100.0%" in lines[3]
    assert lines[4].split()[0] == "small"
    assert "250.000us" in lines[4]
    assert "CPU time total: 1.500s" in lines
    assert "small" not in rows.table(sort_by="cpu_time", row_limit=1)
    assert len({len(line) for line in lines[:5]}) == 1
    rows[0].device_time_total = rows[0].self_device_time_total = 3.0
    assert "Self CUDA" in rows.table(sort_by="cuda_time_total").splitlines()[1]
    assert EventList().table() != ""
    with pytest.raises(ShapeError, match="sort_by"):
        rows.table(sort_by="nothing")


def test_the_trace_is_what_viewers_read(tmp_path):
    with profile(profile_memory=True, record_shapes=True) as prof, record_function("range"):
        mlgpu.ones(3, 4).exp()
    prof.export_chrome_trace(tmp_path / "trace.json")
    entries = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    whole = {e["name"]: e for e in entries if e["ph"] == "X"}
    assert whole["range"]["cat"] == "user_annotation"
    exp, outer = whole["exp"], whole["range"]
    assert exp["cat"] == "cpu_op"
    assert exp["args"]["input shapes"] == [[3, 4]]
    assert outer["ts"] <= exp["ts"]
    assert exp["ts"] + exp["dur"] <= outer["ts"] + outer["dur"]
    assert all({"ph", "name", "pid", "tid"} <= set(e) for e in entries)
    assert {e["args"]["allocated"] for e in entries if e["ph"] == "C"}


def test_threads_are_told_apart():
    def work():
        with record_function("there"):
            mlgpu.ones(3).exp()

    with profile() as prof:
        thread = threading.Thread(target=work)
        with record_function("here"):
            thread.start()
            thread.join()
    there = next(e for e in prof.events() if e.name == "there")
    here = next(e for e in prof.events() if e.name == "here")
    assert there.parent is None
    assert here.children == []
    assert there.thread != here.thread


def test_nothing_stays_behind():
    before = CpuRuntime.call
    with pytest.raises(ZeroDivisionError), profile():
        _ = 1 / (CpuRuntime.call is before)
    assert CpuRuntime.call is before
    with profile() as prof:
        with pytest.raises(MlgpuError, match="another profile"):
            profile().start()
        mlgpu.ones(2).exp()
    assert "exp" in names(prof)
    assert CpuRuntime.call is before


def test_an_operation_that_raises_is_recorded():
    with profile() as prof:
        with pytest.raises(mlgpu.errors.LinAlgError):
            mlgpu.linalg.inv(mlgpu.zeros(2, 2))
        mlgpu.ones(2).exp()
    assert [e.parent for e in prof.events()] == [None] * len(prof.events())
    assert "linalg.inv" in names(prof)


def test_figures_of_nothing_are_refused():
    with pytest.raises(MlgpuError, match="nothing is recorded"):
        profile().key_averages()
    with profile() as prof, pytest.raises(MlgpuError, match="nothing is recorded"):
        prof.events()
    assert prof.events() == []


def test_activities():
    with profile(activities=[ProfilerActivity.CUDA]) as prof:
        mlgpu.ones(2).exp()
    assert prof.events() == []


def test_a_schedule_says_what_steps_are_recorded():
    plan = schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    none, warmup, record, save = ProfilerAction
    assert [plan(i) for i in range(11)] == [none, none, warmup, record, save, none, warmup, record,
                                            save, none, none]
    assert [schedule(wait=0, warmup=0, active=1)(i) for i in range(3)] == [save] * 3
    for wrong in ({"active": 0}, {"wait": -1}, {"repeat": -1}):
        with pytest.raises(ShapeError):
            schedule(**{"wait": 0, "warmup": 0, "active": 1, **wrong})


def test_steps_are_ranges(tmp_path):
    seen = []
    with profile(schedule=schedule(wait=1, warmup=1, active=2, repeat=1),
                 on_trace_ready=lambda p: seen.append(names(p))) as prof:
        for _ in range(6):
            mlgpu.ones(2).exp()
            prof.step()
    assert [[n for n in found if n in ("exp",) or n.startswith("Prof")] for found in seen] == [
        ["ProfilerStep#2", "exp", "ProfilerStep#3", "exp"]]
    with profile(on_trace_ready=tensorboard_trace_handler(tmp_path / "runs", "me")):
        mlgpu.ones(2).exp()
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name.startswith("me.")
    assert path.name.endswith(".pt.trace.json")


def test_a_loop_that_ends_early_gives_what_it_has():
    seen = []
    with profile(schedule=schedule(wait=0, warmup=1, active=5), on_trace_ready=seen.append) as prof:
        for _ in range(3):
            mlgpu.ones(2).exp()
            prof.step()
    assert len(seen) == 1
    assert names(prof).count("exp") == 2


def test_ranges_cost_next_to_nothing_without_a_profile():
    mark = record_function("x")
    start = time.process_time()
    for _ in range(1000):
        with mark:
            pass
    assert time.process_time() - start < 0.1


def test_times_of_the_device(device):
    if mlgpu.device(device).type != "cuda":
        pytest.skip("needs --device cuda")
    x = mlgpu.ones(64, 64, device=device)
    with profile(profile_memory=True) as prof, record_function("both"):
        kept = x.softmax(-1), x.exp()
    both, softmax, exp = prof.events()
    for event in (softmax, exp):
        assert event.device_time > 0
        assert len(event.kernels) == 1
        assert event.device == str(x.device)
        assert event.memory[event.device] == 64 * 64 * 4
    assert exp.device_start >= softmax.device_start + softmax.device_time
    assert both.device_total == pytest.approx(softmax.device_time + exp.device_time)
    rows = {row.key: row for row in prof.key_averages()}
    assert rows["both"].self_device_time_total == 0
    assert rows["both"].device_memory_usage == 2 * 64 * 64 * 4
    assert "Kernels" in prof.key_averages().table()
    assert len(kept) == 2
