// Bulk copies that are not waited for, or are waited for in vain (sm_90).
#include "async.cuh"

// The data are read without a look at the barrier that tells when they are there.
extern "C" __global__ void bulk_load_without_wait(const float* x, float* y) {
    __shared__ __align__(16) float tile[128];
    __shared__ mbarrier full;
    int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&full, 1);
        fence_async();
        mbarrier_expect(&full, 512);
        bulk_load(tile, x, 512, &full);
    }
    __syncthreads();
#ifdef FIXED
    mbarrier_wait(&full, 0);
#endif
    y[t] = tile[t] + 1;  // FAULT(bulk_load_without_wait): synccheck: missing wait
}

// Elements are announced where bytes are meant to be copied: two tiles announced, one comes.
extern "C" __global__ void more_bytes_announced(const float* x, float* y) {
    __shared__ __align__(16) float tile[128];
    __shared__ mbarrier full;
    int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&full, 1);
        fence_async();
#ifdef FIXED
        mbarrier_expect(&full, 512);
#else
        mbarrier_expect(&full, 1024);
#endif
        bulk_load(tile, x, 512, &full);
    }
    __syncthreads();
    mbarrier_wait(&full, 0);  // FAULT(more_bytes_announced): synccheck: deadlock; watchdog: endless loop
    y[t] = tile[t] + 1;
}

// The tile is written again while the engine may still read it for the last store.
extern "C" __global__ void tile_under_way_rewritten(const float* x, float* y, int steps) {
    __shared__ __align__(16) float tile[128];
    int t = threadIdx.x;
    for (int s = 0; s < steps; ++s) {
        tile[t] = 2 * x[s * 128 + t];  // FAULT(tile_under_way_rewritten): synccheck: missing wait
        fence_async();
        __syncthreads();
        if (t == 0) {
            bulk_store(y + s * 128, tile, 512);
            bulk_commit();
#ifdef FIXED
            bulk_wait_read<0>();
#endif
        }
        __syncthreads();
    }
    if (t == 0) bulk_wait<0>();
}

// Two tiles take turns; one store may be under way, but two are allowed to be.
extern "C" __global__ void one_store_too_many(const float* x, float* y, int steps) {
    __shared__ __align__(16) float tile[2][128];
    int t = threadIdx.x;
    for (int s = 0; s < steps; ++s) {
        if (t == 0)
#ifdef FIXED
            bulk_wait_read<1>();
#else
            bulk_wait_read<2>();
#endif
        __syncthreads();
        tile[s % 2][t] = x[s * 128 + t] - 1;  // FAULT(one_store_too_many): synccheck: missing wait
        fence_async();
        __syncthreads();
        if (t == 0) {
            bulk_store(y + s * 128, tile[s % 2], 512);
            bulk_commit();
        }
    }
    if (t == 0) bulk_wait<0>();
}
