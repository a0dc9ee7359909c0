// Products of few rows with a large matrix, whose bytes are all that counts.  k may be split over blocks,
// as in gemm.cu.
#include "gemm.cuh"

// To the result, or to one split's sums.
template <typename T, typename S>
__device__ __forceinline__ void ml_row_out(const ml_gemm& g, const ml_epilogue<T, S>& epilogue,
                                           S* partial, ml_index matrix, S sum, int row,
                                           int column) {
  if (g.splits > 1) {
    partial[(matrix * g.m + row) * g.n + column] = sum;
    return;
  }
  S v[1] = {sum}, add[1];
  if (epilogue.summand) epilogue.addend(add, row, column);
  epilogue.store(v, add, row, column);
}

// Where elements along k are neighbours in b and in a, as in x @ weight.T.  A warp makes one column: its
// lanes read vectors of VEC elements along k, UNROLL of them under way, and add their parts at the end.

template <typename T, typename S, int ROWS, int VEC>
__global__ void __launch_bounds__(256)
gemv(const T* __restrict__ a, const T* __restrict__ b, T* out, const T* summand, const T* residual,
     T* pre, S* partial, ml_gemm g) {
  const int UNROLL = 4, STEP = 32 * VEC;
  const int blocks = (g.n + 7) / 8, lane = threadIdx.x & 31;
  const int column = blockIdx.x % blocks * 8 + (threadIdx.x >> 5);
  const int rest = blockIdx.x / blocks, split = rest % g.splits, batch = rest / g.splits;
  if (column >= g.n) return;
  const int k0 = split * g.split_k, k1 = g.k - k0 < g.split_k ? g.k : k0 + g.split_k;
  const ml_gemm_batch at = ml_batch_offsets(g, batch);
  a += at.a;
  b += at.b + column * g.ldb;
  S sums[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) sums[r] = S(0);
  for (int k = k0 + lane * VEC; k < k1; k += UNROLL * STEP) {
    ml_vec<T, VEC> w[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u)
      if (k + u * STEP < k1) w[u] = ml_load<VEC>(b + k + u * STEP);
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (k + u * STEP >= k1) continue;
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (r >= g.m) continue;
        const auto x = ml_load<VEC>(a + r * g.lda + k + u * STEP);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sums[r] += ml_cast<S>(x.at[e]) * ml_cast<S>(w[u].at[e]);
      }
    }
  }
  const ml_epilogue<T, S> epilogue(g, out, summand, residual, pre, batch, at.summand);
  const ml_index matrix = ml_index(split) * (gridDim.x / (blocks * g.splits)) + batch;
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int step = 16; step; step /= 2) sums[r] += __shfl_xor_sync(~0u, sums[r], step);
    if (r < g.m && lane == r) ml_row_out(g, epilogue, partial, matrix, sums[r], r, column);
  }
}

// Where columns of b are neighbours, as in dy @ weight: lanes own VEC of them each, the warps of a block
// share out the places of k, and their sums meet in shared memory.
template <typename T, typename S, int ROWS, int VEC, bool A_DEEP>
__global__ void __launch_bounds__(256)
gemv_rows(const T* __restrict__ a, const T* __restrict__ b, T* out, const T* summand,
          const T* residual, T* pre, S* partial, ml_gemm g) {
  const int UNROLL = 4, WARPS = 8, WIDTH = 32 * VEC;
  const int TURN = 128 / sizeof(S);  // a gap after each, so that lanes meet no bank twice
  __shared__ S shared[WARPS][WIDTH + WIDTH / TURN];
  const int blocks = (g.n + WIDTH - 1) / WIDTH, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int n0 = blockIdx.x % blocks * WIDTH, column = n0 + lane * VEC;
  const int rest = blockIdx.x / blocks, split = rest % g.splits, batch = rest / g.splits;
  const int k0 = split * g.split_k, k1 = g.k - k0 < g.split_k ? g.k : k0 + g.split_k;
  const ml_gemm_batch at = ml_batch_offsets(g, batch);
  a += at.a;
  b += at.b + column;
  S sums[ROWS][VEC];
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int e = 0; e < VEC; ++e) sums[r][e] = S(0);
  for (int k = k0 + warp; column < g.n && k < k1; k += UNROLL * WARPS) {
    ml_vec<T, VEC> w[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u)
      if (k + u * WARPS < k1) w[u] = ml_load<VEC>(b + (k + u * WARPS) * g.ldb);
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      const int row = k + u * WARPS;
      if (row >= k1) continue;
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (r >= g.m) continue;
        const S x = ml_cast<S>(a[A_DEEP ? r * g.lda + row : row * g.lda + r]);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sums[r][e] += x * ml_cast<S>(w[u].at[e]);
      }
    }
  }
  const ml_epilogue<T, S> epilogue(g, out, summand, residual, pre, batch, at.summand);
  const ml_index matrix = ml_index(split) * (gridDim.x / (blocks * g.splits)) + batch;
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    if (r >= g.m) break;
    __syncthreads();
#pragma unroll
    for (int e = 0; e < VEC; ++e) {
      const int c = lane * VEC + e;
      shared[warp][c + c / TURN] = sums[r][e];
    }
    __syncthreads();
    for (int c = threadIdx.x; c < WIDTH && n0 + c < g.n; c += 256) {
      S sum = S(0);
#pragma unroll
      for (int w = 0; w < WARPS; ++w) sum += shared[w][c + c / TURN];
      ml_row_out(g, epilogue, partial, matrix, sum, r, n0 + c);
    }
  }
}
