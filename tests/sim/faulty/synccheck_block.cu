// Barriers of a block that part of its threads reach.

// The barrier stands under the guard of the tail, which splits a warp.
extern "C" __global__ void barrier_under_guard(const float* x, float* y, int n) {
    __shared__ float row[128];
    int t = threadIdx.x;
    row[t] = 0;
    __syncthreads();
#ifdef FIXED
    if (t < n) row[t] = x[t];
    __syncthreads();
#else
    if (t < n) {
        row[t] = x[t];
        __syncthreads();  // FAULT(barrier_under_guard): synccheck: divergent threads in warp
    }
#endif
    y[t] = row[127 - t];
    __syncthreads();  // FAULT(barrier_under_guard): synccheck: divergent threads in warp
    row[t] = y[t];
}

// One warp does the last steps of a reduction, with a barrier that only it reaches.
extern "C" __global__ void barrier_of_one_warp(const float* x, float* y) {
    __shared__ float s[128];
    int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    if (t < 32) {
        s[t] += s[t + 32] + s[t + 64] + s[t + 96];
#ifdef FIXED
        __syncwarp();
#else
        __syncthreads();  // FAULT(barrier_of_one_warp): synccheck: divergent threads in block
#endif
        float sum = 0;
        for (int i = 0; i < 32; ++i) sum += s[i];
        if (t == 0) s[96] = sum;
    }
    __syncthreads();  // FAULT(barrier_of_one_warp): synccheck: divergent threads in block
    y[t] = s[96];
}

// Each thread goes round as often as it has elements, and a barrier is in the loop.
extern "C" __global__ void barrier_in_uneven_loop(const float* x, float* y, int n) {
    __shared__ float row[64];
    int t = threadIdx.x;
    float sum = 0;
#ifdef FIXED
    for (int first = 0; first < n; first += 64) {
        int i = first + t;
        row[t] = i < n ? x[i] : 0;
        __syncthreads();
        sum += row[0];
        __syncthreads();
    }
#else
    for (int i = t; i < n; i += 64) {
        row[t] = x[i];
        __syncthreads();  // FAULT(barrier_in_uneven_loop): synccheck: divergent threads in warp, divergent threads in block, exited threads
        sum += row[0];
        __syncthreads();  // FAULT(barrier_in_uneven_loop): synccheck: divergent threads in warp, divergent threads in block, exited threads
    }
#endif
    y[t] = sum;
}

// Threads without data leave, the others wait.
extern "C" __global__ void barrier_after_return(const float* x, float* y, int n) {
    __shared__ float row[128];
    int t = threadIdx.x, i = blockIdx.x * 128 + t;
#ifdef FIXED
    row[t] = i < n ? x[i] : 0;
    __syncthreads();
    if (i >= n) return;
#else
    if (i >= n) return;
    row[t] = x[i];
    __syncthreads();  // FAULT(barrier_after_return): synccheck: exited threads
#endif
    y[i] = row[t] - row[0];
}

// Iterations until convergence, which each thread decides for itself.
extern "C" __global__ void convergence_of_each_thread(const int* start, int* steps) {
    __shared__ int value[64];
    int t = threadIdx.x, count = 0;
    value[t] = start[t];
    bool more;
    do {
        __syncthreads();  // FAULT(convergence_of_each_thread): synccheck: divergent threads in warp, divergent threads in block, exited threads
        int next = value[t] / 2;
        value[t] = next;
#ifdef FIXED
        more = __syncthreads_or(next > 0);
        count += next > 0;
#else
        more = next > 0;
        count += more;
#endif
    } while (more);
    steps[t] = count;
}

// A vote of the whole block, asked by those threads only that have something to say.
extern "C" __global__ void vote_under_guard(const int* x, int* y, int n) {
    int t = threadIdx.x;
#ifdef FIXED
    int count = __syncthreads_count(t < n && x[t] > 0);
    if (t < n) y[t] = count;
#else
    if (t < n) y[t] = __syncthreads_count(x[t] > 0);  // FAULT(vote_under_guard): synccheck: divergent threads in warp, exited threads
#endif
}

// -- named barriers -------------------------------------------------------------------------------

__device__ __forceinline__ void meet(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" :: "r"(barrier), "r"(threads) : "memory");
}

// Half of the block meets, but the count is that of the whole.
extern "C" __global__ void named_barrier_count(const float* x, float* y) {
    __shared__ float row[64];
    int t = threadIdx.x;
    if (t >= 64) return;
    row[t] = x[t];
#ifdef FIXED
    meet(1, 64);
#else
    meet(1, blockDim.x);  // FAULT(named_barrier_count): synccheck: deadlock
#endif
    y[t] = row[63 - t];
}

// Barriers count whole warps.
extern "C" __global__ void count_of_part_of_a_warp(const float* x, float* y, int n) {
    __shared__ float row[64];
    int t = threadIdx.x;
    row[t] = t < n ? x[t] : 0;
#ifdef FIXED
    meet(1, (n + 31) / 32 * 32);
#else
    meet(1, n);  // FAULT(count_of_part_of_a_warp): synccheck: invalid arguments
#endif
    if (t < n) y[t] = row[n - 1 - t];
}

// A barrier for each warp: there are sixteen, and 0 is taken.
extern "C" __global__ void seventeenth_barrier(const float* x, float* y) {
    __shared__ float row[512];
    int t = threadIdx.x;
    row[t] = x[t];
#ifdef FIXED
    __syncwarp();
#else
    meet(1 + t / 32, 32);  // FAULT(seventeenth_barrier): synccheck: invalid arguments
#endif
    y[t] = row[t ^ 1];
}

// Two groups meet twice, in different order.
extern "C" __global__ void barriers_in_other_order(const float* x, float* y) {
    __shared__ float row[128];
    int t = threadIdx.x;
    row[t] = x[t];
    if (t < 64) {
        meet(1, 128);  // FAULT(barriers_in_other_order): synccheck: deadlock
        row[t] += row[t + 64];
        meet(2, 128);
    } else {
#ifdef FIXED
        meet(1, 128);
        meet(2, 128);
#else
        meet(2, 128);  // FAULT(barriers_in_other_order): synccheck: deadlock
        meet(1, 128);
#endif
    }
    y[t] = row[t % 64];
}

// -- the grid -------------------------------------------------------------------------------------

// All blocks are waited for, but those without work have left.
extern "C" __global__ void grid_barrier_after_return(const float* x, float* sums, float* y, unsigned* arrived, int n) {
    int i = blockIdx.x * 64 + threadIdx.x;
#ifndef FIXED
    if (blockIdx.x * 64 >= n) return;
#endif
    if (i < n) atomicAdd(&sums[0], x[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (atomicAdd(arrived, 0u) < gridDim.x) {}  // FAULT(grid_barrier_after_return): synccheck: deadlock; watchdog: endless loop
        __threadfence();
    }
    __syncthreads();  // FAULT(grid_barrier_after_return): synccheck: deadlock
    if (i < n) y[i] = x[i] / sums[0];
}
