// Softmax and log-softmax along one dimension, forward and backward; softmax under a mask.
//
// All are bound by memory: a row is read once and stays on the chip.  By its length it stays in the
// registers of L lanes of a warp (no barrier), of a block, or in shared memory; where not even that
// holds it, it is read a second time, at once, while it is still in the cache.
#include "rows.cuh"

// --- where a row's values come from ---------------------------------------------------------------

// scale * row under a mask of truth values (false: -inf) or of numbers to add; none where null.
template <typename T, typename M>
struct masked_row {
  const T* x;
  const M* mask;
  ml_wide<T> scale;
  int taken;  // columns from here on count as -inf
  template <int E>
  __device__ __forceinline__ void take(ml_wide<T>* values, ml_index at) const {
    plain_row<T>{x}.template take<E>(values, at);
#pragma unroll
    for (int e = 0; e < E; ++e)
      values[e] = at + e < taken ? values[e] * scale : -ml_inf(values[e]);
    if (!mask) return;
    const ml_vec<M, E> given = ml_load<E>(mask + at);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      if constexpr (sizeof(M) == 1) values[e] = given.at[e] ? values[e] : -ml_inf(values[e]);
      else values[e] += ml_cast<ml_wide<T>>(given.at[e]);
    }
  }
  template <int E>
  __device__ __forceinline__ void again(ml_wide<T>* values, ml_index at) const {
    take<E>(values, at);
  }
};

template <int V, int E, typename W, typename Row>
__device__ __forceinline__ void take_all(W (&values)[V * E], const Row& row, int n, int first,
                                         int step) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int at = first + v * step;
    if (at < n) {
      row.template take<E>(values + v * E, at);
    } else {
#pragma unroll
      for (int e = 0; e < E; ++e) values[v * E + e] = -ml_inf(W());
    }
  }
}

// --- the last steps: from the values, their maximum and sum of exponentials to the result ----------

// `values` hold x for log-softmax, and exp(x - pivot) for softmax; MASKED: an empty sum gives 0.
template <typename T, bool LOG, bool MASKED, int count>
__device__ __forceinline__ void finish(ml_wide<T> (&values)[count], ml_wide<T> pivot,
                                       row_sum<ml_wide<T>> total) {
  typedef ml_wide<T> W;
  if constexpr (LOG) {
    const W logarithm = log(total.sum);
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = values[i] - total.top - logarithm;
  } else {
    W factor = row_exp<T>(pivot - row_pivot(total.top)) / total.sum;
    if (MASKED && total.sum == W(0)) factor = W(0);
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] *= factor;
  }
}

// Softmax of values that all of a warp's groups of L lanes hold.
template <typename T, int L, bool LOG, bool MASKED, int count>
__device__ __forceinline__ void softmax_in_warp(ml_wide<T> (&values)[count]) {
  typedef ml_wide<T> W;
  W top = values[0];
#pragma unroll
  for (int i = 1; i < count; ++i) top = row_max(top, values[i]);
  top = ml_warp_reduce<L>(top, row_maximum());
  const W pivot = row_pivot(top);
  W sum = W(0);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const W power = row_exp<T>(values[i] - pivot);
    if constexpr (!LOG) values[i] = power;
    sum += power;
  }
  finish<T, LOG, MASKED>(values, pivot, row_sum<W>{top, ml_warp_sum<L>(sum)});
}

// The same of values that a whole block holds.  One exchange: each thread's sum is about its own
// maximum, and what it has computed is scaled at the end.
template <typename T, bool LOG, bool MASKED, int count>
__device__ __forceinline__ void softmax_in_block(ml_wide<T> (&values)[count]) {
  typedef ml_wide<T> W;
  __shared__ row_sum<W> slots[32];
  W top = values[0];
#pragma unroll
  for (int i = 1; i < count; ++i) top = row_max(top, values[i]);
  const W pivot = row_pivot(top);
  W sum = W(0);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const W power = row_exp<T>(values[i] - pivot);
    if constexpr (!LOG) values[i] = power;
    sum += power;
  }
  const row_sum<W> total = ml_block_reduce(row_sum<W>{top, sum}, slots,
                                           row_sum<W>{-ml_inf(W()), W(0)}, row_merge<T>());
  finish<T, LOG, MASKED>(values, pivot, total);
}

// --- forward, along the last dimension ------------------------------------------------------------

