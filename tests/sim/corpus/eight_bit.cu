// Small integers and eight-bit floats: dp4a, quantising and back, fp8, packed nibbles.
#include <cuda_fp16.h>
#include <cuda_fp8.h>

// int8 dot products, four at a time: a warp per row of a matrix times a vector.
extern "C" __global__ void gemv_int8(int* out, const int* weight, const int* x, int rows, int words) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    if (row < rows) {
        int sum = 0;
        for (int k = lane; k < words; k += 32) sum = __dp4a(weight[row * words + k], x[k], sum);
        for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (lane == 0) out[row] = sum;
    }
}

// The other dot products: unsigned bytes, and 16-bit by 8-bit pairs.
extern "C" __global__ void dot_products(unsigned* u, int* low, int* high, const unsigned* a,
                                        const unsigned* b, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        u[i] = __dp4a(a[i], b[i], 7u);
        low[i] = __dp2a_lo((int)a[i], (int)b[i], -5);
        high[i] = __dp2a_hi((int)a[i], (int)b[i], -5);
    }
}

// Symmetric quantisation by rows: the largest magnitude, then rounding to nearest even with
// saturation, four bytes packed per store.
extern "C" __global__ void quantise_rows(char4* out, float* scales, const float4* x, int quads) {
    __shared__ float top;
    float most = 0.f;
    x += blockIdx.x * quads;
    for (int i = threadIdx.x; i < quads; i += 32) {
        float4 v = x[i];
        most = fmaxf(most, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    }
    // Magnitudes are ordered like their bits.
    for (int step = 16; step > 0; step >>= 1)
        most = __int_as_float(max(__float_as_int(most),
                                  __shfl_xor_sync(0xffffffffu, __float_as_int(most), step)));
    if (threadIdx.x == 0) {
        top = most;
        scales[blockIdx.x] = most / 127.f;
    }
    __syncwarp();
    float inverse = top > 0.f ? 127.f / top : 0.f;
    for (int i = threadIdx.x; i < quads; i += 32) {
        float4 v = x[i];
        char4 q;
        q.x = max(-127, min(127, __float2int_rn(v.x * inverse)));
        q.y = max(-127, min(127, __float2int_rn(v.y * inverse)));
        q.z = max(-127, min(127, __float2int_rn(v.z * inverse)));
        q.w = max(-127, min(127, __float2int_rn(v.w * inverse)));
        out[blockIdx.x * quads + i] = q;
    }
}

__device__ __forceinline__ int third_byte(int v) {  // sign-extended: 8 | index replicates a sign
    int r;
    asm("prmt.b32 %0, %1, 0, 0xaaa2;" : "=r"(r) : "r"(v));
    return r;
}

// And back, with a zero point; bytes sign-extended in several ways.
extern "C" __global__ void dequantise(float4* out, const int* packed, float scale, int zero, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        int v = packed[i];
        out[i] = make_float4(((signed char)v - zero) * scale,
                             ((signed char)(v >> 8) - zero) * scale,
                             (third_byte(v) - zero) * scale, ((v >> 24) - zero) * scale);
    }
}

// Four-bit weights, eight to a word, by groups with a half scale: w = (q - 8) * scale.
extern "C" __global__ void dequantise_nibbles(__half* out, const unsigned* packed,
                                              const __half* scales, int words, int group) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
        unsigned w = packed[i];
        __half scale = scales[8 * i / group];
        __half v[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] = __hmul(__int2half_rn((int)(w >> 4 * k & 15) - 8), scale);
        uint4 all;
        memcpy(&all, v, 16);
        reinterpret_cast<uint4*>(out)[i] = all;
    }
}

// The trick with the exponent: 0x6400 | q is the half 1024 + q; bits put together by one lop3.
extern "C" __global__ void nibbles_by_bits(__half2* out, const unsigned* packed, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned w = packed[i], low;
        asm("lop3.b32 %0, %1, 0x000f000f, 0x64006400, 0xea;" : "=r"(low) : "r"(w));
        __half2 bias = __halves2half2(__ushort_as_half(0x6400), __ushort_as_half(0x6400));
        out[i] = __hsub2(*reinterpret_cast<__half2*>(&low), bias);
    }
}

// float to fp8 (both kinds, saturating) and back through half.
extern "C" __global__ void fp8_there_and_back(float* out4, float* out5, unsigned char* bits4,
                                              unsigned char* bits5, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        __nv_fp8_e4m3 a(x[i]);
        __nv_fp8_e5m2 b(x[i]);
        bits4[i] = a.__x;
        bits5[i] = b.__x;
        out4[i] = static_cast<float>(a);
        out5[i] = static_cast<float>(b);
    }
}

// fp8 by pairs: one scale per tensor, its inverse for the way back.
extern "C" __global__ void fp8_pairs(unsigned short* packed, float2* back, const float2* x,
                                     float scale, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float2 v = make_float2(x[i].x * scale, x[i].y * scale);
        __nv_fp8x2_storage_t q = __nv_cvt_float2_to_fp8x2(v, __NV_SATFINITE, __NV_E4M3);
        packed[i] = q;
        __half2 h(__nv_cvt_fp8x2_to_halfraw2(q, __NV_E4M3));
        float2 f = __half22float2(h);
        back[i] = make_float2(f.x / scale, f.y / scale);
    }
}

// Bytes four at a time by the SIMD intrinsics of video: averages, saturated sums, differences.
extern "C" __global__ void byte_lanes(unsigned* out, const unsigned* a, const unsigned* b, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        out[5 * i] = __vadd4(a[i], b[i]);
        out[5 * i + 1] = __vaddus4(a[i], b[i]);
        out[5 * i + 2] = __vabsdiffu4(a[i], b[i]);
        out[5 * i + 3] = __vmaxs2(a[i], b[i]);
        out[5 * i + 4] = __vsadu4(a[i], b[i]);
    }
}
