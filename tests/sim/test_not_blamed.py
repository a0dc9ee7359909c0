"""Kernels that look like bugs and are right: nothing is found in them, and their results hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlgpu import sim

INCLUDE = f"-I{Path(__file__).parent / 'faulty'}"  # async.cuh
RNG = np.random.default_rng(0)
X = np.arange(1024, dtype=np.float32)


@pytest.fixture(params=["lockstep", "warps"])
def schedule(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["sm_80", "sm_90"])
def m(request: pytest.FixtureRequest, schedule: Any) -> sim.Machine:
    return sim.Machine(arch=request.param, findings="raise", watchdog=20_000, schedule=schedule)


@pytest.fixture
def hopper(schedule: Any) -> sim.Machine:
    return sim.Machine(arch="sm_90", findings="raise", watchdog=20_000, schedule=schedule)


def launch(m: sim.Machine, source: str, grid: int, block: int, *args: Any,
           cooperative: bool = False) -> None:
    """Launch the kernel `k` of a source; a finding would be raised."""
    kernel = m.module(source, (INCLUDE,)).kernel("k")
    assert kernel.launch(grid, block, args, cooperative=cooperative).findings == []


def equal(buffer: sim.Buffer, wanted: Any) -> None:
    actual = buffer.numpy()
    np.testing.assert_array_equal(actual, np.reshape(wanted, actual.shape))


# Stores of many threads to one place.

def test_same_value_from_many_threads(m: sim.Machine) -> None:
    x, found = np.where(X % 7 == 3, -X, X), m.zeros(1, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, int* found) {
            __shared__ int here;
            if (threadIdx.x == 0) here = 0;
            __syncthreads();
            if (x[blockIdx.x * 256 + threadIdx.x] < 0) here = 1;
            __syncthreads();
            if (here) *found = 1;
        }""", 4, 256, m.array(x), found)
    equal(found, [1])


def test_bytes_of_one_word(m: sim.Machine) -> None:
    x, y = RNG.integers(0, 2, 1024, dtype=np.int32), m.empty(256, np.uint32)
    launch(m, r"""
        extern "C" __global__ void k(const int* x, unsigned* y, unsigned char* global) {
            __shared__ unsigned words[64];
            int t = threadIdx.x, i = blockIdx.x * 256 + t;
            ((unsigned char*)words)[t] = x[i];
            global[i] = x[i] + 1;
            __syncthreads();
            if (t < 64)
                y[blockIdx.x * 64 + t] = words[t] + ((unsigned*)global)[blockIdx.x * 64 + t];
        }""", 4, 256, m.array(x), y, m.empty(1024, np.uint8))
    equal(y, (2 * x + 1).astype(np.uint8).view(np.uint32))


def test_neighbours_in_place(m: sim.Machine) -> None:
    x = m.array(X)
    launch(m, r"""
        extern "C" __global__ void k(float* x) {  // each pair is one thread's own
            float2* pair = (float2*)x + blockIdx.x * blockDim.x + threadIdx.x;
            float2 v = *pair;
            x[2 * (blockIdx.x * blockDim.x + threadIdx.x)] = v.y;
            pair->y = v.x;
        }""", 4, 128, x)
    equal(x, X.reshape(-1, 2)[:, ::-1])


# Within a warp.

def test_half_warps_with_masks_of_their_own(m: sim.Machine) -> None:
    y = m.empty(64, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[64];
            int t = threadIdx.x;
            if (t % 32 < 16) {
                row[t] = x[t];
                __syncwarp(0x0000ffff);
                y[t] = row[t ^ 15];
            } else {
                row[t] = -x[t];
                __syncwarp(0xffff0000);
                float v = row[t ^ 15];
                __syncwarp(0xffff0000);
                row[t] = v + 1;
                __syncwarp(0xffff0000);
                y[t] = row[t ^ 1];
            }
        }""", 1, 64, m.array(X[:64]), y)
    halves = X[:64].reshape(2, 2, 16)
    other = 1 - halves[:, 1, ::-1].reshape(2, 8, 2)[..., ::-1].reshape(2, 16)
    equal(y, np.stack([halves[:, 0, ::-1], other], axis=1))


def test_warps_that_never_meet(m: sim.Machine) -> None:
    x, sums = X[:256], m.empty(8, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* sums) {
            __shared__ volatile float part[256];
            int t = threadIdx.x, lane = t % 32;
            part[t] = x[t];
            for (int d = 16; d; d /= 2) {
                __syncwarp();
                float other = lane + d < 32 ? part[t + d] : 0;
                __syncwarp();
                part[t] += other;
            }
            if (lane == 0) sums[t / 32] = part[t];
        }""", 1, 256, m.array(x), sums)
    equal(sums, x.reshape(8, 32).sum(1))


