// Products with quantised weights: int8, int4, blocks with scales, and the kernels that make them.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ float warp_sum(float x) {
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

// Symmetric quantisation of rows to int8: one block a row.
extern "C" __global__ void quantise_rows(const float* x, signed char* q, float* scale, int cols) {
    __shared__ float tops[4];
    int row = blockIdx.x, t = threadIdx.x;
    float top = 0.0f;
    for (int i = t; i < cols; i += 128) top = fmaxf(top, fabsf(x[row * cols + i]));
    for (int step = 16; step; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    if (t % 32 == 0) tops[t / 32] = top;
    __syncthreads();
    top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
    float factor = top > 0.0f ? 127.0f / top : 0.0f;
    for (int i = t; i < cols; i += 128)
        q[row * cols + i] = static_cast<signed char>(__float2int_rn(x[row * cols + i] * factor));
    if (t == 0) scale[row] = top / 127.0f;
}

// y = W x in int8 by dp4a: a warp a row, 16 bytes a load.
extern "C" __global__ void gemv_dp4a(const int4* w, const float* w_scale, const int4* x,
                                     float x_scale, float* y, int rows, int cols16) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    int sum = 0;
    for (int i = lane; i < cols16; i += 32) {
        int4 a = __ldg(&w[row * cols16 + i]), b = __ldg(&x[i]);
        sum = __dp4a(a.x, b.x, sum);
        sum = __dp4a(a.y, b.y, sum);
        sum = __dp4a(a.z, b.z, sum);
        sum = __dp4a(a.w, b.w, sum);
    }
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (lane == 0) y[row] = sum * w_scale[row] * x_scale;
}

// Activations without a sign and weights with one; the sums of the weights take out the zero point.
extern "C" __global__ void gemv_zero_point(const int* w, const unsigned* x, int zero, int* y,
                                           int rows, int cols4) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    int sum = 0, weights = 0;
    for (int i = 0; i < cols4; i++) {
        int a = w[row * cols4 + i];
        unsigned b = x[i];
        asm("dp4a.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
        weights = __dp4a(a, 0x01010101, weights);
    }
    y[row] = sum - zero * weights;
}

// Pairs of products of 16-bit by 8-bit numbers.
extern "C" __global__ void dp2a(const int* a, const int* b, int* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = __dp2a_lo(a[2 * i], b[i], __dp2a_hi(a[2 * i + 1], b[i], 5));
}

// int4 weights, eight to a word, with a half scale and a zero point for each group of 32 columns:
// (nibble - zero) * scale, turned into halves by the trick of the mantissa 1024 + nibble.
extern "C" __global__ void gemv_int4(const unsigned* w, const __half* scales,
                                     const unsigned char* zeros, const __half2* x, float* y,
                                     int rows, int cols) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    int words = cols / 8, groups = cols / 32;
    float sum = 0.0f;
    for (int i = lane; i < words; i += 32) {
        unsigned packed = w[row * words + i];
        int group = row * groups + i / 4;
        __half2 zero = __half2half2(__int2half_rn(1024 + zeros[group]));
        __half2 scale = __half2half2(scales[group]);
        #pragma unroll
        for (int j = 0; j < 4; j++) {  // nibbles j and j + 4 are one half2
            unsigned bits;
            asm("lop3.b32 %0, %1, 0x000f000f, 0x64006400, 0xea;"
                : "=r"(bits) : "r"(packed >> 4 * j));
            __half2 value = __hmul2(__hsub2(*reinterpret_cast<__half2*>(&bits), zero), scale);
            float2 a = __half22float2(value);
            __half2 pair = x[i * 4 + j];
            sum += a.x * __low2float(pair) + a.y * __high2float(pair);
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) y[row] = sum;
}

// int8 weights [n, k], bfloat16 activations [m, k]: a weight is widened once for four rows.
extern "C" __global__ void w8a16(const char4* w, const float* scale, const __nv_bfloat162* x,
                                 __nv_bfloat16* y, int m, int n, int k4) {
    int col = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    int row0 = blockIdx.y * 4;
    if (col >= n) return;
    float sum[4] = {};
    for (int i = lane; i < k4; i += 32) {
        char4 q = w[col * k4 + i];
        #pragma unroll
        for (int r = 0; r < 4; r++) {
            if (row0 + r >= m) break;
            float2 a = __bfloat1622float2(x[((row0 + r) * k4 + i) * 2]);
            float2 b = __bfloat1622float2(x[((row0 + r) * k4 + i) * 2 + 1]);
            sum[r] += q.x * a.x + q.y * a.y + q.z * b.x + q.w * b.y;
        }
    }
    for (int r = 0; r < 4; r++) {
        float total = warp_sum(sum[r]);
        if (lane == 0 && row0 + r < m)
            y[(row0 + r) * n + col] = __float2bfloat16(total * scale[col]);
    }
}

// Blocks of 32 values that share a half scale, as one packed structure of 34 bytes.
struct Block {
    __half scale;
    signed char q[32];
};

extern "C" __global__ void gemv_blocks(const Block* w, const Block* x, float* y, int rows,
                                       int blocks) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    float sum = 0.0f;
    if (row < rows)
        for (int i = threadIdx.x; i < blocks; i += 32) {
            const Block& a = w[row * blocks + i];
            const Block& b = x[i];
            int dot = 0;
            // Blocks begin at even addresses only, so words are read as two halves.
            const unsigned short* p = reinterpret_cast<const unsigned short*>(a.q);
            const unsigned short* q = reinterpret_cast<const unsigned short*>(b.q);
            for (int j = 0; j < 16; j += 2)
                dot = __dp4a(int(p[j] | p[j + 1] << 16), int(q[j] | q[j + 1] << 16), dot);
            sum += dot * __half2float(a.scale) * __half2float(b.scale);
        }
    sum = warp_sum(sum);
    if (row < rows && threadIdx.x == 0) y[row] = sum;
}

// int8 tiles through shared memory with dp4a along k: C int32.
extern "C" __global__ void gemm_dp4a(const int* a, const int* bt, int* c, int m, int n, int k4) {
    __shared__ int as[16][17], bs[16][17];
    int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * 16 + ty, col0 = blockIdx.x * 16;
    int sum = 0;
    for (int k0 = 0; k0 < k4; k0 += 16) {
        bool in = k0 + tx < k4;
        as[ty][tx] = in && row < m ? a[row * k4 + k0 + tx] : 0;
        bs[ty][tx] = in && col0 + ty < n ? bt[(col0 + ty) * k4 + k0 + tx] : 0;
        __syncthreads();
        for (int i = 0; i < 16; i++) sum = __dp4a(as[ty][i], bs[tx][i], sum);
        __syncthreads();
    }
    if (row < m && col0 + tx < n) c[row * n + col0 + tx] = sum;
}
