// A tensor copied into its place among others that are joined along a dimension.
#include "common.cuh"

// out[o, offset + i] = x[o, i]: rows of `inner` elements into rows of `pitch`, E at a time, four of
// which are on their way at once.
template <typename T, int E>
__global__ void __launch_bounds__(256)
copy_slot(T* __restrict__ out, const T* __restrict__ x, ml_index outer, ml_index inner,
          ml_index pitch, ml_index offset) {
  const ml_index vectors = outer * (inner / E), across = inner / E;
  const ml_index first = ml_index(blockIdx.x) * 1024 + threadIdx.x;
  ml_vec<T, E> part[4];
#pragma unroll
  for (int u = 0; u < 4; ++u)
    if (first + 256 * u < vectors) part[u] = ml_load<E>(x + (first + 256 * u) * E);
#pragma unroll
  for (int u = 0; u < 4; ++u) {
    const ml_index i = first + 256 * u;
    if (i < vectors) {
      const ml_index o = outer == 1 ? 0 : i / across;
      ml_store_whole<E>(out + o * pitch + offset + (i - o * across) * E, part[u]);
    }
  }
}
