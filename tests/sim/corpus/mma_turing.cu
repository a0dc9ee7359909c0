// Tensor cores as sm_75 has them: mma m16n8k8 (half) and m8n8k16 (int8), ldmatrix, and wmma.

#include <cuda_fp16.h>

__device__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// One warp makes 16 x 16 results: A's tile [16][16] and B's tile [16][16] lie in shared memory in
// rows of 48 bytes; the eight addresses of a matrix then fall into different banks.
struct Tile {
    __half x[16][24];
};

__device__ void load_tile(Tile& tile, const __half* x, int rows, int cols, int row0, int col0) {
    for (int i = threadIdx.x; i < 256; i += 32) {
        int r = row0 + i / 16, c = col0 + i % 16;
        tile.x[i / 16][i % 16] = r < rows && c < cols ? x[r * cols + c] : __float2half(0.0f);
    }
}

// Float accumulators; C is written as float.
extern "C" __global__ void __launch_bounds__(32)
gemm_f32(const __half* a, const __half* b, float* c, int m, int n, int k) {
    __shared__ __align__(16) Tile as, bs;
    int lane = threadIdx.x, row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    float d[2][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        load_tile(as, a, m, k, row0, k0);
        load_tile(bs, b, k, n, k0, col0);
        __syncwarp();
        #pragma unroll
        for (int kk = 0; kk < 16; kk += 8) {
            unsigned x[2], y[2];
            // The addresses of lanes 0 to 15 count, the others must only be valid.
            asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                         : "=r"(x[0]), "=r"(x[1])
                         : "r"(shared_address(&as.x[lane % 16][kk])) : "memory");
            asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                         : "=r"(y[0]), "=r"(y[1])
                         : "r"(shared_address(&bs.x[kk + lane % 8][lane / 8 % 2 * 8])) : "memory");
            #pragma unroll
            for (int j = 0; j < 2; j++)
                asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                             "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                             : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
                             : "r"(x[0]), "r"(x[1]), "r"(y[j]));
        }
        __syncwarp();
    }
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 4; i++) {
            int row = row0 + lane / 4 + i / 2 * 8, col = col0 + 8 * j + lane % 4 * 2 + i % 2;
            if (row < m && col < n) c[row * n + col] = d[j][i];
        }
}

// Half accumulators, two to a register.  Fragments are read without ldmatrix; B is stored [n, k].
extern "C" __global__ void gemm_f16(const unsigned* a, const unsigned* bt, __half2* c,
                                    int m, int n, int k) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;  // a warp for each 16 rows
    int row = (blockIdx.y * (blockDim.x / 32) + warp) * 16 + lane / 4, col0 = blockIdx.x * 8;
    int k2 = k / 2, n2 = n / 2;  // k is a multiple of 8, n of 2
    bool in0 = row < m, in1 = row + 8 < m, in_b = col0 + lane / 4 < n;
    unsigned d[2] = {0, 0};
    for (int q = lane % 4; q < k2; q += 4) {
        unsigned x0 = in0 ? a[row * k2 + q] : 0, x1 = in1 ? a[(row + 8) * k2 + q] : 0;
        unsigned y = in_b ? bt[(col0 + lane / 4) * k2 + q] : 0;
        asm("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, %1};"
            : "+r"(d[0]), "+r"(d[1]) : "r"(x0), "r"(x1), "r"(y));
    }
    int col2 = col0 / 2 + lane % 4;
    if (in0 && col2 < n2) c[row * n2 + col2] = *reinterpret_cast<__half2*>(&d[0]);
    if (in1 && col2 < n2) c[(row + 8) * n2 + col2] = *reinterpret_cast<__half2*>(&d[1]);
}

// int8: A [m, k], B stored [n, k]; results scaled by a factor per row and one per column.
extern "C" __global__ void gemm_s8(const int* a, const int* bt, const float* row_scale,
                                   const float* col_scale, float* c, int m, int n, int k) {
    int lane = threadIdx.x, row = blockIdx.y * 8 + lane / 4, k4 = k / 4;  // k: a multiple of 16
    int other = blockIdx.x * 8 + lane / 4, d0 = 0, d1 = 0;
    for (int q = lane % 4; q < k4; q += 4) {
        int x = row < m ? a[row * k4 + q] : 0, y = other < n ? bt[other * k4 + q] : 0;
        asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
            : "+r"(d0), "+r"(d1) : "r"(x), "r"(y));
    }
    int col = blockIdx.x * 8 + lane % 4 * 2;
    if (row < m && col < n) c[row * n + col] = d0 * row_scale[row] * col_scale[col];
    if (row < m && col + 1 < n) c[row * n + col + 1] = d1 * row_scale[row] * col_scale[col + 1];
}

// wmma without its header: the fragments are opaque, so they are only loaded, multiplied, stored.
// m, n and k are multiples of 16; B is column-major, C is added to.
extern "C" __global__ void gemm_wmma(const __half* a, const __half* bt, float* c,
                                     int m, int n, int k) {
    int row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    float* tile = &c[row0 * n + col0];
    float d[8];
    asm volatile("wmma.load.c.sync.aligned.row.m16n16k16.global.f32 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3]), "=f"(d[4]), "=f"(d[5]),
                   "=f"(d[6]), "=f"(d[7]) : "l"(tile), "r"(n) : "memory");
    for (int k0 = 0; k0 < k; k0 += 16) {
        unsigned x[8], y[8];
        asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.global.f16 "
                     "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]), "=r"(x[4]), "=r"(x[5]),
                       "=r"(x[6]), "=r"(x[7]) : "l"(&a[row0 * k + k0]), "r"(k) : "memory");
        asm volatile("wmma.load.b.sync.aligned.col.m16n16k16.global.f16 "
                     "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                     : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3]), "=r"(y[4]), "=r"(y[5]),
                       "=r"(y[6]), "=r"(y[7]) : "l"(&bt[col0 * k + k0]), "r"(k) : "memory");
        asm volatile("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 "
                     "{%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11, %12, %13, %14, %15}, "
                     "{%16, %17, %18, %19, %20, %21, %22, %23}, {%0, %1, %2, %3, %4, %5, %6, %7};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                       "+f"(d[6]), "+f"(d[7])
                     : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(x[4]), "r"(x[5]),
                       "r"(x[6]), "r"(x[7]), "r"(y[0]), "r"(y[1]), "r"(y[2]), "r"(y[3]),
                       "r"(y[4]), "r"(y[5]), "r"(y[6]), "r"(y[7]));
    }
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%0], "
                 "{%1, %2, %3, %4, %5, %6, %7, %8}, %9;"
                 :: "l"(tile), "f"(d[0]), "f"(d[1]), "f"(d[2]), "f"(d[3]), "f"(d[4]), "f"(d[5]),
                    "f"(d[6]), "f"(d[7]), "r"(n) : "memory");
}
