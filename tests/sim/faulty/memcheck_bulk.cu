// Bulk copies of a wrong size or from a wrong place (sm_90).
#include "async.cuh"

// The last tile of a row is not whole, but copied as if it were.
extern "C" __global__ void bulk_tail(const float* x, float* y, int n) {
    __shared__ __align__(16) float tile[128];
    __shared__ mbarrier full;
    int t = threadIdx.x, first = blockIdx.x * 128;
#ifdef FIXED
    int count = min(128, n - first);
#else
    int count = 128;
#endif
    if (t == 0) {
        mbarrier_init(&full, 1);
        fence_async();
        mbarrier_expect(&full, 4 * count);
        bulk_load(tile, x + first, 4 * count, &full);  // FAULT(bulk_tail): memcheck: out of bounds
    }
    __syncthreads();
    mbarrier_wait(&full, 0);
    if (first + t < n) y[first + t] = 2 * tile[t];
}

// The size is that of the elements in global memory; the buffer holds half as many.
extern "C" __global__ void bulk_past_the_tile(const float* x, float* y) {
#ifdef FIXED
    __shared__ __align__(16) float tile[128];
#else
    __shared__ __align__(16) float tile[64];
#endif
    __shared__ mbarrier full;
    int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&full, 1);
        fence_async();
        mbarrier_expect(&full, 512);
        bulk_load(tile, x, 512, &full);  // FAULT(bulk_past_the_tile): memcheck: out of bounds
    }
    __syncthreads();
    mbarrier_wait(&full, 0);
    y[t] = tile[t % 64] + 1;
}

// The copy starts at a column that is no multiple of four.
extern "C" __global__ void bulk_misaligned(const float* x, float* y, int first) {
    __shared__ __align__(16) float tile[132];
    __shared__ mbarrier full;
    int t = threadIdx.x;
#ifdef FIXED
    int skip = first % 4, count = 132;
#else
    int skip = 0, count = 128;
#endif
    if (t == 0) {
        mbarrier_init(&full, 1);
        fence_async();
        mbarrier_expect(&full, 4 * count);
        bulk_load(tile, x + first - skip, 4 * count, &full);  // FAULT(bulk_misaligned): memcheck: misaligned
    }
    __syncthreads();
    mbarrier_wait(&full, 0);
    y[t] = tile[skip + t] + 1;
}

// The results of a block that is not full are stored as if it were.
extern "C" __global__ void bulk_store_tail(const float* x, float* y, int n) {
    __shared__ __align__(16) float tile[128];
    int t = threadIdx.x, first = blockIdx.x * 128;
#ifdef FIXED
    int count = min(128, n - first);
#else
    int count = 128;
#endif
    tile[t] = first + t < n ? 3 * x[first + t] : 0;
    fence_async();
    __syncthreads();
    if (t == 0) {
        bulk_store(y + first, tile, 4 * count);  // FAULT(bulk_store_tail): memcheck: out of bounds
        bulk_commit();
        bulk_wait<0>();
    }
}