// 256 threads: 256 / L rows of at most L * V * E.
template <typename T, int E, int V, int L, bool LOG>
__global__ void __launch_bounds__(256, 2)
softmax_rows(T* y, const T* x, ml_index rows, int n) {
  const ml_index r = ml_index(blockIdx.x) * (256 / L) + threadIdx.x / L;
  const int first = threadIdx.x % L * E, size = r < rows ? n : 0;
  ml_wide<T> values[V * E];
  row_load<V, E>(values, x + r * n, size, first, L * E, -ml_inf(ml_wide<T>()));
  softmax_in_warp<T, L, LOG, false>(values);
  row_store<V, E>(y + r * n, values, size, first, L * E);
}

// A block for each row of at most blockDim * V * E.
template <typename T, int E, int V, bool LOG>
__global__ void __launch_bounds__(512)
softmax_block(T* y, const T* x, int n) {
  const ml_index row = ml_index(blockIdx.x) * n;
  const int first = threadIdx.x * E, step = blockDim.x * E;
  ml_wide<T> values[V * E];
  row_load<V, E>(values, x + row, n, first, step, -ml_inf(ml_wide<T>()));
  softmax_in_block<T, LOG, false>(values);
  row_store<V, E>(y + row, values, n, first, step);
}

// A row of any length, of which the first `taken` values count.  MASKED as in `finish`.
template <typename T, int E, bool LOG, bool MASKED, typename Row>
__device__ __forceinline__ void long_row(T* y, const Row& row, ml_index taken, ml_index n) {
  typedef ml_wide<T> W;
  __shared__ row_sum<W> slots[32];
  const ml_index first = threadIdx.x * E, step = ml_index(blockDim.x) * E;
  row_sum<W> running = {-ml_inf(W()), W(0)};
  W pair[2 * E];  // two loads are under way before the first is used
  ml_index at = first;
  for (; at + step < taken; at += 2 * step) {
    row.template take<E>(pair, at);
    row.template take<E>(pair + E, at + step);
    row_take<T>(running, pair);
  }
  W values[E];
  if (at < taken) {
    row.template take<E>(values, at);
    row_take<T>(running, values);
  }
  const row_sum<W> total = ml_block_reduce(running, slots, row_sum<W>{-ml_inf(W()), W(0)},
                                           row_merge<T>());
  const W pivot = row_pivot(total.top);
  for (at = first; at < n; at += step) {
    if (at < taken) {
      row.template again<E>(values, at);
    } else {
#pragma unroll
      for (int e = 0; e < E; ++e) values[e] = -ml_inf(W());
    }
    if constexpr (!LOG) {
#pragma unroll
      for (int e = 0; e < E; ++e) values[e] = row_exp<T>(values[e] - pivot);
    }
    finish<T, LOG, MASKED>(values, pivot, total);
    row_store<1, E>(y + at, values, 1, 0, 0);
  }
}

// KEPT: with n values of T in dynamic shared memory.
template <typename T, int E, bool LOG, bool KEPT>
__global__ void __launch_bounds__(1024)
softmax_long(T* y, const T* x, ml_index n) {
  extern __shared__ uint4 kept[];
  x += blockIdx.x * n;
  y += blockIdx.x * n;
  if constexpr (KEPT)
    long_row<T, E, LOG, false>(y, kept_row<T>{x, reinterpret_cast<T*>(kept)}, n, n);
  else
    long_row<T, E, LOG, false>(y, plain_row<T>{x}, n, n);
}

// How many of n elements, in vectors of E, are a piece: whole warps', so that none shares a sector.
template <int E>
__device__ __forceinline__ ml_index softmax_piece(ml_index n, int pieces) {
  return ((n / E + pieces - 1) / pieces + 31) / 32 * 32 * E;
}

// Few rows, each long: blocks take pieces of a row.  First the sums, part[rows][pieces] of the pairs
// (maximum, sum of exponentials), then what follows from them, with a second read.
template <typename T, typename W, int E>
__global__ void __launch_bounds__(512)
softmax_parts(W* part, const T* x, ml_index n, int pieces) {
  __shared__ row_sum<W> slots[32];
  const ml_index r = blockIdx.x / pieces, size = softmax_piece<E>(n, pieces);
  const ml_index start = (blockIdx.x - r * pieces) * size, end = ml_min(n, start + size);
  row_sum<W> running = {-ml_inf(W()), W(0)};
#pragma unroll 4
  for (ml_index at = start + threadIdx.x * E; at < end; at += 512 * E) {
    W values[E];
    take<E>(values, x + r * n + at);
    row_take<T>(running, values);
  }
  running = ml_block_reduce(running, slots, row_sum<W>{-ml_inf(W()), W(0)}, row_merge<T>());
  if (threadIdx.x == 0) {
    ml_store_whole<2>(part + blockIdx.x * ml_index(2), ml_vec<W, 2>{running.top, running.sum});
  }
}

