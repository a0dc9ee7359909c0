// Strong accesses whose scope is too small for those that they meet.
#include "async.cuh"

__device__ __forceinline__ unsigned acquire_block(const unsigned* p) {
    unsigned v;
    asm volatile("ld.acquire.cta.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

__device__ __forceinline__ unsigned acquire_device(const unsigned* p) {
    unsigned v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

__device__ __forceinline__ void release_device(unsigned* p, unsigned v) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" :: "l"(p), "r"(v) : "memory");
}

// Each block adds to the sum of the block before; it acquires for itself what another released.
extern "C" __global__ void block_acquires(const int* x, int* sums, unsigned* ready) {
    int b = blockIdx.x, sum = 0;
    unsigned* before = ready + b - 1;
    for (int i = 0; i < 16; ++i) sum += x[b * 16 + i];
    if (b) {
#ifdef FIXED
        while (!acquire_device(before)) {}
#else
        while (!acquire_block(before)) {}  // FAULT(block_acquires): racecheck: read after write
#endif
        sum += sums[b - 1];  // FAULT(block_acquires): racecheck: read after write
    }
    sums[b] = sum;
    release_device(ready + b, 1);  // FAULT(block_acquires): racecheck: write after read
}

// Counting may be atomic for the block alone, but the bins that it goes into are all blocks'.
extern "C" __global__ void block_merges(const unsigned char* x, int n, unsigned* bins) {
    __shared__ unsigned counts[32];
    int t = threadIdx.x;
    if (t < 32) counts[t] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x)
        atomicAdd_block(&counts[x[i] / 8], 1u);
    __syncthreads();
#ifdef FIXED
    if (t < 32) atomicAdd(bins + t, counts[t]);
#else
    if (t < 32)
        atomicAdd_block(bins + t, counts[t]);  // FAULT(block_merges): racecheck: write after write
#endif
}

// A block that is alone may add with its own scope; this asks whether it is the first.
extern "C" __global__ void two_scopes(const int* x, int* sum) {
    int mine = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int d = 16; d; d /= 2) mine += __shfl_down_sync(0xffffffff, mine, d);
    if (threadIdx.x % 32) return;
#ifdef FIXED
    if (gridDim.x == 1) atomicAdd_block(sum, mine);
    else atomicAdd(sum, mine);
#else
    if (blockIdx.x == 0)
        atomicAdd_block(sum, mine);  // FAULT(two_scopes): racecheck: write after write
    else
        atomicAdd(sum, mine);  // FAULT(two_scopes): racecheck: write after write
#endif
}

// The writer's fence is the device's, the reader's is that of its block.
extern "C" __global__ void fence_of_the_reader(const float* x, float* data, volatile int* flag,
                                               float* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = 2 * x[t];
        __threadfence();
        flag[t] = 1;
    } else {
        while (flag[t] == 0) {}
#ifdef FIXED
        __threadfence();
#else
        __threadfence_block();
#endif
        y[t] = data[t] + 1;  // FAULT(fence_of_the_reader): racecheck: read after write
    }
}

#if __CUDA_ARCH__ >= 900
// The copy engine counts at a barrier whose initialisation it may not have seen.
extern "C" __global__ void barrier_unfenced(const float* x, float* y) {
    __shared__ __align__(16) float tile[128];
    __shared__ mbarrier full;
    int t = threadIdx.x;
    x += blockIdx.x * 128;
    y += blockIdx.x * 128;
    if (t == 0) {
        mbarrier_init(&full, 1);
#ifdef FIXED
        fence_async();
#endif
        mbarrier_expect(&full, 512);
        bulk_load(tile, x, 512, &full);  // FAULT(barrier_unfenced): racecheck: read after write
    }
    __syncthreads();
    mbarrier_wait(&full, 0);
    y[t] = tile[127 - t];
}
#endif