def test_atomics_of_the_lanes_that_are_there(m: sim.Machine) -> None:
    x = RNG.integers(0, 100, 256, dtype=np.int32)
    kept, count = m.zeros(256, np.int32), m.zeros(1, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(const int* x, int* kept, int* count) {
            int v = x[blockIdx.x * blockDim.x + threadIdx.x], lane = threadIdx.x % 32;
            if (v < 50) {
                unsigned mask = __activemask();
                int leader = __ffs(mask) - 1, first;
                if (lane == leader) first = atomicAdd(count, __popc(mask));
                first = __shfl_sync(mask, first, leader);
                kept[first + __popc(mask & ((1u << lane) - 1))] = v;
            }
        }""", 2, 128, m.array(x), kept, count)
    wanted = np.sort(x[x < 50])
    equal(count, [len(wanted)])
    np.testing.assert_array_equal(np.sort(kept.numpy()[:len(wanted)]), wanted)


def test_tile_whose_leader_publishes(m: sim.Machine) -> None:
    y = m.empty(64, np.float32)
    launch(m, r"""
        __device__ unsigned load_acquire(unsigned* p) {
            unsigned v;
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
            return v;
        }
        extern "C" __global__ void k(const float* x, float* data, unsigned* flags, float* y) {
            int t = threadIdx.x, tile = t / 8;
            unsigned mask = 0xffu << (tile % 4 * 8);
            if (blockIdx.x == 0) {
                data[t] = 3 * x[t];
                __syncwarp(mask);
                if (t % 8 == 0)
                    asm volatile("st.release.gpu.global.u32 [%0], %1;"
                                 :: "l"(flags + tile), "r"(1) : "memory");
            } else {
                if (t % 8 == 0) while (!load_acquire(flags + tile)) {}
                __syncwarp(mask);
                y[t] = data[t ^ 7];
            }
        }""", 2, 64, m.array(X[:64]), m.empty(64, np.float32), m.zeros(8, np.uint32), y)
    equal(y, 3 * X[:64].reshape(8, 8)[:, ::-1])


# Within a block.

def test_rows_read_once_after_a_barrier(m: sim.Machine) -> None:
    x, y = X[:640], m.empty(128, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float rows[2][128];  // one barrier a step is enough for two rows
            int t = threadIdx.x;
            float sum = 0;
            for (int s = 0; s < 5; ++s) {
                rows[s % 2][t] = x[s * 128 + t];
                __syncthreads();
                sum += rows[s % 2][(t + 32) % 128];
            }
            y[t] = sum;  // and none stands behind the last
        }""", 1, 128, m.array(x), y)
    equal(y, np.roll(x.reshape(5, 128).sum(0), -32))


def test_acquire_and_release_between_warps(m: sim.Machine) -> None:
    y = m.empty(32, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[32];
            __shared__ int ready[32];
            int lane = threadIdx.x % 32;
            unsigned flag = (unsigned)__cvta_generic_to_shared(ready + lane);
            if (threadIdx.x < 32) ready[lane] = 0;
            __syncthreads();
            if (threadIdx.x < 32) {
                row[lane] = x[lane] + 1;
                asm volatile("st.release.cta.shared.u32 [%0], 1;" :: "r"(flag) : "memory");
            } else {
                int seen = 0;
                while (!seen)
                    asm volatile("ld.acquire.cta.shared.u32 %0, [%1];"
                                 : "=r"(seen) : "r"(flag) : "memory");
                y[lane] = row[lane];
            }
        }""", 1, 64, m.array(X[:32]), y)
    equal(y, X[:32] + 1)


def test_relaxed_flag_before_a_barrier(m: sim.Machine) -> None:
    y = m.empty(64, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[64];
            __shared__ int done;
            int t = threadIdx.x;
            unsigned flag = (unsigned)__cvta_generic_to_shared(&done);
            if (t == 0) done = 0;
            __syncthreads();
            row[t] = 2 * x[t];
            if (t < 32) {  // tells when to look at the barrier; the barrier orders the rows
                asm volatile("red.relaxed.cta.shared.add.u32 [%0], 1;" :: "r"(flag) : "memory");
            } else {
                int seen = 0;
                while (seen < 32)
                    asm volatile("ld.relaxed.cta.shared.u32 %0, [%1];"
                                 : "=r"(seen) : "r"(flag) : "memory");
            }
            __syncthreads();
            y[t] = row[63 - t];
        }""", 1, 64, m.array(X[:64]), y)
    equal(y, 2 * X[:64][::-1])