template <typename T, typename W, int E, bool LOG>
__global__ void __launch_bounds__(512)
softmax_pieces(T* y, const T* x, const W* part, ml_index n, int pieces) {
  const ml_index r = blockIdx.x / pieces, size = softmax_piece<E>(n, pieces);
  const ml_index start = (blockIdx.x - r * pieces) * size, end = ml_min(n, start + size);
  row_sum<W> total = {-ml_inf(W()), W(0)};
  for (int i = ml_lane(); i < pieces; i += 32) {
    const ml_vec<W, 2> from = ml_load<2>(part + (r * pieces + i) * 2);
    total = row_merge<T>()(total, row_sum<W>{from.at[0], from.at[1]});
  }
  total = ml_warp_reduce(total, row_merge<T>());
  const W pivot = row_pivot(total.top);
#pragma unroll 4
  for (ml_index at = start + threadIdx.x * E; at < end; at += 512 * E) {
    W values[E];
    take<E>(values, x + r * n + at);
    if constexpr (!LOG) {
#pragma unroll
      for (int e = 0; e < E; ++e) values[e] = row_exp<T>(values[e] - pivot);
    }
    finish<T, LOG, false>(values, pivot, total);
    row_store<1, E>(y + r * n + at, values, 1, 0, 0);
  }
}

// --- forward under a mask -------------------------------------------------------------------------

// Rows are (batch, head, query); `mask` has these strides, and columns side by side.  CAUSAL: a
// query sees the columns up to its own number plus `shift`; the others are not read.
struct mask_rows {
  ml_index heads, queries;
  ml_index batch_stride, head_stride, query_stride;
  ml_index shift;
};

template <typename T, typename M, bool CAUSAL>
struct masked_place {
  masked_row<T, M> row;
  __device__ __forceinline__ masked_place(const T* x, const M* mask, const mask_rows& layout,
                                          ml_index r, int n, double scale) {
    const ml_index plane = r / layout.queries, query = r - plane * layout.queries;
    const ml_index batch = plane / layout.heads, head = plane - batch * layout.heads;
    const ml_index offset = batch * layout.batch_stride + head * layout.head_stride +
                            query * layout.query_stride;
    const ml_index seen = ml_max(ml_index(0), query + layout.shift + 1);
    row = {x + r * n, mask ? mask + offset : mask, ml_wide<T>(scale),
           CAUSAL ? int(ml_min(ml_index(n), seen)) : n};
  }
};

template <typename T, typename M, int E, int V, int L, bool CAUSAL>
__global__ void __launch_bounds__(256)
masked_softmax_rows(T* y, const T* x, const M* mask, mask_rows layout, ml_index rows, int n,
                    double scale) {
  const ml_index r = ml_index(blockIdx.x) * (256 / L) + threadIdx.x / L;
  const bool on = r < rows;
  const masked_place<T, M, CAUSAL> place(x, mask, layout, on ? r : 0, n, scale);
  const int first = threadIdx.x % L * E;
  ml_wide<T> values[V * E];
  take_all<V, E>(values, place.row, on ? place.row.taken : 0, first, L * E);
  softmax_in_warp<T, L, false, true>(values);
  row_store<V, E>(y + r * n, values, on ? n : 0, first, L * E);
}

template <typename T, typename M, int E, bool CAUSAL>
__global__ void __launch_bounds__(1024)
masked_softmax_long(T* y, const T* x, const M* mask, mask_rows layout, int n, double scale) {
  const ml_index r = blockIdx.x;
  const masked_place<T, M, CAUSAL> place(x, mask, layout, r, n, scale);
  long_row<T, E, false, true>(y + r * n, place.row, place.row.taken, n);
}

// --- backward, along the last dimension -----------------------------------------------------------

// softmax: dx = y (dy - sum(y dy)); log-softmax: dx = dy - e^y sum(dy).
template <typename T, bool LOG, int count>
__device__ __forceinline__ ml_wide<T> gradient_sum(const ml_wide<T> (&dy)[count],
                                                   const ml_wide<T> (&y)[count]) {
  ml_wide<T> sum = ml_wide<T>(0);
#pragma unroll
  for (int i = 0; i < count; ++i) sum += LOG ? dy[i] : dy[i] * y[i];
  return sum;
}
template <typename T, bool LOG, int count>
__device__ __forceinline__ void gradient(ml_wide<T> (&dy)[count], const ml_wide<T> (&y)[count],
                                         ml_wide<T> sum) {
#pragma unroll
  for (int i = 0; i < count; ++i)
    dy[i] = LOG ? dy[i] - row_exp<T>(y[i]) * sum : y[i] * (dy[i] - sum);
}

