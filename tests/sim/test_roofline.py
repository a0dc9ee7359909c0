"""Roofline estimates against times worked out from the data sheets' numbers."""

from __future__ import annotations

import pytest

from mlgpu.sim import roofline
from mlgpu.sim.errors import SimError
from mlgpu.sim.metrics import Metrics
from mlgpu.sim.roofline import DEVICES, estimate

OP = "smsp__sass_thread_inst_executed_op_{}_pred_on.sum"
TENSOR = "sm__ops_path_tensor_src_{}.sum"
HALVES = "sm__ops_path_tensor_op_hmma_src_{}.sum"


def test_a_copy_of_a_gibibyte_takes_its_bytes_over_the_bandwidth():
    counted = {"dram__bytes_read.sum": 2**30, "dram__bytes_write.sum": 2**30}
    for name, rate in (("A100", 2039e9), ("H100", 3350e9), ("L4", 300e9), ("RTX 4090", 1008e9)):
        found = estimate(name, counted)
        assert found.limiter == "DRAM bytes"
        assert found.seconds == pytest.approx(2**31 / rate)


@pytest.mark.parametrize(("device", "counted", "limiter", "seconds"), [
    # 10^12 FFMA are 2*10^12 operations; 10^12 FADD take as long.
    ("A100", {OP.format("ffma"): 1e12}, "FP32 operations", 2e12 / 19.5e12),
    ("A100", {OP.format("fadd"): 0.5e12, OP.format("fmul"): 0.5e12}, "FP32 operations",
     2e12 / 19.5e12),
    ("H100", {OP.format("dfma"): 1e12}, "FP64 operations", 2e12 / 33.5e12),
    ("L4", {OP.format("dadd"): 1e12}, "FP64 operations", 2e12 * 64 / 30.3e12),
    ("RTX 4090", {OP.format("hfma"): 1e12}, "FP16 operations", 2e12 / 82.6e12),
    # A product of two 4096x4096 matrices: 2*4096^3 operations.
    ("A100", {HALVES.format("fp16_dst_fp32"): 2 * 4096**3}, "tensor operations",
     2 * 4096**3 / 312e12),
    ("H100", {TENSOR.format("bf16_dst_fp32"): 2 * 4096**3}, "tensor operations",
     2 * 4096**3 / 989.4e12),
    ("H100", {TENSOR.format("fp8"): 2 * 4096**3}, "tensor operations", 2 * 4096**3 / 1978.9e12),
    ("L4", {TENSOR.format("tf32_dst_fp32"): 2e12}, "tensor operations", 2 / 60),
    ("RTX 4090", {HALVES.format("fp16_dst_fp16"): 2e12}, "tensor operations", 2 / 330.3),
    ("RTX 4090", {HALVES.format("fp16_dst_fp32"): 2e12}, "tensor operations", 2 / 165.2),
    ("A100", {HALVES.format("fp16_dst_fp16"): 2e12}, "tensor operations", 2 / 312),
    # Half the time for each of two types.
    ("A100", {TENSOR.format("int8"): 312e12, TENSOR.format("tf32_dst_fp32"): 78e12},
     "tensor operations", 1.0),
    # One wavefront a cycle on each of 108 multiprocessors at 1.41 GHz.
    ("A100", {"memory_l1_wavefronts_shared": 108 * 1.41e9},
     "shared-memory wavefronts", 1.0),
    ("A100", {"l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": 100 * 1.41e9,
              "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": 8 * 1.41e9},
     "shared-memory wavefronts", 1.0),
    # Four instructions a cycle on each.
    ("L4", {"smsp__inst_executed.sum": 4 * 58 * 2.04e9}, "issue slots", 1.0),
    ("L4", {"instructions": 4 * 58 * 2.04e9}, "issue slots", 1.0),
])
def test_each_resource_bounds(device, counted, limiter, seconds):
    found = estimate(device, counted)
    assert found.limiter == limiter
    assert found.seconds == pytest.approx(seconds)
    assert found.bounds[limiter] == found.seconds


def test_the_longest_bound_wins_and_the_others_follow():
    found = estimate("A100", Metrics({
        "dram__bytes_read.sum": 2039e6, OP.format("ffma"): 19.5e12 / 2 * 3e-3,
        "smsp__inst_executed.sum": 4 * 108 * 1.41e9 * 2e-3}))
    assert list(found.bounds)[:3] == ["FP32 operations", "issue slots", "DRAM bytes"]
    assert [round(s, 9) for s in found.bounds.values()][:4] == [3e-3, 2e-3, 1e-3, 0]


def test_a_small_grid_has_few_multiprocessors_but_all_of_the_memory():
    counted = {"smsp__inst_executed.sum": 4e9, "dram__bytes_read.sum": 1e9}
    full = estimate("A100", {**counted, "launch__grid_size": 108})
    quarter = estimate("A100", {**counted, "launch__grid_size": 27})
    assert quarter.bounds["issue slots"] == pytest.approx(4 * full.bounds["issue slots"])
    assert quarter.bounds["DRAM bytes"] == full.bounds["DRAM bytes"]
    assert estimate("A100", {**counted, "launch__grid_size": 1e6}) == full


def test_the_text_says_that_it_is_an_estimate_on_every_line():
    text = str(estimate("H100", {"dram__bytes_read.sum": 3350e9 * 12.5e-6,
                                 "tensor_int4_ops": 1e9}))
    assert all("estimate" in line for line in text.splitlines())
    assert "not a measurement" in text
    assert "at least 12.5 us, bound by DRAM bytes" in text
    assert "without int4 tensor operations" in text
    assert "estimate" in str(estimate("H100", {}))


def test_no_work_takes_no_time():
    assert estimate("L4", {}).seconds == 0


@pytest.mark.parametrize("name", ["", "V100", "A", "100"])
def test_unknown_devices_are_refused_with_the_known_ones(name):
    known = "A100-SXM4-80GB, H100-SXM5-80GB, L4, RTX 4090"
    if name == "A":  # short, but there is only one
        assert roofline.find(name).name.startswith("A100")
        return
    with pytest.raises(SimError, match=known):
        estimate(name, {})


def test_unknown_counters_are_refused():
    with pytest.raises(KeyError, match="perhaps"):
        estimate("L4", {"dram__bytes_reed.sum": 1})


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_peaks_follow_from_multiprocessors_and_clock(device):
    """FP32 is 64 (A100) or 128 lanes of multiply-adds on each multiprocessor, at boost clock."""
    lanes = 64 if device.name.startswith("A100") else 128
    assert device.fp32 == pytest.approx(device.sms * lanes * 2 * device.clock, rel=0.01)
    assert device.tensor["bf16"] == pytest.approx(device.tensor["fp16"])
    assert device.tensor["tf32"] == pytest.approx(device.tensor["fp16"] / 2, rel=0.01)
    assert device.source