def test_fence_of_the_block_behind_one_of_the_device(m: sim.Machine) -> None:
    y = m.empty(32, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(int* y) {
            __shared__ int data[32];
            __shared__ volatile int ready[32];
            int t = threadIdx.x;
            if (t < 32) ready[t] = 0;
            __syncthreads();
            if (t < 32) {
                __threadfence();
                data[t] = 5 * t;
                __threadfence_block();
                ready[t] = 1;
            } else {
                while (!ready[t - 32]) {}
                __threadfence_block();
                y[t - 32] = data[t - 32];
            }
        }""", 1, 64, y)
    equal(y, 5 * np.arange(32))


def test_volatile_flag_polled_by_one_lane(m: sim.Machine) -> None:
    x, y = X[:128], m.empty(96, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[128];
            __shared__ volatile int ready;
            int t = threadIdx.x;
            if (t == 0) ready = 0;
            __syncthreads();
            if (t < 32) {
                for (int i = t; i < 128; i += 32) row[i] = x[i] * x[i];
                __syncwarp();
                if (t == 0) {
                    __threadfence_block();
                    ready = 1;
                }
                return;
            }
            if (t % 32 == 0) {
                while (!ready) {}
                __threadfence_block();
            }
            __syncwarp();
            y[t - 32] = row[t] - row[t - 32];
        }""", 1, 128, m.array(x), y)
    equal(y, x[32:] ** 2 - x[:96] ** 2)


def test_named_barriers_with_arrive(m: sim.Machine) -> None:
    x, sums = X[:320], m.empty(64, np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* sums, int steps) {
            __shared__ float ring[2][64];  // barriers 1 and 2: full, 3 and 4: empty
            int t = threadIdx.x % 64;
            if (threadIdx.x < 64) {
                for (int s = 0; s < steps; ++s) {
                    if (s >= 2) bar_sync(3 + s % 2, 128);
                    ring[s % 2][t] = x[s * 64 + t];
                    bar_arrive(1 + s % 2, 128);
                }
            } else {
                float sum = 0;
                for (int s = 0; s < steps; ++s) {
                    bar_sync(1 + s % 2, 128);
                    sum += ring[s % 2][63 - t];
                    if (s + 2 < steps) bar_arrive(3 + s % 2, 128);
                }
                sums[t] = sum;
            }
        }""", 1, 128, m.array(x), sums, np.int32(5))
    equal(sums, x.reshape(5, 64).sum(0)[::-1])


def test_barrier_of_the_warps_that_stay(m: sim.Machine) -> None:
    x, y = X[:128], m.empty(64, np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[64];
            int t = threadIdx.x;
            if (t >= 64) return;
            row[t] = x[t] + x[t + 64];
            bar_sync(1, 64);
            y[t] = row[63 - t];
        }""", 1, 128, m.array(x), y)
    equal(y, (x[:64] + x[64:])[::-1])


def test_barriers_of_two_places_meet(m: sim.Machine) -> None:
    x, y = X[:128], m.empty(128, np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[128];
            int t = threadIdx.x;
            if (t < 32) {
                row[t] = -x[t];
                bar_sync(1, 128);
            } else {
                row[t] = x[t];
                bar_sync(1, 128);
            }
            y[t] = row[127 - t];
        }""", 1, 128, m.array(x), y)
    equal(y, np.where(X[:128] < 32, -x, x)[::-1])


def test_votes_of_two_places_meet(m: sim.Machine) -> None:
    counts = m.empty(96, np.uint32)
    launch(m, r"""
        extern "C" __global__ void k(unsigned* counts) {
            int t = threadIdx.x;
            unsigned count;
            if (t < 32)
                asm volatile("{.reg .pred p; setp.lt.s32 p, %1, 5; barrier.red.popc.u32 %0, 3, p;}"
                             : "=r"(count) : "r"(t) : "memory");
            else
                asm volatile("{.reg .pred p; setp.gt.s32 p, %1, 80; barrier.red.popc.u32 %0, 3, p;}"
                             : "=r"(count) : "r"(t) : "memory");
            counts[t] = count;
        }""", 1, 96, counts)
    equal(counts, np.full(96, 5 + 15))


def test_order_goes_through_a_third_warp(m: sim.Machine) -> None:
    x, y = X[:32], m.empty(32, np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[32];
            __shared__ mbarrier done;
            int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
            if (threadIdx.x == 0) mbarrier_init(&done, 32);
            __syncthreads();
            if (warp == 0) {
                row[lane] = x[lane] + 5;
                bar_arrive(1, 64);
            } else if (warp == 1) {  // has not touched the row
                bar_sync(1, 64);
                mbarrier_arrive(&done);
            } else {
                mbarrier_wait(&done, 0);
                y[lane] = row[31 - lane];
            }
        }""", 1, 96, m.array(x), y)
    equal(y, x[::-1] + 5)


