// Layer and RMS normalisation of rows, with a residual added before, forward and backward.
//
// Backward is one read of memory, too: blocks walk over rows; each thread always has the same columns,
// sums the gradients of their parameters in registers, and each block leaves one partial row, which
// a second kernel adds in order.  No atomics: results repeat bit by bit.
//
// T: values, P: parameters, W: what is computed and kept in.  CENTERED: layer norm, else RMS norm.
#include "norm.cuh"

// --- forward --------------------------------------------------------------------------------------

// 256 threads: 256 / L rows of at most L * V * E.
template <typename T, typename P, typename W, int E, int V, int L, bool CENTERED>
__global__ void __launch_bounds__(256)
norm_rows(T* y, T* sum, const T* x, const T* residual, const P* weight, const P* bias, W* means,
          W* rstds, ml_index rows, int n, double eps) {
  const ml_index r = ml_index(blockIdx.x) * (256 / L) + threadIdx.x / L;
  norm_held<E, V, L, CENTERED>(norm_row<T>(y, sum, x, residual, r * n),
                               place_affine<P>{weight, bias}, means + r, rstds + r, n, W(eps),
                               r < rows);
}

// A block for each row of at most blockDim * V * E.
template <typename T, typename P, typename W, int E, int V, bool CENTERED>
__global__ void __launch_bounds__(512, 2)
norm_block(T* y, T* sum, const T* x, const T* residual, const P* weight, const P* bias, W* means,
           W* rstds, int n, double eps) {
  const ml_index r = blockIdx.x;
  norm_held<E, V, 0, CENTERED>(norm_row<T>(y, sum, x, residual, r * n),
                               place_affine<P>{weight, bias}, means + r, rstds + r, n, W(eps),
                               true);
}

template <typename T, typename P, typename W, int E, bool CENTERED, bool KEPT>
__global__ void __launch_bounds__(1024)
norm_long(T* y, T* sum, const T* x, const T* residual, const P* weight, const P* bias, W* means,
          W* rstds, ml_index n, double eps) {
  const ml_index r = blockIdx.x;
  norm_streamed<E, CENTERED, KEPT>(norm_row<T>(y, sum, x, residual, r * n),
                                   place_affine<P>{weight, bias}, means + r, rstds + r, n, W(eps));
}

// --- backward -------------------------------------------------------------------------------------
//
// With g = dy * weight and xhat = (x - mean) * rstd:
//   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), without mean(g) in RMS norm, plus `extra`;
//   dweight = the sum over rows of dy * xhat, dbias = that of dy.

// The sums of both members over the L threads of a row, for all of them.  `slots`: one pair a warp,
// another set of them in each turn.
template <int L, typename W>
__device__ __forceinline__ ml_pair<W> row_pair_sum(ml_pair<W> x, ml_pair<W>* slots) {
  if constexpr (L <= 32) {
    return ml_warp_sum<L>(x);
  } else {
    x = ml_warp_sum(x);
    if (ml_lane() == 0) slots[ml_warp()] = x;
    __syncthreads();
    const int start = threadIdx.x / L * (L / 32);
    x = slots[start];
#pragma unroll
    for (int w = 1; w < L / 32; ++w) x = ml_both()(x, slots[start + w]);
    return x;
  }
}