template <typename T, int E, int V, int L, bool LOG>
__global__ void __launch_bounds__(256, 1)
softmax_backward_rows(T* dx, const T* dy, const T* y, ml_index rows, int n) {
  typedef ml_wide<T> W;
  const ml_index r = ml_index(blockIdx.x) * (256 / L) + threadIdx.x / L;
  const int first = threadIdx.x % L * E, size = r < rows ? n : 0;
  W grads[V * E], results[V * E];
  row_load<V, E>(grads, dy + r * n, size, first, L * E, W(0));
  row_load<V, E>(results, y + r * n, size, first, L * E, W(0));
  const W sum = ml_warp_sum<L>(gradient_sum<T, LOG>(grads, results));
  gradient<T, LOG>(grads, results, sum);
  row_store<V, E>(dx + r * n, grads, size, first, L * E);
}

template <typename T, int E, int V, bool LOG>
__global__ void __launch_bounds__(512, 1)
softmax_backward_block(T* dx, const T* dy, const T* y, int n) {
  typedef ml_wide<T> W;
  __shared__ W slots[32];
  const ml_index row = ml_index(blockIdx.x) * n;
  const int first = threadIdx.x * E, step = blockDim.x * E;
  W grads[V * E], results[V * E];
  row_load<V, E>(grads, dy + row, n, first, step, W(0));
  row_load<V, E>(results, y + row, n, first, step, W(0));
  const W sum = ml_block_sum(gradient_sum<T, LOG>(grads, results), slots);
  gradient<T, LOG>(grads, results, sum);
  row_store<V, E>(dx + row, grads, n, first, step);
}

// KEPT: with dy and y, n values each, in dynamic shared memory.
template <typename T, int E, bool LOG, bool KEPT>
__global__ void __launch_bounds__(1024)
softmax_backward_long(T* dx, const T* dy, const T* y, ml_index n) {
  typedef ml_wide<T> W;
  extern __shared__ uint4 kept[];
  __shared__ W slots[32];
  const ml_index row = blockIdx.x * n, first = threadIdx.x * E, step = ml_index(blockDim.x) * E;
  T* keep = reinterpret_cast<T*>(kept);
  const kept_row<T> grad_row = {dy + row, keep}, result_row = {y + row, keep + n};
  const plain_row<T> grad_again = {dy + row}, result_again = {y + row};
  W grads[E], results[E], sum = W(0);
  for (ml_index at = first; at < n; at += step) {
    if constexpr (KEPT) {
      grad_row.template take<E>(grads, at);
      result_row.template take<E>(results, at);
    } else {
      grad_again.template take<E>(grads, at);
      result_again.template take<E>(results, at);
    }
    sum += gradient_sum<T, LOG>(grads, results);
  }
  sum = ml_block_sum(sum, slots);
  for (ml_index at = first; at < n; at += step) {
    if constexpr (KEPT) {
      grad_row.template again<E>(grads, at);
      result_row.template again<E>(results, at);
    } else {
      grad_again.template take<E>(grads, at);
      result_again.template take<E>(results, at);
    }
    gradient<T, LOG>(grads, results, sum);
    row_store<1, E>(dx + row + at, grads, 1, 0, 0);
  }
}

// --- along another dimension: (outer, n, inner), without a transpose ------------------------------

// n <= V: a thread for each vector of columns, all in registers.
template <typename T, int E, int V, bool LOG>
__global__ void __launch_bounds__(256)
softmax_few(T* y, const T* x, ml_index columns, int n, ml_index inner) {
  typedef ml_wide<T> W;
  const ml_index t = (ml_index(blockIdx.x) * 256 + threadIdx.x) * E;
  if (t >= columns) return;
  const ml_index outer = t / inner, at = outer * n * inner + (t - outer * inner);
  W values[V][E];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v < n) {
      plain_row<T>{x}.template take<E>(values[v], at + v * inner);
    } else {
#pragma unroll
      for (int e = 0; e < E; ++e) values[v][e] = -ml_inf(W());
    }
  }
#pragma unroll
  for (int e = 0; e < E; ++e) {
    W column[V];
#pragma unroll
    for (int v = 0; v < V; ++v) column[v] = values[v][e];
    softmax_in_warp<T, 1, LOG, false>(column);
#pragma unroll
    for (int v = 0; v < V; ++v) values[v][e] = column[v];
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (v < n) row_store<1, E>(y + at + v * inner, values[v], 1, 0, 0);
}