def test_lanes_that_return_before_a_syncwarp(m: sim.Machine) -> None:
    x, y = X[:20], m.empty(20, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y, int n) {
            __shared__ float row[32];
            int lane = threadIdx.x;
            unsigned mask = __ballot_sync(0xffffffff, lane < n);
            if (lane >= n) return;
            row[lane] = x[lane];
            __syncwarp(mask);
            y[lane] = row[n - 1 - lane];
        }""", 1, 32, m.array(x), y, np.int32(20))
    equal(y, x[::-1])


def test_one_place_for_ints_and_floats(m: sim.Machine) -> None:
    x, y = X[:128], m.empty(128, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ __align__(16) unsigned char scratch[512];
            int t = threadIdx.x;
            int* order = (int*)scratch;
            order[t] = 127 - t;
            __syncthreads();
            int from = order[(t + 1) % 128];
            __syncthreads();
            float* row = (float*)scratch;
            row[t] = x[from];
            __syncthreads();
            if (t < 32) ((float4*)y)[t] = ((float4*)row)[t];
        }""", 1, 128, m.array(x), y)
    equal(y, x[(127 - (np.arange(128) + 1) % 128)])


# Asynchronous copies.

def test_double_buffer_with_one_group_under_way(m: sim.Machine) -> None:
    x, y = X[:640].reshape(10, 64), m.empty(64, np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y, int steps) {
            __shared__ float ring[2][64];
            int t = threadIdx.x;
            cp_async_4(&ring[0][t], x + t);
            cp_async_commit();
            float sum = 0;
            for (int s = 0; s < steps; ++s) {
                if (s + 1 < steps) cp_async_4(&ring[(s + 1) % 2][t], x + (s + 1) * 64 + t);
                cp_async_commit();  // an empty group in the last step
                cp_async_wait<1>();
                __syncthreads();
                sum += ring[s % 2][63 - t];
                __syncthreads();
            }
            y[t] = sum;
        }""", 1, 64, m.array(x), y, np.int32(10))
    equal(y, x.sum(0)[::-1])


def test_own_copies_need_no_barrier(m: sim.Machine) -> None:
    x, y = X[:180], m.empty((48, 4), np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float4* y, int n) {
            __shared__ float4 tile[48];
            int t = threadIdx.x, there = max(0, min(16, 4 * (n - 4 * t)));
            cp_async_16(&tile[t], x + 4 * t, there);  // none there: the address is not used
            cp_async_commit();
            cp_async_wait<0>();
            y[t] = tile[t];
        }""", 1, 48, m.array(x), y, np.int32(180))
    equal(y, np.append(x, np.zeros(12)))


def test_mbarriers_with_one_arrival_for_a_warp(m: sim.Machine) -> None:
    x, sums = X[:320].reshape(10, 32), m.empty(32, np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* sums, int steps) {
            __shared__ float ring[3][32];
            __shared__ mbarrier full[3], empty[3];
            int lane = threadIdx.x % 32;
            if (threadIdx.x < 3) {
                mbarrier_init(full + threadIdx.x, 1);
                mbarrier_init(empty + threadIdx.x, 1);
            }
            __syncthreads();
            float sum = 0;
            for (int s = 0; s < steps; ++s) {
                int stage = s % 3, round = s / 3;
                if (threadIdx.x < 32) {
                    if (lane == 0) mbarrier_wait(empty + stage, (round + 1) % 2);
                    __syncwarp();
                    ring[stage][lane] = x[s * 32 + lane];
                    __syncwarp();
                    if (lane == 0) mbarrier_arrive(full + stage);
                } else {
                    mbarrier_wait(full + stage, round % 2);
                    sum += ring[stage][31 - lane];
                    __syncwarp();
                    if (lane == 0) mbarrier_arrive(empty + stage);
                }
            }
            if (threadIdx.x >= 32) sums[lane] = sum;
        }""", 1, 64, m.array(x), sums, np.int32(10))
    equal(sums, x.sum(0)[::-1])


def test_copies_that_arrive_at_an_mbarrier(m: sim.Machine) -> None:
    x, y = X[:64], m.empty(64, np.float32)
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ float row[64];
            __shared__ mbarrier full;
            int t = threadIdx.x;
            if (t == 0) mbarrier_init(&full, 64);
            __syncthreads();
            cp_async_4(&row[t], x + t);
            cp_async_arrive(&full);
            mbarrier_wait(&full, 0);
            y[t] = row[63 - t];
        }""", 1, 64, m.array(x), y)
    equal(y, x[::-1])


