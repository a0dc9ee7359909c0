// Normalisation of rows that lie side by side, forward: what layer norm and group norm share.
//
// A row stays in registers, where its mean and then the mean of its squared distances are taken:
// exact, and one read of memory.  Affine: how the parameters of an element are found.
#pragma once
#include "rows.cuh"

// Where `lanes` threads leave E values each in shared memory, by e and by lane, to be read in the
// order of the columns: how far the e are apart, so that no bank is asked twice.
template <int E, typename W>
__device__ constexpr int apart(int lanes) {
  const int unit = 128 / int(sizeof(W) * E);
  return ((lanes + unit - 1) / unit | 1) * unit;
}

// A parameter for each place of a row; either may be null.
template <typename P>
struct place_affine {
  const P *weight, *bias;
  template <int E, typename W>
  __device__ __forceinline__ void put(W* values, ml_index at) const {
    W parameters[E];
    if (weight) {
      take<E>(parameters, weight + at);
#pragma unroll
      for (int e = 0; e < E; ++e) values[e] *= parameters[e];
    }
    if (bias) {
      take<E>(parameters, bias + at);
#pragma unroll
      for (int e = 0; e < E; ++e) values[e] += parameters[e];
    }
  }
};

// One for each run of `positions` places, a multiple of E.
template <typename P>
struct channel_affine {
  const P *weight, *bias;  // of the row's first channel
  int positions;
  template <int E, typename W>
  __device__ __forceinline__ void put(W* values, ml_index at) const {
    const int channel = unsigned(at) / unsigned(positions);
    if (weight) {
      const W scale = ml_cast<W>(weight[channel]);
#pragma unroll
      for (int e = 0; e < E; ++e) values[e] *= scale;
    }
    if (bias) {
      const W shift = ml_cast<W>(bias[channel]);
#pragma unroll
      for (int e = 0; e < E; ++e) values[e] += shift;
    }
  }
};

// y = (x - mean) * rstd * weight + bias for a vector of a row.
template <int E, typename T, typename W, typename Affine>
__device__ __forceinline__ void apply(T* y, const W* x, const Affine& affine, ml_index at, W mean,
                                      W rstd) {
  W out[E];
#pragma unroll
  for (int e = 0; e < E; ++e) out[e] = (x[e] - mean) * rstd;
  affine.template put<E>(out, at);
  row_store<1, E>(y + at, out, 1, 0, 0);
}

// A vector of x + residual as it is stored in `sum`; x itself where there is no residual.
template <int E, typename T, typename W>
__device__ __forceinline__ void add(W* values, const T* x, const T* residual, T* sum,
                                    ml_index at) {
  take<E>(values, x + at);
  if (!residual) return;
  W other[E], out[E];
  take<E>(other, residual + at);
#pragma unroll
  for (int e = 0; e < E; ++e)
    out[e] = values[e] = ml_cast<W>(ml_cast<T>(values[e] + other[e]));
  row_store<1, E>(sum + at, out, 1, 0, 0);
}

// A row's pointers; residual and sum may be null.
template <typename T>
struct norm_row {
  T *y, *sum;
  const T *x, *residual;
  __device__ __forceinline__ norm_row(T* y, T* sum, const T* x, const T* residual, ml_index offset)
      : y(y + offset), sum(sum ? sum + offset : sum), x(x + offset),
        residual(residual ? residual + offset : residual) {}
};

template <int V, int E, typename W>
__device__ __forceinline__ W total(const W (&values)[V][E], int n, int first, int step) {
  W sum = W(0);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (first + v * step >= n) continue;
#pragma unroll
    for (int e = 0; e < E; ++e) sum += values[v][e];
  }
  return sum;
}

template <int V, int E, typename W>
__device__ __forceinline__ W squares(const W (&values)[V][E], W mean, int n, int first, int step) {
  W sum = W(0);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (first + v * step >= n) continue;
#pragma unroll
    for (int e = 0; e < E; ++e) sum += (values[v][e] - mean) * (values[v][e] - mean);
  }
  return sum;
}

// A row of n values in L lanes of a warp (L <= 32), or in a whole block (L = 0), V vectors each.
template <int E, int V, int L, bool CENTERED, typename T, typename W, typename Affine>
__device__ __forceinline__ void norm_held(const norm_row<T>& row, const Affine& affine, W* mean_out,
                                          W* rstd_out, int n, W eps, bool on) {
  __shared__ W first_slots[32], second_slots[32];
  const int lane = L ? threadIdx.x % (L ? L : 1) : threadIdx.x;
  const int first = lane * E, step = (L ? L : blockDim.x) * E, size = on ? n : 0;
  W values[V][E];
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (first + v * step < size)
      add<E>(values[v], row.x, row.residual, row.sum, first + v * step);
  W mean = W(0);
  if constexpr (CENTERED) {
    mean = total(values, size, first, step);
    if constexpr (L) mean = ml_warp_sum<L>(mean) / W(n);
    else mean = ml_block_sum(mean, first_slots) / W(n);
  }
  W variance = squares(values, mean, size, first, step);
  if constexpr (L) variance = ml_warp_sum<L>(variance) / W(n);
  else variance = ml_block_sum(variance, second_slots) / W(n);
  const W rstd = W(1) / sqrt(variance + eps);
  if (lane == 0 && on) {
    if (CENTERED) *mean_out = mean;
    *rstd_out = rstd;
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (first + v * step < size)
      apply<E>(row.y, values[v], affine, first + v * step, mean, rstd);
}

// A row of any length in a block: KEPT in dynamic shared memory, n values of T, or read three times.
template <int E, bool CENTERED, bool KEPT, typename T, typename W, typename Affine>
__device__ __forceinline__ void norm_streamed(const norm_row<T>& row, const Affine& affine,
                                              W* mean_out, W* rstd_out, ml_index n, W eps) {
  extern __shared__ uint4 kept[];
  __shared__ W first_slots[32], second_slots[32];
  const ml_index first = threadIdx.x * E, step = ml_index(blockDim.x) * E;
  T* keep = reinterpret_cast<T*>(kept);
  const T* source = KEPT ? keep : row.residual ? row.sum : row.x;
  W mean = W(0), part = W(0), values[E];
#pragma unroll 2
  for (ml_index at = first; at < n; at += step) {
    add<E>(values, row.x, row.residual, row.sum, at);
    if (KEPT) {
      ml_vec<T, E> raw;
#pragma unroll
      for (int e = 0; e < E; ++e) raw.at[e] = ml_cast<T>(values[e]);
      ml_store<E>(keep + at, raw);
    }
#pragma unroll
    for (int e = 0; e < E; ++e) part += values[e];
  }
  if (CENTERED) mean = ml_block_sum(part, first_slots) / W(n);
  part = W(0);
#pragma unroll 2
  for (ml_index at = first; at < n; at += step) {
    take<E>(values, source + at);
#pragma unroll
    for (int e = 0; e < E; ++e) part += (values[e] - mean) * (values[e] - mean);
  }
  const W rstd = W(1) / sqrt(ml_block_sum(part, second_slots) / W(n) + eps);
  if (threadIdx.x == 0) {
    if (CENTERED) *mean_out = mean;
    *rstd_out = rstd;
  }
#pragma unroll 2
  for (ml_index at = first; at < n; at += step) {
    take<E>(values, source + at);
    apply<E>(row.y, values, affine, at, mean, rstd);
  }
}
