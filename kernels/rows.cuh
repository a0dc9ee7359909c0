// What the kernels over rows share: a row's values in registers, and running sums of exponentials.
//
// A thread of a row's L threads holds V vectors of E elements, which lie L * E apart: each load of
// a warp is one run of memory, and all V of them are under way before the first is used.
#pragma once
#include "warp.cuh"

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
