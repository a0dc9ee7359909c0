// Asynchronous copies by the primitives of <cuda_pipeline.h>, which older targets do at once.

#include <cuda_pipeline.h>

constexpr int TILE = 16;

// C[m, n] = A[m, k] B[k, n] in two stages; the last argument of the copy is the zero-filled tail.
extern "C" __global__ void gemm_pipeline(const float* a, const float* b, float* c,
                                         int m, int n, int k) {
    __shared__ float as[2][TILE][TILE], bs[2][TILE][TILE];
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * TILE + ty, col = blockIdx.x * TILE + tx, steps = (k + TILE - 1) / TILE;
    auto fetch = [&](int s) {
        int ka = s * TILE + tx, kb = s * TILE + ty;
        bool in_a = row < m && ka < k, in_b = kb < k && col < n;
        __pipeline_memcpy_async(&as[s % 2][ty][tx], in_a ? &a[row * k + ka] : a, 4, in_a ? 0 : 4);
        __pipeline_memcpy_async(&bs[s % 2][ty][tx], in_b ? &b[kb * n + col] : b, 4, in_b ? 0 : 4);
        __pipeline_commit();
    };
    float sum = 0.0f;
    fetch(0);
    for (int s = 0; s < steps; s++) {
        if (s + 1 < steps) {
            fetch(s + 1);
            __pipeline_wait_prior(1);
        } else {
            __pipeline_wait_prior(0);
        }
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < TILE; i++) sum += as[s % 2][ty][i] * bs[s % 2][i][tx];
        __syncthreads();
    }
    if (row < m && col < n) c[row * n + col] = sum;
}

// Each thread copies, waits for and reads only its own elements: no barrier is needed.
extern "C" __global__ void scale_own(const float4* x, float4* y, float factor, int n) {
    __shared__ float4 stage[3][64];
    int t = threadIdx.x, stride = gridDim.x * 64, first = blockIdx.x * 64 + t;
    int mine = first < n ? (n - first + stride - 1) / stride : 0;
    for (int s = 0; s < 2; s++) {
        if (s < mine) __pipeline_memcpy_async(&stage[s][t], &x[first + s * stride], 16);
        __pipeline_commit();
    }
    for (int s = 0; s < mine; s++) {
        if (s + 2 < mine)
            __pipeline_memcpy_async(&stage[(s + 2) % 3][t], &x[first + (s + 2) * stride], 16);
        __pipeline_commit();
        __pipeline_wait_prior(2);
        float4 v = stage[s % 3][t];
        y[first + s * stride] = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
    }
}
