// Races between threads and the engine that does bulk copies (sm_90).
#include "async.cuh"

// The engine may store what was in shared memory before: writes need a fence of the proxy.
extern "C" __global__ void no_proxy_fence(const float* x, float* y) {
    __shared__ __align__(16) float tile[128];
    int t = threadIdx.x;
    tile[t] = 2 * x[blockIdx.x * 128 + t];
#ifdef FIXED
    fence_async();
#endif
    __syncthreads();
    if (t == 0) {
        bulk_store(y + blockIdx.x * 128, tile, 512);  // FAULT(no_proxy_fence): racecheck: read after write
        bulk_commit();
        bulk_wait<0>();
    }
}

// The fence is there, but one thread stores for all without having met them.
extern "C" __global__ void bulk_store_too_early(const float* x, float* y) {
    __shared__ __align__(16) float tile[128];
    int t = threadIdx.x;
    tile[t] = 2 * x[blockIdx.x * 128 + t];  // FAULT(bulk_store_too_early): racecheck: write after read
    fence_async();
#ifdef FIXED
    __syncthreads();
#endif
    if (t == 0) {
        bulk_store(y + blockIdx.x * 128, tile, 512);  // FAULT(bulk_store_too_early): racecheck: read after write; initcheck: uninitialized read
        bulk_commit();
        bulk_wait<0>();
    }
}

// The next tile is fetched while slow warps still read the last.
extern "C" __global__ void bulk_load_too_early(const float* x, float* y, int steps) {
    __shared__ __align__(16) float tile[128];
    __shared__ mbarrier full;
    int t = threadIdx.x;
    float sum = 0;
    if (t == 0) {
        mbarrier_init(&full, 1);
        fence_async();
    }
    __syncthreads();
    for (int s = 0; s < steps; ++s) {
        if (t == 0) {
            mbarrier_expect(&full, 512);
            bulk_load(tile, x + s * 128, 512, &full);  // FAULT(bulk_load_too_early): racecheck: write after read
        }
        mbarrier_wait(&full, s % 2);  // FAULT(bulk_load_too_early): synccheck: deadlock; watchdog: endless loop
        sum += tile[127 - t];  // FAULT(bulk_load_too_early): racecheck: read after write; synccheck: missing wait
#ifdef FIXED
        __syncthreads();
#endif
    }
    y[t] = sum;
}