// 512 threads: 512 / L rows at a time of at most L * V * E.  AFFINE: part[block][2][n] gets the
// sums of dy * xhat and of dy over the block's rows; in RMS norm part[block][1][n], without dy's.
template <typename T, typename P, typename W, int E, int V, int L, bool CENTERED, bool AFFINE>
__global__ void __launch_bounds__(512, 1)
norm_backward_rows(T* dx, const T* dy, const T* x, const T* extra, const P* weight, const W* means,
                   const W* rstds, W* part, ml_index rows, int n) {
  const int groups = 512 / L, step = L * E, first = threadIdx.x % L * E;
  __shared__ ml_pair<W> slots[2][16];
  W dweight[V][E], dbias[V][E];
#pragma unroll
  for (int v = 0; v < V; ++v)
#pragma unroll
    for (int e = 0; e < E; ++e) dweight[v][e] = dbias[v][e] = W(0);
  int turn = 0;
  for (ml_index base = ml_index(blockIdx.x) * groups; base < rows;
       base += ml_index(gridDim.x) * groups, turn ^= 1) {
    const ml_index r = base + threadIdx.x / L;
    const int size = r < rows ? n : 0;
    const W mean = CENTERED && size ? means[r] : W(0), rstd = size ? rstds[r] : W(0);
    W grads[V][E], hats[V][E];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int at = first + v * step;
      if (at < size) {
        take<E>(grads[v], dy + r * n + at);
        take<E>(hats[v], x + r * n + at);
      } else {  // without gradients they count for nothing
#pragma unroll
        for (int e = 0; e < E; ++e) grads[v][e] = hats[v][e] = W(0);
      }
    }
    ml_pair<W> sums = {W(0), W(0)};  // of g and of g * xhat
#pragma unroll
    for (int v = 0; v < V; ++v) {
      W scale[E];
      if (AFFINE) {
#pragma unroll
        for (int e = 0; e < E; ++e) scale[e] = W(0);
        if (first + v * step < n) take<E>(scale, weight + first + v * step);
      }
#pragma unroll
      for (int e = 0; e < E; ++e) {
        hats[v][e] = (hats[v][e] - mean) * rstd;
        if (AFFINE) {
          dweight[v][e] += grads[v][e] * hats[v][e];
          dbias[v][e] += grads[v][e];
          grads[v][e] *= scale[e];
        }
        sums.first += grads[v][e];
        sums.second += grads[v][e] * hats[v][e];
      }
    }
    sums = row_pair_sum<L>(sums, slots[turn]);
    const W shift = CENTERED ? sums.first / W(n) : W(0), slope = sums.second / W(n);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int at = first + v * step;
      if (at >= size) continue;
      W out[E], other[E];
#pragma unroll
      for (int e = 0; e < E; ++e) out[e] = rstd * (grads[v][e] - shift - hats[v][e] * slope);
      if (extra) {
        take<E>(other, extra + r * n + at);
#pragma unroll
        for (int e = 0; e < E; ++e) out[e] += other[e];
      }
      row_store<1, E>(dx + r * n + at, out, 1, 0, 0);
    }
  }
  if constexpr (AFFINE) {
    // The owners of the same columns, warps or groups of them, add their sums in shared memory.
    const int kinds = CENTERED ? 2 : 1, owners = L <= 32 ? 16 : groups;
    const int stride = apart<E, W>(L), owner = L <= 32 ? ml_warp() : threadIdx.x / L;
    __shared__ W fold[owners * E * stride];
#pragma unroll
    for (int which = 0; which < kinds; ++which) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        __syncthreads();
#pragma unroll
        for (int e = 0; e < E; ++e) {
          W sum = which ? dbias[v][e] : dweight[v][e];
#pragma unroll
          for (int lane_step = 16; lane_step >= L; lane_step /= 2)
            sum += ml_shfl_xor(sum, lane_step);
          if (L >= 32 || ml_lane() < L) fold[(owner * E + e) * stride + threadIdx.x % L] = sum;
        }
        __syncthreads();
        for (int t = threadIdx.x; t < L * E; t += 512) {
          const int column = v * step + t;
          if (column >= n) continue;
          W sum = W(0);
#pragma unroll
          for (int o = 0; o < owners; ++o) sum += fold[(o * E + t % E) * stride + t / E];
          part[(ml_index(blockIdx.x) * kinds + which) * n + column] = sum;
        }
      }
    }
  }
}

