// Matrix products without tensor cores: C[m, n] = A[m, k] B[k, n], row-major unless said otherwise.

#include <cuda_fp16.h>

extern "C" __global__ void gemm_naive(const float* a, const float* b, float* c, int m, int n,
                                      int k) {
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    int col = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= m || col >= n) return;
    float sum = 0.0f;
    for (int i = 0; i < k; i++) sum += a[row * k + i] * b[i * n + col];
    c[row * n + col] = sum;
}

constexpr int TILE = 16;

template <typename T>
__device__ void tiled(const T* a, const T* b, T* c, int m, int n, int k, T alpha, T beta) {
    __shared__ T as[TILE][TILE], bs[TILE][TILE + 1];
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * TILE + ty, col = blockIdx.x * TILE + tx;
    T sum = 0;
    for (int k0 = 0; k0 < k; k0 += TILE) {
        as[ty][tx] = row < m && k0 + tx < k ? a[row * k + k0 + tx] : T(0);
        bs[ty][tx] = k0 + ty < k && col < n ? b[(k0 + ty) * n + col] : T(0);
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < TILE; i++) sum += as[ty][i] * bs[i][tx];
        __syncthreads();
    }
    if (row < m && col < n) {
        T old = beta == T(0) ? T(0) : beta * c[row * n + col];  // beta 0: C may be uninitialised
        c[row * n + col] = alpha * sum + old;
    }
}

extern "C" __global__ void gemm_tiled(const float* a, const float* b, float* c, int m, int n, int k,
                                      float alpha, float beta) {
    tiled<float>(a, b, c, m, n, k, alpha, beta);
}

extern "C" __global__ void gemm_double(const double* a, const double* b, double* c, int m, int n,
                                       int k, double alpha, double beta) {
    tiled<double>(a, b, c, m, n, k, alpha, beta);
}

// 64 threads; each makes 4 x 4 results of a 32 x 32 tile, rows and columns 8 apart.
extern "C" __global__ void __launch_bounds__(64, 4)
gemm_register(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
              int m, int n, int k) {
    __shared__ float as[32][8 + 1], bs[8][32];
    int t = threadIdx.x, tx = t % 8, ty = t / 8;
    int row0 = blockIdx.y * 32, col0 = blockIdx.x * 32;
    float acc[4][4] = {};
    for (int k0 = 0; k0 < k; k0 += 8) {
        #pragma unroll
        for (int i = t; i < 256; i += 64) {
            int r = i / 8, q = i % 8;
            as[r][q] = row0 + r < m && k0 + q < k ? a[(row0 + r) * k + k0 + q] : 0.0f;
            r = i / 32, q = i % 32;
            bs[r][q] = k0 + r < k && col0 + q < n ? b[(k0 + r) * n + col0 + q] : 0.0f;
        }
        __syncthreads();
        #pragma unroll
        for (int p = 0; p < 8; p++) {
            float x[4], y[4];
            #pragma unroll
            for (int i = 0; i < 4; i++) x[i] = as[ty + 8 * i][p], y[i] = bs[p][tx + 8 * i];
            #pragma unroll
            for (int i = 0; i < 4; i++)
                #pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
        }
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < 4; i++)
        #pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = row0 + ty + 8 * i, col = col0 + tx + 8 * j;
            if (row < m && col < n) c[row * n + col] = acc[i][j];
        }
}

// Two shared buffers: the next tile is fetched into registers while this one is multiplied, and
// one barrier a step is enough, since a buffer is written two steps after it was last read.
extern "C" __global__ void gemm_double_buffered(const float* a, const float* b, float* c,
                                                int m, int n, int k) {
    __shared__ float as[2][TILE][TILE], bs[2][TILE][TILE];
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * TILE + ty, col = blockIdx.x * TILE + tx;
    as[0][ty][tx] = row < m && tx < k ? a[row * k + tx] : 0.0f;
    bs[0][ty][tx] = ty < k && col < n ? b[ty * n + col] : 0.0f;
    __syncthreads();
    float sum = 0.0f;
    int now = 0;
    for (int k0 = 0; k0 < k; k0 += TILE, now ^= 1) {
        int next = k0 + TILE;
        float x = 0.0f, y = 0.0f;
        if (next < k) {
            if (row < m && next + tx < k) x = a[row * k + next + tx];
            if (next + ty < k && col < n) y = b[(next + ty) * n + col];
        }
        #pragma unroll
        for (int i = 0; i < TILE; i++) sum += as[now][ty][i] * bs[now][i][tx];
        if (next < k) {
            as[now ^ 1][ty][tx] = x;
            bs[now ^ 1][ty][tx] = y;
            __syncthreads();
        }
    }
    if (row < m && col < n) c[row * n + col] = sum;
}