def test_bulk_pipeline_with_a_producer_lane(hopper: sim.Machine) -> None:
    x, y = X[:1024].reshape(8, 128), hopper.empty((8, 128), np.float32)
    launch(hopper, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y, int steps) {
            __shared__ __align__(16) float in[2][128], out[2][128];
            __shared__ mbarrier full[2], empty[2];
            int t = threadIdx.x;
            if (t == 0) {
                for (int i = 0; i < 2; ++i) {
                    mbarrier_init(full + i, 1);
                    mbarrier_init(empty + i, 4);
                }
                fence_async();
            }
            __syncthreads();
            if (t >= 128) {
                if (t == 128)
                    for (int s = 0; s < steps; ++s) {
                        mbarrier_wait(empty + s % 2, (s / 2 + 1) % 2);
                        mbarrier_expect(full + s % 2, 512);
                        bulk_load(in[s % 2], x + s * 128, 512, full + s % 2);
                    }
                return;
            }
            for (int s = 0; s < steps; ++s) {
                if (t == 0) bulk_wait_read<1>();  // the store before the last has left `out`
                bar_sync(1, 128);
                mbarrier_wait(full + s % 2, s / 2 % 2);
                out[s % 2][t] = 2 * in[s % 2][127 - t];
                fence_async();
                __syncwarp();
                if (t % 32 == 0) mbarrier_arrive(empty + s % 2);
                bar_sync(1, 128);
                if (t == 0) {
                    bulk_store(y + s * 128, out[s % 2], 512);
                    bulk_commit();
                }
            }
            if (t == 0) bulk_wait_read<0>();
        }""", 1, 160, hopper.array(x), y, np.int32(8))
    equal(y, 2 * x[:, ::-1])


def test_source_of_two_bulk_stores(hopper: sim.Machine) -> None:
    x, y = X[:128], hopper.empty((2, 128), np.float32)
    launch(hopper, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ __align__(16) float tile[128];
            int t = threadIdx.x;
            tile[t] = x[t] + 1;
            fence_async();
            __syncthreads();
            if (t == 0) {
                bulk_store(y, tile, 512);
                bulk_store(y + 128, tile, 512);  // both read the tile
                bulk_commit();
            }
            float own = tile[127 - t];  // and so may threads
            if (t == 0) bulk_wait<0>();
            __syncthreads();
            tile[t] = own;
            y[t] -= own;
        }""", 1, 128, hopper.array(x), y)
    equal(y, [x - x[::-1], x + 1])


def test_source_of_a_bulk_store_is_read(hopper: sim.Machine) -> None:
    x, y = X[:128], hopper.empty(128, np.float32)
    launch(hopper, r"""
        #include "async.cuh"
        extern "C" __global__ void k(const float* x, float* y) {
            __shared__ __align__(16) float tile[128];
            int t = threadIdx.x;
            tile[t] = x[t] + 1;
            fence_async();
            __syncthreads();
            if (t == 0) {
                bulk_store(y, tile, 512);
                bulk_commit();
            }
            float other = tile[127 - t];  // reads do not hurt a read
            if (t == 0) bulk_wait<0>();
            __syncthreads();
            tile[t] = other;
            __syncthreads();
            y[t] -= tile[t];
        }""", 1, 128, hopper.array(x), y)
    equal(y, x - x[::-1])


def test_one_thread_waits_for_the_block(hopper: sim.Machine) -> None:
    x = hopper.array(X[:128])
    launch(hopper, r"""
        #include "async.cuh"
        extern "C" __global__ void k(float* x) {  // in place
            __shared__ __align__(16) float tile[128];
            __shared__ mbarrier full;
            int t = threadIdx.x;
            if (t == 0) {
                mbarrier_init(&full, 1);
                fence_async();
                mbarrier_expect(&full, 512);
                bulk_load(tile, x, 512, &full);
                mbarrier_wait(&full, 0);
            }
            __syncthreads();
            float v = tile[127 - t];
            __syncthreads();
            tile[t] = 2 * v;
            x[127 - t] = 0;
            fence_async();
            asm volatile("fence.proxy.async.global;" ::: "memory");
            __syncthreads();
            if (t == 0) {
                bulk_store(x, tile, 512);
                bulk_commit();
                bulk_wait<0>();
            }
            __syncthreads();
            x[t] += 1;
        }""", 1, 128, x)
    equal(x, 2 * X[:128][::-1] + 1)


