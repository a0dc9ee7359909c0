// Cooperative groups: blocks, tiles, coalesced threads, partitions, collectives and the grid.

#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include <cuda/barrier>

namespace cg = cooperative_groups;

// The sum of a block in steps of tiles: 4 threads, then 8 tiles of the warp, then the warps.
extern "C" __global__ void block_sum(const float* x, float* y, int n) {
    __shared__ float warps[32];
    cg::thread_block block = cg::this_thread_block();
    auto warp = cg::tiled_partition<32>(block);
    auto tile = cg::tiled_partition<4>(warp);
    int i = blockIdx.x * block.size() + block.thread_rank();
    float sum = i < n ? x[i] : 0.0f;
    for (int step = tile.size() / 2; step; step /= 2) sum += tile.shfl_xor(sum, step);
    for (int step = 4; step < 32; step *= 2) sum += warp.shfl_down(sum, step);
    if (warp.thread_rank() == 0) warps[warp.meta_group_rank()] = sum;
    block.sync();
    if (warp.meta_group_rank() == 0) {
        sum = warp.thread_rank() < warp.meta_group_size() ? warps[warp.thread_rank()] : 0.0f;
        sum = cg::reduce(warp, sum, cg::plus<float>());
        if (warp.thread_rank() == 0) y[blockIdx.x] = sum;
    }
}

// Collectives of tiles of 16, 8 and 4: reductions and both scans.
extern "C" __global__ void tiles(const int* x, int* sums, int* tops, int* inclusive,
                                 int* exclusive) {
    auto block = cg::this_thread_block();
    auto half = cg::tiled_partition<16>(block);
    auto eighth = cg::tiled_partition<8>(half);
    auto quad = cg::tiled_partition<4>(block);
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    sums[i] = cg::reduce(half, x[i], cg::plus<int>());
    tops[i] = cg::reduce(eighth, x[i], cg::greater<int>());
    inclusive[i] = cg::inclusive_scan(half, x[i]);
    exclusive[i] = cg::exclusive_scan(quad, x[i], cg::plus<int>()) + 1000 * half.any(x[i] > 90)
                   + 10000 * quad.all(x[i] > 0);
}

// A filter with one atomic for all the threads that are in the branch together.
extern "C" __global__ void filter(const int* x, int* y, int* count, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n && x[i] > 0) {
        cg::coalesced_group active = cg::coalesced_threads();
        int first = 0;
        if (active.thread_rank() == 0) first = atomicAdd(count, active.size());
        y[active.shfl(first, 0) + active.thread_rank()] = x[i];
    }
}

// A histogram in which threads with the same label add once, together.
extern "C" __global__ void labelled(const int* labels, const float* x, float* sums, int* counts,
                                    int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        auto active = cg::coalesced_threads();
        auto same = cg::labeled_partition(active, labels[i]);
        float sum = cg::reduce(same, x[i], cg::plus<float>());
        if (same.thread_rank() == 0) {
            atomicAdd(&sums[labels[i]], sum);
            atomicAdd(&counts[labels[i]], same.size());
        }
    }
}

// Stable partition of each warp: those for whom the condition holds first.
extern "C" __global__ void split(const int* x, int* y) {
    auto warp = cg::tiled_partition<32>(cg::this_thread_block());
    int i = blockIdx.x * blockDim.x + threadIdx.x, base = i - warp.thread_rank();
    bool odd = x[i] & 1;
    auto alike = cg::binary_partition(warp, odd);
    int evens = __popc(warp.ballot(!odd));
    y[base + (odd ? evens : 0) + alike.thread_rank()] = x[i];
}

// Tiles that go different ways synchronise by themselves.
extern "C" __global__ void divergent_tiles(const int* x, int* y) {
    __shared__ int values[64];
    auto block = cg::this_thread_block();
    auto tile = cg::tiled_partition<8>(block);
    int t = block.thread_rank(), base = blockIdx.x * 64;
    values[t] = x[base + t];
    tile.sync();
    int v = 0;
    if (tile.meta_group_rank() % 2) {
        for (int i = 0; i < tile.size(); i++) v += values[tile.meta_group_rank() * 8 + i];
        tile.sync();
        values[t] = v;
    } else {
        v = values[tile.meta_group_rank() * 8 + 7 - tile.thread_rank()];
        tile.sync();
        values[t] = tile.match_any(v & 3) != 0 ? v : -1;
    }
    tile.sync();
    y[base + t] = values[t ^ 1];
}

// Several steps of a computation on a grid with a barrier between them.
extern "C" __global__ void normalise(float* x, float* partials, int n, int steps) {
    __shared__ float warps[2];
    cg::grid_group grid = cg::this_grid();
    auto block = cg::this_thread_block();
    auto warp = cg::tiled_partition<32>(block);
    for (int s = 0; s < steps; s++) {
        float sum = 0.0f;
        for (int i = grid.thread_rank(); i < n; i += grid.size()) sum += x[i] * x[i];
        sum = cg::reduce(warp, sum, cg::plus<float>());
        if (warp.thread_rank() == 0) warps[warp.meta_group_rank()] = sum;
        block.sync();
        if (block.thread_rank() == 0) partials[blockIdx.x] = warps[0] + warps[1];
        grid.sync();
        float total = 0.0f;
        for (int b = 0; b < gridDim.x; b++) total += partials[b];
        for (int i = grid.thread_rank(); i < n; i += grid.size()) x[i] = x[i] / sqrtf(total) + 0.5f;
        grid.sync();  // before the partial sums are overwritten
    }
}

// A whole block copies together, by cp.async where there is one.
extern "C" __global__ void copied(const int* x, int* y, int n) {
    extern __shared__ __align__(16) int stage[];
    auto block = cg::this_thread_block();
    int begin = blockIdx.x * 100, count = min(100, n - begin);
    cg::memcpy_async(block, stage, x + begin, cuda::aligned_size_t<4>(count * sizeof(int)));
    cg::wait(block);
    for (int i = block.thread_rank(); i < count; i += block.size())
        y[begin + i] = stage[count - 1 - i];
}

// Two copies in flight: the first is waited for while the second goes on.
extern "C" __global__ void copied_in_stages(const int4* x, int4* y, int stages) {
    __shared__ int4 stage[2][32];
    auto block = cg::this_thread_block();
    x += blockIdx.x * stages * 32, y += blockIdx.x * stages * 32;
    cg::memcpy_async(block, stage[0], x, cuda::aligned_size_t<16>(sizeof(stage[0])));
    for (int s = 0; s < stages; s++) {
        if (s + 1 < stages) {
            cg::memcpy_async(block, stage[(s + 1) % 2], x + (s + 1) * 32,
                             cuda::aligned_size_t<16>(sizeof(stage[0])));
            cg::wait_prior<1>(block);
        } else {
            cg::wait(block);
        }
        int4 v = stage[s % 2][31 - threadIdx.x];
        y[s * 32 + threadIdx.x] = make_int4(v.w, v.z, v.y, v.x);
        block.sync();
    }
}
