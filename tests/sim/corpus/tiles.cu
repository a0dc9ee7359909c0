// Cooperative groups: the same reductions and votes with groups that say who takes part.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

namespace cg = cooperative_groups;

// Tiles of a block reduce by the library; the block's group is the barrier.
extern "C" __global__ void reduce_tiles(float* out, const float* x, int n) {
    __shared__ float slots[32];
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(block);
    float sum = 0.f;
    for (int i = blockIdx.x * block.size() + block.thread_rank(); i < n;
         i += gridDim.x * block.size())
        sum += x[i];
    sum = cg::reduce(warp, sum, cg::plus<float>());
    if (warp.thread_rank() == 0) slots[warp.meta_group_rank()] = sum;
    block.sync();
    if (warp.meta_group_rank() == 0) {
        sum = warp.thread_rank() < warp.meta_group_size() ? slots[warp.thread_rank()] : 0.f;
        sum = cg::reduce(warp, sum, cg::plus<float>());
        if (warp.thread_rank() == 0) atomicAdd(out, sum);
    }
}

// Tiles of eight lanes: integer reductions (by redux where the target has it), shuffles, votes.
extern "C" __global__ void small_tiles(int* out, const int* x) {
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<8> tile = cg::tiled_partition<8>(block);
    int t = block.thread_rank();
    int v = x[blockIdx.x * block.size() + t];
    int low = cg::reduce(tile, v, cg::less<int>());
    int high = cg::reduce(tile, v, cg::greater<int>());
    int sum = cg::reduce(tile, v, cg::plus<int>());
    int next = tile.shfl_down(v, 1);
    unsigned positive = tile.ballot(v > 0);
    int before = cg::exclusive_scan(tile, v, cg::plus<int>());
    int* mine = out + (blockIdx.x * block.size() + t) * 6;
    mine[0] = low;
    mine[1] = high;
    mine[2] = sum;
    mine[3] = tile.thread_rank() < 7 ? next : -1;
    mine[4] = positive;
    mine[5] = before;
}

// Threads that happen to be together: one atomic for all lanes that passed the test.
extern "C" __global__ void compact(int* out, int* count, const int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n && x[i] % 3 == 0) {
        cg::coalesced_group together = cg::coalesced_threads();
        int base;
        if (together.thread_rank() == 0) base = atomicAdd(count, (int)together.size());
        base = together.shfl(base, 0);
        out[base + together.thread_rank()] = x[i];
    }
}

// Lanes with equal keys form a group of their own.
extern "C" __global__ void sum_by_key(int* sums, const int* keys, const int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        auto together = cg::coalesced_threads();
        auto same = cg::labeled_partition(together, keys[i]);
        int sum = cg::reduce(same, x[i], cg::plus<int>());
        if (same.thread_rank() == 0) atomicAdd(sums + keys[i], sum);
    }
}

// Barrier of the whole grid between two phases (a cooperative launch).
extern "C" __global__ void grid_rotate(float* a, float* b, int n, int rounds) {
    cg::grid_group grid = cg::this_grid();
    for (int r = 0; r < rounds; ++r) {
        for (int i = grid.thread_rank(); i < n; i += grid.size())
            b[i] = 0.5f * (a[i] + a[(i + 41) % n]);
        grid.sync();
        for (int i = grid.thread_rank(); i < n; i += grid.size()) a[i] = b[(i + n - 41) % n];
        grid.sync();
    }
}
