// Windows along lines of memory, a vector of a line to a thread.
//
// A thread sees the vector, L elements before it and R behind: those are its neighbours', which the
// lanes of a warp exchange.  Only where the neighbour is in another warp they are loaded once more.
#pragma once
#include "warp.cuh"

template <int V, int L, int R, typename W>
struct ml_line {
  W at[L + V + R];
  bool left, middle, right;  // whether these parts are there

  // Whether number i, from the vector's first on, is.
  __device__ __forceinline__ bool has(int i) const { return i < 0 ? left : i < V ? middle : right; }
  __device__ __forceinline__ W operator[](int i) const { return at[L + i]; }
};

// Vector number `vector` of the `vectors` of a line.  All lanes come; the threads of a line are
// `threads` neighbours, for its first vectors.  `on`: whether there is a line at all.
template <int V, int L, int R, typename W, typename T>
__device__ __forceinline__ ml_line<V, L, R, W> ml_line_load(const T* line, int vector, int vectors,
                                                            int threads, bool on) {
  ml_line<V, L, R, W> found;
  found.left = L > 0 && on && vector > 0 && vector <= vectors;
  found.middle = on && vector < vectors;
  found.right = R > 0 && on && vector + 1 < vectors;
  const T* here = line + vector * V;
  ml_vec<T, V> own = {};
  if (found.middle) own = ml_load<V>(here);
#pragma unroll
  for (int e = 0; e < V; ++e) found.at[L + e] = ml_cast<W>(own.at[e]);
#pragma unroll
  for (int e = 0; e < L; ++e) found.at[e] = ml_shfl(found.at[V + e], ml_lane() - 1);
#pragma unroll
  for (int e = 0; e < R; ++e) found.at[L + V + e] = ml_shfl(found.at[L + e], ml_lane() + 1);
  if (found.left && ml_lane() == 0) {
#pragma unroll
    for (int e = 0; e < L; ++e) found.at[e] = ml_cast<W>(here[e - L]);
  }
  if (found.right && (ml_lane() == 31 || vector + 1 == threads)) {
#pragma unroll
    for (int e = 0; e < R; ++e) found.at[L + V + e] = ml_cast<W>(here[V + e]);
  }
  return found;
}