// float4 from and to global and shared memory; A's tile is kept transposed, so that a thread's
// four rows are one load.  n and k are multiples of 4.
extern "C" __global__ void gemm_vector(const float4* __restrict__ a, const float4* __restrict__ b,
                                       float4* __restrict__ c, int m, int n, int k) {
    __shared__ __align__(16) float as[8][32 + 4];
    __shared__ float4 bs[8][8];
    int t = threadIdx.x, tx = t % 8, ty = t / 8;
    int row0 = blockIdx.y * 32, col0 = blockIdx.x * 32;
    float acc[4][4] = {};
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 8) {
        int r = t / 2, q = t % 2 * 4;
        float4 v = row0 + r < m && k0 + q < k ? a[((row0 + r) * k + k0 + q) / 4] : zero;
        as[q][r] = v.x, as[q + 1][r] = v.y, as[q + 2][r] = v.z, as[q + 3][r] = v.w;
        int col = col0 + 4 * tx;
        bs[ty][tx] = k0 + ty < k && col < n ? b[((k0 + ty) * n + col) / 4] : zero;
        __syncthreads();
        #pragma unroll
        for (int p = 0; p < 8; p++) {
            float4 x = *reinterpret_cast<const float4*>(&as[p][4 * ty]), y = bs[p][tx];
            float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
            #pragma unroll
            for (int i = 0; i < 4; i++)
                #pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] += xs[i] * ys[j];
        }
        __syncthreads();
    }
    int col = col0 + 4 * tx;
    #pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = row0 + 4 * ty + i;
        if (row < m && col < n)
            c[(row * n + col) / 4] = make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
    }
}

// Operands that may be stored transposed: A as [k, m], B as [n, k].
template <typename T, bool TA, bool TB>
__global__ void gemm_any(const T* a, int lda, const T* b, int ldb, T* c, int ldc,
                         int m, int n, int k) {
    __shared__ T as[TILE][TILE + 1], bs[TILE][TILE + 1];
    int tx = threadIdx.x, ty = threadIdx.y;
    int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    T sum = 0;
    for (int k0 = 0; k0 < k; k0 += TILE) {
        if (TA) {
            bool in = k0 + ty < k && row0 + tx < m;
            as[tx][ty] = in ? a[(k0 + ty) * lda + row0 + tx] : T(0);
        } else {
            bool in = row0 + ty < m && k0 + tx < k;
            as[ty][tx] = in ? a[(row0 + ty) * lda + k0 + tx] : T(0);
        }
        if (TB) {
            bool in = col0 + ty < n && k0 + tx < k;
            bs[tx][ty] = in ? b[(col0 + ty) * ldb + k0 + tx] : T(0);
        } else {
            bool in = k0 + ty < k && col0 + tx < n;
            bs[ty][tx] = in ? b[(k0 + ty) * ldb + col0 + tx] : T(0);
        }
        __syncthreads();
        for (int i = 0; i < TILE; i++) sum += as[ty][i] * bs[i][tx];
        __syncthreads();
    }
    if (row0 + ty < m && col0 + tx < n) c[(row0 + ty) * ldc + col0 + tx] = sum;
}

