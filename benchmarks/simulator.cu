// Kernels that benchmarks/simulator.py measures on the simulated GPU: everyday deep learning.

#include <cuda_fp16.h>

#define FULL 0xffffffffu

__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return a + b; }

// Reduce over a block of 256 threads; all get the result, and `slots` is free again on return.
template <float (*OP)(float, float)>
__device__ __forceinline__ float over_block(float v, float* slots) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int step = 16; step; step >>= 1) v = OP(v, __shfl_xor_sync(FULL, v, step));
    if (lane == 0) slots[warp] = v;
    __syncthreads();
    v = slots[lane % 8];
    for (int step = 4; step; step >>= 1) v = OP(v, __shfl_xor_sync(FULL, v, step));
    __syncthreads();
    return v;
}

// A block per row, in three passes over memory.
extern "C" __global__ void softmax(const float* x, float* y, int n) {
    __shared__ float slots[8];
    x += (size_t)blockIdx.x * n;
    y += (size_t)blockIdx.x * n;
    float top = -3.4e38f, sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) top = fmaxf(top, x[i]);
    top = over_block<larger>(top, slots);
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += __expf(x[i] - top);
    float scale = 1.0f / over_block<plus>(sum, slots);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = __expf(x[i] - top) * scale;
}

// The textbook's: tiles of 16 x 16 in shared memory, one result a thread; n is a multiple of 16.
extern "C" __global__ void matmul(const float* a, const float* b, float* c, int n) {
    __shared__ float as[16][16], bs[16][16];
    int ty = threadIdx.y, tx = threadIdx.x, row = blockIdx.y * 16 + ty, col = blockIdx.x * 16 + tx;
    float sum = 0.0f;
    for (int k0 = 0; k0 < n; k0 += 16) {
        as[ty][tx] = a[row * n + k0 + tx];
        bs[ty][tx] = b[(k0 + ty) * n + col];
        __syncthreads();
        for (int k = 0; k < 16; k++) sum += as[ty][k] * bs[k][tx];
        __syncthreads();
    }
    c[row * n + col] = sum;
}

// Tensor cores: 64 x 64 results a block, 32 x 32 a warp, in steps of 32 along k; cp.async brings
// the tiles in three stages.  n is a multiple of 64.
constexpr int STAGES = 3;

struct Stage {
    __half a[64][40], b[32][72];  // padded: the rows that ldmatrix reads lie in different banks
};

__device__ __forceinline__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void copy16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :: "r"(shared_address(to)), "l"(from) : "memory");
}

extern "C" __global__ void __launch_bounds__(128)
gemm(const __half* a, const __half* b, float* c, int n) {
    __shared__ __align__(16) Stage stages[STAGES];
    int t = threadIdx.x, lane = t % 32, warp_row = t / 64 * 32, warp_col = t / 32 % 2 * 32;
    int row0 = blockIdx.y * 64, col0 = blockIdx.x * 64, steps = n / 32;
    auto fetch = [&](int s) {
        if (s < steps) {
            Stage& to = stages[s % STAGES];
            for (int i = t; i < 256; i += 128) {
                copy16(&to.a[i / 4][i % 4 * 8], &a[(row0 + i / 4) * n + s * 32 + i % 4 * 8]);
                copy16(&to.b[i / 8][i % 8 * 8], &b[(s * 32 + i / 8) * n + col0 + i % 8 * 8]);
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    float d[2][4][4] = {};
    for (int s = 0; s < STAGES - 1; s++) fetch(s);
    for (int s = 0; s < steps; s++) {
        asm volatile("cp.async.wait_group %0;" :: "n"(STAGES - 2) : "memory");
        __syncthreads();
        fetch(s + STAGES - 1);
        const Stage& now = stages[s % STAGES];
        #pragma unroll
        for (int k = 0; k < 32; k += 16) {
            unsigned x[2][4], y[2][4];
            #pragma unroll
            for (int i = 0; i < 2; i++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                    : "=r"(x[i][0]), "=r"(x[i][1]), "=r"(x[i][2]), "=r"(x[i][3])
                    : "r"(shared_address(&now.a[warp_row + 16 * i + lane % 16][k + lane / 16 * 8]))
                    : "memory");
            #pragma unroll
            for (int j = 0; j < 2; j++)
                asm volatile(
                    "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                    : "=r"(y[j][0]), "=r"(y[j][1]), "=r"(y[j][2]), "=r"(y[j][3])
                    : "r"(shared_address(&now.b[k + lane % 16][warp_col + 16 * j + lane / 16 * 8]))
                    : "memory");
            #pragma unroll
            for (int i = 0; i < 2; i++)
                #pragma unroll
                for (int j = 0; j < 4; j++)
                    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                        : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                        : "r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]),
                          "r"(y[j / 2][j % 2 * 2]), "r"(y[j / 2][j % 2 * 2 + 1]));
        }
    }
    #pragma unroll
    for (int i = 0; i < 2; i++)
        #pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = row0 + warp_row + 16 * i + lane / 4;
            int col = col0 + warp_col + 8 * j + lane % 4 * 2;
            float2* out = reinterpret_cast<float2*>(&c[row * n + col]);
            out[0] = make_float2(d[i][j][0], d[i][j][1]);
            out[4 * n] = make_float2(d[i][j][2], d[i][j][3]);
        }
}

// A block of 256 threads per row of 1024, four values a thread, held in registers.
extern "C" __global__ void layer_norm(const float4* x, const float4* weight, const float4* bias,
                                      float4* y, float eps) {
    __shared__ float slots[8];
    int i = threadIdx.x, at = blockIdx.x * 256 + i;
    float4 v = x[at], w = weight[i], b = bias[i];
    float mean = over_block<plus>(v.x + v.y + v.z + v.w, slots) / 1024.0f;
    v.x -= mean, v.y -= mean, v.z -= mean, v.w -= mean;
    float square = over_block<plus>(v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w, slots);
    float r = rsqrtf(square / 1024.0f + eps);
    y[at] = make_float4(v.x * r * w.x + b.x, v.y * r * w.y + b.y, v.z * r * w.z + b.z,
                        v.w * r * w.w + b.w);
}

struct AdamW {
    float lr, beta1, beta2, eps, decay, correction1, correction2;
};

extern "C" __global__ void adamw(float* p, const float* grad, float* m, float* v, AdamW o, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float g = grad[i];
    float first = m[i] = o.beta1 * m[i] + (1.0f - o.beta1) * g;
    float second = v[i] = o.beta2 * v[i] + (1.0f - o.beta2) * g * g;
    float step = (first / o.correction1) / (sqrtf(second / o.correction2) + o.eps);
    p[i] = p[i] * (1.0f - o.lr * o.decay) - o.lr * step;
}

// 256 bins a block in shared memory, four values a load.
extern "C" __global__ void histogram(const uchar4* x, unsigned* counts, int n4) {
    __shared__ unsigned bins[256];
    bins[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n4; i += gridDim.x * 256) {
        uchar4 v = x[i];
        atomicAdd(&bins[v.x], 1u);
        atomicAdd(&bins[v.y], 1u);
        atomicAdd(&bins[v.z], 1u);
        atomicAdd(&bins[v.w], 1u);
    }
    __syncthreads();
    atomicAdd(&counts[threadIdx.x], bins[threadIdx.x]);
}

extern "C" __global__ void add(const float* a, const float* b, float* c, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}
