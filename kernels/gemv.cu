// Products of few rows with a large matrix, whose bytes are all that counts: out[m][n], where rows of a
// and columns of b have their elements along k as neighbours, as in x @ weight.T.
//
// A warp makes one column: its lanes read vectors of VEC elements along k, UNROLL of them under way, and
// add their parts at the end, in a fixed order.
#include "gemm.cuh"

template <typename T, typename S, int ROWS, int VEC>
__global__ void __launch_bounds__(256)
gemv(const T* __restrict__ a, const T* __restrict__ b, T* out, const T* summand, const T* residual,
     T* pre, ml_gemm g) {
  const int UNROLL = 4, STEP = 32 * VEC;
  const int blocks = (g.n + 7) / 8, lane = threadIdx.x & 31;
  const int column = blockIdx.x % blocks * 8 + (threadIdx.x >> 5), batch = blockIdx.x / blocks;
  if (column >= g.n) return;
  const ml_gemm_batch at = ml_batch_offsets(g, batch);
  const T* weights = b + at.b + column * g.ldb;
  a += at.a;
  S sums[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) sums[r] = S(0);
  for (int k0 = lane * VEC; k0 < g.k; k0 += UNROLL * STEP) {
    ml_vec<T, VEC> w[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u)
      if (k0 + u * STEP < g.k) w[u] = ml_load<VEC>(weights + k0 + u * STEP);
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (k0 + u * STEP >= g.k) continue;
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (r >= g.m) continue;
        const auto x = ml_load<VEC>(a + r * g.lda + k0 + u * STEP);
#pragma unroll
        for (int e = 0; e < VEC; ++e) sums[r] += ml_cast<S>(x.at[e]) * ml_cast<S>(w[u].at[e]);
      }
    }
  }
  const ml_epilogue<T, S> epilogue(g, out, summand, residual, pre, batch, at.summand);
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int step = 16; step; step /= 2) sums[r] += __shfl_xor_sync(~0u, sums[r], step);
    if (r < g.m && lane == r) {
      S v[1] = {sums[r]}, add[1];
      if (summand) epilogue.addend(add, r, column);
      epilogue.store(v, add, r, column);
    }
  }
}