// dx for rows of any length: dy and x are read twice, the second time from the cache.
template <typename T, typename P, typename W, int E, bool CENTERED>
__global__ void __launch_bounds__(1024, 1)
norm_backward_long(T* dx, const T* dy, const T* x, const T* extra, const P* weight, const W* means,
                   const W* rstds, ml_index n) {
  __shared__ ml_pair<W> slots[32];
  const ml_index row = blockIdx.x * n, first = threadIdx.x * E;
  const ml_index step = ml_index(blockDim.x) * E;
  const W mean = CENTERED ? means[blockIdx.x] : W(0), rstd = rstds[blockIdx.x];
  ml_pair<W> sums = {W(0), W(0)};
  W shift = W(0), slope = W(0);
  for (int pass = 0; pass < 2; ++pass) {
#pragma unroll 2
    for (ml_index at = first; at < n; at += step) {
      W grads[E], hats[E], scale[E];
      take<E>(grads, dy + row + at);
      take<E>(hats, x + row + at);
      if (weight) {
        take<E>(scale, weight + at);
#pragma unroll
        for (int e = 0; e < E; ++e) grads[e] *= scale[e];
      }
#pragma unroll
      for (int e = 0; e < E; ++e) hats[e] = (hats[e] - mean) * rstd;
      if (pass == 0) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          sums.first += grads[e];
          sums.second += grads[e] * hats[e];
        }
        continue;
      }
#pragma unroll
      for (int e = 0; e < E; ++e) grads[e] = rstd * (grads[e] - shift - hats[e] * slope);
      if (extra) {
        take<E>(scale, extra + row + at);
#pragma unroll
        for (int e = 0; e < E; ++e) grads[e] += scale[e];
      }
      row_store<1, E>(dx + row + at, grads, 1, 0, 0);
    }
    if (pass == 0) {
      sums = ml_block_sum(sums, slots);
      shift = CENTERED ? sums.first / W(n) : W(0);
      slope = sums.second / W(n);
    }
  }
}

// part[split][2 or 1][n] for rows of any length: 32 lanes own E columns each, 8 warps take rows in turn.
template <typename T, typename W, int E, bool CENTERED>
__global__ void __launch_bounds__(256)
norm_backward_columns(W* part, const T* dy, const T* x, const W* means, const W* rstds,
                      ml_index rows, ml_index n, int splits) {
  const ml_index tile = blockIdx.x / splits;
  const int split = blockIdx.x - tile * splits;
  const ml_index column = (tile * 32 + ml_lane()) * E;
  W dweight[E], dbias[E];
#pragma unroll
  for (int e = 0; e < E; ++e) dweight[e] = dbias[e] = W(0);
  if (column < n) {
#pragma unroll 2
    for (ml_index r = split * 8 + ml_warp(); r < rows; r += splits * 8) {
      W grads[E], values[E];
      take<E>(grads, dy + r * n + column);
      take<E>(values, x + r * n + column);
      const W mean = CENTERED ? means[r] : W(0), rstd = rstds[r];
#pragma unroll
      for (int e = 0; e < E; ++e) {
        dweight[e] += grads[e] * (values[e] - mean) * rstd;
        dbias[e] += grads[e];
      }
    }
  }
  const int kinds = CENTERED ? 2 : 1, stride = apart<E, W>(32);
  __shared__ W fold[2][8 * E * stride];
#pragma unroll
  for (int e = 0; e < E; ++e) {
    fold[0][(ml_warp() * E + e) * stride + ml_lane()] = dweight[e];
    fold[1][(ml_warp() * E + e) * stride + ml_lane()] = dbias[e];
  }
  __syncthreads();
  for (int t = threadIdx.x; t < kinds * 32 * E; t += 256) {
    const int which = t / (32 * E), place = t % (32 * E);
    if (tile * 32 * E + place >= n) continue;
    W sum = W(0);
#pragma unroll
    for (int w = 0; w < 8; ++w) sum += fold[which][(w * E + place % E) * stride + place / E];
    part[(ml_index(split) * kinds + which) * n + tile * 32 * E + place] = sum;
  }
}

// The sums of part[parts][kinds][n] over parts, in order: 32 columns, 8 warps that take parts in turn.
template <typename P, typename W>
__global__ void __launch_bounds__(256)
norm_fold(P* dweight, P* dbias, const W* part, int parts, int kinds, ml_index n) {
  __shared__ W fold[8][32];
  const ml_index column = ml_index(blockIdx.x) * 32 + ml_lane();
  for (int which = 0; which < (dbias ? 2 : 1); ++which) {
    W sum = W(0);
    if (column < n) {
#pragma unroll 4
      for (int p = ml_warp(); p < parts; p += 8)
        sum += part[(ml_index(p) * kinds + which) * n + column];
    }
    __syncthreads();
    fold[ml_warp()][ml_lane()] = sum;
    __syncthreads();
    if (ml_warp() != 0 || column >= n) continue;
    sum = W(0);
#pragma unroll
    for (int w = 0; w < 8; ++w) sum += fold[w][ml_lane()];
    (which ? dbias : dweight)[column] = ml_cast<P>(sum);
  }
}