def test_copies_of_what_is_overwritten_next(m: sim.Machine) -> None:
    x = m.array(X[:64])
    launch(m, r"""
        #include "async.cuh"
        extern "C" __global__ void k(float* x) {
            __shared__ float tile[64];
            int t = threadIdx.x;
            cp_async_4(&tile[t], x + t);
            cp_async_commit();
            cp_async_wait<0>();
            __syncthreads();
            x[t] = tile[63 - t];
        }""", 1, 64, x)
    equal(x, X[:64][::-1])


# Between blocks.

def test_last_block_adds_up(m: sim.Machine) -> None:
    partial, total, ticket = m.empty(4, np.float32), m.empty(1, np.float32), m.zeros(1, np.uint32)
    source = r"""
        __device__ float sum_of_block(float v, float* part) {
            int t = threadIdx.x;
            part[t] = v;
            for (int d = blockDim.x / 2; d; d /= 2) {
                __syncthreads();
                if (t < d) part[t] += part[t + d];
            }
            return part[0];
        }
        extern "C" __global__ void k(const float* x, volatile float* partial, unsigned* ticket,
                                     float* total) {
            __shared__ float part[128];
            __shared__ bool last;
            int t = threadIdx.x;
            float sum = sum_of_block(x[blockIdx.x * 128 + t], part);
            if (t == 0) partial[blockIdx.x] = sum;
            __threadfence();
            if (t == 0) last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
            __syncthreads();
            if (!last) return;
            sum = sum_of_block(t < gridDim.x ? partial[t] : 0, part);
            if (t == 0) *total = sum;
        }"""
    for _ in range(2):  # the ticket is zero again
        launch(m, source, 4, 128, m.array(X[:512]), partial, ticket, total)
        equal(total, [X[:512].sum()])
        equal(ticket, [0])


CAS_LOOP = r"""
    extern "C" __global__ void k(const float* x, float* best) {
        float v = x[blockIdx.x * 128 + threadIdx.x];
        int seen = READ, assumed;
        while (__int_as_float(seen) < v) {
            assumed = seen;
            seen = atomicCAS((int*)best, assumed, __float_as_int(v));
            if (seen == assumed) break;
        }
    }"""


@pytest.mark.parametrize("read", ["*(int*)best", "*(volatile int*)best", "0"])
def test_compare_and_swap_loop(m: sim.Machine, read: str) -> None:
    x, best = RNG.permutation(X[:256]), m.zeros(1, np.float32)
    launch(m, CAS_LOOP.replace("READ", read), 2, 128, m.array(x), best)
    equal(best, [255])


def test_spin_lock_with_fences(m: sim.Machine) -> None:
    lock, data = m.zeros(1, np.int32), m.zeros(2, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(int* lock, int* data) {
            bool done = false;
            while (!done)
                if (atomicCAS(lock, 0, 1) == 0) {
                    __threadfence();
                    data[0] += 1;
                    data[1] += data[0];
                    __threadfence();
                    atomicExch(lock, 0);
                    done = true;
                }
        }""", 3, 16, lock, data, cooperative=True)
    equal(data, [48, 48 * 49 // 2])


def test_block_waits_for_a_later_one(m: sim.Machine) -> None:
    y, flags = m.empty(4, np.int32), m.zeros(5, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(int* flags, int* y) {
            if (threadIdx.x) return;
            int b = blockIdx.x, sum = 0;
            if (b + 1 < gridDim.x) {
                while (((volatile int*)flags)[b + 1] == 0) {}
                __threadfence();
                sum = y[b + 1];
            }
            y[b] = sum + b;
            __threadfence();
            atomicExch(&flags[b], 1);
        }""", 4, 32, flags, y)
    equal(y, [6, 6, 5, 3])