// No padding: column c of row r lies at c ^ r, so rows and columns are both free of conflicts.
// A is stored as [k, m], so its tile is written by rows and read by columns.
extern "C" __global__ void gemm_swizzled(const float* at, const float* b, float* c,
                                         int m, int n, int k) {
    __shared__ float as[32][32], bs[32][32];
    int tx = threadIdx.x, ty = threadIdx.y;  // 32 x 8
    int row0 = blockIdx.y * 32, col0 = blockIdx.x * 32;
    float sum[4] = {};
    for (int k0 = 0; k0 < k; k0 += 32) {
        for (int r = ty; r < 32; r += 8) {
            bool in = k0 + r < k;
            as[tx][r ^ tx] = in && row0 + tx < m ? at[(k0 + r) * m + row0 + tx] : 0.0f;
            bs[r][tx ^ r] = in && col0 + tx < n ? b[(k0 + r) * n + col0 + tx] : 0.0f;
        }
        __syncthreads();
        for (int i = 0; i < 32; i++) {
            float y = bs[i][tx ^ i];
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                int r = ty + 8 * j;
                sum[j] += as[r][i ^ r] * y;
            }
        }
        __syncthreads();
    }
    for (int j = 0; j < 4; j++) {
        int row = row0 + ty + 8 * j;
        if (row < m && col0 + tx < n) c[row * n + col0 + tx] = sum[j];
    }
}

// A tile of the product over k in [begin, end).
__device__ float partial(const float* a, const float* b, int m, int n, int k, int row, int col,
                         int begin, int end) {
    __shared__ float as[TILE][TILE], bs[TILE][TILE];
    int tx = threadIdx.x, ty = threadIdx.y;
    float sum = 0.0f;
    for (int k0 = begin; k0 < end; k0 += TILE) {
        as[ty][tx] = row < m && k0 + tx < end ? a[row * k + k0 + tx] : 0.0f;
        bs[ty][tx] = k0 + ty < end && col < n ? b[(k0 + ty) * n + col] : 0.0f;
        __syncthreads();
        for (int i = 0; i < TILE; i++) sum += as[ty][i] * bs[i][tx];
        __syncthreads();
    }
    return sum;
}

// Split-K: the slices of k (blockIdx.z) add to C, which starts as zeros, in any order.
extern "C" __global__ void gemm_split_atomic(const float* a, const float* b, float* c,
                                             int m, int n, int k) {
    int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    int slice = (k + gridDim.z - 1) / gridDim.z, begin = blockIdx.z * slice;
    float sum = partial(a, b, m, n, k, row, col, begin, min(k, begin + slice));
    if (row < m && col < n) atomicAdd(&c[row * n + col], sum);
}

// Split-K in order: slice z waits for its turn at the tile, so the sum is the same on every run.
extern "C" __global__ void gemm_split_semaphore(const float* a, const float* b, float* c, int* turn,
                                                int m, int n, int k) {
    int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    int z = blockIdx.z, slice = (k + gridDim.z - 1) / gridDim.z, begin = z * slice;
    float sum = partial(a, b, m, n, k, row, col, begin, min(k, begin + slice));
    int* mine = &turn[blockIdx.y * gridDim.x + blockIdx.x];
    bool first = threadIdx.x == 0 && threadIdx.y == 0;
    if (first) {
        int now;
        do {
            asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(mine) : "memory");
        } while (now != z);
    }
    __syncthreads();
    if (row < m && col < n) {
        float old = z == 0 ? 0.0f : c[row * n + col];
        c[row * n + col] = old + sum;
    }
    __syncthreads();
    if (first) {
        int next = z + 1 == gridDim.z ? 0 : z + 1;  // the last leaves the semaphore as it was
        asm volatile("st.release.gpu.global.s32 [%0], %1;" :: "l"(mine), "r"(next) : "memory");
    }
}

// Split-K with tickets: each slice leaves its partial tile, the last to come adds them all.
extern "C" __global__ void gemm_split_ticket(const float* a, const float* b, float* c,
                                             float* partials, unsigned* tickets,
                                             int m, int n, int k) {
    __shared__ bool last;
    int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    int slice = (k + gridDim.z - 1) / gridDim.z, begin = blockIdx.z * slice;
    float sum = partial(a, b, m, n, k, row, col, begin, min(k, begin + slice));
    bool in = row < m && col < n;
    if (in) partials[(blockIdx.z * m + row) * n + col] = sum;
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        __threadfence();
        unsigned* mine = &tickets[blockIdx.y * gridDim.x + blockIdx.x];
        last = atomicInc(mine, gridDim.z - 1) == gridDim.z - 1;  // wraps to 0 for the next launch
        __threadfence();
    }
    __syncthreads();
    if (last && in) {
        float total = 0.0f;
        for (int z = 0; z < gridDim.z; z++) total += partials[(z * m + row) * n + col];
        c[row * n + col] = total;
    }
}

