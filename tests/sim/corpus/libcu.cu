// The C++ library's pipelines, barriers, semaphores and atomics.

#include <cooperative_groups.h>
#include <cuda/atomic>
#include <cuda/barrier>
#include <cuda/pipeline>
#include <cuda/std/array>

namespace cg = cooperative_groups;

// Objects in shared memory are initialised by the kernels themselves.
#pragma nv_diag_suppress static_var_with_dynamic_init

// A product of matrices through a pipeline that all threads of the block share.
extern "C" __global__ void gemm_pipeline(const float* a, const float* b, float* c, int m, int n,
                                         int k) {
    constexpr int TILE = 8, STAGES = 2;
    __shared__ float as[STAGES][TILE][TILE], bs[STAGES][TILE][TILE];
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, STAGES> state;
    auto block = cg::this_thread_block();
    auto pipe = cuda::make_pipeline(block, &state);
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * TILE + ty, col = blockIdx.x * TILE + tx, steps = (k + TILE - 1) / TILE;
    auto fetch = [&](int s) {
        pipe.producer_acquire();
        float &x = as[s % STAGES][ty][tx], &y = bs[s % STAGES][ty][tx];
        if (row < m && s * TILE + tx < k)
            cuda::memcpy_async(&x, &a[row * k + s * TILE + tx], sizeof(float), pipe);
        else
            x = 0.0f;
        if (s * TILE + ty < k && col < n)
            cuda::memcpy_async(&y, &b[(s * TILE + ty) * n + col], sizeof(float), pipe);
        else
            y = 0.0f;
        pipe.producer_commit();
    };
    float sum = 0.0f;
    fetch(0);
    for (int s = 0; s < steps; s++) {
        if (s + 1 < steps) fetch(s + 1);
        pipe.consumer_wait();
        for (int i = 0; i < TILE; i++) sum += as[s % STAGES][ty][i] * bs[s % STAGES][i][tx];
        pipe.consumer_release();
    }
    if (row < m && col < n) c[row * n + col] = sum;
    block.sync();  // all have released the last stage before the pipeline ends its barriers
}

// Warp specialisation in the pipeline's own terms: one warp produces, three consume.
extern "C" __global__ void specialised(const float* x, float* sums, int chunks) {
    constexpr int STAGES = 3;
    __shared__ float stage[STAGES][96];
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, STAGES> state;
    auto block = cg::this_thread_block();
    bool producer = threadIdx.x < 64;
    auto pipe = cuda::make_pipeline(
        block, &state, producer ? cuda::pipeline_role::producer : cuda::pipeline_role::consumer);
    x += blockIdx.x * chunks * 96;
    if (producer) {
        for (int i = 0; i < chunks; i++) {
            pipe.producer_acquire();
            for (int j = threadIdx.x; j < 96; j += 64)
                cuda::memcpy_async(&stage[i % STAGES][j], &x[i * 96 + j], sizeof(float), pipe);
            pipe.producer_commit();
        }
    } else {
        int t = threadIdx.x - 64;
        float sum = 0.0f;
        for (int i = 0; i < chunks; i++) {
            pipe.consumer_wait();
            sum += stage[i % STAGES][t] * stage[i % STAGES][95 - t];
            pipe.consumer_release();
        }
        sums[blockIdx.x * 96 + t] = sum;
    }
    block.sync();
}

// A barrier object that copies arrive at, between arrival and wait of the threads.
extern "C" __global__ void barrier_copy(const int* x, int* y, int n) {
    __shared__ __align__(16) int stage[256];
    __shared__ cuda::barrier<cuda::thread_scope_block> barrier;
    auto block = cg::this_thread_block();
    if (block.thread_rank() == 0) init(&barrier, block.size());
    block.sync();
    for (int begin = blockIdx.x * 256; begin < n; begin += gridDim.x * 256) {
        int count = min(256, n - begin);
        cuda::memcpy_async(block, stage, x + begin, sizeof(int) * count, barrier);
        barrier.arrive_and_wait();
        for (int i = threadIdx.x; i < count; i += blockDim.x) y[begin + i] = stage[count - 1 - i] * 3;
        block.sync();
    }
}

// Tokens: between arrival and wait a thread does what needs nobody else.
extern "C" __global__ void tokens(const float* x, float* y, int steps) {
    __shared__ float values[2][64];
    __shared__ cuda::barrier<cuda::thread_scope_block> barrier;
    int t = threadIdx.x;
    if (t == 0) init(&barrier, 64);
    __syncthreads();
    float mine = x[blockIdx.x * 64 + t];
    for (int s = 0; s < steps; s++) {
        values[s % 2][t] = mine;
        auto token = barrier.arrive();
        mine *= 0.5f;
        barrier.wait(cuda::std::move(token));
        mine += 0.25f * (values[s % 2][(t + 1) % 64] + values[s % 2][(t + 63) % 64]);
    }
    y[blockIdx.x * 64 + t] = mine;
}

// Blocks in a chain through atomic_ref: acquire and release with the scope of the device.
extern "C" __global__ void chain(const int* x, int* sums, unsigned* turn) {
    __shared__ int total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    cuda::atomic_ref<int, cuda::thread_scope_block> own(total);
    own.fetch_add(x[blockIdx.x * 64 + threadIdx.x], cuda::std::memory_order_relaxed);
    __syncthreads();
    if (threadIdx.x == 0) {
        cuda::atomic_ref<unsigned, cuda::thread_scope_device> now(*turn);
        while (now.load(cuda::std::memory_order_acquire) != blockIdx.x) {
        }
        sums[blockIdx.x] = total + (blockIdx.x ? sums[blockIdx.x - 1] : 0);
        now.store(blockIdx.x + 1, cuda::std::memory_order_release);
    }
}

// Atomics that no instruction has: a product by compare and exchange, a maximum of floats.
extern "C" __global__ void products(const int* x, int* product, float* top, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        cuda::atomic_ref<int, cuda::thread_scope_device> p(*product);
        int old = p.load(cuda::std::memory_order_relaxed);
        while (!p.compare_exchange_weak(old, old * x[i], cuda::std::memory_order_relaxed)) {
        }
        cuda::atomic_ref<float, cuda::thread_scope_device> t(*top);
        t.fetch_max(x[i] * 0.5f, cuda::std::memory_order_relaxed);
    }
}
