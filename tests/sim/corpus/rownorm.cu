// Rows normalised: softmax, log-softmax, layer norm and RMS norm, forward and backward.
#include <cuda_fp16.h>

#define FULL 0xffffffffu

__device__ __forceinline__ float warp_max(float v) {
    for (int step = 16; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL, v, step));
    return v;
}

__device__ __forceinline__ float warp_sum(float v) {
    for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(FULL, v, step);
    return v;
}

// Reduce over the block and give the result to all threads; `slots` is free again on return.
template <bool MAX>
__device__ float block_all(float v, float* slots) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = MAX ? warp_max(v) : warp_sum(v);
    if (lane == 0) slots[warp] = v;
    __syncthreads();
    v = lane < warps ? slots[lane] : (MAX ? -3.4e38f : 0.f);
    v = MAX ? warp_max(v) : warp_sum(v);
    __syncthreads();
    return v;
}

// A warp per row, blockDim.y rows per block, the row held in registers.
extern "C" __global__ void softmax_warp(float* y, const float* x, int rows, int n) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // a whole warp leaves
    float v[4], top = -3.4e38f, sum = 0.f;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        int i = threadIdx.x + 32 * k;
        v[k] = i < n ? x[row * n + i] : -3.4e38f;
        top = fmaxf(top, v[k]);
    }
    top = warp_max(top);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        v[k] = exp2f((v[k] - top) * 1.44269504f);
        sum += v[k];
    }
    sum = warp_sum(sum);
    float scale = __frcp_rn(sum);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        int i = threadIdx.x + 32 * k;
        if (i < n) y[row * n + i] = v[k] * scale;
    }
}

// A block per row in three passes over memory.
extern "C" __global__ void softmax_block(float* y, const float* x, int n) {
    __shared__ float slots[32];
    x += (long long)blockIdx.x * n;
    y += (long long)blockIdx.x * n;
    float top = -3.4e38f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) top = fmaxf(top, x[i]);
    top = block_all<true>(top, slots);
    float sum = 0.f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += __expf(x[i] - top);
    sum = block_all<false>(sum, slots);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = __fdividef(__expf(x[i] - top), sum);
}

// Online softmax: maximum and sum in one pass, pairs combined by shuffles and shared memory.
extern "C" __global__ void softmax_online(float* y, const float* x, int n) {
    __shared__ float2 slots[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    x += (long long)blockIdx.x * n;
    float top = -3.4e38f, sum = 0.f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float v = x[i];
        if (v > top) {
            sum *= expf(top - v);
            top = v;
        }
        sum += expf(v - top);
    }
    for (int step = 16; step > 0; step >>= 1) {
        float other_top = __shfl_xor_sync(FULL, top, step);
        float other_sum = __shfl_xor_sync(FULL, sum, step);
        float both = fmaxf(top, other_top);
        sum = sum * expf(top - both) + other_sum * expf(other_top - both);
        top = both;
    }
    if (lane == 0) slots[warp] = make_float2(top, sum);
    __syncthreads();
    float row_top = -3.4e38f, row_sum = 0.f;
    for (int w = 0; w < blockDim.x / 32; ++w) {
        float2 s = slots[w];
        float both = fmaxf(row_top, s.x);
        row_sum = row_sum * expf(row_top - both) + s.y * expf(s.x - both);
        row_top = both;
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        y[(long long)blockIdx.x * n + i] = expf(x[i] - row_top) / row_sum;
}

// Half in, half out, float inside; the row waits in dynamic shared memory between the passes.
extern "C" __global__ void log_softmax_half(__half* y, const __half* x, int n) {
    extern __shared__ float row[];
    float* slots = row + n;
    const __half* in = x + (long long)blockIdx.x * n;
    float top = -3.4e38f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float v = __half2float(in[i]);
        row[i] = v;
        top = fmaxf(top, v);
    }
    top = block_all<true>(top, slots);
    float sum = 0.f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(row[i] - top);
    float log_sum = top + logf(block_all<false>(sum, slots));
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        y[(long long)blockIdx.x * n + i] = __float2half(row[i] - log_sum);
}

// dx = y * (dy - sum(y * dy)), a warp per row.
extern "C" __global__ void softmax_backward(float* dx, const float* y, const float* dy, int rows,
                                            int n) {
    int lane = threadIdx.x % 32;
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row < rows) {
        float dot = 0.f;
        for (int i = lane; i < n; i += 32) dot += y[row * n + i] * dy[row * n + i];
        dot = warp_sum(dot);
        for (int i = lane; i < n; i += 32) dx[row * n + i] = y[row * n + i] * (dy[row * n + i] - dot);
    }
}