def test_flag_with_its_value_in_one_word(m: sim.Machine) -> None:
    x, y = X[:160].astype(np.int32), m.empty(160, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(const int* x, volatile unsigned long long* states, int* y) {
            int lane = threadIdx.x, b = blockIdx.x, mine = x[b * 32 + lane];
            for (int d = 1; d < 32; d *= 2) {
                int left = __shfl_up_sync(0xffffffff, mine, d);
                if (lane >= d) mine += left;
            }
            int before = 0;
            if (lane == 31) {
                unsigned long long state = 1;
                if (b) while (!((state = states[b - 1]) & 1)) {}
                before = state >> 32;
                states[b] = (unsigned long long)(before + mine) << 32 | 1;
            }
            y[b * 32 + lane] = mine + __shfl_sync(0xffffffff, before, 31);
        }""", 5, 32, m.array(x), m.zeros(5, np.uint64), y, cooperative=True)
    equal(y, x.cumsum())


def test_atomics_carry_on_a_release(m: sim.Machine) -> None:
    x, y = X[:32], m.empty(32, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* data, unsigned* flag, float* y) {
            int t = threadIdx.x;
            unsigned seen = 0;
            if (blockIdx.x == 0) {
                data[t] = 7 * x[t];
                asm volatile("st.release.gpu.global.u32 [%0], 1;" :: "l"(flag + t) : "memory");
            } else if (blockIdx.x == 1) {  // relaxed, but in the sequence that the release heads
                while (atomicCAS(flag + t, 1u, 2u) != 1) {}
            } else {
                while (seen != 2)
                    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                                 : "=r"(seen) : "l"(flag + t) : "memory");
                y[t] = data[t];
            }
        }""", 3, 32, m.array(x), m.empty(32, np.float32), m.zeros(32, np.uint32), y,
           cooperative=True)
    equal(y, 7 * x)


def test_order_goes_through_a_third_block(m: sim.Machine) -> None:
    x, y = X[:64], m.empty(64, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* data, volatile int* flags, float* y) {
            int t = threadIdx.x, b = blockIdx.x;
            if (b == 0) data[t] = x[t] - 3;
            else if (t == 0) {
                while (!flags[b - 1]) {}
                __threadfence();
            }
            __syncthreads();
            if (b == 2) y[t] = data[63 - t];
            else if (t == 0) {
                __threadfence();
                flags[b] = 1;
            }
        }""", 3, 64, m.array(x), m.empty(64, np.float32), m.zeros(2, np.int32), y,
           cooperative=True)
    equal(y, x[::-1] - 3)


def test_each_fences_and_one_publishes_for_all(m: sim.Machine) -> None:
    x, y = X[:96], m.empty(96, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* data, volatile int* flag, float* y) {
            int t = threadIdx.x;
            if (blockIdx.x == 0) {
                if (t >= 64) {  // the others have fenced when these begin
                    data[t] = x[t] + 1;
                    __threadfence();
                } else if (t < 64) {
                    data[t] = x[t] + 1;
                    __threadfence();
                }
                __syncthreads();
                if (t == 0) *flag = 1;
            } else {
                if (t == 0) while (!*flag) {}
                __syncthreads();
                __threadfence();
                y[t] = data[95 - t];
            }
        }""", 2, 96, m.array(x), m.empty(96, np.float32), m.zeros(1, np.int32), y,
           cooperative=True)
    equal(y, x[::-1] + 1)


