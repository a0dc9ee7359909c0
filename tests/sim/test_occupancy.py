"""Theoretical occupancy: each limit worked out by hand from the tables and allocation rules."""

from __future__ import annotations

import dataclasses

import pytest

from mlgpu.sim.arch import ARCHS, find
from mlgpu.sim.errors import LaunchError, SimError
from mlgpu.sim.facts import facts
from mlgpu.sim.metric_names import METRICS
from mlgpu.sim.metrics import Metrics
from mlgpu.sim.occupancy import occupancy
from mlgpu.sim.ptxas import Resources

KIB = 1024


@pytest.mark.parametrize(("arch", "threads", "registers", "shared", "blocks", "limiters"), [
    # Warps: 256 threads are 8 warps; of 64 (48, 32) a multiprocessor holds 8 (6, 4) such blocks.
    # 32 registers a thread are 1,024 a warp; 65,536 / 1,024 = 64 warps.
    ("sm_90", 256, 32, 0, 8, ("warps", "registers")),
    ("sm_89", 256, 32, 0, 6, ("warps",)),
    ("sm_75", 256, 32, 0, 4, ("warps",)),
    ("sm_80", 1024, 16, 0, 2, ("warps",)),
    ("sm_86", 1024, 16, 0, 1, ("warps",)),  # 32 of 48 warps: a second block does not fit
    # Blocks: one warp each, so the number of blocks is what counts.
    ("sm_75", 32, 16, 0, 16, ("blocks",)),
    ("sm_80", 32, 16, 0, 32, ("blocks",)),
    ("sm_86", 32, 16, 0, 16, ("blocks",)),
    ("sm_89", 32, 16, 0, 24, ("blocks",)),
    ("sm_120", 32, 16, 0, 24, ("blocks",)),
    ("sm_100", 1, 16, 0, 32, ("blocks",)),  # one thread takes a whole warp
    # Registers: 33 * 32 = 1,056 a warp, rounded up to 1,280; a scheduler's 16,384 hold 12 warps,
    # all four 48, that is 6 blocks of 8 warps.
    ("sm_90", 256, 33, 0, 6, ("registers",)),
    # 64 * 32 = 2,048: 8 warps a scheduler, 32 in all, 4 blocks.
    ("sm_80", 256, 64, 0, 4, ("registers",)),
    # 255 * 32 = 8,160, rounded up to 8,192: 2 warps a scheduler, 8 in all, 1 block.
    ("sm_90", 256, 255, 0, 1, ("registers",)),
    # 96 * 32 = 3,072: a scheduler's 16,384 hold 5 warps, all four 20, which makes 2 blocks of 7
    # warps; the whole file divided by 3,072 would be 21 warps and 3 blocks.
    ("sm_80", 224, 96, 0, 2, ("registers",)),
    # Shared memory: 48 KiB and the reserved 1 KiB: 164 / 49 = 3, 228 / 49 = 4, 100 / 49 = 2;
    # sm_75 reserves nothing: 64 / 48 = 1.
    ("sm_80", 128, 32, 48 * KIB, 3, ("shared memory",)),
    ("sm_90", 128, 32, 48 * KIB, 4, ("shared memory",)),
    ("sm_86", 128, 32, 48 * KIB, 2, ("shared memory",)),
    ("sm_75", 128, 32, 48 * KIB, 1, ("shared memory",)),
    ("sm_75", 128, 32, 32 * KIB, 2, ("shared memory",)),
    ("sm_90", 128, 32, 227 * KIB, 1, ("shared memory",)),
    # 10,166 and the reserved 1,024 are 11,190 bytes, given as 11,264 (88 units of 128):
    # 167,936 / 11,264 = 14.9, though / 11,190 would be 15.  10,112 + 1,024 = 87 units: 15.
    ("sm_80", 128, 32, 10_166, 14, ("shared memory",)),
    ("sm_80", 128, 32, 10_112, 15, ("shared memory",)),
    # Unknown registers do not limit.
    ("sm_90", 256, 0, 0, 8, ("warps",)),
])
def test_each_limit(arch, threads, registers, shared, blocks, limiters):
    found = occupancy(find(arch), threads, registers, shared)
    assert (found.blocks, found.limiters) == (blocks, limiters)
    assert found.warps == blocks * -(-threads // 32)
    assert found.percent == 100 * found.warps / find(arch).warps_per_sm


def test_barriers_limit_from_hopper_on():
    # 16 named barriers a block: 64 of them make 4 blocks, 24 make 1.
    assert occupancy(find("sm_90"), 32, 16, barriers=16).blocks == 4
    assert occupancy(find("sm_90"), 32, 16, barriers=16).limiters == ("barriers",)
    assert occupancy(find("sm_120"), 32, 16, barriers=16).blocks == 1
    assert occupancy(find("sm_80"), 32, 16, barriers=16).blocks == 32


def test_all_limits_are_told():
    found = occupancy(find("sm_80"), 192, 40, 20 * KIB)
    # 6 warps: 64 / 6 = 10.  40 * 32 = 1,280: 12 a scheduler, 48 in all, 8 blocks.
    # 21 KiB: 164 / 21 = 7.
    assert found.limits == {"warps": 10, "blocks": 32, "registers": 8, "shared memory": 7}
    assert str(found) == ("65.6 % (42 warps, 7 blocks a multiprocessor), "
                          "limited by shared memory")


@pytest.mark.parametrize(("threads", "registers", "shared", "why"), [
    (0, 32, 0, "a block of 0 threads"), (1025, 32, 0, "a block of 1025 threads"),
    (32, 256, 0, "255 at most"), (32, 32, 163 * KIB + 1, "166,912 at most"),
    # 65 * 32 = 2,080, rounded up to 2,304; 32 warps would take 73,728 of 65,536.
    (1024, 65, 0, "too many for a block of 32 warps"),
    # 8 warps of 8,192 fit, but 9 are checked as 12.
    (288, 200, 0, "too many for a block of 9 warps"),
])
def test_what_cannot_run_is_refused(threads, registers, shared, why):
    with pytest.raises(LaunchError, match=why):
        occupancy(find("sm_80"), threads, registers, shared)


def test_the_table_agrees_with_itself():
    assert [*ARCHS] == [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
    for arch in ARCHS.values():
        assert arch.threads_per_sm in (1024, 1536, 2048)
        assert arch.shared_optin + arch.shared_reserved == arch.shared_per_sm
        assert arch.shared_per_sm % arch.shared_unit == 0
        assert arch.registers_per_sm % (arch.schedulers * arch.register_unit) == 0
        assert (arch.warp_size, arch.sector, arch.line, arch.banks) == (32, 32, 128, 32)
        assert arch.max_grid == (2**31 - 1, 65535, 65535)
        assert arch.max_block == (1024, 1024, 64)
        assert dataclasses.replace(arch, sms=1).l2_bytes == arch.l2_bytes


def test_targets_with_letters_are_the_same_hardware():
    assert find("sm_90a") is find("compute_90") is ARCHS[9, 0]
    assert find("sm_100f") is ARCHS[10, 0]
    with pytest.raises(SimError, match="sm_75, sm_80, sm_86, sm_89, sm_90, sm_100, sm_120"):
        find("sm_70")


def test_the_facts_of_a_launch():
    resources = Resources("k", registers=40, spill_stores=8, spill_loads=16, stack=24, shared=4096,
                          constant={}, barriers=1)
    found = facts(find("sm_80"), 540, 200, 4 * KIB, 16 * KIB, resources)
    assert set(found) <= set(METRICS)
    metrics = Metrics(found)
    assert metrics.as_dict(aliases=True) == {
        "grid_size": 540, "block_size": 200, "threads": 108_000,
        "warps": 540 * 7,  # 200 threads are 6.25 warps
        "static_shared": 4096, "dynamic_shared": 16_384, "shared_per_block": 21_504,
        "registers": 40, "stack": 24, "spill_stores": 8, "spill_loads": 16,
        "barriers_per_block": 1,
        # 64 / 7 = 9 by warps; 1,280 registers a warp, 48 warps, 6 blocks; 164 / 21 = 7.
        "occupancy_limit_warps": 9, "occupancy_limit_blocks": 32,
        "occupancy_limit_registers": 6, "occupancy_limit_shared": 7,
        "theoretical_occupancy": 100 * 42 / 64, "waves": 540 / (6 * 108)}


def test_facts_without_ptxas_and_of_what_a_gpu_refuses():
    plain = facts(find("sm_80"), 1, 1024)
    assert "launch__registers_per_thread" not in plain
    assert "launch__occupancy_limit_registers" not in plain
    assert plain["sm__maximum_warps_per_active_cycle_pct"] == 100
    greedy = Resources("k", 255, 0, 0, 0, 0, {}, 0)
    refused = facts(find("sm_80"), 1, 1024, resources=greedy)
    assert refused["sm__maximum_warps_per_active_cycle_pct"] == 0
    assert refused["launch__registers_per_thread"] == 255
