// Asynchronous copies that are not waited for, barriers in shared memory, matrix operations (sm_80).
#include "async.cuh"
#include "wmma.cuh"

// The copy is started, and its result used at once.
extern "C" __global__ void copy_without_wait(const float4* x, float4* y) {
    __shared__ float4 tile[64];
    int t = threadIdx.x;
    cp_async_16(&tile[t], x + t);
    cp_async_commit();
#ifdef FIXED
    cp_async_wait<0>();
#endif
    y[t] = tile[t];  // FAULT(copy_without_wait): synccheck: missing wait
}

// One group may stay under way in each step, but in the last step it is the one that is needed.
extern "C" __global__ void last_group_under_way(const float4* x, float4* y, int steps) {
    __shared__ float4 ring[2][64];
    int t = threadIdx.x;
    float4 sum = make_float4(0, 0, 0, 0);
    cp_async_16(&ring[0][t], x + t);
    cp_async_commit();
    for (int s = 0; s < steps; ++s) {
        if (s + 1 < steps) {
            cp_async_16(&ring[(s + 1) % 2][t], x + (s + 1) * 64 + t);
            cp_async_commit();
        }
#ifdef FIXED
        if (s + 1 == steps) cp_async_wait<0>();
#endif
        cp_async_wait<1>();
        float4 v = ring[s % 2][t];  // FAULT(last_group_under_way): synccheck: missing wait
        sum.x += v.x; sum.y += v.y; sum.z += v.z; sum.w += v.w;
    }
    y[t] = sum;
}

// A wait covers committed groups; this copy is in none.
extern "C" __global__ void copy_not_committed(const float4* x, float4* y) {
    __shared__ float4 tile[2][64];
    int t = threadIdx.x;
    cp_async_16(&tile[0][t], x + t);
    cp_async_commit();
    cp_async_16(&tile[1][t], x + 64 + t);
#ifdef FIXED
    cp_async_commit();
#endif
    cp_async_wait<0>();
    __syncthreads();
    float4 a = tile[0][63 - t];
    float4 b = tile[1][63 - t];  // FAULT(copy_not_committed): synccheck: missing wait
    y[t] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// The wait stands before the commit.
extern "C" __global__ void wait_before_commit(const float* x, float* y) {
    __shared__ float tile[64];
    int t = threadIdx.x;
    cp_async_4(&tile[t], x + t);
#ifdef FIXED
    cp_async_commit();
    cp_async_wait<0>();
#else
    cp_async_wait<0>();
    cp_async_commit();
#endif
    __syncthreads();
    y[t] = tile[t ^ 1];  // FAULT(wait_before_commit): synccheck: missing wait
}

// The barrier expects all threads, but one thread of each warp arrives.
extern "C" __global__ void arrivals_too_few(const float* x, float* y) {
    __shared__ float row[64];
    __shared__ mbarrier ready;
    int t = threadIdx.x;
#ifdef FIXED
    int count = 2;
#else
    int count = blockDim.x;
#endif
    if (t == 0) mbarrier_init(&ready, count);
    __syncthreads();
    row[t] = x[t];
    __syncwarp();
    if (t % 32 == 0) mbarrier_arrive(&ready);
    mbarrier_wait(&ready, 0);  // FAULT(arrivals_too_few): synccheck: deadlock; watchdog: endless loop
    y[t] = row[63 - t];
}

// The barrier was never initialised.
extern "C" __global__ void barrier_not_initialised(const float* x, float* y) {
    __shared__ float row[64];
    __shared__ mbarrier ready[2];
    int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(&ready[0], 64);
#ifdef FIXED
        mbarrier_init(&ready[1], 64);
#endif
    }
    __syncthreads();
    row[t] = x[t];
    mbarrier_arrive(&ready[0]);
    mbarrier_wait(&ready[0], 0);
    float first = row[63 - t];
    mbarrier_arrive(&ready[1]);  // FAULT(barrier_not_initialised): synccheck: invalid arguments
    mbarrier_wait(&ready[1], 0);  // FAULT(barrier_not_initialised): synccheck: invalid arguments, deadlock; watchdog: endless loop
    row[t] = 2 * first;
    y[t] = row[t];
}

// A product of 16 x 16 tiles is the work of a whole warp; the guard of single elements splits it.
extern "C" __global__ void wmma_under_guard(const unsigned short* a, const unsigned short* b, float* c, int cols) {
#ifdef FIXED
    if (threadIdx.x / 32 * 16 < cols) {
#else
    if (threadIdx.x % 32 < cols) {
#endif
        unsigned left[8], right[8];
        float sum[8] = {};
        wmma_load_a(left, a);  // FAULT(wmma_under_guard): synccheck: divergent threads in warp, exited threads
        wmma_load_b(right, b);  // FAULT(wmma_under_guard): synccheck: divergent threads in warp, exited threads
        wmma_multiply(sum, left, right);  // FAULT(wmma_under_guard): synccheck: divergent threads in warp, exited threads
        wmma_store(c, sum);  // FAULT(wmma_under_guard): synccheck: divergent threads in warp, exited threads
    }
}

// Matrix fragments are loaded by the lanes that have a row of their own.
extern "C" __global__ void ldmatrix_under_guard(const uint4* x, uint4* fragments) {
    __shared__ uint4 tile[32];
    int lane = threadIdx.x;
    tile[lane] = x[lane];
    __syncwarp();
    unsigned r[4] = {0, 0, 0, 0};
#ifdef FIXED
    ldmatrix_x4(r, &tile[lane]);
#else
    if (lane < 16) ldmatrix_x4(r, &tile[lane]);  // FAULT(ldmatrix_under_guard): synccheck: divergent threads in warp, exited threads
#endif
    fragments[lane] = make_uint4(r[0], r[1], r[2], r[3]);
}
