// Tensor cores as sm_80 has them: halves, bfloat16, tf32, int8 and doubles.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

__device__ void ldmatrix(unsigned (&x)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row)) : "memory");
}

__device__ void ldmatrix_trans(unsigned (&x)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row)) : "memory");
}

__device__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __half) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                    __nv_bfloat16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ float gelu(float x) {
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// Four warps make 32 x 32 results, each 16 x 16 of them, in steps of 32 along k.
// With a bias, C = gelu(A B + bias), two values to a store.
template <typename T>
__global__ void __launch_bounds__(128)
gemm_ldmatrix(const T* a, const T* b, const float* bias, T* c, int m, int n, int k) {
    __shared__ __align__(16) T as[32][40], bs[32][40];
    int t = threadIdx.x, lane = t % 32, warp_row = t / 64 * 16, warp_col = t / 32 % 2 * 16;
    int row0 = blockIdx.y * 32, col0 = blockIdx.x * 32;
    float d[2][4] = {};
    for (int k0 = 0; k0 < k; k0 += 32) {
        for (int i = t; i < 32 * 32; i += 128) {
            int r = i / 32, q = i % 32;
            as[r][q] = row0 + r < m && k0 + q < k ? a[(row0 + r) * k + k0 + q] : T(0.0f);
            bs[r][q] = k0 + r < k && col0 + q < n ? b[(k0 + r) * n + col0 + q] : T(0.0f);
        }
        __syncthreads();
        #pragma unroll
        for (int kk = 0; kk < 32; kk += 16) {
            unsigned x[4], y[4];
            ldmatrix(x, &as[warp_row + lane % 16][kk + lane / 16 * 8]);
            ldmatrix_trans(y, &bs[kk + lane % 16][warp_col + lane / 16 * 8]);
            mma(d[0], x, y[0], y[1], T());
            mma(d[1], x, y[2], y[3], T());
        }
        __syncthreads();
    }
    for (int j = 0; j < 2; j++)
        for (int h = 0; h < 2; h++) {
            int row = row0 + warp_row + lane / 4 + 8 * h;
            int col = col0 + warp_col + 8 * j + lane % 4 * 2;
            if (row >= m || col >= n) continue;  // n is even
            float u = d[j][2 * h], v = d[j][2 * h + 1];
            if (bias) u = gelu(u + bias[col]), v = gelu(v + bias[col + 1]);
            T pair[2] = {T(u), T(v)};
            *reinterpret_cast<unsigned*>(&c[row * n + col]) = *reinterpret_cast<unsigned*>(pair);
        }
}

// Half accumulators with k = 16 an instruction; fragments are read from global memory.
extern "C" __global__ void gemm_f16(const unsigned* a, const unsigned* bt, __half2* c, int m, int n,
                                    int k) {
    // m, n and k are multiples of 16, 8 and 16
    int lane = threadIdx.x, g = lane / 4, q = lane % 4, k2 = k / 2;
    const unsigned* x = &a[(blockIdx.y * 16 + g) * k2 + q];
    const unsigned* y = &bt[(blockIdx.x * 8 + g) * k2 + q];
    unsigned d0 = 0, d1 = 0;
    for (int i = 0; i < k2; i += 8)
        asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 "
            "{%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
            : "+r"(d0), "+r"(d1)
            : "r"(x[i]), "r"(x[8 * k2 + i]), "r"(x[i + 4]), "r"(x[8 * k2 + i + 4]),
              "r"(y[i]), "r"(y[i + 4]));
    __half2* out = &c[((blockIdx.y * 16 + g) * n + blockIdx.x * 8) / 2 + q];
    out[0] = *reinterpret_cast<__half2*>(&d0);
    out[8 * n / 2] = *reinterpret_cast<__half2*>(&d1);
}

__device__ unsigned to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// Floats rounded to tf32 as they are read from shared memory.  A warp makes 16 x 16 results.
extern "C" __global__ void gemm_tf32(const float* a, const float* b, float* c, int m, int n,
                                     int k) {
    __shared__ float as[16][16 + 4], bs[16][16 + 8];  // padded: fragments are free of conflicts
    int lane = threadIdx.x, g = lane / 4, q = lane % 4;
    int row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    float d[2][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        for (int i = lane; i < 256; i += 32) {
            int r = i / 16, p = i % 16;
            as[r][p] = row0 + r < m && k0 + p < k ? a[(row0 + r) * k + k0 + p] : 0.0f;
            bs[r][p] = k0 + r < k && col0 + p < n ? b[(k0 + r) * n + col0 + p] : 0.0f;
        }
        __syncwarp();
        #pragma unroll
        for (int kk = 0; kk < 16; kk += 8) {
            unsigned x[4] = {to_tf32(as[g][kk + q]), to_tf32(as[g + 8][kk + q]),
                             to_tf32(as[g][kk + q + 4]), to_tf32(as[g + 8][kk + q + 4])};
            #pragma unroll
            for (int j = 0; j < 2; j++) {
                unsigned y0 = to_tf32(bs[kk + q][8 * j + g]);
                unsigned y1 = to_tf32(bs[kk + q + 4][8 * j + g]);
                asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                    "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                    : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
                    : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y0), "r"(y1));
            }
        }
        __syncwarp();
    }
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 4; i++) {
            int row = row0 + g + i / 2 * 8, col = col0 + 8 * j + 2 * q + i % 2;
            if (row < m && col < n) c[row * n + col] = d[j][i];
        }
}

