// What the kernels over rows share: a row's values in registers, and running sums of exponentials.
//
// A thread of a row's L threads holds V vectors of E elements, which lie L * E apart: each load of
// a warp is one run of memory, and all V of them are under way before the first is used.
#pragma once
#include "warp.cuh"

// E numbers of any type, in loads of at most 16 bytes.
template <int E, typename P, typename W>
__device__ __forceinline__ void take(W* values, const P* p) {
  const int part = E * sizeof(P) > 16 ? 16 / sizeof(P) : E;
#pragma unroll
  for (int i = 0; i < E; i += part) {
    const ml_vec<P, part> loaded = ml_load<part>(p + i);
#pragma unroll
    for (int e = 0; e < part; ++e) values[i + e] = ml_cast<W>(loaded.at[e]);
  }
}

template <int V, int E, typename T>
__device__ __forceinline__ void row_load(ml_wide<T> (&values)[V * E], const T* row, int n,
                                         int first, int step, ml_wide<T> beyond) {
  ml_vec<T, E> loaded[V];
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (first + v * step < n) loaded[v] = ml_load<E>(row + first + v * step);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const bool inside = first + v * step < n;
#pragma unroll
    for (int e = 0; e < E; ++e)
      values[v * E + e] = inside ? ml_cast<ml_wide<T>>(loaded[v].at[e]) : beyond;
  }
}

template <int V, int E, typename T>
__device__ __forceinline__ void row_store(T* row, const ml_wide<T> (&values)[V * E], int n,
                                          int first, int step) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (first + v * step >= n) continue;
    ml_vec<T, E> out;
#pragma unroll
    for (int e = 0; e < E; ++e) out.at[e] = ml_cast<T>(values[v * E + e]);
    ml_store_whole<E>(row + first + v * step, out);
  }
}

// exp(x) for results of type T: for those that are rounded to a half type in the end, the hardware's
// 2^x, whose relative error of 2^-22 is far below theirs.
template <typename T>
__device__ __forceinline__ ml_wide<T> row_exp(ml_wide<T> x) {
  if constexpr (sizeof(T) == 2) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
    return y;
  } else {
    return exp(x);
  }
}

// The larger number.  NaN may lose: the sum of exponentials, which is NaN then, keeps it.
__device__ __forceinline__ float row_max(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double row_max(double a, double b) { return fmax(a, b); }
struct row_maximum {
  template <typename T> __device__ __forceinline__ T operator()(T a, T b) const {
    return row_max(a, b);
  }
};

// The maximum of some values, and the sum of the exponentials of their distances from it.
template <typename W>
struct alignas(2 * sizeof(W)) row_sum {  // moved as a whole
  W top, sum;
};
template <typename W>
__device__ __forceinline__ row_sum<W> ml_shfl_xor(row_sum<W> x, int mask) {
  return {ml_shfl_xor(x.top, mask), ml_shfl_xor(x.sum, mask)};
}

// What is subtracted before exp: where there was nothing but -inf, 0, as inf - inf is NaN.
template <typename W>
__device__ __forceinline__ W row_pivot(W top) { return top == -ml_inf(top) ? W(0) : top; }

template <typename T>
struct row_merge {
  __device__ __forceinline__ row_sum<ml_wide<T>> operator()(row_sum<ml_wide<T>> a,
                                                            row_sum<ml_wide<T>> b) const {
    const ml_wide<T> top = row_max(a.top, b.top), pivot = row_pivot(top);
    return {top, a.sum * row_exp<T>(a.top - pivot) + b.sum * row_exp<T>(b.top - pivot)};
  }
};

// `running` with `count` more values: one change of the maximum for all of them.
template <typename T, int count>
__device__ __forceinline__ void row_take(row_sum<ml_wide<T>>& running,
                                         const ml_wide<T> (&values)[count]) {
  ml_wide<T> top = running.top;
#pragma unroll
  for (int i = 0; i < count; ++i) top = row_max(top, values[i]);
  const ml_wide<T> pivot = row_pivot(top);
  ml_wide<T> sum = running.sum * row_exp<T>(running.top - pivot);
#pragma unroll
  for (int i = 0; i < count; ++i) sum += row_exp<T>(values[i] - pivot);
  running = {top, sum};
}

// --- where a row's values come from ---------------------------------------------------------------

// The row itself.
template <typename T>
struct plain_row {
  const T* x;
  template <int E>
  __device__ __forceinline__ void take(ml_wide<T>* values, ml_index at) const {
    const ml_vec<T, E> loaded = ml_load<E>(x + at);
#pragma unroll
    for (int e = 0; e < E; ++e) values[e] = ml_cast<ml_wide<T>>(loaded.at[e]);
  }
  template <int E>
  __device__ __forceinline__ void again(ml_wide<T>* values, ml_index at) const {
    take<E>(values, at);
  }
};

// The row, which stays in shared memory: each thread reads again only what it has read first.
template <typename T>
struct kept_row {
  const T* x;
  T* kept;
  template <int E>
  __device__ __forceinline__ void take(ml_wide<T>* values, ml_index at) const {
    const ml_vec<T, E> loaded = ml_load<E>(x + at);
    ml_store<E>(kept + at, loaded);
#pragma unroll
    for (int e = 0; e < E; ++e) values[e] = ml_cast<ml_wide<T>>(loaded.at[e]);
  }
  template <int E>
  __device__ __forceinline__ void again(ml_wide<T>* values, ml_index at) const {
    plain_row<T>{kept}.template take<E>(values, at);
  }
};

// --- columns: C lanes of a block own E of them each, 256 / C slots take rows in turn --------------

template <int E, int C, typename Value, typename Combine>
__device__ __forceinline__ void over_slots(Value (&x)[E], Value* shared, Combine combine) {
#pragma unroll
  for (int e = 0; e < E; ++e) {
#pragma unroll
    for (int step = 16; step >= C; step /= 2) x[e] = combine(x[e], ml_shfl_xor(x[e], step));
  }
  const int c = threadIdx.x % C;
  if (ml_lane() < C) {
#pragma unroll
    for (int e = 0; e < E; ++e) shared[(ml_warp() * E + e) * C + c] = x[e];
  }
  __syncthreads();
#pragma unroll
  for (int e = 0; e < E; ++e) {
    x[e] = shared[e * C + c];
#pragma unroll
    for (int w = 1; w < 8; ++w) x[e] = combine(x[e], shared[(w * E + e) * C + c]);
  }
}
