// Reductions: within a warp, a block, a grid; by shuffles, shared memory, atomics and tickets.

// The classical tree in dynamic shared memory: each step halves the threads that add.
extern "C" __global__ void block_sum(float* out, const float* x, int n) {
    extern __shared__ float tile[];
    int t = threadIdx.x;
    int i = blockIdx.x * blockDim.x + t;
    tile[t] = i < n ? x[i] : 0.f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half >>= 1) {
        if (t < half) tile[t] += tile[t + half];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = tile[0];
}

// The tree's last six steps without barriers: lanes of one warp, kept in step by __syncwarp.
extern "C" __global__ void block_sum_unrolled(float* out, const float* x, int n) {
    __shared__ float tile[128];
    int t = threadIdx.x;
    float sum = 0.f;
    for (int i = blockIdx.x * 256 + t; i < n; i += 256 * gridDim.x) {
        sum += x[i];
        if (i + 128 < n) sum += x[i + 128];
    }
    tile[t] = sum;
    __syncthreads();
    if (t < 64) tile[t] = sum = sum + tile[t + 64];
    __syncthreads();
    if (t < 32) {
        sum += tile[t + 32];
        __syncwarp();
#pragma unroll
        for (int step = 16; step > 0; step >>= 1) {
            tile[t] = sum;
            __syncwarp();
            float other = tile[t ^ step];
            __syncwarp();
            sum += other;
        }
        if (t == 0) out[blockIdx.x] = sum;
    }
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

// Warp shuffles, one slot per warp, the first warp adds the slots; the sum is broadcast to all.
extern "C" __global__ void normalise_by_sum(float* y, const float* x, int n) {
    __shared__ float slots[32];
    __shared__ float total;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float* row = x + (long long)blockIdx.x * n;
    float sum = 0.f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += row[i];
    sum = warp_sum(sum);
    if (lane == 0) slots[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        sum = lane < (blockDim.x + 31) / 32 ? slots[lane] : 0.f;
        sum = warp_sum(sum);
        if (lane == 0) total = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        y[(long long)blockIdx.x * n + i] = row[i] / total;
}

// The second stage of a two-stage sum: one block over the partial sums of the first.
extern "C" __global__ void final_sum(float* out, const float* partial, int count) {
    float sum = 0.f;
    for (int i = threadIdx.x; i < count; i += 32) sum += partial[i];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) *out = sum;
}

__device__ unsigned int finished;  // blocks that have stored their partial sum; zero between launches

// One launch: the last block to finish adds the partial sums of all, in order, so that the result
// does not depend on which one is last.  Fences on both sides of the ticket.
extern "C" __global__ void sum_last_block(float* out, float* partial, const float* x, int n) {
    __shared__ float slots[4];
    __shared__ bool last;
    float sum = 0.f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = slots[0];
        for (int w = 1; w < blockDim.x / 32; ++w) sum += slots[w];
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(&finished, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && threadIdx.x < 32) {
        sum = 0.f;
        for (int b = threadIdx.x; b < gridDim.x; b += 32) sum += partial[b];
        sum = warp_sum(sum);
        if (threadIdx.x == 0) {
            *out = sum;
            finished = 0;
        }
    }
}

// The programming guide's form: atomicInc wraps the counter by itself, the partial sums are volatile.
extern "C" __global__ void sum_last_block_volatile(volatile float* partial, const float* x, int n,
                                                   unsigned int* ticket, float* out) {
    __shared__ bool last;
    __shared__ float slots[64];
    float sum = 0.f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += x[i];
    slots[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int t = 1; t < blockDim.x; ++t) sum += slots[t];
        partial[blockIdx.x] = sum;
        __threadfence();
        unsigned int value = atomicInc(ticket, gridDim.x - 1);
        last = value == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        sum = 0.f;
        for (int b = 0; b < gridDim.x; ++b) sum += partial[b];
        *out = sum;
    }
}

// Every warp adds its sum to the result: as many atomics as warps, in any order.
extern "C" __global__ void sum_atomic(double* out, const float* x, int n) {
    double sum = 0.0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += x[i];
    for (int step = 16; step > 0; step >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, step);
    if ((threadIdx.x & 31) == 0) atomicAdd(out, sum);
}

