// The same mistakes with cooperative groups.
#include <cooperative_groups.h>
namespace cg = cooperative_groups;

// The grid is waited for by the blocks that have work.
extern "C" __global__ void grid_sync_in_part(const float* x, float* sums, float* y, int n) {
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i < n) atomicAdd(&sums[0], x[i]);
#ifdef FIXED
    cg::this_grid().sync();
#else
    if (blockIdx.x * 64 < n) cg::this_grid().sync();  // FAULT(grid_sync_in_part): synccheck: deadlock; watchdog: endless loop
#endif
    if (i < n) y[i] = x[i] / sums[0];  // FAULT(grid_sync_in_part): racecheck: read after write
}

// A block is waited for by one of its tiles.
extern "C" __global__ void block_sync_in_tile(const float* x, float* y) {
    __shared__ float s[128];
    cg::thread_block block = cg::this_thread_block();
    auto tile = cg::tiled_partition<32>(block);
    int t = block.thread_rank();
    s[t] = x[t];
    block.sync();  // FAULT(block_sync_in_tile): synccheck: divergent threads in block, exited threads
    if (tile.meta_group_rank() == 0) {
        s[t] += s[t + 32] + s[t + 64] + s[t + 96];
#ifdef FIXED
        tile.sync();
#else
        block.sync();  // FAULT(block_sync_in_tile): synccheck: divergent threads in block, exited threads
#endif
        float sum = 0;
        for (int i = 0; i < 32; ++i) sum += s[i];
        if (t == 0) s[96] = sum;  // FAULT(block_sync_in_tile): racecheck: write after read
    }
    block.sync();  // FAULT(block_sync_in_tile): synccheck: divergent threads in block, exited threads
    y[t] = s[96];  // FAULT(block_sync_in_tile): racecheck: read after write
}

// A tile's shuffle under a condition of single lanes.
extern "C" __global__ void tile_shuffle_in_branch(const int* x, int* y) {
    auto tile = cg::tiled_partition<16>(cg::this_thread_block());
    int v = x[threadIdx.x];
#ifdef FIXED
    int first = tile.shfl(v, 0);
    if (v > 0) v += first;
#else
    if (v > 0) v += tile.shfl(v, 0);  // FAULT(tile_shuffle_in_branch): synccheck: invalid mask
#endif
    y[threadIdx.x] = v;
}
