"""The table of counters and the mapping that answers to both of their names."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

from mlgpu.sim.errors import SimError
from mlgpu.sim.metric_names import ALIASES, METRICS, canonical
from mlgpu.sim.metrics import MetricError, Metrics

COUNTED = {"smsp__inst_executed.sum": 12345678, "launch__grid_size": 4, "l2_hit_rate": 33.337}


def test_every_counter_has_a_name_alias_unit_and_meaning():
    assert len(METRICS) == len(ALIASES) > 100  # no alias twice
    assert not set(ALIASES) & set(METRICS)
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z0-9]+_[a-z0-9_]+(\.(sum|ratio|pct))?", name), name
        assert re.fullmatch(r"[a-z][a-z0-9_]+", metric.alias), name
        assert metric.unit, name
        assert metric.description, name
        assert metric.group, name


@pytest.mark.parametrize("name", """
    launch__grid_size launch__block_size launch__registers_per_thread
    launch__shared_mem_per_block_static launch__shared_mem_per_block_dynamic
    sm__maximum_warps_per_active_cycle_pct smsp__inst_executed.sum
    smsp__thread_inst_executed_per_inst_executed.ratio
    l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum
    l1tex__t_requests_pipe_lsu_mem_global_op_st.sum l1tex__t_sectors_pipe_lsu_mem_global_op_red.sum
    l1tex__t_sectors_pipe_lsu_mem_local_op_ld.sum mlgpu__unique_bytes_read.sum
    l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum
    l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum
    smsp__sass_branch_targets_threads_divergent.sum
    lts__t_sectors_srcunit_tex_op_read_lookup_hit.sum
    dram__bytes_read.sum sm__ops_path_tensor_op_hmma_src_fp16_dst_fp32.sum""".split())
def test_the_names_are_nsight_computes(name):
    assert canonical(name) == name
    assert canonical(METRICS[name].alias) == name


def test_both_names_give_the_number():
    metrics = Metrics(COUNTED)
    assert metrics["smsp__inst_executed.sum"] == metrics["instructions"] == 12345678
    assert metrics["mlgpu__l2_sector_hit_rate.pct"] == metrics["l2_hit_rate"] == 33.337
    assert "instructions" in metrics
    assert "launch__grid_size" in metrics
    assert "registers" not in metrics
    assert "no such" not in metrics
    assert 3 not in metrics
    assert metrics.get("registers") is None
    assert len(metrics) == 3


def test_iteration_and_dictionaries_follow_the_table():
    metrics = Metrics(COUNTED)
    assert list(metrics) == ["launch__grid_size", "smsp__inst_executed.sum",
                             "mlgpu__l2_sector_hit_rate.pct"]
    assert metrics.as_dict() == {"launch__grid_size": 4, "smsp__inst_executed.sum": 12345678,
                                 "mlgpu__l2_sector_hit_rate.pct": 33.337}
    assert metrics.as_dict(aliases=True) == {"grid_size": 4, "instructions": 12345678,
                                             "l2_hit_rate": 33.337}
    assert dict(metrics) == metrics.as_dict()
    assert metrics == Metrics(metrics)
    assert pickle.loads(pickle.dumps(metrics)) == metrics


@pytest.mark.parametrize(("wrong", "near"), [
    ("instruction", "instructions"), ("smsp__inst_execute.sum", "smsp__inst_executed.sum"),
    ("dram__bytes_reads.sum", "dram__bytes_read.sum"), ("bank_conflict", "bank_conflicts")])
def test_wrong_names_are_key_errors_with_the_near_ones(wrong, near):
    with pytest.raises(KeyError, match=f"none of this name; perhaps .*{re.escape(near)}"):
        Metrics(COUNTED)[wrong]
    with pytest.raises(SimError):
        Metrics({wrong: 1})


def test_a_counter_that_the_launch_lacks_says_so():
    with pytest.raises(MetricError, match=r"^metric registers: not counted .*\(ptxas\)"):
        Metrics(COUNTED)["registers"]
    with pytest.raises(MetricError) as unknown:
        Metrics(COUNTED)["xyzzy"]
    assert str(unknown.value) == "metric xyzzy: there is none of this name"


def test_the_table_has_groups_units_and_both_names():
    lines = Metrics(COUNTED).table().splitlines()
    assert lines[0] == "launch"
    assert lines[1].split() == ["grid_size", "4", "block", "launch__grid_size"]
    assert "12,345,678" in lines[4]
    assert lines[-2] == "L2 cache and DRAM, by a simple model"
    assert lines[-1].split()[1:3] == ["33.34", "%"]
    assert "print(metrics.table())" in repr(Metrics(COUNTED))


def test_numpys_numbers_become_pythons_and_nan_is_shown():
    metrics = Metrics({"instructions": np.int64(2**62 + 1), "l2_hit_rate": np.float64("nan")})
    assert type(metrics["instructions"]) is int
    assert metrics["instructions"] == 2**62 + 1
    assert "4,611,686,018,427,387,905" in metrics.table()
    assert metrics.table().splitlines()[-1].split()[1] == "nan"