extern "C" __global__ void gemm_batched(const float* a, long long stride_a, const float* b,
                                        long long stride_b, float* c, long long stride_c,
                                        int m, int n, int k) {
    a += blockIdx.z * stride_a;
    b += blockIdx.z * stride_b;
    c += blockIdx.z * stride_c;
    tiled<float>(a, b, c, m, n, k, 1.0f, 0.0f);
}

// The operands of each product are found through tables of pointers, its sizes in a structure.
struct Problem {
    int m, n, k;
};

extern "C" __global__ void gemm_grouped(const float* const* as, const float* const* bs,
                                        float* const* cs, const Problem* problems) {
    Problem p = problems[blockIdx.z];
    // All threads of the block leave together, before any barrier.
    if (blockIdx.y * TILE >= p.m || blockIdx.x * TILE >= p.n) return;
    tiled<float>(as[blockIdx.z], bs[blockIdx.z], cs[blockIdx.z], p.m, p.n, p.k, 1.0f, 0.0f);
}

// Half storage, products of half2 along k, sums in float.  k is even.
extern "C" __global__ void gemm_half(const __half2* a, const __half2* bt, __half* c,
                                     int m, int n, int k) {
    __shared__ __half2 as[TILE][TILE + 1], bs[TILE][TILE + 1];
    int tx = threadIdx.x, ty = threadIdx.y, k2 = k / 2;
    int row = blockIdx.y * TILE + ty, col0 = blockIdx.x * TILE;
    float sum = 0.0f;
    for (int k0 = 0; k0 < k2; k0 += TILE) {
        __half2 zero = __float2half2_rn(0.0f);
        as[ty][tx] = row < m && k0 + tx < k2 ? a[row * k2 + k0 + tx] : zero;
        bs[ty][tx] = col0 + ty < n && k0 + tx < k2 ? bt[(col0 + ty) * k2 + k0 + tx] : zero;
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < TILE; i++) {
            float2 x = __half22float2(as[ty][i]), y = __half22float2(bs[tx][i]);
            sum += x.x * y.x + x.y * y.y;
        }
        __syncthreads();
    }
    if (row < m && col0 + tx < n) c[row * n + col0 + tx] = __float2half_rn(sum);
}

// Stream-K: the steps of all tiles are dealt out evenly to the blocks; the block that has a tile's
// first step adds what the next blocks have left of it.  All blocks must be resident.
extern "C" __global__ void gemm_stream_k(const float* a, const float* b, float* c, float* left,
                                         int* ready, int m, int n, int k) {
    int tx = threadIdx.x, ty = threadIdx.y, t = ty * TILE + tx;
    int across = (n + TILE - 1) / TILE, tiles = across * ((m + TILE - 1) / TILE);
    int steps = (k + TILE - 1) / TILE, total = tiles * steps, blocks = gridDim.x;
    int g = blockIdx.x, at = g * total / blocks, end = (g + 1) * total / blocks;
    while (at < end) {
        int tile = at / steps, first = at % steps, last = min(steps, first + end - at);
        int row = tile / across * TILE + ty, col = tile % across * TILE + tx;
        float sum = partial(a, b, m, n, k, row, col, first * TILE, min(k, last * TILE));
        at += last - first;
        if (first > 0) {  // an earlier block owns this tile
            left[g * TILE * TILE + t] = sum;
            __syncthreads();
            if (t == 0) {
                __threadfence();
                atomicExch(&ready[g], 1);
            }
            continue;
        }
        for (int other = g + 1; last < steps; other++) {
            if (t == 0) {
                while (atomicAdd(&ready[other], 0) == 0) {
                }
                __threadfence();
            }
            __syncthreads();
            sum += left[other * TILE * TILE + t];
            last += min(steps - last, (other + 1) * total / blocks - other * total / blocks);
        }
        if (row < m && col < n) c[row * n + col] = sum;
    }
}
