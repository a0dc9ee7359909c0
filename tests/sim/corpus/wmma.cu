// Tensor cores through <mma.h>: halves with an epilogue, int8, and the types of sm_80.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

using namespace nvcuda;

// C = alpha A B + beta C; operands pass through shared memory, where the tails are zeros; the
// epilogue works on the fragments' elements, whose order does not matter.
extern "C" __global__ void gemm_half(const __half* a, const __half* b, float* c, int m, int n,
                                     int k, float alpha, float beta) {
    __shared__ __align__(32) __half as[16][24], bs[16][24];
    __shared__ __align__(32) float cs[16][20];
    int lane = threadIdx.x, row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc, old;
    wmma::fill_fragment(acc, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 16) {
        for (int i = lane; i < 256; i += 32) {
            int r = i / 16, q = i % 16;
            __half zero = __float2half(0.0f);
            as[r][q] = row0 + r < m && k0 + q < k ? a[(row0 + r) * k + k0 + q] : zero;
            bs[r][q] = k0 + r < k && col0 + q < n ? b[(k0 + r) * n + col0 + q] : zero;
        }
        __syncwarp();
        wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> x;
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major> y;
        wmma::load_matrix_sync(x, &as[0][0], 24);
        wmma::load_matrix_sync(y, &bs[0][0], 24);
        wmma::mma_sync(acc, x, y, acc);
        __syncwarp();
    }
    for (int i = lane; i < 256; i += 32) {
        int row = row0 + i / 16, col = col0 + i % 16;
        cs[i / 16][i % 16] = row < m && col < n ? c[row * n + col] : 0.0f;
    }
    __syncwarp();
    wmma::load_matrix_sync(old, &cs[0][0], 20, wmma::mem_row_major);
    for (int i = 0; i < acc.num_elements; i++) acc.x[i] = alpha * acc.x[i] + beta * old.x[i];
    __syncwarp();
    wmma::store_matrix_sync(&cs[0][0], acc, 20, wmma::mem_row_major);
    __syncwarp();
    for (int i = lane; i < 256; i += 32) {
        int row = row0 + i / 16, col = col0 + i % 16;
        if (row < m && col < n) c[row * n + col] = cs[i / 16][i % 16];
    }
}

// Other shapes and layouts; half sums.  Sizes are multiples of the fragments'.
extern "C" __global__ void gemm_32x8(const __half* at, const __half* bt, __half* c, int m, int n,
                                     int k) {
    int row0 = blockIdx.y * 32, col0 = blockIdx.x * 8;
    wmma::fragment<wmma::accumulator, 32, 8, 16, __half> acc;
    wmma::fill_fragment(acc, __float2half(0.0f));
    for (int k0 = 0; k0 < k; k0 += 16) {
        wmma::fragment<wmma::matrix_a, 32, 8, 16, __half, wmma::col_major> x;
        wmma::fragment<wmma::matrix_b, 32, 8, 16, __half, wmma::col_major> y;
        wmma::load_matrix_sync(x, &at[k0 * m + row0], m);
        wmma::load_matrix_sync(y, &bt[col0 * k + k0], k);
        wmma::mma_sync(acc, x, y, acc);
    }
    wmma::store_matrix_sync(&c[col0 * m + row0], acc, m, wmma::mem_col_major);
}

extern "C" __global__ void gemm_s8(const signed char* a, const signed char* bt, int* c, int m,
                                   int n, int k) {
    int row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    wmma::fragment<wmma::accumulator, 16, 16, 16, int> acc;
    wmma::fill_fragment(acc, 0);
    for (int k0 = 0; k0 < k; k0 += 16) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, signed char, wmma::row_major> x;
        wmma::fragment<wmma::matrix_b, 16, 16, 16, signed char, wmma::col_major> y;
        wmma::load_matrix_sync(x, &a[row0 * k + k0], k);
        wmma::load_matrix_sync(y, &bt[col0 * k + k0], k);
        wmma::mma_sync(acc, x, y, acc);
    }
    wmma::store_matrix_sync(&c[row0 * n + col0], acc, n, wmma::mem_row_major);
}

#if __CUDA_ARCH__ >= 800
extern "C" __global__ void gemm_bfloat16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c,
                                         int m, int n, int k) {
    int row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc;
    wmma::fill_fragment(acc, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 16) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> x;
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::row_major> y;
        wmma::load_matrix_sync(x, &a[row0 * k + k0], k);
        wmma::load_matrix_sync(y, &b[k0 * n + col0], n);
        wmma::mma_sync(acc, x, y, acc);
    }
    wmma::store_matrix_sync(&c[row0 * n + col0], acc, n, wmma::mem_row_major);
}

extern "C" __global__ void gemm_tf32(const float* a, const float* b, float* c, int m, int n,
                                     int k) {
    int row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    wmma::fragment<wmma::accumulator, 16, 16, 8, float> acc;
    wmma::fill_fragment(acc, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 8) {
        wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> x;
        wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> y;
        wmma::load_matrix_sync(x, &a[row0 * k + k0], k);
        wmma::load_matrix_sync(y, &b[k0 * n + col0], n);
        for (int i = 0; i < x.num_elements; i++) x.x[i] = wmma::__float_to_tf32(x.x[i]);
        for (int i = 0; i < y.num_elements; i++) y.x[i] = wmma::__float_to_tf32(y.x[i]);
        wmma::mma_sync(acc, x, y, acc);
    }
    wmma::store_matrix_sync(&c[row0 * n + col0], acc, n, wmma::mem_row_major);
}

extern "C" __global__ void gemm_double(const double* a, const double* b, double* c, int m, int n,
                                       int k) {
    int row0 = blockIdx.y * 8, col0 = blockIdx.x * 8;
    wmma::fragment<wmma::accumulator, 8, 8, 4, double> acc;
    wmma::fill_fragment(acc, 0.0);
    for (int k0 = 0; k0 < k; k0 += 4) {
        wmma::fragment<wmma::matrix_a, 8, 8, 4, double, wmma::row_major> x;
        wmma::fragment<wmma::matrix_b, 8, 8, 4, double, wmma::row_major> y;
        wmma::load_matrix_sync(x, &a[row0 * k + k0], k);
        wmma::load_matrix_sync(y, &b[k0 * n + col0], n);
        wmma::mma_sync(acc, x, y, acc);
    }
    wmma::store_matrix_sync(&c[row0 * n + col0], acc, n, wmma::mem_row_major);
}
#endif