// Index of the maximum: value and index packed into 64 bits so that one atomicMax decides both.
// The float's bits are made to order like integers; the first of equal values wins.
extern "C" __global__ void argmax(unsigned long long* best, const float* x, int n) {
    unsigned long long mine = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        unsigned int bits = __float_as_uint(x[i]);
        bits = bits >> 31 ? ~bits : bits | 0x80000000u;
        unsigned long long key = (unsigned long long)bits << 32 | (0xffffffffu - i);
        mine = key > mine ? key : mine;
    }
    for (int step = 16; step > 0; step >>= 1) {
        unsigned long long other = __shfl_xor_sync(0xffffffffu, mine, step);
        mine = other > mine ? other : mine;
    }
    if (threadIdx.x % 32 == 0) atomicMax(best, mine);
}

struct Moments {
    float mean, m2;
    int count;
};

__device__ Moments combine(Moments a, Moments b) {
    int count = a.count + b.count;
    if (count == 0) return a;
    float delta = b.mean - a.mean;
    float share = (float)b.count / count;
    return {a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share, count};
}

// Variance in one pass: Welford's update per thread, Chan's combination across lanes and warps.
extern "C" __global__ void welford(float* mean, float* variance, const float* x, int n) {
    __shared__ Moments parts[4];
    Moments m = {0.f, 0.f, 0};
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float v = x[(long long)blockIdx.x * n + i];
        m.count += 1;
        float delta = v - m.mean;
        m.mean += delta / m.count;
        m.m2 += delta * (v - m.mean);
    }
    for (int step = 16; step > 0; step >>= 1) {
        Moments other;
        other.mean = __shfl_down_sync(0xffffffffu, m.mean, step);
        other.m2 = __shfl_down_sync(0xffffffffu, m.m2, step);
        other.count = __shfl_down_sync(0xffffffffu, m.count, step);
        m = combine(m, other);
    }
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = m;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < blockDim.x / 32; ++w) m = combine(m, parts[w]);
        mean[blockIdx.x] = m.mean;
        variance[blockIdx.x] = m.m2 / m.count;
    }
}

// Columns of a matrix: a block of 32 x 8 threads, rows added across threadIdx.y in shared memory.
extern "C" __global__ void column_sum(float* out, const float* x, int rows, int columns) {
    __shared__ float tile[8][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.f;
    if (column < columns)
        for (int r = threadIdx.y; r < rows; r += 8) sum += x[r * columns + column];
    tile[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        for (int k = 1; k < 8; ++k) sum += tile[k][threadIdx.x];
        out[column] = sum;
    }
}

// Any operation, any type: the functor is a template argument.
struct Max {
    template <typename T> __device__ T operator()(T a, T b) const { return a > b ? a : b; }
};
struct Product {
    template <typename T> __device__ T operator()(T a, T b) const { return a * b; }
};

template <typename T, typename Op>
__global__ void reduce_rows(T* out, const T* x, int n, T start) {
    __shared__ T slots[32];
    Op op;
    T value = start;
    for (int i = threadIdx.x; i < n; i += blockDim.x) value = op(value, x[blockIdx.x * n + i]);
    for (int step = 16; step > 0; step /= 2)
        value = op(value, __shfl_xor_sync(0xffffffffu, value, step));
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < blockDim.x / 32; ++w) value = op(value, slots[w]);
        out[blockIdx.x] = value;
    }
}

// Hardware reductions of integers across a warp.
extern "C" __global__ void warp_redux(int* out, const int* x) {
#if __CUDA_ARCH__ >= 800
    int lane = threadIdx.x % 32, warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    int sum = __reduce_add_sync(0xffffffffu, v);
    int low = __reduce_min_sync(0xffffffffu, v);
    unsigned high = __reduce_max_sync(0xffffffffu, (unsigned)v);
    unsigned all = __reduce_and_sync(0xffffffffu, (unsigned)v);
    unsigned any = __reduce_or_sync(0xffffffffu, (unsigned)v);
    unsigned odd = __reduce_xor_sync(0xffffffffu, (unsigned)v);
    unsigned half = lane < 12 ? 0xfffu : 0xfffff000u;
    int part = __reduce_add_sync(half, v);
    int mine = lane == 0 ? sum : lane == 1 ? low : lane == 2 ? (int)high : lane == 3 ? (int)all
             : lane == 4 ? (int)any : lane == 5 ? (int)odd : part;
    out[warp * 32 + lane] = mine;
#endif
}
