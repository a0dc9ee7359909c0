// Memory that asynchronous copies still read or write is used by their own thread (sm_90).
#include "async.cuh"

// The block ends, and its shared memory with it, while the engine may still read the tile.
extern "C" __global__ void block_ends_too_early(const float* x, float* y) {
    __shared__ __align__(16) float tile[128];
    int t = threadIdx.x, first = blockIdx.x * 128;
    tile[127 - t] = 2 * x[first + t];
    fence_async();
    __syncthreads();
    if (t == 0) {
        bulk_store(y + first, tile, 512);  // FAULT(block_ends_too_early): synccheck: missing wait
        bulk_commit();
#ifdef FIXED
        bulk_wait_read<0>();
#endif
    }
}

// Copies arrive at the barrier when they are done; the thread goes on at once.
extern "C" __global__ void arrival_alone(const float* x, float* y, int steps) {
    __shared__ float tile[64];
    __shared__ mbarrier full;
    int t = threadIdx.x;
    if (t == 0) mbarrier_init(&full, 64);
    __syncthreads();
    float sum = 0;
    for (int s = 0; s < steps; ++s) {
        cp_async_4(&tile[t], x + s * 64 + t);  // FAULT(arrival_alone): synccheck: missing wait
        cp_async_arrive(&full);
#ifdef FIXED
        mbarrier_wait(&full, s % 2);
#endif
        sum += tile[t];  // FAULT(arrival_alone): synccheck: missing wait
    }
    y[t] = sum;
}

// Defaults are copied for all, then what is given over them; the defaults may come last.
extern "C" __global__ void copied_over_defaults(const float4* defaults, const int* given,
                                                const float4* x, float4* y) {
    __shared__ float4 row[64];
    int t = threadIdx.x;
    cp_async_16(&row[t], defaults + t);
#ifdef FIXED
    cp_async_commit();
    cp_async_wait<0>();
#endif
    if (given[t])
        cp_async_16(&row[t], x + t);  // FAULT(copied_over_defaults): synccheck: missing wait
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    y[t] = row[63 - t];
}

// What is past the end is set to zero while its copy may still come.
extern "C" __global__ void tail_under_copy(const float* x, float* sums, int n) {
    __shared__ float tile[64];
    int t = threadIdx.x, i = blockIdx.x * 64 + t;
    cp_async_4(&tile[t], x + min(i, n - 1));
    cp_async_commit();
#ifdef FIXED
    cp_async_wait<0>();
#endif
    if (i >= n) tile[t] = 0;  // FAULT(tail_under_copy): synccheck: missing wait
    cp_async_wait<0>();
    for (int d = 32; d; d /= 2) {
        __syncthreads();
        if (t < d) tile[t] += tile[t + d];
    }
    if (t == 0) sums[blockIdx.x] = tile[0];
}

// Stages of the ring lie a half of their size apart.
extern "C" __global__ void stages_touch(const float* x, float* y) {
    __shared__ __align__(16) float ring[2 * 128];
    __shared__ mbarrier full[2];
    int t = threadIdx.x;
#ifdef FIXED
    const int size = 128;
#else
    const int size = 64;
#endif
    if (t == 0) {
        for (int s = 0; s < 2; ++s) mbarrier_init(&full[s], 1);
        fence_async();
        for (int s = 0; s < 2; ++s) {
            mbarrier_expect(&full[s], 512);
            float* to = ring + s * size;
            const float* from = x + s * 128;
            bulk_load(to, from, 512, full + s);  // FAULT(stages_touch): synccheck: missing wait
        }
    }
    __syncthreads();
    float sum = 0;
    for (int s = 0; s < 2; ++s) {
        mbarrier_wait(&full[s], 0);
        sum += ring[s * size + 127 - t];  // FAULT(stages_touch): synccheck: missing wait
    }
    y[t] = sum;
}

// Each thread streams out records from a place of its own, which it fills again at once.
extern "C" __global__ void record_reused(const float* x, float4* log, int steps) {
    __shared__ float4 records[32];
    int t = threadIdx.x;
    float low = x[t], high = x[t], sum = 0;
    for (int s = 0; s < steps; ++s) {
        float v = x[s * 32 + t];
        low = fminf(low, v);
        high = fmaxf(high, v);
        sum += v;
        float4 now = make_float4(low, high, sum, v);
        records[t] = now;  // FAULT(record_reused): synccheck: missing wait
        fence_async();
        bulk_store(log + s * 32 + t, &records[t], 16);
        bulk_commit();
#ifdef FIXED
        bulk_wait_read<0>();
#endif
    }
    bulk_wait<0>();
}

// The diagonal is set where the engine may not have stored the row yet: only its source is read.
extern "C" __global__ void diagonal_under_store(const float* x, float* y) {
    __shared__ __align__(16) float row[64];
    int t = threadIdx.x, r = blockIdx.x;
    row[t] = x[r] * x[t];
    fence_async();
    __syncthreads();
    if (t == 0) {
        bulk_store(y + r * 64, row, 256);
        bulk_commit();
#ifdef FIXED
        bulk_wait<0>();
#else
        bulk_wait_read<0>();
#endif
        y[r * 64 + r] = 1;  // FAULT(diagonal_under_store): synccheck: missing wait
        bulk_wait<0>();
    }
}

// A block takes up its own result again, which has left shared memory but may not have arrived.
extern "C" __global__ void result_not_arrived(const float* x, float* scratch, float* y) {
    __shared__ __align__(16) float tile[128];
    int t = threadIdx.x, first = blockIdx.x * 128;
    tile[t] = x[first + t] + 1;
    fence_async();
    __syncthreads();
    if (t == 0) {
        bulk_store(scratch + first, tile, 512);
        bulk_commit();
#ifdef FIXED
        bulk_wait<0>();
#else
        bulk_wait_read<0>();
#endif
    }
    __syncthreads();
    y[first + t] = scratch[first + 127 - t];  // FAULT(result_not_arrived): synccheck: missing wait
}