// Layer norm with float4 loads; mean and 1/deviation are kept for the backward pass.
extern "C" __global__ void layer_norm(float4* y, float* means, float* rates, const float4* x,
                                      const float4* weight, const float4* bias, int quads,
                                      float eps) {
    __shared__ float slots[32];
    x += (long long)blockIdx.x * quads;
    y += (long long)blockIdx.x * quads;
    float sum = 0.f;
    for (int i = threadIdx.x; i < quads; i += blockDim.x) {
        float4 v = x[i];
        sum += v.x + v.y + v.z + v.w;
    }
    float mean = block_all<false>(sum, slots) / (4 * quads);
    float squares = 0.f;
    for (int i = threadIdx.x; i < quads; i += blockDim.x) {
        float4 v = x[i];
        v.x -= mean, v.y -= mean, v.z -= mean, v.w -= mean;
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    float rate = rsqrtf(block_all<false>(squares, slots) / (4 * quads) + eps);
    if (threadIdx.x == 0) {
        means[blockIdx.x] = mean;
        rates[blockIdx.x] = rate;
    }
    for (int i = threadIdx.x; i < quads; i += blockDim.x) {
        float4 v = x[i], w = weight[i], b = bias[i];
        y[i] = make_float4((v.x - mean) * rate * w.x + b.x, (v.y - mean) * rate * w.y + b.y,
                           (v.z - mean) * rate * w.z + b.z, (v.w - mean) * rate * w.w + b.w);
    }
}

// Backward of layer norm for x: a block per row, two sums reduced together.
extern "C" __global__ void layer_norm_backward(float* dx, const float* dy, const float* x,
                                               const float* weight, const float* means,
                                               const float* rates, int n) {
    __shared__ float2 slots[8];
    __shared__ float2 both;
    long long start = (long long)blockIdx.x * n;
    float mean = means[blockIdx.x], rate = rates[blockIdx.x];
    float sum_g = 0.f, sum_gx = 0.f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float g = dy[start + i] * weight[i];
        sum_g += g;
        sum_gx += g * (x[start + i] - mean) * rate;
    }
    sum_g = warp_sum(sum_g);
    sum_gx = warp_sum(sum_gx);
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = make_float2(sum_g, sum_gx);
    __syncthreads();
    if (threadIdx.x == 0) {
        float2 s = slots[0];
        for (int w = 1; w < blockDim.x / 32; ++w) {
            s.x += slots[w].x;
            s.y += slots[w].y;
        }
        both = s;
    }
    __syncthreads();
    float a = both.x / n, b = both.y / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float normed = (x[start + i] - mean) * rate;
        dx[start + i] = rate * (dy[start + i] * weight[i] - a - normed * b);
    }
}

// Gradients of weight and bias: threads own columns, blocks own rows, atomics join the blocks.
extern "C" __global__ void layer_norm_backward_weight(float* dw, float* db, const float* dy,
                                                      const float* x, const float* means,
                                                      const float* rates, int rows, int n) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column < n) {
        float w = 0.f, b = 0.f;
        for (int r = blockIdx.y; r < rows; r += gridDim.y) {
            float g = dy[r * n + column];
            w += g * (x[r * n + column] - means[r]) * rates[r];
            b += g;
        }
        atomicAdd(dw + column, w);
        atomicAdd(db + column, b);
    }
}

// RMS norm over half2, the residual added first and stored (as in a transformer block).
extern "C" __global__ void add_rms_norm(__half2* y, __half2* residual, const __half2* x,
                                        const __half2* weight, int pairs, float eps) {
    extern __shared__ float2 held[];
    __shared__ float slots[32];
    long long start = (long long)blockIdx.x * pairs;
    float sum = 0.f;
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
        __half2 r = __hadd2(residual[start + i], x[start + i]);
        residual[start + i] = r;
        float2 v = __half22float2(r);
        held[i] = v;
        sum += v.x * v.x + v.y * v.y;
    }
    float rate = rsqrtf(block_all<false>(sum, slots) / (2 * pairs) + eps);
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
        float2 v = held[i], w = __half22float2(weight[i]);
        y[start + i] = __floats2half2_rn(v.x * rate * w.x, v.y * rate * w.y);
    }
}