// int8 with int32 sums, requantised to int8 with rounding and saturation.  B is stored [n, k];
// n is a multiple of 8, k of 32.
extern "C" __global__ void gemm_s8(const int* a, const int* bt, float scale, char* c,
                                   int m, int n, int k) {
    int lane = threadIdx.x, g = lane / 4, q = lane % 4, k4 = k / 4;
    int row = blockIdx.y * 16 + g, other = blockIdx.x * 8 + g;
    int d[4] = {};
    for (int i = q; i < k4; i += 8) {
        int x0 = row < m ? a[row * k4 + i] : 0, x2 = row < m ? a[row * k4 + i + 4] : 0;
        int x1 = row + 8 < m ? a[(row + 8) * k4 + i] : 0;
        int x3 = row + 8 < m ? a[(row + 8) * k4 + i + 4] : 0;
        asm("mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
            : "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(bt[other * k4 + i]),
              "r"(bt[other * k4 + i + 4]));
    }
    for (int i = 0; i < 4; i++) {
        int r = row + i / 2 * 8, value;
        asm("cvt.rni.sat.s8.f32 %0, %1;" : "=r"(value) : "f"(d[i] * scale));
        if (r < m) c[r * n + blockIdx.x * 8 + 2 * q + i % 2] = static_cast<char>(value);
    }
}

// Doubles: a warp makes 8 x 8 results, 4 along k an instruction.
extern "C" __global__ void gemm_f64(const double* a, const double* b, double* c,
                                    int m, int n, int k) {
    int lane = threadIdx.x, g = lane / 4, q = lane % 4;
    int row = blockIdx.y * 8 + g, col = blockIdx.x * 8 + g;
    double d0 = 0.0, d1 = 0.0;
    for (int k0 = 0; k0 < k; k0 += 4) {
        double x = row < m && k0 + q < k ? a[row * k + k0 + q] : 0.0;
        double y = k0 + q < k && col < n ? b[(k0 + q) * n + col] : 0.0;
        asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
            : "+d"(d0), "+d"(d1) : "d"(x), "d"(y));
    }
    int out = blockIdx.x * 8 + 2 * q;
    if (row < m && out < n) c[row * n + out] = d0;
    if (row < m && out + 1 < n) c[row * n + out + 1] = d1;
}

// Everything together: cp.async in three stages, rows of 64 bytes whose four 16-byte chunks are
// swizzled instead of padded, four warps of 16 x 32 results each, stores through shared memory.
// The block makes 64 x 32 results in steps of 32; m, n, k are multiples of 8 (16-byte chunks).
constexpr int STAGES = 3;

__device__ int swizzle(int row, int chunk) {
    return (row * 4 + (chunk ^ row / 2 % 4)) * 8;  // in halves
}

extern "C" __global__ void __launch_bounds__(128)
gemm_pipelined(const __half* a, const __half* b, __half* c, int m, int n, int k) {
    extern __shared__ __align__(128) __half memory[];
    __half* as = memory;                     // [STAGES][64 rows of m][32 of k]
    __half* bs = memory + STAGES * 64 * 32;  // [STAGES][32 rows of k][32 of n]
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    int row0 = blockIdx.y * 64, col0 = blockIdx.x * 32, steps = (k + 31) / 32;
    auto copy = [](__half* to, const __half* from, bool in) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(shared_address(to)), "l"(from), "r"(in ? 16 : 0) : "memory");
    };
    auto fetch = [&](int s) {
        if (s < steps) {
            __half* to = as + s % STAGES * 64 * 32;
            for (int i = t; i < 64 * 4; i += 128) {
                int r = i / 4, q = i % 4, col = s * 32 + q * 8;
                bool in = row0 + r < m && col < k;
                copy(to + swizzle(r, q), in ? &a[(row0 + r) * k + col] : a, in);
            }
            int r = t / 4, q = t % 4, row = s * 32 + r, col = col0 + q * 8;
            bool in = row < k && col < n;
            copy(bs + s % STAGES * 32 * 32 + swizzle(r, q), in ? &b[row * n + col] : b, in);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    float d[4][4] = {};
    for (int s = 0; s < STAGES - 1; s++) fetch(s);
    for (int s = 0; s < steps; s++) {
        asm volatile("cp.async.wait_group %0;" :: "n"(STAGES - 2) : "memory");
        __syncthreads();
        fetch(s + STAGES - 1);
        const __half* x = as + s % STAGES * 64 * 32;
        const __half* y = bs + s % STAGES * 32 * 32;
        #pragma unroll
        for (int kk = 0; kk < 2; kk++) {
            unsigned fa[4];
            ldmatrix(fa, x + swizzle(warp * 16 + lane % 16, kk * 2 + lane / 16));
            #pragma unroll
            for (int j = 0; j < 2; j++) {
                unsigned fb[4];
                ldmatrix_trans(fb, y + swizzle(kk * 16 + lane % 16, j * 2 + lane / 16));
                mma(d[2 * j], fa, fb[0], fb[1], __half());
                mma(d[2 * j + 1], fa, fb[2], fb[3], __half());
            }
        }
    }
    __syncthreads();  // all have read the last tile; only empty groups are pending
    __half* out = memory;  // [64][40]
    for (int j = 0; j < 4; j++)
        for (int h = 0; h < 2; h++) {
            int r = warp * 16 + lane / 4 + 8 * h, q = 8 * j + lane % 4 * 2;
            *reinterpret_cast<__half2*>(&out[r * 40 + q]) =
                __floats2half2_rn(d[j][2 * h], d[j][2 * h + 1]);
        }
    __syncthreads();
    for (int i = t; i < 64 * 4; i += 128) {
        int r = i / 4, q = i % 4 * 8;
        if (row0 + r < m && col0 + q < n)
            *reinterpret_cast<uint4*>(&c[(row0 + r) * n + col0 + q]) =
                *reinterpret_cast<const uint4*>(&out[r * 40 + q]);
    }
}