def test_data_handed_over_by_atomics(m: sim.Machine) -> None:
    y = m.empty(64, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(int* slots, int* y) {
            int t = threadIdx.x, v = 0;
            if (blockIdx.x == 0) {
                atomicExch(&slots[t], 100 + t);  // the data are the flag: nothing else to order
            } else {
                while (!(v = atomicExch(&slots[t], 0))) {}
                y[t] = v;
            }
        }""", 2, 64, m.zeros(64, np.int32), y, cooperative=True)
    equal(y, 100 + np.arange(64))


def test_grid_barrier_in_a_loop(m: sim.Machine) -> None:
    x, y = m.array(X[:512]), m.empty(512, np.float32)
    launch(m, r"""
        __device__ void grid_barrier(unsigned* arrived, unsigned target) {
            __syncthreads();
            if (threadIdx.x == 0) {
                unsigned seen = 0;
                asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"(arrived) : "memory");
                while (seen < target)
                    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                                 : "=r"(seen) : "l"(arrived) : "memory");
            }
            __syncthreads();
        }
        extern "C" __global__ void k(float* x, float* y, unsigned* arrived, int steps) {
            int n = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
            for (int s = 0; s < steps; ++s) {  // x and y take turns
                y[i] = x[(i + n - 1) % n] + x[(i + 1) % n];
                grid_barrier(arrived, (s + 1) * gridDim.x);
                float* t = x; x = y; y = t;
            }
        }""", 4, 128, x, y, m.zeros(1, np.uint32), np.int32(5), cooperative=True)
    wanted = X[:512]
    for _ in range(5):
        wanted = np.roll(wanted, 1) + np.roll(wanted, -1)
    equal(y, wanted)


def test_grid_barrier_of_cooperative_groups(m: sim.Machine) -> None:
    x, y = m.array(X[:512]), m.empty(512, np.float32)
    source = r"""
        #include <cooperative_groups.h>
        extern "C" __global__ void k(float* x, float* y, int steps) {
            auto grid = cooperative_groups::this_grid();
            int n = grid.size(), i = grid.thread_rank();
            for (int s = 0; s < steps; ++s) {
                y[i] = x[n - 1 - i] + 1;
                grid.sync();
                x[i] = y[i] + i;
                grid.sync();
            }
        }"""
    try:
        launch(m, source, 4, 128, x, y, np.int32(3), cooperative=True)
    except sim.CompileError as error:
        if 'cannot open source file "cooperative_groups.h"' not in str(error):
            raise
        pytest.skip("cooperative_groups.h is not installed")
    wanted = X[:512]
    for _ in range(3):
        wanted = wanted[::-1] + 1 + X[:512]
    equal(x, wanted)


# Addresses and memory that look wrong.

def test_pointer_before_its_buffer(m: sim.Machine) -> None:
    y = m.empty(64, np.float32)
    launch(m, r"""
        extern "C" __global__ void k(const float* x, float* y) {
            const float* from_one = x - 1;
            y[threadIdx.x] = from_one[threadIdx.x + 1] + *(from_one + 64);
        }""", 1, 64, m.array(X[:64]), y)
    equal(y, X[:64] + 63)


def test_local_arrays(m: sim.Machine) -> None:
    x, y = RNG.integers(0, 8, (64, 16), dtype=np.int32), m.empty((64, 8), np.int32)
    launch(m, r"""
        extern "C" __global__ void k(const int* x, int* y) {
            int counts[8], t = threadIdx.x;  // at the same address for all threads
            for (int i = 0; i < 8; ++i) counts[i] = 0;
            for (int i = 0; i < 16; ++i) counts[x[t * 16 + i]]++;
            for (int i = 0; i < 8; ++i) y[t * 8 + i] = counts[i];
        }""", 1, 64, m.array(x), y)
    equal(y, [np.bincount(row, minlength=8) for row in x])


def test_atomics_of_two_halves(m: sim.Machine) -> None:
    x, sums = RNG.integers(-4, 5, (256, 2)).astype(np.float16), m.zeros(2, np.float16)
    launch(m, r"""
        extern "C" __global__ void k(const unsigned* x, unsigned* sums) {
            __shared__ unsigned here;
            if (threadIdx.x == 0) here = 0;
            __syncthreads();
            unsigned old;
            asm volatile("atom.shared.add.noftz.f16x2 %0, [%1], %2;" : "=r"(old)
                         : "r"((unsigned)__cvta_generic_to_shared(&here)),
                           "r"(x[blockIdx.x * 64 + threadIdx.x]) : "memory");
            __syncthreads();
            if (threadIdx.x == 0)
                asm volatile("red.global.add.noftz.f16x2 [%0], %1;"
                             :: "l"(sums), "r"(here) : "memory");
        }""", 4, 64, m.array(x), sums)
    equal(sums, x.sum(0))


def test_uneven_loop_around_a_vote(m: sim.Machine) -> None:
    x, rounds = RNG.integers(1, 9, 64, dtype=np.int32), m.empty(64, np.int32)
    launch(m, r"""
        extern "C" __global__ void k(const int* x, int* rounds) {
            int left = x[threadIdx.x], n = 0;
            while (__syncthreads_or(left > 0)) {  // all stay until the last is done
                --left;
                ++n;
            }
            rounds[threadIdx.x] = n;
        }""", 1, 64, m.array(x), rounds)
    equal(rounds, np.full(64, x.max()))


# Words of a block's scope, of more than one cell.

def test_wide_words_that_each_block_keeps_to_itself(m: sim.Machine) -> None:
    counts = m.zeros(8, np.uint64)
    launch(m, r"""
        extern "C" __global__ void k(unsigned long long* counts) {
            unsigned long long* mine = counts + blockIdx.x;
            if (threadIdx.x == 0)
                asm volatile("st.release.cta.global.u64 [%0], 5;" :: "l"(mine) : "memory");
            __syncthreads();
            atomicAdd_block(mine, 1ull);
        }""", 8, 64, counts)
    equal(counts, np.full(8, 69))
