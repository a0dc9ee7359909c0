// Elements in other places: reversed, moved around the end, with borders, without a triangle.
// Copies do not care what elements mean: T is any type of their size, E of which move at once.
#include "common.cuh"

// Of each dimension of the result: its size; the source's size and step (negative: reversed); where
// the source begins.
struct ml_places {
  ml_index size[8], limit[8], step[8], start[8];
};

enum { kReverse = 0, kRoll = 1, kPad = 2 };

// y over D dimensions, the last in vectors.  kRoll counts around the source's end; kPad gives
// `value` outside of the source.
template <typename T, int E, int D, int mode>
__global__ void __launch_bounds__(256)
arrange(T* __restrict__ y, const T* __restrict__ x, ml_index vectors, ml_index base,
        ml_places places, T value) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= vectors) return;
  ml_index rest = i, from = base;
  bool inside = true;
#pragma unroll
  for (int d = D - 1; d >= 0; --d) {
    const ml_index size = d == D - 1 ? places.size[d] / E : places.size[d];
    const ml_index next = d ? rest / size : 0;
    ml_index place = rest - next * size;
    rest = next;
    if (d == D - 1) place *= E;
    if (mode != kReverse) place -= places.start[d];
    if (mode == kRoll && place < 0) place += places.limit[d];
    if (mode == kPad) inside = inside && place >= 0 && place < places.limit[d];
    from += place * places.step[d];
  }
  ml_vec<T, E> part;
  if (inside) {
    part = ml_load<E>(x + from);
  } else {
#pragma unroll
    for (int e = 0; e < E; ++e) part.at[e] = value;
  }
  ml_store_whole<E>(y + i * E, part);
}

// Matrices whose elements below (lower: above) the diagonal `offset` are 0; those are not read.
// y may be x.
template <typename T, int E>
__global__ void __launch_bounds__(256)
triangle(T* y, const T* x, ml_index vectors, ml_index rows, ml_index columns, ml_index offset,
         bool lower) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= vectors) return;
  const ml_index across = columns / E, line = i / across;
  const ml_index first = (i - line * across) * E, edge = line % rows + offset;
  const bool whole = lower ? first + E - 1 <= edge : first >= edge;
  const bool none = lower ? first > edge : first + E - 1 < edge;
  if (whole && y == x) return;
  ml_vec<T, E> part;
  if (!none) part = ml_load<E>(x + i * E);
#pragma unroll
  for (int e = 0; e < E; ++e)
    if (none || (lower ? first + e > edge : first + e < edge)) part.at[e] = T(0);
  ml_store_whole<E>(y + i * E, part);
}