template <typename T, int E, int V, bool LOG>
__global__ void __launch_bounds__(256)
softmax_backward_few(T* dx, const T* dy, const T* y, ml_index columns, int n, ml_index inner) {
  typedef ml_wide<T> W;
  const ml_index t = (ml_index(blockIdx.x) * 256 + threadIdx.x) * E;
  if (t >= columns) return;
  const ml_index outer = t / inner, at = outer * n * inner + (t - outer * inner);
  W grads[V][E], results[V][E], sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = W(0);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v >= n) continue;
    plain_row<T>{dy}.template take<E>(grads[v], at + v * inner);
    plain_row<T>{y}.template take<E>(results[v], at + v * inner);
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v >= n) continue;
#pragma unroll
    for (int e = 0; e < E; ++e) sum[e] += LOG ? grads[v][e] : grads[v][e] * results[v][e];
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v >= n) continue;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const W g = grads[v][e], r = results[v][e];
      grads[v][e] = LOG ? g - row_exp<T>(r) * sum[e] : r * (g - sum[e]);
    }
    row_store<1, E>(dx + at + v * inner, grads[v], 1, 0, 0);
  }
}

// Any n.  C lanes of a block own E columns each, 256 / C slots take rows in turn.
template <typename T, int E, int C, bool LOG>
__global__ void __launch_bounds__(256, 3)
softmax_columns(T* y, const T* x, int n, ml_index inner, ml_index tiles) {
  typedef ml_wide<T> W;
  __shared__ row_sum<W> shared[8 * E * C];
  const ml_index outer = blockIdx.x / tiles, tile = blockIdx.x - outer * tiles;
  const ml_index column = (tile * C + threadIdx.x % C) * E;
  const ml_index at = outer * n * inner + column;
  const int slot = threadIdx.x / C, slots = 256 / C, size = column < inner ? n : 0;
  const int U = 4;  // rows under way
  row_sum<W> total[E];
#pragma unroll
  for (int e = 0; e < E; ++e) total[e] = {-ml_inf(W()), W(0)};
  for (int i = slot; i < size; i += U * slots) {
    W rows[U][E];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      if (i + u * slots < size) {
        plain_row<T>{x}.template take<E>(rows[u], at + (i + u * slots) * inner);
      } else {
#pragma unroll
        for (int e = 0; e < E; ++e) rows[u][e] = -ml_inf(W());
      }
    }
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const W column_values[U] = {rows[0][e], rows[1][e], rows[2][e], rows[3][e]};
      row_take<T>(total[e], column_values);
    }
  }
  over_slots<E, C>(total, shared, row_merge<T>());
  for (int i = slot; i < size; i += slots) {
    W values[E];
    plain_row<T>{x}.template take<E>(values, at + i * inner);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const W pivot = row_pivot(total[e].top);
      W one[1] = {LOG ? values[e] : row_exp<T>(values[e] - pivot)};
      finish<T, LOG, false>(one, pivot, total[e]);
      values[e] = one[0];
    }
    row_store<1, E>(y + at + i * inner, values, 1, 0, 0);
  }
}

template <typename T, int E, int C, bool LOG>
__global__ void __launch_bounds__(256)
softmax_backward_columns(T* dx, const T* dy, const T* y, int n, ml_index inner, ml_index tiles) {
  typedef ml_wide<T> W;
  __shared__ W shared[8 * E * C];
  const ml_index outer = blockIdx.x / tiles, tile = blockIdx.x - outer * tiles;
  const ml_index column = (tile * C + threadIdx.x % C) * E;
  const ml_index at = outer * n * inner + column;
  const int slot = threadIdx.x / C, slots = 256 / C, size = column < inner ? n : 0;
  W total[E];
#pragma unroll
  for (int e = 0; e < E; ++e) total[e] = W(0);
#pragma unroll 4
  for (int i = slot; i < size; i += slots) {
    W grads[E], results[E];
    plain_row<T>{dy}.template take<E>(grads, at + i * inner);
    plain_row<T>{y}.template take<E>(results, at + i * inner);
#pragma unroll
    for (int e = 0; e < E; ++e) total[e] += LOG ? grads[e] : grads[e] * results[e];
  }
  over_slots<E, C>(total, shared, ml_add());
#pragma unroll 4
  for (int i = slot; i < size; i += slots) {
    W grads[E], results[E];
    plain_row<T>{dy}.template take<E>(grads, at + i * inner);
    plain_row<T>{y}.template take<E>(results, at + i * inner);
#pragma unroll
    for (int e = 0; e < E; ++e)
      grads[e] = LOG ? grads[e] - row_exp<T>(results[e]) * total[e]
                     : results[e] * (grads[e] - total[e]);
    row_store<1, E>(dx + at + i * inner, grads, 1, 0, 0);
  }
}
