// Reductions over a warp and over a block.  Every thread gets the result, and the order in which
// values are combined depends on the number of threads only, so that results repeat bit by bit.
#pragma once
#include "common.cuh"

const unsigned ml_all_lanes = 0xffffffffu;

// Two values that travel together: (key, index), (mean, M2), (maximum, sum) ... Where both have the
// same size they are loaded and stored as one.
template <typename A, typename B = A>
struct alignas(sizeof(A) == sizeof(B) ? 2 * sizeof(A)
               : sizeof(A) > sizeof(B) ? alignof(A) : alignof(B)) ml_pair {
  A first;
  B second;
};

__device__ __forceinline__ int ml_lane() { return threadIdx.x & 31; }
__device__ __forceinline__ int ml_warp() { return threadIdx.x >> 5; }

// --- lanes exchange values: numbers by CUDA's own, pairs and complex numbers by parts ------------

template <typename T>
__device__ __forceinline__ T ml_shfl_xor(T x, int mask) {
  return __shfl_xor_sync(ml_all_lanes, x, mask);
}
__device__ __forceinline__ bool ml_shfl_xor(bool x, int mask) {
  return __shfl_xor_sync(ml_all_lanes, int(x), mask) != 0;
}
template <typename T>
__device__ __forceinline__ ml_complex<T> ml_shfl_xor(ml_complex<T> x, int mask) {
  return {ml_shfl_xor(x.re, mask), ml_shfl_xor(x.im, mask)};
}
template <typename A, typename B>
__device__ __forceinline__ ml_pair<A, B> ml_shfl_xor(ml_pair<A, B> x, int mask) {
  return {ml_shfl_xor(x.first, mask), ml_shfl_xor(x.second, mask)};
}

template <typename T>
__device__ __forceinline__ T ml_shfl(T x, int lane) {
  return __shfl_sync(ml_all_lanes, x, lane);
}
__device__ __forceinline__ bool ml_shfl(bool x, int lane) {
  return __shfl_sync(ml_all_lanes, int(x), lane) != 0;
}
template <typename T>
__device__ __forceinline__ ml_complex<T> ml_shfl(ml_complex<T> x, int lane) {
  return {ml_shfl(x.re, lane), ml_shfl(x.im, lane)};
}
template <typename A, typename B>
__device__ __forceinline__ ml_pair<A, B> ml_shfl(ml_pair<A, B> x, int lane) {
  return {ml_shfl(x.first, lane), ml_shfl(x.second, lane)};
}

// --- operators: what combines two values, and the value that changes nothing ---------------------

struct ml_add {
  template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct ml_multiply {
  template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a * b; }
};
struct ml_maximum {  // NaN wins
  template <typename T> __device__ __forceinline__ T operator()(T a, T b) const {
    return ml_max(a, b);
  }
};
struct ml_minimum {
  template <typename T> __device__ __forceinline__ T operator()(T a, T b) const {
    return ml_min(a, b);
  }
};
struct ml_both {  // the sums of both members of a pair
  template <typename A, typename B>
  __device__ __forceinline__ ml_pair<A, B> operator()(ml_pair<A, B> a, ml_pair<A, B> b) const {
    return {a.first + b.first, a.second + b.second};
  }
};

// --- over groups of W neighbouring lanes, W a power of two; all lanes of the warp must come -------

template <int W = 32, typename T, typename Operator>
__device__ __forceinline__ T ml_warp_reduce(T x, Operator combine) {
#pragma unroll
  for (int step = W / 2; step > 0; step /= 2) x = combine(x, ml_shfl_xor(x, step));
  return x;
}
template <int W = 32, typename T>
__device__ __forceinline__ T ml_warp_sum(T x) { return ml_warp_reduce<W>(x, ml_add()); }
template <int W = 32, typename T>
__device__ __forceinline__ T ml_warp_max(T x) { return ml_warp_reduce<W>(x, ml_maximum()); }
template <int W = 32, typename T>
__device__ __forceinline__ T ml_warp_min(T x) { return ml_warp_reduce<W>(x, ml_minimum()); }
template <int W = 32, typename A, typename B>
__device__ __forceinline__ ml_pair<A, B> ml_warp_sum(ml_pair<A, B> x) {
  return ml_warp_reduce<W>(x, ml_both());
}

// --- over a one-dimensional block of whole warps ---------------------------------------------------

// One barrier: each warp leaves its value in `slots` (32 of them, in shared memory) and every warp
// combines them all.  `identity` changes nothing.  The same slots again need a barrier in between.
template <typename T, typename Operator>
__device__ __forceinline__ T ml_block_reduce(T x, T* slots, T identity, Operator combine) {
  x = ml_warp_reduce(x, combine);
  if (ml_lane() == 0) slots[ml_warp()] = x;
  __syncthreads();
  x = ml_lane() < int(blockDim.x >> 5) ? slots[ml_lane()] : identity;
  return ml_warp_reduce(x, combine);
}
template <typename T>
__device__ __forceinline__ T ml_block_sum(T x, T* slots) {
  return ml_block_reduce(x, slots, T(0), ml_add());
}
template <typename A, typename B>
__device__ __forceinline__ ml_pair<A, B> ml_block_sum(ml_pair<A, B> x, ml_pair<A, B>* slots) {
  return ml_block_reduce(x, slots, ml_pair<A, B>{A(0), B(0)}, ml_both());
}
template <typename T>  // floating
__device__ __forceinline__ T ml_block_max(T x, T* slots) {
  return ml_block_reduce(x, slots, -ml_inf(x), ml_maximum());
}
template <typename T>
__device__ __forceinline__ T ml_block_min(T x, T* slots) {
  return ml_block_reduce(x, slots, ml_inf(x), ml_minimum());
}
