// What later targets add to the tensor cores: fp8 operands (sm_89), stmatrix (sm_90).

#include <cuda_fp16.h>
#include <cuda_fp8.h>

__device__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// fp8: A is e4m3 [m, k], B e4m3 or e5m2 stored [n, k]; sums in float, scaled by both operands'
// factors, which lie in memory.  m, n, k are multiples of 16, 8, 32.
template <bool E5M2>
__device__ void gemm_fp8(const unsigned* a, const unsigned* bt, const float* scales, float* c,
                         int n, int k) {
    int lane = threadIdx.x, g = lane / 4, q = lane % 4, k4 = k / 4;
    const unsigned* x = &a[(blockIdx.y * 16 + g) * k4 + q];
    const unsigned* y = &bt[(blockIdx.x * 8 + g) * k4 + q];
    float d[4] = {};
    for (int i = 0; i < k4; i += 8) {
        unsigned x0 = x[i], x1 = x[8 * k4 + i], x2 = x[i + 4], x3 = x[8 * k4 + i + 4];
        if (E5M2)
            asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e5m2.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                : "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(y[i]), "r"(y[i + 4]));
        else
            asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                : "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(y[i]), "r"(y[i + 4]));
    }
    float scale = scales[0] * scales[1];
    float* out = &c[(blockIdx.y * 16 + g) * n + blockIdx.x * 8 + 2 * q];
    *reinterpret_cast<float2*>(out) = make_float2(d[0] * scale, d[1] * scale);
    *reinterpret_cast<float2*>(out + 8 * n) = make_float2(d[2] * scale, d[3] * scale);
}

extern "C" __global__ void gemm_e4m3(const unsigned* a, const unsigned* bt, const float* scales,
                                     float* c, int n, int k) {
    gemm_fp8<false>(a, bt, scales, c, n, k);
}

extern "C" __global__ void gemm_e5m2(const unsigned* a, const unsigned* bt, const float* scales,
                                     float* c, int n, int k) {
    gemm_fp8<true>(a, bt, scales, c, n, k);
}

// Quantise rows to e4m3: a warp finds a row's largest value, then writes four values at a time.
extern "C" __global__ void quantise_e4m3(const float4* x, unsigned* y, float* scale, int cols4) {
    int row = blockIdx.x, lane = threadIdx.x;
    float top = 0.0f;
    for (int i = lane; i < cols4; i += 32) {
        float4 v = x[row * cols4 + i];
        top = fmaxf(top, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    }
    for (int step = 16; step; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    float factor = top > 0.0f ? 448.0f / top : 1.0f;
    if (lane == 0) scale[row] = factor;
    for (int i = lane; i < cols4; i += 32) {
        float4 v = x[row * cols4 + i];
        __nv_fp8x2_storage_t lo, hi;
        lo = __nv_cvt_float2_to_fp8x2(make_float2(v.x * factor, v.y * factor), __NV_SATFINITE,
                                      __NV_E4M3);
        hi = __nv_cvt_float2_to_fp8x2(make_float2(v.z * factor, v.w * factor), __NV_SATFINITE,
                                      __NV_E4M3);
        y[row * cols4 + i] = lo | static_cast<unsigned>(hi) << 16;
    }
}

#if __CUDA_ARCH__ >= 900
// C = A B + C0 in halves: a warp's 16 x 16 results go to shared memory by stmatrix and leave in
// rows of 16 bytes; with `transposed`, C's transpose is written instead.
extern "C" __global__ void gemm_stmatrix(const __half* a, const __half* b, __half* c, int m, int n,
                                         int k, int transposed) {
    __shared__ __align__(16) __half as[16][24], bs[16][24], out[16][24];
    int lane = threadIdx.x, row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    float d[2][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {  // m, n and k are multiples of 16
        int r = lane / 2, q = lane % 2 * 8;
        *reinterpret_cast<uint4*>(&as[r][q]) =
            *reinterpret_cast<const uint4*>(&a[(row0 + r) * k + k0 + q]);
        *reinterpret_cast<uint4*>(&bs[r][q]) =
            *reinterpret_cast<const uint4*>(&b[(k0 + r) * n + col0 + q]);
        __syncwarp();
        unsigned x[4], y[4];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(shared_address(&as[lane % 16][lane / 16 * 8])) : "memory");
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3])
                     : "r"(shared_address(&bs[lane % 16][lane / 16 * 8])) : "memory");
        for (int j = 0; j < 2; j++)
            asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
                : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[2 * j]), "r"(y[2 * j + 1]));
        __syncwarp();
    }
    unsigned packed[4];  // 8 x 8 matrices: upper left, lower left, upper right, lower right
    for (int i = 0; i < 4; i++) {
        __half2 v = __floats2half2_rn(d[i / 2][i % 2 * 2], d[i / 2][i % 2 * 2 + 1]);
        packed[i] = *reinterpret_cast<unsigned*>(&v);
    }
    if (transposed)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                     :: "r"(shared_address(&out[lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8])),
                        "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3]) : "memory");
    else
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                     :: "r"(shared_address(&out[lane % 16][lane / 16 * 8])),
                        "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3]) : "memory");
    __syncwarp();
    int r = lane / 2, q = lane % 2 * 8;
    int at = transposed ? (col0 + r) * m + row0 + q : (row0 + r) * n + col0 + q;
    *reinterpret_cast<uint4*>(&c[at]) = *reinterpret_cast<const uint4*>(&out[r][q]);
}
#endif
